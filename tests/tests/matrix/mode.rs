//! The network modes that need nothing but a kernel: where the attacker sits, and what it knows of its place.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use enforcer_tests::{
    actor::Actor,
    scene::Scene,
    topology::{AGENT, DIRECT_HARDWARE, SECOND_HARDWARE, isolated},
};

use super::spot::{ATTACKER, Spot, VICTIM, spot, start};

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
