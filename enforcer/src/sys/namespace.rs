//! Network namespaces: a function runs in another one on a thread of its own, which needs no way back.

use std::{io, os::fd::BorrowedFd, panic, thread};

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

/// Runs `function` in a network namespace. Blocks until it is done.
pub(crate) fn run_in<T: Send>(namespace: BorrowedFd<'_>, function: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("namespace".to_owned())
            .spawn_scoped(scope, || {
                move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))?;
                Ok(function())
            })?;
        match thread.join() {
            Ok(result) => result,
            Err(payload) => panic::resume_unwind(payload),
        }
    })
}

/// Gives the calling thread a network namespace of its own.
#[expect(unsafe_code, reason = "other flags of the call would be dangerous")]
pub(crate) fn unshare_network() -> io::Result<()> {
    // SAFETY: the call asks for care with the table of descriptors, which this flag does not touch.
    Ok(unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?)
}
