//! From the embedded object to loaded programs.

use std::path::Path;

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, Map, MapData, MapError},
    programs::{CgroupSkb, CgroupSockAddr, Program, ProgramError, SchedClassifier, SockOps},
};
use enforcer_common::{ABI_VERSION, settings::Settings};

use super::{
    BpfError,
    attach::{Kind, hooks},
};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/enforcer-hooks"));

/// Every map that outlives the daemon.
const PINNED_MAPS: [&str; 9] = [
    "SETTINGS",
    "PREFIXES",
    "ADDRESSES",
    "CLASSES",
    "SENDERS",
    "HANDSHAKES",
    "ACCEPTED",
    "EVENTS",
    "COUNTERS",
];

/// Parses the object and creates its maps, or adopts those pinned below `pin_dir`.
pub(super) fn load(pin_dir: &Path) -> Result<Ebpf, BpfError> {
    let maps = pin_dir.join("maps");
    check_layout(pin_dir, &maps.join("SETTINGS"))?;
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
        Kind::SockOps => <&mut SockOps>::try_from(program)?.load(),
        Kind::Classifier => <&mut SchedClassifier>::try_from(program)?.load(),
    }
}

/// Pinned maps of another layout must not be adopted: programs would misread them.
fn check_layout(pin_dir: &Path, pin: &Path) -> Result<(), BpfError> {
    if !pin.exists() {
        return Ok(());
    }
    let read = || -> Result<Settings, MapError> {
        let settings: Array<_, Settings> = Array::try_from(Map::Array(MapData::from_pin(pin)?))?;
        settings.get(&0, 0)
    };
    let settings = read().map_err(|source| BpfError::Map {
        operation: "read pinned",
        map: "SETTINGS",
        source,
    })?;
    // 0: an earlier start ended before it wrote the settings, so nothing was attached yet.
    if settings.abi_version == ABI_VERSION || settings.abi_version == 0 {
        return Ok(());
    }
    Err(BpfError::OtherLayout {
        path: pin_dir.to_owned(),
        found: settings.abi_version,
        wanted: ABI_VERSION,
    })
}
