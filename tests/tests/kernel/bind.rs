//! `bind4` and `bind6`: who may listen where the enforcer does.

use std::net::SocketAddr;

use enforcer_common::{
    event::{Hook, Outcome},
    verdict::Reason,
};
use enforcer_tests::{
    actor::{Actor, Attempt, Family, Patience},
    topology::STEER,
};

use crate::{EPERM, recorded, scene};

/// Nobody listens there.
const ELSEWHERE: &str = "127.0.0.1:9";
const ELSEWHERE_OVER_V6: &str = "[::1]:9";

/// Binds to an address; connecting from there is only the actor's way to do it.
fn bind(actor: &mut Actor, to: SocketAddr) -> Attempt {
    let elsewhere = if to.is_ipv4() { ELSEWHERE } else { ELSEWHERE_OVER_V6 };
    let socket = actor.open(Family::of(to)).unwrap();
    let attempt = actor
        .connect_from(socket, to, elsewhere.parse().unwrap(), Patience::Wait)
        .unwrap();
    actor.close(socket).unwrap();
    attempt
}

fn steer_ports_of_any_address() -> [SocketAddr; 3] {
    [
        STEER,
        SocketAddr::new("0.0.0.0".parse().unwrap(), STEER.port()),
        SocketAddr::new("::".parse().unwrap(), STEER.port()),
    ]
}

#[test]
fn a_host_mode_container_cannot_take_the_steer_port_of_a_dead_enforcer() {
    let mut scene = scene();
    let mut batch = scene.host_container("batch").unwrap();
    let mut web = scene.bridge_container("web").unwrap();
    scene.enforcer().kill().unwrap();
    for address in steer_ports_of_any_address() {
        assert_eq!(bind(&mut batch, address), EPERM, "{address}");
    }
    scene.enforcer().start().unwrap();
    recorded(&scene, Hook::Bind4, Outcome::Denied, Reason::SteerPortBind, "batch");
    recorded(&scene, Hook::Bind6, Outcome::Denied, Reason::SteerPortBind, "batch");
    let task = scene.task("web").unwrap();
    assert!(task.is_served_by(&web.get(&task.path()).unwrap()));
}

#[test]
fn a_containers_own_namespace_is_its_own_affair() {
    let scene = scene();
    let mut web = scene.bridge_container("web").unwrap();
    for address in steer_ports_of_any_address().into_iter().skip(1) {
        assert_ne!(bind(&mut web, address), EPERM, "{address}");
    }
}
