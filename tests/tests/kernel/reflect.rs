//! What a container brings its kernel to say to the metadata service: answers to packets that claim to come from there.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};

use enforcer_common::{
    event::{Hook, Outcome},
    verdict::Reason,
};
use enforcer_tests::{
    actor::{
        Actor, Attempt,
        packet::{echo_request, echo_request_v6, syn_packet, udp_packet, untagged, untagged_v6},
    },
    scene::Scene,
    topology::{IMDS_V4, IMDS_V6},
};

use crate::assert_nothing_reached_the_metadata_service;

/// Puts packets from the metadata service to the container on its loopback device, which each get an answer: echoes, a
/// reset and an error.
fn assert_answers_are_dropped(scene: &mut Scene, web: &mut Actor, own: (Ipv4Addr, Ipv6Addr), hook: Hook) {
    let (from, to) = (SocketAddrV4::new(IMDS_V4, 4000), SocketAddrV4::new(own.0, 4000));
    for carried in [
        untagged(&echo_request(IMDS_V4, own.0)),
        untagged_v6(&echo_request_v6(IMDS_V6, own.1)),
        untagged(&syn_packet(from, to)),
        untagged(&udp_packet(from, to, b"lab!")),
    ] {
        let before = scene.audit().records().unwrap().len();
        assert_eq!(web.frame("lo", [0; 6], carried).unwrap(), Attempt::Done);
        let record = scene.audit().next_after(before).unwrap();
        assert!(record.is_kernel(hook, Reason::RawPacket), "{record:?}");
        assert!(record.is_verdict(Outcome::Dropped.name()), "{record:?}");
        assert!(record.is_to(IMDS_V4) || record.is_to(IMDS_V6), "{record:?}");
    }
    assert_nothing_reached_the_metadata_service(scene);
}

#[test]
fn the_kernel_of_a_container_on_a_bridge_does_not_answer_the_metadata_service() {
    let mut scene = Scene::builder().task("web").prepare().unwrap();
    let mut web = scene.bridge_container("web").unwrap();
    let [.., last] = web.address().octets();
    let own = (web.address(), Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, last.into()));
    scene.enforcer().start().unwrap();
    assert_answers_are_dropped(&mut scene, &mut web, own, Hook::TcIngress);
}

#[test]
fn the_kernel_of_a_container_with_a_network_card_of_its_own_does_not_answer_the_metadata_service() {
    let mut scene = Scene::builder().task("web").prepare().unwrap();
    let (namespace, card, source) = scene.topology().awsvpc().unwrap();
    let mut web = scene.in_container("web", &namespace, source, Actor::start).unwrap();
    scene.enforcer().start().unwrap();
    assert_answers_are_dropped(&mut scene, &mut web, card.near, Hook::TcDevice);
}
