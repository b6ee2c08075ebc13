//! `bpf(2)`: opening pins and swapping the program inside a link, which aya 0.14 does not do for cgroup links.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

const BPF_OBJ_GET: libc::c_int = 7;
const BPF_LINK_UPDATE: libc::c_int = 29;
const BPF_LINK_DETACH: libc::c_int = 34;

/// `union bpf_attr` for `BPF_OBJ_GET` (linux/bpf.h).
#[repr(C)]
struct ObjectAttributes {
    path: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// `union bpf_attr` for `BPF_LINK_UPDATE` (linux/bpf.h).
#[repr(C)]
struct LinkUpdateAttributes {
    link_fd: u32,
    new_program_fd: u32,
    flags: u32,
    old_program_fd: u32,
}

/// Opens what is pinned at `path`. Linux 4.4.
pub(crate) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = ObjectAttributes {
        path: path.as_ptr() as u64,
        bpf_fd: 0,
        file_flags: 0,
    };
    let fd = call(BPF_OBJ_GET, &mut attributes)?;
    #[expect(unsafe_code, reason = "the kernel hands out a raw descriptor")]
    // SAFETY: BPF_OBJ_GET answered with a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Puts another program into a link, atomically. Linux 5.7.
pub(crate) fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes = LinkUpdateAttributes {
        link_fd: link.as_raw_fd().unsigned_abs(),
        new_program_fd: program.as_raw_fd().unsigned_abs(),
        flags: 0,
        old_program_fd: 0,
    };
    call(BPF_LINK_UPDATE, &mut attributes).map(|_zero| ())
}

/// Takes a link's program out of action at once; without this that happens some time after the link's last reference is
/// gone. Linux 5.9.
pub(crate) fn detach_link(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes = link.as_raw_fd().unsigned_abs();
    call(BPF_LINK_DETACH, &mut attributes).map(|_zero| ())
}

/// The system call. `T` is the command's part of `union bpf_attr`.
#[expect(unsafe_code, reason = "bpf(2) has no wrapper in libc")]
fn call<T>(command: libc::c_int, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: bpf(2) reads `size_of::<T>()` bytes at `attributes`, which is an exclusive reference to an integer or a
    // `repr(C)` struct without padding; pointers inside it (the path) outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(result).map_err(io::Error::other)
}
