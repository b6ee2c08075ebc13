//! `connect` through `io_uring`: the call that never passes the system call table.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use io_uring::{IoUring, opcode, squeue::Flags, types::Fd};

use super::sockaddr::RawAddress;

/// Who in the kernel does the work.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Worker {
    /// The submitting thread itself.
    Inline,
    /// A thread of the pool.
    Pool,
    /// The thread that polls the submission queue.
    Poller,
}

/// How long the poller looks for work before it sleeps, in milliseconds.
const POLLER_IDLE: u32 = 100;

/// Connects a socket, and returns what `connect(2)` would.
#[expect(unsafe_code, reason = "io_uring takes raw pointers")]
pub(crate) fn connect(socket: BorrowedFd<'_>, to: &RawAddress, worker: Worker) -> io::Result<()> {
    let mut builder = IoUring::builder();
    let flags = match worker {
        Worker::Inline => Flags::empty(),
        Worker::Pool => Flags::ASYNC,
        Worker::Poller => {
            builder.setup_sqpoll(POLLER_IDLE);
            Flags::empty()
        }
    };
    let mut ring: IoUring = builder.build(2)?;
    let address = to.bytes();
    let length = libc::socklen_t::try_from(address.len()).map_err(io::Error::other)?;
    let entry = opcode::Connect::new(Fd(socket.as_raw_fd()), address.as_ptr().cast(), length)
        .build()
        .flags(flags);
    // SAFETY: the socket and the address outlive the wait for the completion below; the ring is dropped after it.
    unsafe { ring.submission().push(&entry) }.map_err(io::Error::other)?;
    ring.submit_and_wait(1)?;
    let result = ring
        .completion()
        .next()
        .map_or(-libc::EIO, |completion| completion.result());
    if result < 0 {
        return Err(io::Error::from_raw_os_error(-result));
    }
    Ok(())
}
