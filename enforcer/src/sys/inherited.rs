//! Descriptors that a service manager left open for this process (`LISTEN_FDS`).

use std::{
    io,
    os::fd::{FromRawFd as _, OwnedFd},
};

/// Takes them. To be called once, before anything else opens descriptors by number.
#[expect(unsafe_code, reason = "the numbers come from the service manager")]
pub(crate) fn take() -> io::Result<Vec<OwnedFd>> {
    let numbers = sd_notify::listen_fds()?;
    // SAFETY: each must be open and nobody else's. The service manager opened exactly these for this process (their count
    // comes with its process ID, which was compared), and they were just marked close-on-exec, which fails if one is not
    // open. Nothing else in the program uses their numbers.
    Ok(numbers.map(|number| unsafe { OwnedFd::from_raw_fd(number) }).collect())
}
