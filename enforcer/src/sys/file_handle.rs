//! `open_by_handle_at(2)` for cgroups: a cgroup ID is the file handle of its directory, so no tree walk is needed.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

/// `FILEID_KERNFS` of linux/exportfs.h: the handle is one 64-bit node ID.
const FILEID_KERNFS: libc::c_int = 0xfe;

/// `struct file_handle` (fcntl.h) with room for one 64-bit ID.
#[repr(C)]
struct KernfsHandle {
    handle_bytes: libc::c_uint,
    handle_type: libc::c_int,
    id: [u8; 8],
}

/// Opens (`O_PATH`) the cgroup with this ID on the cgroup2 file system `mount` lies on. Linux 5.5; needs
/// `CAP_DAC_READ_SEARCH`. `ESTALE` if there is none.
#[expect(unsafe_code, reason = "open_by_handle_at(2) has no safe wrapper")]
pub(crate) fn open_cgroup(mount: BorrowedFd<'_>, id: u64) -> io::Result<OwnedFd> {
    let mut handle = KernfsHandle {
        handle_bytes: 8,
        handle_type: FILEID_KERNFS,
        id: id.to_ne_bytes(),
    };
    let flags = libc::O_PATH | libc::O_CLOEXEC;
    // SAFETY: the call reads the header and `handle_bytes` bytes behind it, which is exactly `KernfsHandle`; `mount` is
    // an open descriptor.
    let fd =
        unsafe { libc::open_by_handle_at(mount.as_raw_fd(), (&raw mut handle).cast::<libc::file_handle>(), flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call answered with a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
