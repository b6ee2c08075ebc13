//! The kernel side, seen from userspace. This tree alone names `aya`.

use std::{
    net::{IpAddr, Ipv4Addr},
    os::fd::BorrowedFd,
    path::PathBuf,
};

use enforcer_common::{address::AddressRule, cgroup::CgroupClass, counter::Counter, event::Event, handshake::Handshake};

/// What the kernel side needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Directory on a bpffs that holds the pins.
    pub pin_dir: PathBuf,
    /// Absolute path of the cgroup directory everything is attached to.
    pub cgroup_root: PathBuf,
    /// Address of the credential endpoint.
    pub endpoint_address: Ipv4Addr,
    /// Port of the credential endpoint as containers write it.
    pub endpoint_port: u16,
    /// Where socket hooks steer to.
    pub steer_port: u16,
    /// Where TC steers to.
    pub packet_steer_port: u16,
    /// The address table.
    pub addresses: Vec<(IpAddr, AddressRule)>,
}

/// What goes wrong between us and the kernel.
#[derive(Debug, thiserror::Error)]
pub enum BpfError {}

/// The loaded and attached kernel side.
#[derive(Debug)]
pub struct Bpf {}

impl Bpf {
    /// Loads the object, fills the maps, attaches and pins every hook; adopts what an earlier enforcer left.
    pub fn start(_config: &Config) -> Result<Self, BpfError> {
        unimplemented!()
    }
    /// The ring buffer's reader; there is one, so the second call gives `None`.
    pub fn take_events(&mut self) -> Option<EventRing> {
        unimplemented!()
    }
    /// Reader of the identities of accepted sockets.
    pub fn accepted(&self) -> Result<Accepted, BpfError> {
        unimplemented!()
    }
    /// Reader of the kernel's counters.
    pub fn counters(&self) -> Result<Counters, BpfError> {
        unimplemented!()
    }
    /// Writer of cgroup classes.
    pub fn classes(&self) -> Result<Classes, BpfError> {
        unimplemented!()
    }
}

/// Reads events.
#[derive(Debug)]
pub struct EventRing {}
impl EventRing {
    /// Waits for events and hands each one over, oldest first, until the ring is empty.
    pub async fn read(&mut self, _each: impl FnMut(&Event)) -> Result<(), BpfError> {
        unimplemented!()
    }
}

/// Reads the identity of an accepted socket.
#[derive(Debug, Clone)]
pub struct Accepted {}
impl Accepted {
    /// The handshake in the socket's storage, `None` if nobody announced the connection.
    pub fn handshake(&self, _socket: BorrowedFd<'_>) -> Result<Option<Handshake>, BpfError> {
        unimplemented!()
    }
}

/// Reads counters.
#[derive(Debug, Clone)]
pub struct Counters {}
impl Counters {
    /// The counter's sum over all CPUs.
    pub fn read(&self, _counter: Counter) -> Result<u64, BpfError> {
        unimplemented!()
    }
}

/// Writes cgroup classes.
#[derive(Debug)]
pub struct Classes {}
impl Classes {
    /// Classifies a cgroup and its descendants.
    pub fn set(&mut self, _cgroup_id: u64, _class: CgroupClass) -> Result<(), BpfError> {
        unimplemented!()
    }
}
