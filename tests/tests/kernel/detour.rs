//! Packets that do not end where their header says, or do not come from there.

use std::net::{Ipv4Addr, SocketAddrV4, SocketAddrV6};

use enforcer_common::{
    event::{Hook, Outcome},
    verdict::Reason,
};
use enforcer_tests::{
    actor::{
        Actor, Attempt, HeaderFrom,
        packet::{extended_packet, source_routed_packet, udp_packet, untagged, untagged_v6},
    },
    scene::Scene,
    topology::{BRIDGE_HARDWARE, BRIDGE_V4, BRIDGE_V6, IMDS_V4, IMDS_V6},
};

use crate::{EPERM, assert_nothing_reached_the_metadata_service, recorded};

const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;
const ANYWHERE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 200);

fn scene_with_container() -> (Scene, Actor) {
    let mut scene = Scene::builder().task("web").prepare().unwrap();
    let web = scene.bridge_container("web").unwrap();
    scene.enforcer().start().unwrap();
    (scene, web)
}

fn send(web: &mut Actor, carried: Vec<u8>) {
    assert_eq!(web.frame("eth0", BRIDGE_HARDWARE, carried).unwrap(), Attempt::Done);
}

#[test]
fn a_source_routed_packet_goes_nowhere() {
    let (mut scene, mut web) = scene_with_container();
    let from = SocketAddrV4::new(web.address(), 4000);
    for (to, onwards) in [(BRIDGE_V4, IMDS_V4), (IMDS_V4, BRIDGE_V4), (BRIDGE_V4, ANYWHERE)] {
        let packet = source_routed_packet(from, SocketAddrV4::new(to, 80), onwards);
        send(&mut web, untagged(&packet));
        assert_eq!(web.raw(to, HeaderFrom::Sender, packet).unwrap(), EPERM, "{to}");
    }
    for hook in [Hook::TcIngress, Hook::Egress] {
        let record = recorded(&scene, hook, Outcome::Dropped, Reason::SourceRoute, "web");
        assert!(record.is_to(BRIDGE_V4), "{record:?}");
    }
    assert_nothing_reached_the_metadata_service(&mut scene);
}

#[test]
fn a_packet_with_a_routing_header_or_an_endless_chain_goes_nowhere() {
    let (mut scene, mut web) = scene_with_container();
    let from = SocketAddrV6::new("fd77::200".parse().unwrap(), 4000, 0, 0);
    let too_long = [DESTINATION_OPTIONS; 20];
    for headers in [&[ROUTING][..], &[DESTINATION_OPTIONS, ROUTING], &too_long] {
        let before = scene.audit().records().unwrap().len();
        let packet = extended_packet(from, SocketAddrV6::new(BRIDGE_V6, 80, 0, 0), headers);
        send(&mut web, untagged_v6(&packet));
        let record = scene.audit().next_after(before).unwrap();
        assert!(record.is_kernel(Hook::TcIngress, Reason::SourceRoute), "{record:?}");
        assert!(record.is_verdict(Outcome::Dropped.name()) && record.is_of("web"));
    }
    assert_nothing_reached_the_metadata_service(&mut scene);
}

#[test]
fn extension_headers_hide_no_packet_to_the_metadata_service() {
    let (mut scene, mut web) = scene_with_container();
    let from = SocketAddrV6::new("fd77::200".parse().unwrap(), 4000, 0, 0);
    for headers in [
        &[DESTINATION_OPTIONS][..],
        &[FRAGMENT],
        &[DESTINATION_OPTIONS, FRAGMENT],
    ] {
        let before = scene.audit().records().unwrap().len();
        let packet = extended_packet(from, SocketAddrV6::new(IMDS_V6, 80, 0, 0), headers);
        send(&mut web, untagged_v6(&packet));
        let record = scene.audit().next_after(before).unwrap();
        assert!(record.is_kernel(Hook::TcIngress, Reason::RawPacket), "{record:?}");
        let destination = record.destination.unwrap();
        assert_eq!(
            (destination.protocol.as_deref(), destination.port),
            (Some("udp"), if headers == [DESTINATION_OPTIONS] { 80 } else { 0 })
        );
    }
    assert_nothing_reached_the_metadata_service(&mut scene);
}

#[test]
fn a_packet_from_the_metadata_services_address_is_dropped() {
    let (mut scene, mut web) = scene_with_container();
    let packet = udp_packet(SocketAddrV4::new(IMDS_V4, 80), SocketAddrV4::new(BRIDGE_V4, 9), b"lab!");
    send(&mut web, untagged(&packet));
    let record = recorded(&scene, Hook::TcIngress, Outcome::Dropped, Reason::SpoofedSource, "web");
    assert!(record.is_to(BRIDGE_V4), "{record:?}");
    assert_nothing_reached_the_metadata_service(&mut scene);
}
