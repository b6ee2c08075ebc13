//! Observing: the same decisions and records, but nothing is blocked. And exceptions: some may use the metadata service.

use std::net::SocketAddrV4;

use enforcer_common::{
    event::{Hook, Outcome},
    verdict::Reason,
};
use enforcer_tests::{
    actor::{
        Actor, Attempt, DatagramStyle, HeaderFrom,
        packet::{udp, udp_packet, untagged},
    },
    audit::Record,
    imds::{ROLE, instance_role},
    scene::Scene,
    topology::{BRIDGE_HARDWARE, IMDS, IMDS_OVER_V6, IMDS_V4},
};

use crate::{EPERM, recorded};

/// Records of the kernel side about the task after some that are not asked for; there are two at least. What its kernel
/// says by itself belongs to no task.
fn records_since(scene: &Scene, before: usize) -> Vec<Record> {
    let is_later = |record: &Record, seq: u64| record.seq > seq && record.source == "kernel" && record.is_of("web");
    let first = scene
        .audit()
        .wait_for(|record| is_later(record, before as u64))
        .unwrap();
    scene.audit().wait_for(|record| is_later(record, first.seq)).unwrap();
    let records = scene.audit().records().unwrap();
    records
        .into_iter()
        .filter(|record| is_later(record, before as u64))
        .collect()
}

fn uses_the_metadata_service_and_is_recorded(scene: &mut Scene, web: &mut Actor) {
    for (address, hook) in [(IMDS, Hook::Connect4), (IMDS_OVER_V6, Hook::Connect6)] {
        let before = scene.audit().records().unwrap().len();
        assert_eq!(instance_role(web, address).unwrap(), ROLE);
        recorded(scene, hook, Outcome::WouldDeny, Reason::ImdsBlocked, "web");
        // Two connections: their packets are no news.
        let records = records_since(scene, before);
        assert_eq!(records.len(), 2, "{records:?}");
    }
    let before = scene.audit().records().unwrap().len();
    for style in [DatagramStyle::Connected, DatagramStyle::Unconnected] {
        assert_eq!(web.datagram(IMDS, style).unwrap(), Attempt::Done);
    }
    recorded(scene, Hook::Sendmsg4, Outcome::WouldDeny, Reason::ImdsBlocked, "web");
    let records = records_since(scene, before);
    assert_eq!(records.len(), 2, "{records:?}");
    assert_eq!(scene.imds_hits().unwrap().datagrams, 2);
}

#[test]
fn in_observe_mode_containers_use_the_metadata_service_and_are_recorded() {
    let mut scene = Scene::builder().task("web").observing().start().unwrap();
    let mut web = scene.bridge_container("web").unwrap();
    uses_the_metadata_service_and_is_recorded(&mut scene, &mut web);
}

#[test]
fn an_observed_task_uses_the_metadata_service_and_the_others_do_not() {
    let mut scene = Scene::builder().observed_task("web").task("batch").start().unwrap();
    let mut web = scene.host_container("web").unwrap();
    uses_the_metadata_service_and_is_recorded(&mut scene, &mut web);
    let mut batch = scene.host_container("batch").unwrap();
    assert_eq!(batch.connect(IMDS).unwrap(), EPERM);
    recorded(&scene, Hook::Connect4, Outcome::Denied, Reason::ImdsBlocked, "batch");
}

#[test]
fn an_observed_tasks_raw_packets_arrive_and_are_recorded_once() {
    let mut scene = Scene::builder().observed_task("web").prepare().unwrap();
    let mut web = scene.bridge_container("web").unwrap();
    scene.enforcer().start().unwrap();
    assert_eq!(
        web.raw(IMDS_V4, HeaderFrom::Kernel, udp(4000, 80, b"lab!")).unwrap(),
        Attempt::Done
    );
    let record = recorded(&scene, Hook::Egress, Outcome::WouldDrop, Reason::RawPacket, "web");
    let (from, to) = (SocketAddrV4::new(web.address(), 4000), SocketAddrV4::new(IMDS_V4, 80));
    let frame = untagged(&udp_packet(from, to, b"lab!"));
    assert_eq!(web.frame("eth0", BRIDGE_HARDWARE, frame).unwrap(), Attempt::Done);
    // That nobody listens to the echo is for its kernel to say; what a kernel says by itself belongs to no task.
    let is_next = |next: &Record| {
        next.seq > record.seq && next.is_kernel(Hook::TcIngress, Reason::RawPacket) && next.is_of("web")
    };
    let next = scene.audit().wait_for(is_next).unwrap();
    assert!(next.is_verdict(Outcome::WouldDrop.name()), "{next:?}");
    assert_eq!(scene.imds_hits().unwrap().datagrams, 2);
}

#[test]
fn an_observed_task_gets_its_own_credentials() {
    let scene = Scene::builder().observed_task("web").start().unwrap();
    let mut web = scene.bridge_container("web").unwrap();
    let task = scene.task("web").unwrap();
    assert!(task.is_served_by(&web.get(&task.path()).unwrap()));
    recorded(
        &scene,
        Hook::Connect4,
        Outcome::Steered,
        Reason::CredentialEndpoint,
        "web",
    );
}

#[test]
fn an_excepted_task_uses_the_metadata_service_and_each_use_is_recorded() {
    let mut scene = Scene::builder().excepted_task("web").task("batch").prepare().unwrap();
    let mut web = scene.bridge_container("web").unwrap();
    scene.enforcer().start().unwrap();
    assert_eq!(instance_role(&mut web, IMDS).unwrap(), ROLE);
    recorded(&scene, Hook::Connect4, Outcome::Allowed, Reason::Exception, "web");
    assert_eq!(
        web.raw(IMDS_V4, HeaderFrom::Kernel, udp(4000, 80, b"lab!")).unwrap(),
        Attempt::Done
    );
    recorded(&scene, Hook::Egress, Outcome::Allowed, Reason::Exception, "web");
    let (from, to) = (SocketAddrV4::new(web.address(), 4000), SocketAddrV4::new(IMDS_V4, 80));
    let frame = untagged(&udp_packet(from, to, b"lab!"));
    assert_eq!(web.frame("eth0", BRIDGE_HARDWARE, frame).unwrap(), Attempt::Done);
    recorded(&scene, Hook::TcIngress, Outcome::Allowed, Reason::Exception, "web");
    let mut batch = scene.bridge_container("batch").unwrap();
    assert_eq!(batch.connect(IMDS).unwrap(), EPERM);
    assert_eq!(scene.imds_hits().unwrap().datagrams, 2);
}
