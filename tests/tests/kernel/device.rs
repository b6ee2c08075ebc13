//! TC egress of the host's own devices: what a packet socket in the host's network namespace puts there.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use enforcer_common::{
    event::{Hook, Outcome},
    verdict::Reason,
};
use enforcer_tests::{
    actor::{
        Attempt,
        packet::{double_tagged, syn_packet, udp_packet, untagged},
    },
    scene::Scene,
    topology::{AGENT, IMDS_HARDWARE, IMDS_V4},
};
use nix::errno::Errno;

use crate::{assert_nothing_reached_the_metadata_service, recorded, scene};

/// Nobody's address, so that a packet from there can be taken for one from outside.
const OUTSIDER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 77, 0, 200), 4000);
const TO_IMDS: SocketAddrV4 = SocketAddrV4::new(IMDS_V4, 80);
const LOOPBACK_HARDWARE: [u8; 6] = [0; 6];
/// What the sender of a frame is told that TC drops.
const DROPPED: Attempt = Attempt::Refused(Errno::ENOBUFS);

#[test]
fn frames_of_a_host_mode_container_do_not_reach_the_metadata_service() {
    let mut scene = scene();
    let mut web = scene.host_container("web").unwrap();
    let packet = udp_packet(OUTSIDER, TO_IMDS, b"lab!");
    for (interface, hardware) in [("imds0", IMDS_HARDWARE), ("lo", LOOPBACK_HARDWARE)] {
        for (frame, reason) in [
            (untagged(&packet), Reason::RawPacket),
            (double_tagged(&packet), Reason::StackedTags),
        ] {
            let before = scene.audit().records().unwrap().len();
            assert_eq!(web.frame(interface, hardware, frame).unwrap(), DROPPED);
            let record = scene.audit().next_after(before).unwrap();
            assert!(record.is_kernel(Hook::TcUplink, reason), "{interface}: {record:?}");
            assert!(record.is_verdict(Outcome::Dropped.name()) && record.is_of("web"));
        }
    }
    assert_nothing_reached_the_metadata_service(&mut scene);
}

#[test]
fn a_host_mode_container_cannot_go_around_the_enforcer_to_the_agent_by_frames() {
    let scene = Scene::builder().task("web").in_front_of_ecs_agent().start().unwrap();
    let mut web = scene.host_container("web").unwrap();
    let SocketAddr::V4(agent) = AGENT else {
        panic!("the agent is IPv4")
    };
    let packet = syn_packet(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 4000), agent);
    assert_eq!(web.frame("lo", LOOPBACK_HARDWARE, untagged(&packet)).unwrap(), DROPPED);
    recorded(&scene, Hook::TcUplink, Outcome::Dropped, Reason::RawPacket, "web");
}

#[test]
fn frames_of_a_host_service_reach_the_metadata_service_and_are_recorded() {
    let mut scene = scene();
    let mut host = scene.host_process().unwrap();
    let frame = untagged(&udp_packet(OUTSIDER, TO_IMDS, b"lab!"));
    assert_eq!(host.frame("imds0", IMDS_HARDWARE, frame).unwrap(), Attempt::Done);
    let record = scene
        .audit()
        .wait_for(|record| record.is_kernel(Hook::TcUplink, Reason::HostCgroup))
        .unwrap();
    assert!(record.is_verdict(Outcome::Allowed.name()));
    assert_eq!(scene.imds_hits().unwrap().datagrams, 1);
}
