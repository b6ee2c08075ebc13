//! Typed access to the maps: settings and address table written at start, classes while running, identities and counters
//! read.

use std::{collections::HashMap as StdHashMap, net::IpAddr, os::fd::BorrowedFd, sync::Arc};

use aya::{
    Ebpf,
    maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, SkStorage},
};
use enforcer_common::{
    address::{Address, AddressRule},
    cgroup::CgroupClass,
    counter::Counter,
    handshake::Handshake,
    settings::Settings,
};

use super::BpfError;

/// Writes the one entry of the settings map.
pub(super) fn write_settings(ebpf: &mut Ebpf, settings: &Settings) -> Result<(), BpfError> {
    let map = ebpf.map_mut("SETTINGS").ok_or(BpfError::Missing { what: "SETTINGS" })?;
    let mut map: Array<&mut MapData, Settings> = Array::try_from(map).map_err(map_error("open", "SETTINGS"))?;
    map.set(0, settings, 0).map_err(map_error("write", "SETTINGS"))
}

/// Makes the address table say what the configuration says: new rows first, so that nothing is unprotected meanwhile.
pub(super) fn write_addresses(ebpf: &mut Ebpf, rules: &[(IpAddr, AddressRule)]) -> Result<(), BpfError> {
    let map = ebpf
        .map_mut("ADDRESSES")
        .ok_or(BpfError::Missing { what: "ADDRESSES" })?;
    let mut map: HashMap<&mut MapData, Address, AddressRule> =
        HashMap::try_from(map).map_err(map_error("open", "ADDRESSES"))?;
    let wanted: StdHashMap<Address, AddressRule> = rules
        .iter()
        .map(|(address, rule)| (to_address(*address).canonical().0, *rule))
        .collect();
    for (address, rule) in &wanted {
        map.insert(address, rule, 0).map_err(map_error("write", "ADDRESSES"))?;
    }
    let present: Vec<Address> = map
        .keys()
        .collect::<Result<_, _>>()
        .map_err(map_error("list", "ADDRESSES"))?;
    for address in present.iter().filter(|address| !wanted.contains_key(address)) {
        map.remove(address).map_err(map_error("clean", "ADDRESSES"))?;
    }
    Ok(())
}

fn to_address(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(v4) => Address::from_octets(v4.to_ipv6_mapped().octets()),
        IpAddr::V6(v6) => Address::from_octets(v6.octets()),
    }
}

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
#[derive(Clone)]
pub struct Counters {
    map: Arc<PerCpuArray<MapData, u64>>,
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
        Ok(Self { map: Arc::new(map) })
    }

    /// The counter's sum over all CPUs, since the map was made (it outlives the daemon).
    pub fn read(&self, counter: Counter) -> Result<u64, BpfError> {
        let values = self
            .map
            .get(&counter.to_raw(), 0)
            .map_err(map_error("read", "COUNTERS"))?;
        Ok(values.iter().sum())
    }
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

    /// Classifies a cgroup and its descendants.
    pub fn set(&mut self, cgroup_id: u64, class: CgroupClass) -> Result<(), BpfError> {
        self.map
            .insert(cgroup_id, class.to_raw(), 0)
            .map_err(map_error("write", "CLASSES"))
    }

    /// Forgets every class that is not in `keep`: those cgroups are gone, or no longer configured.
    pub fn retain(&mut self, keep: impl Fn(u64) -> bool) -> Result<(), BpfError> {
        let present: Vec<u64> = self
            .map
            .keys()
            .collect::<Result<_, _>>()
            .map_err(map_error("list", "CLASSES"))?;
        for id in present.into_iter().filter(|id| !keep(*id)) {
            self.forget(id)?;
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

pub(super) fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, BpfError> {
    ebpf.take_map(name).ok_or(BpfError::Missing { what: name })
}

pub(super) fn map_error(operation: &'static str, map: &'static str) -> impl Fn(MapError) -> BpfError {
    move |source| BpfError::Map { operation, map, source }
}
