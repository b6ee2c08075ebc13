//! The counters of an enforcer that enforces, read beside it or without one.

use std::path::Path;

use aya::maps::{Array, Map, MapData, PerCpuArray};
use enforcer_common::{
    ABI_VERSION,
    settings::{Settings, mode},
};

use super::{BpfError, Counters, maps::map_error, pins::maps};

/// The counters of an enforcer of this layout; none if nothing is enforced: no such enforcer was ever started here, or
/// it only observes.
pub fn enforced_counters(pin_dir: &Path) -> Result<Option<Counters>, BpfError> {
    let maps = maps(pin_dir);
    if !maps.join("COUNTERS").exists() {
        return Ok(None);
    }
    let opened = |map: &'static str| MapData::from_pin(maps.join(map)).map_err(map_error("open pinned", map));
    let settings: Array<_, Settings> =
        Array::try_from(Map::Array(opened("SETTINGS")?)).map_err(map_error("open pinned", "SETTINGS"))?;
    let settings = settings.get(&0, 0).map_err(map_error("read pinned", "SETTINGS"))?;
    if settings.abi_version != ABI_VERSION || settings.mode != mode::ENFORCE {
        return Ok(None);
    }
    let counters = PerCpuArray::try_from(Map::PerCpuArray(opened("COUNTERS")?));
    counters
        .map(|map| Some(Counters::of(map)))
        .map_err(map_error("open pinned", "COUNTERS"))
}
