//! Network namespaces: a function runs in another one on a thread of its own, which needs no way back.

use std::{io, os::fd::BorrowedFd, panic, thread};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

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
