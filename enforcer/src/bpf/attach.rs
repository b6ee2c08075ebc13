//! The attach table: which hook goes where, and how it is pinned.
//!
//! A hook whose pin exists keeps its link: only the program inside is swapped (`BPF_LINK_UPDATE`), so there is no instant
//! without it, and none with two of them.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::AsFd as _,
        unix::fs::{DirBuilderExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
};

use aya::{
    Ebpf,
    programs::{
        CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, CgroupSockAddr, Program, ProgramError, SockOps,
        links::{FdLink, LinkError},
    },
};

use super::{BpfError, Config, error::file_error};
use crate::sys;

/// What a hook is to the kernel.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    SockAddr,
    SkbEgress,
    SockOps,
    Classifier,
}

/// Where a hook goes.
#[derive(Clone, Copy)]
enum At {
    /// The cgroup root, pinned: it must outlive the daemon.
    Root,
    /// The enforcer's own cgroup, not pinned: without the daemon nobody accepts.
    Own,
    /// The host side of containers' interfaces, see `tc`.
    Interface,
}

/// Hands identities to accepted sockets.
const OWN: (&str, Kind) = ("sock_ops_own", Kind::SockOps);

/// Every hook, in the order of attachment: whoever hands identities on comes before who sends connections here. All of
/// them are required, and load on Linux 6.1 and newer.
const HOOKS: [(&str, Kind, At); 11] = [
    (OWN.0, OWN.1, At::Own),
    ("sock_ops", Kind::SockOps, At::Root),
    ("egress", Kind::SkbEgress, At::Root),
    ("bind4", Kind::SockAddr, At::Root),
    ("bind6", Kind::SockAddr, At::Root),
    ("connect4", Kind::SockAddr, At::Root),
    ("connect6", Kind::SockAddr, At::Root),
    ("sendmsg4", Kind::SockAddr, At::Root),
    ("sendmsg6", Kind::SockAddr, At::Root),
    (super::tc::INGRESS, Kind::Classifier, At::Interface),
    (super::tc::EGRESS, Kind::Classifier, At::Interface),
];

/// Every hook's name and kind.
pub(super) fn hooks() -> impl Iterator<Item = (&'static str, Kind)> {
    HOOKS.into_iter().map(|(hook, kind, _)| (hook, kind))
}

/// Attaches and pins the hooks of the cgroup root, and drops those of an earlier one.
pub(super) fn attach_root(ebpf: &mut Ebpf, config: &Config) -> Result<(), BpfError> {
    let root = open(&config.cgroup_root)?;
    let links = config.pin_dir.join("links");
    let directory = link_directory(&links, &config.cgroup_root, &root)?;
    for (hook, kind, at) in HOOKS {
        if matches!(at, At::Root) {
            let program = ebpf.program_mut(hook).ok_or(BpfError::Missing { what: hook })?;
            attach_pinned(program, (hook, kind), &root, &directory.join(hook))?;
        }
    }
    remove_other_links(&links, &directory)
}

/// Attaches the hook of the enforcer's own cgroup.
pub(super) fn attach_own(ebpf: &mut Ebpf, config: &Config) -> Result<FdLink, BpfError> {
    let own = open(&config.own_cgroup)?;
    let (hook, _) = OWN;
    let program = ebpf.program_mut(hook).ok_or(BpfError::Missing { what: hook })?;
    create_link(program, OWN, &own)
}

fn open(cgroup: &Path) -> Result<File, BpfError> {
    File::open(cgroup).map_err(|source| file_error("open cgroup", cgroup, source))
}

/// The directory of the links of this very cgroup: a cgroup that was removed and made again has another ID, and links
/// to the old one are dead.
fn link_directory(links: &Path, cgroup: &Path, opened: &File) -> Result<PathBuf, BpfError> {
    let metadata = opened
        .metadata()
        .map_err(|source| file_error("inspect cgroup", cgroup, source))?;
    let directory = links.join(metadata.ino().to_string());
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&directory)
        .map_err(|source| file_error("create", &directory, source))?;
    Ok(directory)
}

fn attach_pinned(
    program: &mut Program,
    (hook, kind): (&'static str, Kind),
    cgroup: &File,
    pin: &Path,
) -> Result<(), BpfError> {
    match sys::bpf::open_pin(pin) {
        Ok(link) => {
            let fd = program.fd().map_err(|source| hook_error("replace", hook, source))?;
            let operation = || format!("replace the program of hook {hook}");
            sys::bpf::update_link(link.as_fd(), fd.as_fd()).map_err(|source| BpfError::Syscall {
                operation: operation(),
                source,
            })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let link = create_link(program, (hook, kind), cgroup)?;
            link.pin(pin).map_err(|source| BpfError::Pin { hook, source })?;
            Ok(())
        }
        Err(source) => Err(file_error("open pinned link", pin, source)),
    }
}

fn create_link(program: &mut Program, (hook, kind): (&'static str, Kind), cgroup: &File) -> Result<FdLink, BpfError> {
    // `Single` attaches a link without flags; links always live side by side, while `AllowMultiple` gives EINVAL
    // (aya issue 1078).
    let mode = CgroupAttachMode::Single;
    let failed = |source| hook_error("attach", hook, source);
    let link: Result<FdLink, LinkError> = match kind {
        Kind::SockAddr => {
            let program: &mut CgroupSockAddr = program.try_into().map_err(failed)?;
            let id = program.attach(cgroup, mode).map_err(failed)?;
            program.take_link(id).map_err(failed)?.try_into()
        }
        Kind::SkbEgress => {
            let program: &mut CgroupSkb = program.try_into().map_err(failed)?;
            let id = program
                .attach(cgroup, CgroupSkbAttachType::Egress, mode)
                .map_err(failed)?;
            program.take_link(id).map_err(failed)?.try_into()
        }
        Kind::SockOps => {
            let program: &mut SockOps = program.try_into().map_err(failed)?;
            let id = program.attach(cgroup, mode).map_err(failed)?;
            program.take_link(id).map_err(failed)?.try_into()
        }
        Kind::Classifier => return Err(failed(ProgramError::UnexpectedProgramType)),
    };
    link.map_err(|source| BpfError::Link { hook, source })
}

fn hook_error(operation: &'static str, hook: &'static str, source: ProgramError) -> BpfError {
    let hint = if operation == "attach" {
        "; EPERM here means that another program sits on this cgroup or a parent without BPF_F_ALLOW_MULTI \
         (see `bpftool cgroup tree`)"
    } else {
        ""
    };
    BpfError::Hook {
        operation,
        hook,
        source: Box::new(source),
        hint,
    }
}

/// Links of other cgroups: the root was configured elsewhere, or made again.
fn remove_other_links(links: &Path, current: &Path) -> Result<(), BpfError> {
    let entries = fs::read_dir(links).map_err(|source| file_error("list", links, source))?;
    for entry in entries {
        let path = entry.map_err(|source| file_error("list", links, source))?.path();
        if path != current {
            tracing::info!(links = %path.display(), "removing hooks from an earlier cgroup root");
            fs::remove_dir_all(&path).map_err(|source| file_error("remove", &path, source))?;
        }
    }
    Ok(())
}
