//! `bpf(2)` for programs of a few instructions, which need no object file and no loader.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use nix::libc;

use super::{Instruction, Kind};

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_OBJ_PIN: libc::c_int = 6;
const BPF_PROG_ATTACH: libc::c_int = 8;

/// `union bpf_attr` for `BPF_PROG_LOAD` (linux/bpf.h), as far as needed here.
#[repr(C)]
struct LoadAttributes {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    ifindex: u32,
    expected_attach_type: u32,
}

/// `union bpf_attr` for `BPF_OBJ_PIN` (linux/bpf.h).
#[repr(C)]
struct PinAttributes {
    path: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// `union bpf_attr` for `BPF_PROG_ATTACH` (linux/bpf.h).
#[repr(C)]
struct AttachAttributes {
    target_fd: u32,
    program_fd: u32,
    attach_type: u32,
    flags: u32,
}

/// Loads a program.
pub(super) fn program(name: &str, kind: Kind, code: &[Instruction]) -> io::Result<OwnedFd> {
    let mut padded = [0; 16];
    for (to, from) in padded.iter_mut().take(15).zip(name.bytes()) {
        *to = from;
    }
    let mut attributes = LoadAttributes {
        kind: kind.program_type(),
        instruction_count: u32::try_from(code.len()).map_err(io::Error::other)?,
        instructions: code.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
        name: padded,
        ifindex: 0,
        expected_attach_type: kind.attach_type(),
    };
    let fd = call(BPF_PROG_LOAD, &mut attributes)?;
    #[expect(unsafe_code, reason = "the kernel hands out a raw descriptor")]
    // SAFETY: BPF_PROG_LOAD answered with a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Gives a program a name in a BPF file system.
pub(super) fn pin(program: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = PinAttributes {
        path: path.as_ptr() as u64,
        bpf_fd: program.as_raw_fd().unsigned_abs(),
        file_flags: 0,
    };
    call(BPF_OBJ_PIN, &mut attributes).map(|_zero| ())
}

/// Attaches a program to a cgroup in the old way: without a link, until the cgroup is removed.
pub(super) fn attach(program: BorrowedFd<'_>, cgroup: BorrowedFd<'_>, kind: Kind, flags: u32) -> io::Result<()> {
    let mut attributes = AttachAttributes {
        target_fd: cgroup.as_raw_fd().unsigned_abs(),
        program_fd: program.as_raw_fd().unsigned_abs(),
        attach_type: kind.attach_type(),
        flags,
    };
    call(BPF_PROG_ATTACH, &mut attributes).map(|_zero| ())
}

/// The system call. `T` is the command's part of `union bpf_attr`.
#[expect(unsafe_code, reason = "bpf(2) has no wrapper in libc")]
fn call<T>(command: libc::c_int, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: bpf(2) reads `size_of::<T>()` bytes at `attributes`, which is an exclusive reference to a `repr(C)` struct
    // without padding; pointers inside it (instructions, a license, a path) point to what outlives the call, with its
    // length beside it or a zero byte at its end.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(result).map_err(io::Error::other)
}
