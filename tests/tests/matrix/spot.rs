//! The spot: an attacker in its place, and what it knows of it.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    path::Path,
};

use anyhow::Result;
use enforcer_tests::{
    actor::Actor,
    attacker::{Attacker, Endpoint, Ground, Outcome},
    enter::Place,
    scene::Scene,
    topology::{BRIDGE_HARDWARE, BRIDGE_V4, BRIDGE_V6, ENDPOINT, IMDS_V4, IMDS_V6, PACKET_STEER, STEER},
};

/// The task the attacker belongs to, and the one whose credentials it is after.
pub(crate) const ATTACKER: &str = "web";
pub(crate) const VICTIM: &str = "batch";

/// An attacker in its place.
pub(crate) struct Spot {
    pub(crate) attacker: Attacker,
    /// A process beside it that keeps to the rules.
    pub(crate) owner: Actor,
    pub(crate) ground: Ground,
}

// === impl Spot ===

impl Spot {
    /// Has an attempt made.
    pub(crate) fn attempt(&mut self, technique: &str) -> Outcome {
        self.attacker.attempt(technique, &self.ground).unwrap()
    }
}

/// Both processes of a spot are in the same container.
pub(crate) fn start(lab: &Path, place: &Place, address: Ipv4Addr) -> Result<(Attacker, Actor)> {
    Ok((
        Attacker::start(lab, place, address)?,
        Actor::start(lab, place, address)?,
    ))
}

/// What is the same in most modes: the bridge's.
pub(crate) fn spot(scene: &Scene, (attacker, owner): (Attacker, Actor)) -> Result<Spot> {
    let [.., last] = attacker.address().octets();
    let ground = Ground {
        interface: "eth0".to_owned(),
        next_hop: BRIDGE_HARDWARE,
        own: attacker.address(),
        own_v6: Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, last.into()),
        metadata: IMDS_V4,
        metadata_v6: IMDS_V6,
        bystander: BRIDGE_V4,
        bystander_v6: BRIDGE_V6,
        in_host_network: false,
        endpoint: Some(Endpoint {
            address: ENDPOINT,
            source: attacker.address(),
            steer_ports: [STEER.port(), PACKET_STEER.port()],
            agent_ports: Vec::new(),
            foreign: scene.task(VICTIM)?.path(),
        }),
        cgroup: attacker.cgroup().to_owned(),
        sibling: scene.new_container(VICTIM)?,
        outside: scene.trusted(),
        host_network: Some(scene.topology().host.path()),
    };
    Ok(Spot {
        attacker,
        owner,
        ground,
    })
}
