//! The network modes: where the attacker sits, and what it knows of its place.

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
    topology::{
        AGENT, BRIDGE_HARDWARE, BRIDGE_V4, BRIDGE_V6, DIRECT_HARDWARE, ENDPOINT, IMDS_V4, IMDS_V6, PACKET_STEER,
        SECOND_HARDWARE, STEER, isolated,
    },
};

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

/// The task the attacker belongs to, and the one whose credentials it is after.
pub(crate) const ATTACKER: &str = "web";
pub(crate) const VICTIM: &str = "batch";

pub(crate) fn bridge(scene: &Scene) -> Result<Spot> {
    spot(scene, scene.in_bridge_container(ATTACKER, start)?)
}

/// Frames leave by a device that is no veth, as they leave a real host.
pub(crate) fn host(scene: &Scene) -> Result<Spot> {
    let uplink = scene.topology().direct(&scene.topology().host, "uplink0")?;
    scene.topology().route_host_by("uplink0", uplink)?;
    let mut spot = spot(scene, scene.in_host_container(ATTACKER, start)?)?;
    spot.ground.interface = "uplink0".to_owned();
    spot.ground.next_hop = DIRECT_HARDWARE;
    spot.ground.own = uplink.near.0;
    spot.ground.own_v6 = uplink.near.1;
    spot.ground.bystander = uplink.far.0;
    spot.ground.bystander_v6 = uplink.far.1;
    spot.ground.in_host_network = true;
    Ok(spot)
}

/// In front of an ECS agent, whose ports are there to be reached.
pub(crate) fn host_with_agent(scene: &Scene) -> Result<Spot> {
    let mut spot = host(scene)?;
    if let Some(endpoint) = &mut spot.ground.endpoint {
        endpoint.agent_ports = vec![AGENT.port()];
    }
    Ok(spot)
}

pub(crate) fn awsvpc(scene: &Scene) -> Result<Spot> {
    let (namespace, card, source) = scene.topology().awsvpc()?;
    let mut spot = spot(scene, scene.in_container(ATTACKER, &namespace, source, start)?)?;
    spot.ground.own = card.near.0;
    spot.ground.next_hop = DIRECT_HARDWARE;
    spot.ground.own_v6 = card.near.1;
    spot.ground.bystander = card.far.0;
    spot.ground.bystander_v6 = card.far.1;
    Ok(spot)
}

pub(crate) fn none(scene: &Scene) -> Result<Spot> {
    let mut spot = spot(
        scene,
        scene.in_container(ATTACKER, &isolated()?, Ipv4Addr::LOCALHOST, start)?,
    )?;
    spot.ground.interface = "lo".to_owned();
    spot.ground.bystander = Ipv4Addr::LOCALHOST;
    spot.ground.bystander_v6 = Ipv6Addr::LOCALHOST;
    spot.ground.host_network = None;
    spot.ground.endpoint = None;
    Ok(spot)
}

/// The namespace is that of the victim's container, the cgroup is not.
pub(crate) fn container(scene: &Scene) -> Result<Spot> {
    let attachment = scene.topology().bridged()?;
    let (network, address) = (&attachment.namespace, attachment.address);
    scene.in_container(VICTIM, network, address, Actor::start)?;
    spot(scene, scene.in_container(ATTACKER, network, address, start)?)
}

pub(crate) fn second_interface(scene: &Scene) -> Result<Spot> {
    let attachment = scene.topology().bridged()?;
    let (near, near_v6) = scene.topology().second_link(&attachment)?;
    let (network, address) = (&attachment.namespace, attachment.address);
    let mut spot = spot(scene, scene.in_container(ATTACKER, network, address, start)?)?;
    spot.ground.own = near;
    spot.ground.interface = "eth1".to_owned();
    spot.ground.next_hop = SECOND_HARDWARE;
    spot.ground.own_v6 = near_v6;
    Ok(spot)
}

/// Both processes of a spot are in the same container.
fn start(lab: &Path, place: &Place, address: Ipv4Addr) -> Result<(Attacker, Actor)> {
    Ok((
        Attacker::start(lab, place, address)?,
        Actor::start(lab, place, address)?,
    ))
}

/// What is the same in most modes: the bridge's.
fn spot(scene: &Scene, (attacker, owner): (Attacker, Actor)) -> Result<Spot> {
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
