//! Stale connections: those of guarded processes to protected destinations that were made before anybody watched.
//!
//! Socket hooks decide when a connection is made. One that is older than they are would go on; the packet hooks drop what
//! it sends, and here it is ended, so that its owner is told. So are those that an upgrade would leave on their way.

use std::{collections::HashMap, io};

use enforcer_common::{
    address::{Address, AddressRule, target},
    cgroup::Treatment,
    verdict::{Attempt, TCP, UDP, Verdict, decide},
};

use super::{
    HostError,
    cgroupfs::CgroupFs,
    namespaces::{Namespace, foreign},
    sock_diag::{self, Connected},
    treatment::Rules,
};
use crate::bpf::{self, Mode};

/// `AF_INET` and `AF_INET6`.
const FAMILIES: [u8; 2] = [2, 10];

/// Which connections are stale.
#[derive(Debug)]
pub struct Stale<'a> {
    /// The cgroup tree.
    pub cgroups: &'a CgroupFs,
    /// What the kernel side does.
    pub config: &'a bpf::Config,
    /// How cgroups are treated.
    pub rules: &'a Rules,
    /// Whether nothing was attached before. Then connections to the credential endpoint were made with somebody else;
    /// otherwise an earlier enforcer took them, and may still be answering.
    pub is_first: bool,
    /// Whether the maps were replaced. Then nobody knows the connections that were on their way to the enforcer any more:
    /// their packets are dropped, and their owners would try until they run out of patience.
    pub is_upgrade: bool,
}

// === impl Stale ===

impl Stale<'_> {
    /// Destroys stale connections in every network namespace, and tells how many there were. Where that is not possible the
    /// packet hooks hold, and it is told.
    pub fn destroy(&self) -> Result<usize, HostError> {
        let rules = self.config.rules();
        let own = Namespace::own()?;
        let mut destroyed = 0;
        for (namespace, in_host_netns) in std::iter::once((own, true)).chain(
            foreign(self.cgroups, &self.config.cgroup_root)?
                .into_iter()
                .map(|namespace| (namespace, false)),
        ) {
            let outcome = namespace.enter(|| Ok(self.destroy_here(&rules, in_host_netns)));
            match outcome {
                Ok(count) => destroyed += count.unwrap_or(0),
                Err(error) => {
                    tracing::warn!(%error, "stale connections in this namespace are only dropped packet by packet");
                }
            }
        }
        Ok(destroyed)
    }

    /// The same in the calling thread's network namespace.
    fn destroy_here(&self, rules: &HashMap<Address, AddressRule>, in_host_netns: bool) -> usize {
        let mut destroyed = 0;
        for (family, protocol) in FAMILIES.into_iter().flat_map(|family| [(family, TCP), (family, UDP)]) {
            let sockets = sock_diag::list(family, protocol).unwrap_or_else(|error| {
                tracing::warn!(family, protocol, %error, "the kernel does not list connections: load inet_diag, tcp_diag, udp_diag");
                Vec::new()
            });
            for socket in sockets {
                if self.is_stale(&socket, rules, in_host_netns) && end(&socket) {
                    destroyed += 1;
                }
            }
        }
        destroyed
    }

    fn is_stale(&self, socket: &Connected, rules: &HashMap<Address, AddressRule>, in_host_netns: bool) -> bool {
        if self.is_upgrade && self.is_on_its_way_here(socket) {
            return true;
        }
        let (canonical, spelling) = socket.peer.canonical();
        let Some(rule) = rules.get(&canonical) else {
            return false;
        };
        let Some(treatment) = self.treatment(socket.cgroup_id) else {
            return false;
        };
        let attempt = Attempt {
            treatment,
            spelling,
            protocol: socket.protocol,
            port: socket.port,
            in_host_netns,
        };
        let is_refused = match decide(rule, &attempt, self.config.endpoint_port) {
            Verdict::Pass | Verdict::Allow(_) => false,
            Verdict::Deny(_) | Verdict::Steer => rule.target != target::CREDENTIALS || self.is_first,
        };
        is_refused && self.config.mode == Mode::Enforce && !treatment.observed
    }

    fn is_on_its_way_here(&self, socket: &Connected) -> bool {
        let steer_ports = [self.config.steer_port, self.config.packet_steer_port];
        let endpoint = Address::from_v4(u32::from_ne_bytes(self.config.endpoint_address.octets()));
        let (peer, _spelling) = socket.peer.canonical();
        socket.is_connecting && peer == endpoint && steer_ports.contains(&socket.port)
    }

    /// How the processes of a cgroup are treated; none if it lies outside the cgroup that hooks attach to. One that is gone,
    /// or that the kernel does not tell, is guarded.
    fn treatment(&self, cgroup_id: u64) -> Option<Treatment> {
        let Ok(Some(path)) = self.cgroups.path_of(cgroup_id) else {
            return Some(Treatment::default());
        };
        if !self.cgroups.absolute(&path).starts_with(&self.config.cgroup_root) {
            return None;
        }
        Some(self.rules.treatment(&path))
    }
}

/// Ends a connection; tells whether it did.
fn end(socket: &Connected) -> bool {
    match sock_diag::destroy(socket) {
        Ok(()) => {
            tracing::info!(
                cgroup_id = socket.cgroup_id,
                protocol = socket.protocol,
                port = socket.port,
                "ended a connection older than the hooks"
            );
            true
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => {
            tracing::warn!(%error, "cannot end a connection older than the hooks; its packets are dropped");
            false
        }
    }
}
