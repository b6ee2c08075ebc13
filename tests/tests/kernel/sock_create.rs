//! `cgroup/sock_create`: protocols containers get no sockets of.

use enforcer_common::{
    event::{Hook, Outcome},
    verdict::{Reason, UDP},
};
use enforcer_tests::{actor::Attempt, scene::Scene};
use nix::libc::{IPPROTO_DCCP, IPPROTO_SCTP, IPPROTO_UDPLITE};

use crate::{EPERM, recorded, scene};

#[test]
fn a_container_gets_no_udp_lite_socket_and_a_host_service_does() {
    let scene = scene();
    let mut web = scene.bridge_container("web").unwrap();
    let before_us = scene.host_process().unwrap().create(IPPROTO_UDPLITE).unwrap();
    // Without UDP-Lite in the kernel both are told so.
    let expected = if before_us == Attempt::Done { EPERM } else { before_us };
    assert_eq!(web.create(IPPROTO_UDPLITE).unwrap(), expected);
    if expected == EPERM {
        recorded(&scene, Hook::SockCreate, Outcome::Denied, Reason::SocketProtocol, "web");
    }
}

#[test]
fn no_container_gets_a_socket_of_a_protocol_that_passes_no_connect_hook() {
    let scene = scene();
    let mut web = scene.bridge_container("web").unwrap();
    for protocol in [IPPROTO_SCTP, IPPROTO_DCCP] {
        assert_ne!(web.create(protocol).unwrap(), Attempt::Done, "{protocol}");
    }
}

#[test]
fn a_raw_socket_of_a_denied_protocol_is_none_either() {
    let scene = scene();
    let mut web = scene.bridge_container("web").unwrap();
    assert_eq!(web.create_raw(IPPROTO_SCTP).unwrap(), EPERM);
    let record = recorded(&scene, Hook::SockCreate, Outcome::Denied, Reason::SocketProtocol, "web");
    assert_eq!(record.destination.unwrap().protocol.as_deref(), Some("132"));
    assert_eq!(record.sender.unwrap().pid, web.pid());
    for allowed in [web.create_raw(UDP.into()), web.create(UDP.into())] {
        assert_eq!(allowed.unwrap(), Attempt::Done);
    }
    assert_eq!(
        scene.host_process().unwrap().create_raw(IPPROTO_SCTP).unwrap(),
        Attempt::Done
    );
}

#[test]
fn an_observed_task_gets_its_sockets_and_is_recorded() {
    let scene = Scene::builder().observed_task("web").start().unwrap();
    let mut web = scene.bridge_container("web").unwrap();
    assert_eq!(web.create_raw(IPPROTO_SCTP).unwrap(), Attempt::Done);
    recorded(
        &scene,
        Hook::SockCreate,
        Outcome::WouldDeny,
        Reason::SocketProtocol,
        "web",
    );
}
