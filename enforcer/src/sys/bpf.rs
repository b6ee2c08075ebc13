//! `bpf(2)`, where aya 0.14 stops: the program inside a cgroup's link is swapped, and links, programs and attach points
//! tell about themselves.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
    time::Duration,
};

const BPF_OBJ_PIN: libc::c_int = 6;
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_PROG_QUERY: libc::c_int = 16;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_LINK_UPDATE: libc::c_int = 29;
const BPF_LINK_DETACH: libc::c_int = 34;

/// `BPF_CGROUP_SETSOCKOPT`, an attach type (linux/bpf.h).
pub(crate) const CGROUP_SETSOCKOPT: u32 = 22;

/// `BPF_LSM_CGROUP`, an attach type (linux/bpf.h).
pub(crate) const LSM_CGROUP: u32 = 43;

/// `union bpf_attr` for `BPF_OBJ_PIN` and `BPF_OBJ_GET` (linux/bpf.h).
#[repr(C)]
struct ObjectAttributes {
    path: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// `union bpf_attr` for `BPF_LINK_CREATE` (linux/bpf.h).
#[repr(C)]
struct LinkCreateAttributes {
    program_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
}

/// `union bpf_attr` for `BPF_LINK_UPDATE` (linux/bpf.h).
#[repr(C)]
struct LinkUpdateAttributes {
    link_fd: u32,
    new_program_fd: u32,
    flags: u32,
    old_program_fd: u32,
}

/// `union bpf_attr` for `BPF_PROG_GET_FD_BY_ID` (linux/bpf.h).
#[repr(C)]
struct ById {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

/// `union bpf_attr` for `BPF_OBJ_GET_INFO_BY_FD` (linux/bpf.h).
#[repr(C)]
struct InfoAttributes {
    bpf_fd: u32,
    info_length: u32,
    info: u64,
}

/// `union bpf_attr` for `BPF_PROG_QUERY` (linux/bpf.h).
#[repr(C)]
struct QueryAttributes {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    program_ids: u64,
    count: u32,
    padding: u32,
    program_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

/// The beginning of `struct bpf_link_info` (linux/bpf.h), with the attach points we have.
#[repr(C)]
#[derive(Default)]
struct RawLinkInfo {
    kind: u32,
    id: u32,
    program_id: u32,
    padding: u32,
    /// Cgroup ID, or device index in the first four bytes.
    target: u64,
    attach_type: [u32; 2],
}

/// `struct bpf_prog_info` (linux/bpf.h) as far as Linux 5.1.
#[repr(C)]
#[derive(Default)]
struct RawProgramInfo {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    lengths: [u32; 2],
    instructions: [u64; 2],
    load_time: u64,
    created_by_uid: u32,
    map_count: u32,
    maps: u64,
    name: [u8; 16],
    ifindex: u32,
    gpl_compatible: u32,
    netns: [u64; 2],
    symbol_counts: [u32; 2],
    symbols: [u64; 2],
    btf_id: u32,
    function_record_size: u32,
    functions: u64,
    function_and_line_counts: [u32; 2],
    lines: [u64; 2],
    line_counts: [u32; 4],
    tags: u64,
    run_time: u64,
    run_count: u64,
}

/// What a link is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LinkInfo {
    /// Number of the program inside.
    pub(crate) program_id: u32,
    /// Where it is attached.
    pub(crate) target: LinkTarget,
}

/// Where a link is attached.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LinkTarget {
    /// A cgroup, by ID; 0 if it is gone.
    Cgroup(u64),
    /// A device, by index; 0 if it is gone.
    Device(u32),
}

/// What a program is.
#[derive(Clone, Debug)]
pub(crate) struct ProgramInfo {
    /// Its name, cut off at 15 bytes.
    pub(crate) name: String,
    /// Who loaded it.
    pub(crate) owner: u32,
    /// When, since the machine was started.
    pub(crate) loaded: Duration,
    /// How long it ran altogether.
    pub(crate) run_time: Duration,
    /// How often.
    pub(crate) run_count: u64,
}

/// The programs at one attach point.
#[derive(Clone, Debug)]
pub(crate) struct Attached {
    /// Their numbers, in the order in which they run.
    pub(crate) program_ids: Vec<u32>,
    /// How they were attached: [`ALLOW_OVERRIDE`], [`ALLOW_MULTIPLE`], or 0, which forbids others.
    pub(crate) flags: u32,
}

/// `BPF_F_ALLOW_OVERRIDE`: descendants may have another program instead.
pub(crate) const ALLOW_OVERRIDE: u32 = 1;
/// `BPF_F_ALLOW_MULTI`: others may be attached too, here and below.
pub(crate) const ALLOW_MULTIPLE: u32 = 2;

/// `BPF_LINK_TYPE_TCX`
const LINK_TYPE_TCX: u32 = 11;
/// More programs at one attach point than these are not told.
const MOST_PROGRAMS: usize = 64;

/// Attaches a program to a cgroup, for as long as the link is open or pinned. Linux 5.7.
pub(crate) fn create_link(program: BorrowedFd<'_>, cgroup: BorrowedFd<'_>, attach_type: u32) -> io::Result<OwnedFd> {
    let mut attributes = LinkCreateAttributes {
        program_fd: program.as_raw_fd().unsigned_abs(),
        target_fd: cgroup.as_raw_fd().unsigned_abs(),
        attach_type,
        flags: 0,
    };
    let fd = call(BPF_LINK_CREATE, &mut attributes)?;
    #[expect(unsafe_code, reason = "the kernel hands out a raw descriptor")]
    // SAFETY: BPF_LINK_CREATE answered with a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Pins an object at `path`. Linux 4.4.
pub(crate) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = ObjectAttributes {
        path: path.as_ptr() as u64,
        bpf_fd: object.as_raw_fd().unsigned_abs(),
        file_flags: 0,
    };
    call(BPF_OBJ_PIN, &mut attributes).map(|_zero| ())
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

/// Opens a program by its number. Linux 4.13.
pub(crate) fn open_program(id: u32) -> io::Result<OwnedFd> {
    let mut attributes = ById {
        id,
        next_id: 0,
        open_flags: 0,
    };
    let fd = call(BPF_PROG_GET_FD_BY_ID, &mut attributes)?;
    #[expect(unsafe_code, reason = "the kernel hands out a raw descriptor")]
    // SAFETY: BPF_PROG_GET_FD_BY_ID answered with a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// What a link is. Linux 5.8.
pub(crate) fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    let raw: RawLinkInfo = info(link)?;
    let [a, b, c, d, ..] = raw.target.to_ne_bytes();
    let target = if raw.kind == LINK_TYPE_TCX {
        LinkTarget::Device(u32::from_ne_bytes([a, b, c, d]))
    } else {
        LinkTarget::Cgroup(raw.target)
    };
    Ok(LinkInfo {
        program_id: raw.program_id,
        target,
    })
}

/// What a program is. Linux 5.1.
pub(crate) fn program_info(program: BorrowedFd<'_>) -> io::Result<ProgramInfo> {
    let raw: RawProgramInfo = info(program)?;
    let name = raw.name.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(ProgramInfo {
        name: String::from_utf8_lossy(name).into_owned(),
        owner: raw.created_by_uid,
        loaded: Duration::from_nanos(raw.load_time),
        run_time: Duration::from_nanos(raw.run_time),
        run_count: raw.run_count,
    })
}

/// The programs at an attach point: a cgroup by its descriptor, or a device by its index. Linux 4.15; devices 6.6.
pub(crate) fn query(target: u32, attach_type: u32) -> io::Result<Attached> {
    let mut program_ids = vec![0_u32; MOST_PROGRAMS];
    let mut attributes = QueryAttributes {
        target,
        attach_type,
        query_flags: 0,
        attach_flags: 0,
        program_ids: program_ids.as_mut_ptr() as u64,
        count: u32::try_from(MOST_PROGRAMS).unwrap_or(0),
        padding: 0,
        program_attach_flags: 0,
        link_ids: 0,
        link_attach_flags: 0,
        revision: 0,
    };
    call(BPF_PROG_QUERY, &mut attributes)?;
    program_ids.truncate(usize::try_from(attributes.count).unwrap_or(0));
    Ok(Attached {
        program_ids,
        flags: attributes.attach_flags,
    })
}

/// What an object of the kernel is. `T` is the object's part of the kernel's structure; a kernel that knows less leaves
/// zeros, one that knows more tells less.
fn info<T: Default>(object: BorrowedFd<'_>) -> io::Result<T> {
    let mut info = T::default();
    let mut attributes = InfoAttributes {
        bpf_fd: object.as_raw_fd().unsigned_abs(),
        info_length: u32::try_from(size_of::<T>()).map_err(io::Error::other)?,
        info: (&raw mut info) as u64,
    };
    call(BPF_OBJ_GET_INFO_BY_FD, &mut attributes)?;
    Ok(info)
}

/// The system call. `T` is the command's part of `union bpf_attr`.
#[expect(unsafe_code, reason = "bpf(2) has no wrapper in libc")]
fn call<T>(command: libc::c_int, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: bpf(2) reads `size_of::<T>()` bytes at `attributes`, which is an exclusive reference to an integer or a
    // `repr(C)` struct without padding; pointers inside it (a path, a buffer of the length beside
    // it) outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(result).map_err(io::Error::other)
}
