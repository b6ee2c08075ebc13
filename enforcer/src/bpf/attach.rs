//! The attach table: which hook goes where, and how it is pinned.
//!
//! A hook whose pin exists keeps its link: only the program inside is swapped (`BPF_LINK_UPDATE`), so there is no instant
//! without it, and none with two of them.

use std::{
    fs::File,
    io,
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use aya::{
    Ebpf,
    programs::{
        CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, CgroupSock, CgroupSockAddr, Program, ProgramError, SockOps,
        links::{FdLink, LinkError},
    },
};

use super::{
    BpfError, Config,
    error::file_error,
    foreign,
    pins::{self, Pins},
};
use crate::sys;

/// What a hook is to the kernel.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    SockAddr,
    SkbEgress,
    SockCreate,
    Sockopt,
    /// An LSM hook by its kernel name, per cgroup.
    Lsm(&'static str),
    SockOps,
    Classifier,
}

// === impl Kind ===

impl Kind {
    /// Whether this enforcer guards without such a hook, if less well. The BPF LSM is not built into every kernel, nor for
    /// every architecture.
    const fn is_optional(self) -> bool {
        matches!(self, Self::Lsm(_))
    }

    /// The result of working on a hook; that an optional one failed is only told.
    pub(super) fn require(self, result: Result<(), BpfError>) -> Result<(), BpfError> {
        match result {
            Err(error) if self.is_optional() => {
                tracing::warn!(%error, "going on without this hook; `enforcer check` says what that means");
                Ok(())
            }
            result => result,
        }
    }
}

/// Where a hook goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    /// The cgroup root.
    Root,
    /// The enforcer's own cgroup, where that is not below the root.
    Own,
    /// Network devices, see `tc`.
    Interface,
}

/// Every hook, in the order of attachment: whoever hands identities on comes before who sends connections here. All of
/// them load on Linux 6.1 and newer, and all are required but that of the LSM.
const HOOKS: [(&str, Kind, At); 16] = [
    ("sock_ops_own", Kind::SockOps, At::Own),
    ("sock_ops", Kind::SockOps, At::Root),
    ("egress", Kind::SkbEgress, At::Root),
    ("sock_create", Kind::SockCreate, At::Root),
    ("setsockopt", Kind::Sockopt, At::Root),
    ("lsm_setsockopt", Kind::Lsm("socket_setsockopt"), At::Root),
    ("bind4", Kind::SockAddr, At::Root),
    ("bind6", Kind::SockAddr, At::Root),
    ("connect4", Kind::SockAddr, At::Root),
    ("connect6", Kind::SockAddr, At::Root),
    ("sendmsg4", Kind::SockAddr, At::Root),
    ("sendmsg6", Kind::SockAddr, At::Root),
    (super::tc::INGRESS, Kind::Classifier, At::Interface),
    (super::tc::EGRESS, Kind::Classifier, At::Interface),
    (super::tc::UPLINK, Kind::Classifier, At::Interface),
    (super::tc::DEVICE, Kind::Classifier, At::Interface),
];

/// Every hook's name and kind.
pub(super) fn hooks() -> impl Iterator<Item = (&'static str, Kind)> {
    HOOKS.into_iter().map(|(hook, kind, _)| (hook, kind))
}

/// Every hook that the cgroup root cannot be guarded without.
pub(super) fn root_hooks() -> impl Iterator<Item = &'static str> {
    let of_root = HOOKS
        .into_iter()
        .filter(|(_, kind, at)| *at == At::Root && !kind.is_optional());
    of_root.map(|(hook, _, _)| hook)
}

