//! `cgroup_skb` egress: packets no socket hook sees.

use std::net::{SocketAddr, SocketAddrV4};

use enforcer_common::{
    event::{Hook, Outcome},
    verdict::Reason,
};
use enforcer_tests::{
    actor::{
        Actor, Attempt, HeaderFrom,
        packet::{syn_packet, udp, udp_packet},
    },
    audit::Record,
    scene::Scene,
    topology::{AGENT, ENDPOINT, IMDS_V4, STEER},
};

use crate::{EPERM, assert_nothing_reached_the_metadata_service, recorded, scene};

fn raw_packets_to_the_metadata_service(actor: &mut Actor) -> [Attempt; 2] {
    let (from, to) = (SocketAddrV4::new(actor.address(), 4000), SocketAddrV4::new(IMDS_V4, 80));
    [
        actor
            .raw(IMDS_V4, HeaderFrom::Sender, udp_packet(from, to, b"lab!"))
            .unwrap(),
        actor.raw(IMDS_V4, HeaderFrom::Kernel, udp(4000, 80, b"lab!")).unwrap(),
    ]
}

fn cannot_send_raw_packets(scene: &mut Scene, actor: &mut Actor) {
    assert_eq!(raw_packets_to_the_metadata_service(actor), [EPERM; 2]);
    recorded(scene, Hook::Egress, Outcome::Dropped, Reason::RawPacket, "web");
    assert_nothing_reached_the_metadata_service(scene);
}

#[test]
fn raw_packets_of_a_bridge_container_do_not_reach_the_metadata_service() {
    let mut scene = scene();
    let mut web = scene.bridge_container("web").unwrap();
    cannot_send_raw_packets(&mut scene, &mut web);
}

#[test]
fn raw_packets_of_a_host_mode_container_do_not_reach_the_metadata_service() {
    let mut scene = scene();
    let mut web = scene.host_container("web").unwrap();
    cannot_send_raw_packets(&mut scene, &mut web);
}

#[test]
fn raw_packets_of_a_host_process_reach_the_metadata_service() {
    let mut scene = scene();
    let mut host = scene.host_process().unwrap();
    assert_eq!(raw_packets_to_the_metadata_service(&mut host), [Attempt::Done; 2]);
    assert_eq!(scene.imds_hits().unwrap().datagrams, 2);
    let is_recorded = |record: &Record| {
        record.hook.as_deref() == Some(Hook::Egress.name()) && record.is_verdict(Outcome::Allowed.name())
    };
    scene.audit().wait_for(is_recorded).unwrap();
}

#[test]
fn a_handmade_connection_to_the_steer_port_is_dropped() {
    let scene = scene();
    let mut web = scene.bridge_container("web").unwrap();
    let from = SocketAddrV4::new(web.address(), 4000);
    let SocketAddr::V4(steer) = STEER else {
        panic!("the endpoint is IPv4")
    };
    assert_eq!(
        web.raw(*steer.ip(), HeaderFrom::Sender, syn_packet(from, steer))
            .unwrap(),
        EPERM
    );
    let record = scene
        .audit()
        .wait_for(|record| record.is_verdict(Outcome::Dropped.name()))
        .unwrap();
    assert!(record.is_of("web") && record.is_to(*steer.ip()), "{record:?}");
}

#[test]
fn a_host_mode_container_cannot_go_around_the_enforcer_to_the_agent() {
    let scene = Scene::builder().task("web").in_front_of_ecs_agent().start().unwrap();
    let mut web = scene.host_container("web").unwrap();
    assert_eq!(web.connect(AGENT).unwrap(), EPERM);
    recorded(&scene, Hook::Connect4, Outcome::Denied, Reason::AgentDirect, "web");
    for to in [AGENT, ENDPOINT] {
        let SocketAddr::V4(to) = to else {
            panic!("the agent is IPv4")
        };
        let packet = syn_packet(SocketAddrV4::new(web.address(), 4000), to);
        assert_eq!(web.raw(*to.ip(), HeaderFrom::Sender, packet).unwrap(), EPERM, "{to}");
    }
    recorded(&scene, Hook::Egress, Outcome::Dropped, Reason::RawPacket, "web");
}
