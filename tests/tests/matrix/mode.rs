//! The network modes: where the attacker sits, and what it knows of its place.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use enforcer_tests::{
    attacker::{Attacker, Endpoint, Ground},
    scene::Scene,
    topology::{
        AGENT, BRIDGE_HARDWARE, BRIDGE_V4, BRIDGE_V6, DIRECT_HARDWARE, ENDPOINT, IMDS_V4, IMDS_V6, PACKET_STEER,
        SECOND_HARDWARE, STEER, isolated,
    },
};

/// An attacker in its place.
pub(crate) struct Spot {
    pub(crate) attacker: Attacker,
    pub(crate) ground: Ground,
}

/// The task the attacker belongs to, and the one whose credentials it is after.
pub(crate) const ATTACKER: &str = "web";
pub(crate) const VICTIM: &str = "batch";

pub(crate) fn bridge(scene: &Scene) -> Result<Spot> {
    spot(scene, scene.in_bridge_container(ATTACKER, Attacker::start)?)
}

/// Frames leave by a device that is no veth, as they leave a real host.
pub(crate) fn host(scene: &Scene) -> Result<Spot> {
    let uplink = scene.topology().direct(&scene.topology().host, "uplink0")?;
    scene.topology().route_host_by("uplink0", uplink)?;
    let mut spot = spot(scene, scene.in_host_container(ATTACKER, Attacker::start)?)?;
    spot.ground.interface = "uplink0".to_owned();
    spot.ground.next_hop = DIRECT_HARDWARE;
    spot.ground.own = uplink.near.0;
    spot.ground.own_v6 = uplink.near.1;
    spot.ground.bystander = uplink.far.0;
    spot.ground.bystander_v6 = uplink.far.1;
    spot.ground.in_host_network = true;
    Ok(spot)
}

pub(crate) fn awsvpc(scene: &Scene) -> Result<Spot> {
    let (namespace, card) = scene.topology().awsvpc()?;
    let attacker = scene.in_container(ATTACKER, &namespace, card.near.0, Attacker::start)?;
    let mut spot = spot(scene, attacker)?;
    spot.ground.next_hop = DIRECT_HARDWARE;
    spot.ground.own_v6 = card.near.1;
    spot.ground.bystander = card.far.0;
    spot.ground.bystander_v6 = card.far.1;
    Ok(spot)
}

pub(crate) fn none(scene: &Scene) -> Result<Spot> {
    let attacker = scene.in_container(ATTACKER, &isolated()?, Ipv4Addr::LOCALHOST, Attacker::start)?;
    let mut spot = spot(scene, attacker)?;
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
    scene.in_container(VICTIM, network, address, Attacker::start)?;
    spot(scene, scene.in_container(ATTACKER, network, address, Attacker::start)?)
}

pub(crate) fn second_interface(scene: &Scene) -> Result<Spot> {
    let attachment = scene.topology().bridged()?;
    let (near, near_v6) = scene.topology().second_link(&attachment)?;
    let attacker = scene.in_container(ATTACKER, &attachment.namespace, near, Attacker::start)?;
    let mut spot = spot(scene, attacker)?;
    spot.ground.interface = "eth1".to_owned();
    spot.ground.next_hop = SECOND_HARDWARE;
    spot.ground.own_v6 = near_v6;
    Ok(spot)
}

/// What is the same in most modes: the bridge's.
fn spot(scene: &Scene, attacker: Attacker) -> Result<Spot> {
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
            steer_ports: [STEER.port(), PACKET_STEER.port()],
            agent_ports: vec![AGENT.port()],
            foreign: scene.task(VICTIM)?.path(),
        }),
        cgroup: attacker.cgroup().to_owned(),
        sibling: scene.new_container(VICTIM)?,
        outside: scene.trusted(),
        host_network: Some(scene.topology().host.path()),
    };
    Ok(Spot { attacker, ground })
}
