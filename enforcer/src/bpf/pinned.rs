//! What the pinned maps say, read without a daemon and without a lock.

use std::{collections::BTreeMap, path::Path};

use aya::maps::{Array, Map, MapData, MapError, PerCpuArray};
use enforcer_common::{
    counter::Counter,
    settings::{Settings, mode},
};
use serde::Serialize;

use super::{BpfError, Mode, maps::map_error, pins::maps};

/// What the hooks go by and have counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pinned {
    /// What is done about what is refused.
    pub mode: Mode,
    /// The counters by name, since the maps were made.
    pub counters: BTreeMap<&'static str, u64>,
}

/// Reads the maps of this layout that are pinned below `pin_dir`; none if there are none.
pub fn pinned(pin_dir: &Path) -> Result<Option<Pinned>, BpfError> {
    let maps = maps(pin_dir);
    if !maps.join("SETTINGS").exists() || !maps.join("COUNTERS").exists() {
        return Ok(None);
    }
    let settings = || -> Result<Settings, MapError> {
        Array::try_from(Map::Array(MapData::from_pin(maps.join("SETTINGS"))?))?.get(&0, 0)
    };
    let settings: Settings = settings().map_err(map_error("read pinned", "SETTINGS"))?;
    let counters = || -> Result<_, MapError> {
        let pinned = Map::PerCpuArray(MapData::from_pin(maps.join("COUNTERS"))?);
        let pinned: PerCpuArray<_, u64> = PerCpuArray::try_from(pinned)?;
        let read = |counter: &Counter| Ok((counter.name(), pinned.get(&counter.to_raw(), 0)?.iter().sum()));
        Counter::ALL.iter().map(read).collect()
    };
    Ok(Some(Pinned {
        mode: if settings.mode == mode::OBSERVE {
            Mode::Observe
        } else {
            Mode::Enforce
        },
        counters: counters().map_err(map_error("read pinned", "COUNTERS"))?,
    }))
}
