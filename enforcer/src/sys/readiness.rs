//! Readiness of file descriptors in the reactor, behind the bound that makes it sound here.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

use tokio::io::{Interest, unix::AsyncFd};

/// Waits for `inner` to become readable. For objects that own one descriptor for life, which `AsFd` says of all of ours.
#[expect(unsafe_code, reason = "tokio's registration trusts the descriptor's owner")]
pub(crate) fn readable<T: AsFd + AsRawFd>(inner: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: the descriptor must stay open and the same while the `AsyncFd` owns `inner`. Its users (a ring buffer of
    // aya, its logger, an `OwnedFd`) hold exactly one descriptor, and close it when they are dropped.
    Ok(unsafe { AsyncFd::register_with_interest(inner, Interest::READABLE) }?)
}
