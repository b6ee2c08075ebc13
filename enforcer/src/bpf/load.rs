//! From the embedded object to loaded programs.

use std::path::Path;

use aya::{
    Ebpf, EbpfLoader,
    programs::{CgroupSkb, CgroupSock, CgroupSockAddr, CgroupSockopt, Program, ProgramError, SchedClassifier, SockOps},
};

use super::{
    BpfError,
    attach::{Kind, hooks},
};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/enforcer-hooks"));

/// Every map that outlives the daemon.
const PINNED_MAPS: [&str; 10] = [
    "SETTINGS",
    "PREFIXES",
    "ADDRESSES",
    "CLASSES",
    "SENDERS",
    "HANDSHAKES",
    "ACCEPTED",
    "OBSERVED",
    "EVENTS",
    "COUNTERS",
];

/// Parses the object and creates its maps, or adopts those pinned in `maps`.
pub(super) fn load(maps: &Path) -> Result<Ebpf, BpfError> {
    let mut loader = EbpfLoader::new();
    for name in PINNED_MAPS {
        loader.map_pin_path(name, maps.join(name));
    }
    Ok(loader.load(OBJECT)?)
}

/// As [`load`], with maps that vanish with the process.
pub(super) fn load_unpinned() -> Result<Ebpf, BpfError> {
    Ok(EbpfLoader::new().load(OBJECT)?)
}

/// Loads every program of the object into the kernel.
pub(super) fn load_programs(ebpf: &mut Ebpf) -> Result<(), BpfError> {
    for (hook, kind) in hooks() {
        let program = ebpf.program_mut(hook).ok_or(BpfError::Missing { what: hook })?;
        load_program(program, kind).map_err(|source| {
            // The verifier's log is long; it goes where people debug, not into the error's line.
            tracing::debug!(hook, error = ?source, "the kernel refused a program");
            let hint = "; `enforcer check` tells what this kernel lacks, ENFORCER_LOG=debug shows the verifier's log";
            BpfError::Hook {
                operation: "load",
                hook,
                source: Box::new(source),
                hint,
            }
        })?;
    }
    Ok(())
}

fn load_program(program: &mut Program, kind: Kind) -> Result<(), ProgramError> {
    match kind {
        Kind::SockAddr => <&mut CgroupSockAddr>::try_from(program)?.load(),
        Kind::SkbEgress => <&mut CgroupSkb>::try_from(program)?.load(),
        Kind::SockCreate => <&mut CgroupSock>::try_from(program)?.load(),
        Kind::Sockopt => <&mut CgroupSockopt>::try_from(program)?.load(),
        Kind::SockOps => <&mut SockOps>::try_from(program)?.load(),
        Kind::Classifier => <&mut SchedClassifier>::try_from(program)?.load(),
    }
}
