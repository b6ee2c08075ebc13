//! Typed access to the maps: classes written, identities and counters read.

use std::{os::fd::BorrowedFd, sync::Arc};

use aya::{
    Ebpf,
    maps::{HashMap, Map, MapData, MapError, PerCpuArray, PerCpuValues, SkStorage},
    util::nr_cpus,
};
use enforcer_common::{cgroup::Treatment, counter::Counter, handshake::Handshake};

use super::BpfError;

/// Reads the identity of an accepted socket.
#[derive(Clone, Debug)]
pub struct Accepted {
    map: Arc<SkStorage<MapData, Handshake>>,
}

// === impl Accepted ===

impl Accepted {
    pub(super) fn try_new(ebpf: &mut Ebpf) -> Result<Self, BpfError> {
        let map = SkStorage::try_from(take(ebpf, "ACCEPTED")?).map_err(map_error("open", "ACCEPTED"))?;
        Ok(Self { map: Arc::new(map) })
    }

    /// The handshake in the socket's storage, `None` if nobody announced the connection.
    pub fn handshake(&self, socket: BorrowedFd<'_>) -> Result<Option<Handshake>, BpfError> {
        match self.map.get(&socket, 0) {
            Ok(handshake) => Ok(Some(handshake)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(source) => Err(map_error("read", "ACCEPTED")(source)),
        }
    }
}

/// Reads counters.
pub struct Counters {
    map: PerCpuArray<MapData, u64>,
}

// === impl Counters ===

impl std::fmt::Debug for Counters {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Counters").finish_non_exhaustive()
    }
}

impl Counters {
    pub(super) fn try_new(ebpf: &mut Ebpf) -> Result<Self, BpfError> {
        let map = PerCpuArray::try_from(take(ebpf, "COUNTERS")?).map_err(map_error("open", "COUNTERS"))?;
        Ok(Self::of(map))
    }

    pub(super) fn of(map: PerCpuArray<MapData, u64>) -> Self {
        Self { map }
    }

    /// The counter's sum over all CPUs, since the map was made (it outlives the daemon).
    pub fn read(&self, counter: Counter) -> Result<u64, BpfError> {
        let values = self
            .map
            .get(&counter.to_raw(), 0)
            .map_err(map_error("read", "COUNTERS"))?;
        Ok(values.iter().sum())
    }

    /// Notes how many dropped events the audit trail has been told of.
    pub fn note_told(&mut self, dropped: u64) -> Result<(), BpfError> {
        let failed = map_error("write", "COUNTERS");
        let cpus = nr_cpus().map_err(|(_, source)| failed(source.into()))?;
        let mut values = vec![0; cpus];
        if let Some(first) = values.first_mut() {
            *first = dropped;
        }
        let values = PerCpuValues::try_from(values).map_err(|source| failed(source.into()))?;
        self.map
            .set(Counter::EventsDroppedTold.to_raw(), values, 0)
            .map_err(failed)
    }
}

/// Adds to a counter no hook counts with meanwhile.
pub(super) fn add_to_first(
    map: &mut PerCpuArray<&mut MapData, u64>,
    counter: Counter,
    amount: u64,
) -> Result<(), BpfError> {
    let present = map.get(&counter.to_raw(), 0).map_err(map_error("read", "COUNTERS"))?;
    let mut values = present.to_vec();
    if let Some(first) = values.first_mut() {
        *first += amount;
    }
    let failed = map_error("write", "COUNTERS");
    let values = PerCpuValues::try_from(values).map_err(|source| failed(source.into()))?;
    map.set(counter.to_raw(), values, 0).map_err(failed)
}

/// Writes cgroup classes.
#[derive(Debug)]
pub struct Classes {
    map: HashMap<MapData, u64, u32>,
}

// === impl Classes ===

impl Classes {
    pub(super) fn try_new(ebpf: &mut Ebpf) -> Result<Self, BpfError> {
        let map = HashMap::try_from(take(ebpf, "CLASSES")?).map_err(map_error("open", "CLASSES"))?;
        Ok(Self { map })
    }

    /// Says how a cgroup and its descendants are treated. What is so already is not written: the room of what is replaced is
    /// another cgroup's at once, while a hook may still read it.
    pub fn set(&mut self, cgroup_id: u64, treatment: Treatment) -> Result<(), BpfError> {
        let raw = treatment.to_raw();
        if self.map.get(&cgroup_id, 0).is_ok_and(|present| present == raw) {
            return Ok(());
        }
        self.map
            .insert(cgroup_id, raw, 0)
            .map_err(map_error("write", "CLASSES"))
    }

    /// Forgets every class that `keep` does not want: those cgroups are gone, or no longer configured.
    pub fn retain(&mut self, keep: impl Fn(u64, Treatment) -> bool) -> Result<(), BpfError> {
        let present: Vec<(u64, u32)> = self
            .map
            .iter()
            .collect::<Result<_, _>>()
            .map_err(map_error("list", "CLASSES"))?;
        for (id, raw) in present {
            if !keep(id, Treatment::from_raw(raw)) {
                self.forget(id)?;
            }
        }
        Ok(())
    }

    /// Forgets the class of one cgroup. Not being there is fine.
    pub fn forget(&mut self, cgroup_id: u64) -> Result<(), BpfError> {
        match self.map.remove(&cgroup_id) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(MapError::SyscallError(error)) if error.io_error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(map_error("clean", "CLASSES")(source)),
        }
    }
}

/// Takes every exception away and leaves the classes otherwise as they are.
pub(super) fn forget_exceptions(ebpf: &mut Ebpf) -> Result<(), BpfError> {
    let map = ebpf.map_mut("CLASSES").ok_or(BpfError::Missing { what: "CLASSES" })?;
    let mut map: HashMap<&mut MapData, u64, u32> = HashMap::try_from(map).map_err(map_error("open", "CLASSES"))?;
    let present: Vec<(u64, u32)> = map
        .iter()
        .collect::<Result<_, _>>()
        .map_err(map_error("list", "CLASSES"))?;
    for (cgroup, raw) in present {
        let treatment = Treatment::from_raw(raw);
        if treatment.exceptions != 0 {
            let without = Treatment {
                exceptions: 0,
                ..treatment
            };
            map.insert(cgroup, without.to_raw(), 0)
                .map_err(map_error("write", "CLASSES"))?;
        }
    }
    Ok(())
}

pub(super) fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, BpfError> {
    ebpf.take_map(name).ok_or(BpfError::Missing { what: name })
}

pub(super) fn map_error(operation: &'static str, map: &'static str) -> impl Fn(MapError) -> BpfError {
    move |source| BpfError::Map { operation, map, source }
}
