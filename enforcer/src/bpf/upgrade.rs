//! From an older layout to this one: what can be taken over, and what has to be told.
//!
//! Counters keep their numbers in every layout, so they are carried over before the new programs begin to count. Events
//! nobody has read are of the old layout; they are counted as lost, which the audit trail tells.

use std::path::{Path, PathBuf};

use aya::maps::{Map, MapData, MapError, PerCpuArray, RingBuf};
use enforcer_common::counter::Counter;

use super::{
    BpfError,
    maps::{add_to_first, map_error},
};

/// The counters of an older layout, which its programs may still be counting with.
#[derive(Debug)]
pub(super) struct Older {
    maps: PathBuf,
    emitted: u64,
}

// === impl Older ===

impl Older {
    /// Makes the new counters begin where the old ones are.
    pub(super) fn carry_over(maps: PathBuf, new: &mut PerCpuArray<&mut MapData, u64>) -> Result<Self, BpfError> {
        let old = counters(&maps)?;
        for index in 0..old.len().min(new.len()) {
            let values = old.get(&index, 0).map_err(map_error("read old", "COUNTERS"))?;
            new.set(index, values, 0).map_err(map_error("write", "COUNTERS"))?;
        }
        let unread = unread_events(&maps)?;
        if unread > 0 {
            tracing::warn!(
                unread,
                "events of the older enforcer are counted as lost: their layout is another"
            );
            add_to_first(new, Counter::EventsDropped, unread)?;
        }
        let emitted = total(&old, Counter::EventsEmitted)?;
        Ok(Self { maps, emitted })
    }

    /// Tells what the old programs decided after their counters were carried over. To be called when they run no more.
    pub(super) fn tell_rest(&self) -> Result<(), BpfError> {
        let missed = total(&counters(&self.maps)?, Counter::EventsEmitted)?.saturating_sub(self.emitted);
        if missed > 0 {
            tracing::warn!(
                missed,
                "decisions of the older programs while they were replaced are in no record"
            );
        }
        Ok(())
    }
}

fn counters(maps: &Path) -> Result<PerCpuArray<MapData, u64>, BpfError> {
    let open = || -> Result<_, MapError> {
        PerCpuArray::try_from(Map::PerCpuArray(MapData::from_pin(maps.join("COUNTERS"))?))
    };
    open().map_err(map_error("open old", "COUNTERS"))
}

fn unread_events(maps: &Path) -> Result<u64, BpfError> {
    let open = || -> Result<_, MapError> { RingBuf::try_from(Map::RingBuf(MapData::from_pin(maps.join("EVENTS"))?)) };
    let mut ring = open().map_err(map_error("open old", "EVENTS"))?;
    let mut unread = 0;
    while ring.next().is_some() {
        unread += 1;
    }
    Ok(unread)
}

fn total(counters: &PerCpuArray<MapData, u64>, counter: Counter) -> Result<u64, BpfError> {
    let values = counters
        .get(&counter.to_raw(), 0)
        .map_err(map_error("read old", "COUNTERS"))?;
    Ok(values.iter().sum())
}
