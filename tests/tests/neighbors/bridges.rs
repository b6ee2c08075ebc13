//! The matrix in a real engine's bridge networks: the attacker is where a container of the engine is, with more
//! capabilities than the engine gives one.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use enforcer_tests::{
    actor::Attempt,
    cgroup,
    docker::{Container, Docker, Iptables, Link},
    namespace::NetNs,
    scene::Scene,
};
use nix::errno::Errno;

use crate::matrix::{
    cell::{check, needs_no_agent, prepare},
    spot::{ATTACKER, Spot, spot, start},
};

/// A port nobody listens on.
const CLOSED: u16 = 9;

#[test]
fn nothing_gets_past_from_the_engines_default_bridge() {
    check_in("bridge, Docker's default", |_| ("bridge", "docker0".to_owned()));
}

#[test]
fn nothing_gets_past_from_a_user_defined_network() {
    check_in("bridge, Docker's user-defined", |docker| {
        let options = ["--ipv6", "--subnet", "fd78::/64"];
        ("shop", docker.network_create("shop", &options).unwrap())
    });
}

/// Tries everything from the place of a container in a network, which is told with its bridge.
fn check_in(mode: &str, network: impl FnOnce(&Docker) -> (&'static str, String)) {
    let mut scene = prepare(Scene::builder());
    let docker = Docker::start(&scene, Iptables::Nft).unwrap();
    let (network, bridge) = network(&docker);
    let mut container = docker.run(ATTACKER, network, &[]).unwrap();
    let spot = settle(&scene, &mut container, &bridge).unwrap();
    check(mode, &mut scene, spot, needs_no_agent);
}

/// Puts the attacker into the container's place. Where that has no IPv6, its addresses there are some that nobody has.
fn settle(scene: &Scene, container: &mut Container, bridge: &str) -> Result<Spot> {
    let network = NetNs::of_process(container.pid())?;
    let cgroup = cgroup::of_process(container.pid())?;
    let mut spot = spot(scene, scene.start(&cgroup, &network, container.address(), start)?)?;
    let Link {
        gateway,
        address_v6,
        gateway_v6,
        ..
    } = container.link();
    spot.ground.bystander = gateway.context("the container has no gateway")?;
    await_neighbor(container, (spot.ground.bystander, CLOSED).into())?;
    if let (Some(address), Some(gateway)) = (address_v6, gateway_v6) {
        (spot.ground.own_v6, spot.ground.bystander_v6) = (address, gateway);
        await_neighbor(container, (gateway, CLOSED).into())?;
    }
    spot.ground.next_hop = scene.host_network().hardware(bridge)?;
    Ok(spot)
}

/// Both sides know each other's hardware address when the neighbor has said that nobody listens. As long as the kernel
/// looks whether another has the neighbor's address, nobody answers.
fn await_neighbor(container: &mut Container, to: SocketAddr) -> Result<()> {
    loop {
        match container.connect(to)? {
            Attempt::Refused(Errno::ECONNREFUSED) => return Ok(()),
            Attempt::Refused(Errno::EHOSTUNREACH) => {}
            unexpected @ (Attempt::Done | Attempt::Refused(_)) => {
                bail!("{to} is no neighbor of {}: {unexpected:?}", container.name())
            }
        }
    }
}
