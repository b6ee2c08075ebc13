//! What goes wrong between us and the kernel.

use std::{
    io,
    path::{Path, PathBuf},
};

/// What goes wrong between us and the kernel.
#[derive(Debug, thiserror::Error)]
pub enum BpfError {
    /// The pin directory is not on a bpffs.
    #[error("{path} is not on a bpf file system: mount one there (mount -t bpf bpf /sys/fs/bpf) or set bpf.pin-dir")]
    NotBpffs {
        /// The directory, or its nearest parent that exists.
        path: PathBuf,
    },
    /// Another enforcer uses the same pins.
    #[error("another enforcer is running with the pins in {path}: stop it first, or give this one its own bpf.pin-dir")]
    AlreadyRunning {
        /// The pin directory.
        path: PathBuf,
    },
    /// There are pinned maps of a newer layout.
    #[error(
        "the maps pinned in {path} have layout {found}, newer than {wanted}, the one of this enforcer: run the newer enforcer they belong to, or remove them (and all enforcement) with `enforcer detach`"
    )]
    NewerLayout {
        /// The pin directory.
        path: PathBuf,
        /// Layout of those maps.
        found: u32,
        /// Layout of this binary.
        wanted: u32,
    },
    /// A file operation failed.
    #[error("cannot {operation} {path}: {source}")]
    File {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A system call of ours failed.
    #[error("cannot {operation}: {source}")]
    Syscall {
        /// What was tried, on what.
        operation: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The object was refused.
    #[error("cannot load the BPF object: {}", causes(.source))]
    Load {
        /// Why.
        #[from]
        source: aya::EbpfError,
    },
    /// The object lacks something this binary expects: they were built from different sources.
    #[error("the BPF object has no {what}: build the enforcer again")]
    Missing {
        /// A program or a map.
        what: &'static str,
    },
    /// A program could not be loaded or attached.
    #[error("cannot {operation} hook {hook}: {}{hint}", causes(.source))]
    Hook {
        /// What was tried.
        operation: &'static str,
        /// The hook.
        hook: &'static str,
        /// Why it failed.
        source: Box<aya::programs::ProgramError>,
        /// What to do, if that is known.
        hint: &'static str,
    },
    /// A program of somebody else keeps a hook out.
    #[error("cannot attach hook {}: program {} (ID {}, loaded by user {}) was attached to {} without BPF_F_ALLOW_MULTI, which keeps \
             every other program out; have its owner attach it with BPF_F_ALLOW_MULTI or by a link, or remove it",
            .program.hook, .program.name, .program.id, .program.owner, .program.at.display())]
    KeptOut {
        /// The program.
        program: Box<super::Foreign>,
    },
    /// An attachment is not a link: the kernel is older than 5.7.
    #[error("cannot keep hook {hook} attached: {}; Linux 6.1 or newer is needed", causes(.source))]
    Link {
        /// The hook.
        hook: &'static str,
        /// Why.
        source: aya::programs::links::LinkError,
    },
    /// A link could not be pinned.
    #[error("cannot pin hook {hook}: {}", causes(.source))]
    Pin {
        /// The hook.
        hook: &'static str,
        /// Why it failed.
        source: aya::pin::PinError,
    },
    /// A map operation failed.
    #[error("cannot {operation} map {map}: {}", causes(.source))]
    Map {
        /// What was tried.
        operation: &'static str,
        /// The map.
        map: &'static str,
        /// Why it failed.
        source: aya::maps::MapError,
    },
    /// A device got another name while hooks were attached to it.
    #[error("interface {interface} is another one by now; it is looked at again")]
    Renamed {
        /// The name it had.
        interface: String,
    },
    /// A TC operation failed.
    #[error("cannot {operation} on interface {interface}: {}", causes(.source))]
    Tc {
        /// What was tried.
        operation: &'static str,
        /// The interface.
        interface: String,
        /// Why it failed.
        source: aya::programs::tc::TcError,
    },
}

/// An error of aya with what caused it: the kernel's own answer is at the end of the chain. The verifier's log is left
/// out.
pub(super) fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let chain = std::iter::successors(Some(error), |error| error.source());
    let lines = chain.map(|error| error.to_string().lines().next().unwrap_or_default().to_owned());
    lines.collect::<Vec<_>>().join(": ")
}

pub(super) fn file_error(operation: &'static str, path: &Path, source: io::Error) -> BpfError {
    BpfError::File {
        operation,
        path: path.to_owned(),
        source,
    }
}
