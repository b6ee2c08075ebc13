//! From the embedded object to loaded programs.

use std::{collections::HashMap, panic::resume_unwind, path::Path, thread};

use aya::{
    Btf, Ebpf, EbpfLoader,
    maps::MapInfo,
    programs::{
        CgroupSkb, CgroupSock, CgroupSockAddr, CgroupSockopt, LsmCgroup, Program, ProgramError, SchedClassifier,
        SockOps,
    },
};

use super::{
    BpfError,
    attach::{Kind, hooks},
};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/enforcer-hooks"));

/// Every map that outlives the daemon.
const PINNED_MAPS: [&str; 11] = [
    "SETTINGS",
    "PREFIXES",
    "ADDRESSES",
    "CLASSES",
    "SENDERS",
    "HANDSHAKES",
    "IN_FLIGHT",
    "ACCEPTED",
    "OBSERVED",
    "EVENTS",
    "COUNTERS",
];

/// Creates the object's maps, or adopts those pinned in `maps` and pins what is missing there, and loads every program
/// into the kernel; one of an optional hook may fail.
pub(super) fn load(maps: Option<&Path>) -> Result<Ebpf, BpfError> {
    let mut loader = EbpfLoader::new();
    if let Some(maps) = maps {
        for name in PINNED_MAPS {
            loader.map_pin_path(name, maps.join(name));
        }
    }
    let mut ebpf = loader.load(OBJECT)?;
    load_programs(&mut ebpf)?;
    Ok(ebpf)
}

/// The IDs of the maps pinned in a directory, if it has them all.
pub(super) fn pinned(maps: &Path) -> Option<Vec<u32>> {
    let infos = PINNED_MAPS.iter().map(|name| MapInfo::from_pin(maps.join(name)));
    infos.map(|info| Some(info.ok()?.id())).collect()
}

/// Loads all programs at once: verifying them takes most of the time of a start, and the kernel does that on as many CPUs
/// as ask for it.
fn load_programs(ebpf: &mut Ebpf) -> Result<(), BpfError> {
    let mut programs: HashMap<_, _> = ebpf.programs_mut().collect();
    thread::scope(|scope| {
        let mut loading = Vec::new();
        for (hook, kind) in hooks() {
            let program = programs.remove(hook).ok_or(BpfError::Missing { what: hook })?;
            loading.push((kind, scope.spawn(move || load_hook(program, hook, kind))));
        }
        loading.into_iter().try_for_each(|(kind, thread)| {
            let loaded = thread.join().unwrap_or_else(|panic| resume_unwind(panic));
            kind.require(loaded)
        })
    })
}

fn load_hook(program: &mut Program, hook: &'static str, kind: Kind) -> Result<(), BpfError> {
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
    })
}

fn load_program(program: &mut Program, kind: Kind) -> Result<(), ProgramError> {
    match kind {
        Kind::SockAddr => <&mut CgroupSockAddr>::try_from(program)?.load(),
        Kind::SkbEgress => <&mut CgroupSkb>::try_from(program)?.load(),
        Kind::SockCreate => <&mut CgroupSock>::try_from(program)?.load(),
        Kind::Sockopt => <&mut CgroupSockopt>::try_from(program)?.load(),
        // The loader has read the kernel's own types before and keeps them to itself. Reading them again takes long, so it is
        // done here, beside the verifying.
        Kind::Lsm(name) => <&mut LsmCgroup>::try_from(program)?.load(name, &Btf::from_sys_fs()?),
        Kind::SockOps => <&mut SockOps>::try_from(program)?.load(),
        Kind::Classifier => <&mut SchedClassifier>::try_from(program)?.load(),
    }
}
