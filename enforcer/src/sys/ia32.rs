//! System calls of 32-bit programs, which every 64-bit process of x86 can make too; some hooks do not see them.

use std::{io, os::fd::BorrowedFd};

/// Sets a socket option by the 32-bit system call.
#[cfg(target_arch = "x86_64")]
pub(crate) fn set_option(
    socket: BorrowedFd<'_>,
    (level, option): (libc::c_int, libc::c_int),
    value: &[u8],
) -> io::Result<()> {
    use super::mapping::Mapping;

    // Such a call has 32 bits for an address.
    let memory = Mapping::low(value.len())?;
    memory.write(0, value)?;
    let address = u32::try_from(memory.address()).map_err(io::Error::other)?;
    let length = u32::try_from(value.len()).map_err(io::Error::other)?;
    in_fork(|| call(socket, (level, option), (address, length)))
}

/// Other machines have no such system call, or a different one.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn set_option(_socket: BorrowedFd<'_>, _which: (libc::c_int, libc::c_int), _value: &[u8]) -> io::Result<()> {
    Err(io::Error::from_raw_os_error(libc::ENOSYS))
}

/// `setsockopt(2)`, number 366 of `arch/x86/entry/syscalls/syscall_32.tbl`. Returns 0 or the negated error.
#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "only the instruction itself makes the 32-bit call")]
fn call(
    socket: BorrowedFd<'_>,
    (level, option): (libc::c_int, libc::c_int),
    (address, length): (u32, u32),
) -> libc::c_int {
    use std::os::fd::AsRawFd as _;

    const SETSOCKOPT: libc::c_int = 366;
    let mut result = SETSOCKOPT;
    // SAFETY: the kernel reads `length` bytes at `address`, memory of the caller's, and writes none. `rbx`, which the
    // compiler keeps for itself, has its value again afterwards; older kernels clear `r8` to `r11`.
    unsafe {
        std::arch::asm!(
            "xchg {socket}, rbx",
            "int 0x80",
            "xchg {socket}, rbx",
            socket = inout(reg) i64::from(socket.as_raw_fd()) => _,
            inout("eax") result,
            in("ecx") level,
            in("edx") option,
            in("esi") address,
            in("edi") length,
            out("r8") _,
            out("r9") _,
            out("r10") _,
            out("r11") _,
            options(nostack),
        );
    }
    result
}

/// Has a forked process do it, which shares our sockets: where a kernel takes no 32-bit calls, they are fatal.
#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "fork(2) copies a process with threads")]
fn in_fork(function: impl FnOnce() -> libc::c_int) -> io::Result<()> {
    // SAFETY: until it ends, the new process makes system calls only: it neither allocates nor locks.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let error = -function();
        // SAFETY: ends the process without running what others registered for its end.
        unsafe { libc::_exit(error) };
    }
    let pid = rustix::process::Pid::from_raw(pid).ok_or_else(io::Error::last_os_error)?;
    let ended = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty())?;
    match ended.and_then(|(_, status)| status.exit_status()) {
        Some(0) => Ok(()),
        Some(error) => Err(io::Error::from_raw_os_error(error)),
        None => Err(io::Error::from_raw_os_error(libc::ENOSYS)),
    }
}
