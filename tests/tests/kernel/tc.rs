//! TC on the host side of container interfaces: what no cgroup hook sees.

use std::net::{SocketAddr, SocketAddrV4};

use enforcer_common::{
    event::{Hook, Outcome},
    verdict::Reason,
};
use enforcer_tests::{
    actor::{
        Actor, Attempt, Family, Patience,
        packet::{ACK, double_tagged, syn_packet, tcp_packet, udp_packet, untagged, without_length},
    },
    audit::Record,
    scene::Scene,
    topology::{BRIDGE_HARDWARE, ENDPOINT, IMDS, IMDS_OVER_V6, IMDS_V4, STEER},
};

use crate::{REFUSAL, assert_nothing_reached_the_metadata_service, recorded};

/// A scene whose container is there before the enforcer: the enforcer is ready when it watches the container's link.
fn scene_with_container(task: &str) -> (Scene, Actor) {
    let mut scene = Scene::builder()
        .task("web")
        .task("batch")
        .outside_task("stray")
        .prepare()
        .unwrap();
    let container = scene.bridge_container(task).unwrap();
    scene.enforcer().start().unwrap();
    (scene, container)
}

fn send_syn_to_steer_port(container: &mut Actor) {
    let SocketAddr::V4(steer) = STEER else {
        panic!("the endpoint is IPv4")
    };
    let packet = syn_packet(SocketAddrV4::new(container.address(), 4000), steer);
    assert_eq!(
        container.frame("eth0", BRIDGE_HARDWARE, untagged(&packet)).unwrap(),
        Attempt::Done
    );
}

fn is_drop(record: &Record) -> bool {
    record.hook.as_deref() == Some(Hook::TcIngress.name()) && record.is_verdict(Outcome::Dropped.name())
}

#[test]
fn frames_of_a_container_do_not_reach_the_metadata_service() {
    let (mut scene, mut web) = scene_with_container("web");
    let (from, to) = (SocketAddrV4::new(web.address(), 4000), SocketAddrV4::new(IMDS_V4, 80));
    for packet in [udp_packet(from, to, b"lab!"), syn_packet(from, to)] {
        assert_eq!(
            web.frame("eth0", BRIDGE_HARDWARE, untagged(&packet)).unwrap(),
            Attempt::Done
        );
    }
    recorded(&scene, Hook::TcIngress, Outcome::Dropped, Reason::RawPacket, "web");
    assert_nothing_reached_the_metadata_service(&mut scene);
}

#[test]
fn frames_below_stacked_tags_do_not_reach_the_metadata_service() {
    let (mut scene, mut web) = scene_with_container("web");
    let (from, to) = (SocketAddrV4::new(web.address(), 4000), SocketAddrV4::new(IMDS_V4, 80));
    for packet in [udp_packet(from, to, b"lab!"), syn_packet(from, to)] {
        let frame = double_tagged(&packet);
        assert_eq!(web.frame("eth0", BRIDGE_HARDWARE, frame).unwrap(), Attempt::Done);
    }
    recorded(&scene, Hook::TcIngress, Outcome::Dropped, Reason::StackedTags, "web");
    assert_nothing_reached_the_metadata_service(&mut scene);
}

#[test]
fn frames_cannot_acknowledge_or_feed_a_connection_to_the_steer_port() {
    let (scene, mut web) = scene_with_container("web");
    let SocketAddr::V4(steer) = STEER else {
        panic!("the endpoint is IPv4")
    };
    let from = SocketAddrV4::new(web.address(), 4000);
    let request = tcp_packet(from, steer, ACK, b"GET /v2/credentials/x HTTP/1.0\r\n\r\n");
    for packet in [tcp_packet(from, steer, ACK, &[]), without_length(&request), request] {
        let last = scene.audit().records().unwrap().len();
        assert_eq!(
            web.frame("eth0", BRIDGE_HARDWARE, untagged(&packet)).unwrap(),
            Attempt::Done
        );
        let is_news = |record: &Record| is_drop(record) && record.seq > last as u64;
        let record = scene.audit().wait_for(is_news).unwrap();
        assert_eq!(record.reason.as_deref(), Some(Reason::SenderMismatch.name()));
    }
}

#[test]
fn a_frame_to_the_steer_port_is_dropped() {
    let (scene, mut web) = scene_with_container("web");
    send_syn_to_steer_port(&mut web);
    let record = scene.audit().wait_for(is_drop).unwrap();
    assert!(record.is_to(STEER.ip()), "{record:?}");
}

#[test]
fn a_container_that_comes_later_is_watched_too() {
    let scene = crate::scene();
    let mut web = scene.bridge_container("web").unwrap();
    // The link is noticed a moment after it came. Until then these frames reach a port that is not theirs.
    let is_watched = (0..10_000).any(|_| {
        send_syn_to_steer_port(&mut web);
        scene.audit().records().unwrap().iter().any(is_drop)
    });
    assert!(is_watched);
}

#[test]
fn an_ordinary_connection_raises_no_alarm() {
    let (mut scene, mut web) = scene_with_container("web");
    let path = scene.task("web").unwrap().path();
    for _ in 0..5 {
        assert_eq!(web.get(&path).unwrap().status, 200);
    }
    // The server's part of closing is over when the enforcer has stopped.
    assert!(scene.enforcer().terminate().unwrap().success());
    let alarms: Vec<_> = scene.audit().records().unwrap().into_iter().filter(is_drop).collect();
    assert!(alarms.is_empty(), "{alarms:?}");
}

#[test]
fn a_client_outside_the_attach_root_is_steered_by_packet() {
    let (scene, mut actor) = scene_with_container("stray");
    let (stray, web) = (scene.task("stray").unwrap(), scene.task("web").unwrap());
    assert!(stray.is_served_by(&actor.get(&stray.path()).unwrap()));
    assert_eq!(actor.get(&web.path()).unwrap().body_text(), REFUSAL);
    recorded(
        &scene,
        Hook::TcIngress,
        Outcome::Steered,
        Reason::CredentialEndpoint,
        "stray",
    );
}

#[test]
fn every_request_of_a_packet_steered_connection_is_decided_on_its_own() {
    use enforcer_tests::http::Request;

    let (scene, mut actor) = scene_with_container("stray");
    let (stray, web) = (scene.task("stray").unwrap(), scene.task("web").unwrap());
    let socket = actor.connected(ENDPOINT).unwrap();
    for _ in 0..3 {
        assert!(stray.is_served_by(&actor.request(socket, &Request::get(&stray.path())).unwrap()));
        assert_eq!(
            actor.request(socket, &Request::get(&web.path())).unwrap().body_text(),
            REFUSAL
        );
    }
}

#[test]
fn a_client_outside_the_attach_root_does_not_reach_the_metadata_service() {
    let (mut scene, mut actor) = scene_with_container("stray");
    for address in [IMDS, IMDS_OVER_V6] {
        let socket = actor.open(Family::of(address)).unwrap();
        let source = match address {
            SocketAddr::V4(_) => "0.0.0.0:40001",
            SocketAddr::V6(_) => "[::]:40001",
        };
        actor
            .connect_from(socket, source.parse().unwrap(), address, Patience::Leave)
            .unwrap();
        let record = scene
            .audit()
            .wait_for(|record| is_drop(record) && record.is_to(address.ip()))
            .unwrap();
        assert!(record.is_of("stray"), "{record:?}");
    }
    assert_nothing_reached_the_metadata_service(&mut scene);
}