/// Attaches and pins the hooks of the cgroup root, and that of the enforcer's own cgroup if the root's do not reach it;
/// drops what an earlier enforcer attached besides.
pub(super) fn attach(ebpf: &mut Ebpf, config: &Config, pins: &Pins) -> Result<(), BpfError> {
    let mut kept = Vec::new();
    for (cgroup, at) in [(&config.own_cgroup, At::Own), (&config.cgroup_root, At::Root)] {
        if at == At::Own && config.own_cgroup.starts_with(&config.cgroup_root) {
            continue;
        }
        let hooks: Vec<_> = HOOKS.into_iter().filter(|(.., place)| *place == at).collect();
        let opened = File::open(cgroup).map_err(|source| file_error("open cgroup", cgroup, source))?;
        let directory = link_directory(&pins.links(), cgroup, &opened)?;
        for (hook, kind, _) in &hooks {
            let program = ebpf.program_mut(hook).ok_or(BpfError::Missing { what: hook })?;
            if kind.is_optional() && program.fd().is_err() {
                continue; // It was told that the kernel did not take it.
            }
            let attached = attach_pinned(program, (hook, *kind), &opened, &directory.join(hook));
            kind.require(attached.map_err(|error| blame(error, hook, cgroup)))?;
        }
        kept.extend(hooks.iter().map(|(hook, ..)| directory.join(hook)));
    }
    remove_other_links(pins, &kept)
}

/// Names the program that keeps a hook out, if there is one.
fn blame(error: BpfError, hook: &'static str, cgroup: &Path) -> BpfError {
    match foreign::excluding(hook, cgroup) {
        Some(program) => BpfError::KeptOut {
            program: Box::new(program),
        },
        None => error,
    }
}

/// The directory of the links of this very cgroup: a cgroup that was removed and made again has another ID, and links
/// to the old one are dead.
fn link_directory(links: &Path, cgroup: &Path, opened: &File) -> Result<PathBuf, BpfError> {
    let metadata = opened
        .metadata()
        .map_err(|source| file_error("inspect cgroup", cgroup, source))?;
    let directory = links.join(metadata.ino().to_string());
    pins::create(&directory)?;
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
            let attach_type = match kind {
                Kind::Sockopt => sys::bpf::CGROUP_SETSOCKOPT,
                Kind::Lsm(_) => sys::bpf::LSM_CGROUP,
                Kind::SockAddr | Kind::SkbEgress | Kind::SockCreate | Kind::SockOps | Kind::Classifier => {
                    let link = create_link(program, (hook, kind), cgroup)?;
                    return link.pin(pin).map(drop).map_err(|source| BpfError::Pin { hook, source });
                }
            };
            attach_raw(program, (hook, attach_type), cgroup, pin)
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
        Kind::SockCreate => {
            let program: &mut CgroupSock = program.try_into().map_err(failed)?;
            let id = program.attach(cgroup, mode).map_err(failed)?;
            program.take_link(id).map_err(failed)?.try_into()
        }
        Kind::SockOps => {
            let program: &mut SockOps = program.try_into().map_err(failed)?;
            let id = program.attach(cgroup, mode).map_err(failed)?;
            program.take_link(id).map_err(failed)?.try_into()
        }
        Kind::Sockopt | Kind::Lsm(_) | Kind::Classifier => return Err(failed(ProgramError::UnexpectedProgramType)),
    };
    link.map_err(|source| BpfError::Link { hook, source })
}

/// aya 0.14 attaches such programs too, but does not give their links away.
fn attach_raw(
    program: &Program,
    (hook, attach_type): (&'static str, u32),
    cgroup: &File,
    pin: &Path,
) -> Result<(), BpfError> {
    let program = program.fd().map_err(|source| hook_error("attach", hook, source))?;
    let failed = |operation| {
        move |source| BpfError::Syscall {
            operation: format!("{operation} hook {hook}"),
            source,
        }
    };
    let link = sys::bpf::create_link(program.as_fd(), cgroup.as_fd(), attach_type).map_err(failed("attach"))?;
    sys::bpf::pin(link.as_fd(), pin).map_err(failed("pin"))
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

/// Removes hooks this enforcer does not have, and those on other cgroups: the root was configured elsewhere, or made
/// again.
fn remove_other_links(pins: &Pins, kept: &[PathBuf]) -> Result<(), BpfError> {
    for directory in pins.cgroup_links()? {
        let present = pins::children(&directory)?;
        for link in present.iter().filter(|link| !kept.contains(link)) {
            tracing::info!(link = %link.display(), "removing a hook of an earlier enforcer");
            pins::remove_link(link)?;
        }
        if !present.iter().any(|link| kept.contains(link)) {
            pins::remove(&directory)?;
        }
    }
    Ok(())
}
