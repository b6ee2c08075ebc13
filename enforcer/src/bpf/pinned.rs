//! What the pinned maps say, read without a daemon and without a lock.

use std::{collections::BTreeMap, path::Path};

use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray};
use enforcer_common::{
    ABI_VERSION,
    cgroup::{Treatment, classify},
    counter::Counter,
    settings::{Settings, mode},
};
use serde::Serialize;

use super::{BpfError, Counters, Mode, maps::map_error, pins::maps};

/// The maps of an enforcer of this layout that was started here.
#[derive(Debug)]
pub struct Pinned {
    /// What is done about what is refused.
    pub mode: Mode,
    /// What the hooks have counted.
    pub counters: Counters,
    classes: HashMap<MapData, u64, u32>,
}

/// What the hooks go by and have counted, for people and programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Kernel {
    /// What is done about what is refused.
    pub mode: Mode,
    /// The counters by name, since the maps were made.
    pub counters: BTreeMap<&'static str, u64>,
}

// === impl Pinned ===

impl Pinned {
    /// Opens the maps that are pinned below `pin_dir`; none if no enforcer of this layout was ever started with it.
    pub fn open(pin_dir: &Path) -> Result<Option<Self>, BpfError> {
        let maps = maps(pin_dir);
        if ["SETTINGS", "COUNTERS", "CLASSES"]
            .iter()
            .any(|map| !maps.join(map).exists())
        {
            return Ok(None);
        }
        let pinned = |map: &'static str| MapData::from_pin(maps.join(map));
        let settings =
            || -> Result<Settings, MapError> { Array::try_from(Map::Array(pinned("SETTINGS")?))?.get(&0, 0) };
        let settings = settings().map_err(map_error("read pinned", "SETTINGS"))?;
        if settings.abi_version != ABI_VERSION {
            return Ok(None);
        }
        let counters = || PerCpuArray::try_from(Map::PerCpuArray(pinned("COUNTERS")?));
        let classes = || HashMap::try_from(Map::HashMap(pinned("CLASSES")?));
        Ok(Some(Self {
            mode: if settings.mode == mode::OBSERVE {
                Mode::Observe
            } else {
                Mode::Enforce
            },
            counters: Counters::of(counters().map_err(map_error("open pinned", "COUNTERS"))?),
            classes: classes().map_err(map_error("open pinned", "CLASSES"))?,
        }))
    }

    /// How the hooks treat a cgroup, of which the IDs of its ancestors are given: the root's first, its own last.
    pub fn treatment(&self, lineage: &[u64]) -> Result<Treatment, BpfError> {
        let mut failure = None;
        let raw = classify(
            |level| lineage.get(level as usize).copied().unwrap_or_default(),
            |id| match self.classes.get(&id, 0) {
                Ok(class) => Some(class),
                Err(MapError::KeyNotFound) => None,
                Err(error) => {
                    failure = Some(error);
                    None
                }
            },
        );
        match failure {
            Some(error) => Err(map_error("read pinned", "CLASSES")(error)),
            None => Ok(Treatment::from_raw(raw)),
        }
    }

    /// Reads everything.
    pub fn read(&self) -> Result<Kernel, BpfError> {
        let read = |counter: &Counter| -> Result<_, BpfError> { Ok((counter.name(), self.counters.read(*counter)?)) };
        Ok(Kernel {
            mode: self.mode,
            counters: Counter::ALL.iter().map(read).collect::<Result<_, _>>()?,
        })
    }
}
