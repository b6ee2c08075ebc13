//! Programs of others at the same hooks: what holds all the same, and what is said where it does not.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
    path::PathBuf,
};

use enforcer_common::{
    event::{Hook, Outcome},
    verdict::Reason,
};
use enforcer_tests::{
    actor::{
        Actor, Attempt, DatagramStyle, Family, Patience,
        packet::{udp_packet, untagged},
    },
    audit::Record,
    foreign::{Kind, Program, Sharing},
    scene::Scene,
    topology::{BRIDGE_V4, ENDPOINT, IMDS, IMDS_OVER_V6, IMDS_V4, STEER},
};

use crate::{EPERM, NOBODY_THERE, assert_nothing_reached_the_metadata_service, recorded};

/// An address that nothing protects and where nobody listens.
const HARMLESS: SocketAddr = SocketAddr::new(IpAddr::V4(BRIDGE_V4), 80);

/// What a classifier returns to let a packet pass without asking the next one, and to ask it.
const PASS: i32 = 0;
const NEXT: i32 = -1;

fn prepared() -> Scene {
    Scene::builder().task("web").task("batch").prepare().unwrap()
}

fn rewrite(kind: Kind, from: Ipv4Addr, to: Ipv4Addr) -> Program {
    Program::rewriting("lab_rewrite", kind, from, to).unwrap()
}

/// The socket layer's promises.
fn assert_is_guarded(scene: &mut Scene, container: &mut Actor, task: &str) {
    for to in [IMDS, IMDS_OVER_V6] {
        assert_eq!(container.connect(to).unwrap(), EPERM);
        assert_eq!(container.datagram(to, DatagramStyle::Unconnected).unwrap(), EPERM);
    }
    let own = scene.task(task).unwrap();
    assert!(own.is_served_by(&container.get(&own.path()).unwrap()));
    assert_nothing_reached_the_metadata_service(scene);
}

#[test]
fn beside_programs_like_those_of_cilium_everything_works() {
    let mut scene = prepared();
    let attach = |place: PathBuf| {
        for kind in Kind::CILIUM {
            let program = Program::returning("lab_cilium", kind, 1).unwrap();
            program.attach(&place, Sharing::Shared).unwrap();
        }
    };
    attach(scene.directory().to_owned());
    attach(scene.root());
    scene.enforcer().start().unwrap();
    attach(scene.root());
    for task in ["web", "batch"] {
        let mut bridged = scene.bridge_container(task).unwrap();
        let mut host = scene.host_container(task).unwrap();
        assert_is_guarded(&mut scene, &mut bridged, task);
        assert_is_guarded(&mut scene, &mut host, task);
    }
}

#[test]
fn a_container_that_its_cgroup_takes_elsewhere_gets_there() {
    let mut scene = prepared();
    rewrite(Kind::Connect4, IMDS_V4, BRIDGE_V4)
        .attach(&scene.cgroup_of("web").unwrap(), Sharing::Shared)
        .unwrap();
    scene.enforcer().start().unwrap();
    let mut web = scene.bridge_container("web").unwrap();
    assert_eq!(web.connect(IMDS).unwrap(), NOBODY_THERE);
    assert_nothing_reached_the_metadata_service(&mut scene);
}

#[test]
fn a_container_that_its_cgroup_takes_to_the_metadata_service_is_refused() {
    let mut scene = prepared();
    let cgroup = scene.cgroup_of("web").unwrap();
    for kind in [Kind::Connect4, Kind::UdpSendmsg4] {
        let program = rewrite(kind, BRIDGE_V4, IMDS_V4);
        program.attach(&cgroup, Sharing::Shared).unwrap();
    }
    scene.enforcer().start().unwrap();
    let mut web = scene.bridge_container("web").unwrap();
    assert_eq!(web.connect(HARMLESS).unwrap(), EPERM);
    for style in [DatagramStyle::Connected, DatagramStyle::Unconnected] {
        assert_eq!(web.datagram(HARMLESS, style).unwrap(), EPERM);
    }
    for hook in [Hook::Connect4, Hook::Sendmsg4] {
        recorded(&scene, hook, Outcome::Denied, Reason::ImdsBlocked, "web");
    }
    assert_nothing_reached_the_metadata_service(&mut scene);
}

#[test]
fn what_is_taken_to_the_metadata_service_behind_our_back_is_dropped_as_a_packet() {
    let mut scene = prepared();
    scene.enforcer().start().unwrap();
    for kind in [Kind::Connect4, Kind::UdpSendmsg4] {
        let program = rewrite(kind, BRIDGE_V4, IMDS_V4);
        program.attach(&scene.root(), Sharing::Shared).unwrap();
    }
    let mut web = scene.bridge_container("web").unwrap();
    for style in [DatagramStyle::Connected, DatagramStyle::Unconnected] {
        assert_eq!(web.datagram(HARMLESS, style).unwrap(), EPERM);
    }
    let socket = web.open(Family::V4).unwrap();
    let source = SocketAddr::new(IpAddr::V4(web.address()), 40001);
    web.connect_from(socket, source, HARMLESS, Patience::Leave).unwrap();
    for protocol in ["udp", "tcp"] {
        let is_wanted = |record: &Record| {
            record.is_kernel(Hook::Egress, Reason::SocketLayerMissed)
                && record.is_verdict(Outcome::Dropped.name())
                && record.is_of("web")
                && record.is_to(IMDS_V4)
                && record.destination.as_ref().and_then(|to| to.protocol.as_deref()) == Some(protocol)
        };
        scene.audit().wait_for(is_wanted).unwrap();
    }
    assert_nothing_reached_the_metadata_service(&mut scene);
}

#[test]
fn what_is_taken_to_the_steer_port_behind_our_back_carries_no_identity() {
    let mut scene = prepared();
    scene.enforcer().start().unwrap();
    let IpAddr::V4(endpoint) = ENDPOINT.ip() else {
        panic!("the endpoint is IPv4")
    };
    rewrite(Kind::Connect4, BRIDGE_V4, endpoint)
        .attach(&scene.root(), Sharing::Shared)
        .unwrap();
    let mut web = scene.host_container("web").unwrap();
    let socket = web.open(Family::V4).unwrap();
    let to = SocketAddr::new(IpAddr::V4(BRIDGE_V4), STEER.port());
    let source = SocketAddr::new(IpAddr::V4(BRIDGE_V4), 40001);
    web.connect_from(socket, source, to, Patience::Leave).unwrap();
    let is_wanted = |record: &Record| {
        record.hook.as_deref() == Some(Hook::Egress.name()) && record.is_to(endpoint) && record.is_of("web")
    };
    let record = scene.audit().wait_for(is_wanted).unwrap();
    assert!(record.is_verdict(Outcome::Dropped.name()), "{record:?}");
}

#[test]
fn an_exclusive_program_above_keeps_the_enforcer_from_starting() {
    let mut scene = prepared();
    let program = Program::returning("lab_exclusive", Kind::Connect4, 1).unwrap();
    program.attach(scene.directory(), Sharing::Exclusive).unwrap();
    let refused = scene.enforcer().run(["run"]).unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success(), "{said}");
    for part in ["lab_exclusive", &format!("ID {}", program.id().unwrap()), "connect4"] {
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn a_classifier_that_was_there_first_does_not_let_frames_pass() {
    for answer in [PASS, NEXT] {
        let mut scene = prepared();
        let (mut web, attachment) = scene.routed_container("web", Ipv4Addr::new(10, 77, 2, 10)).unwrap();
        Program::returning("lab_classifier", Kind::Classifier, answer)
            .unwrap()
            .attach_to_ingress(scene.host_network(), &attachment.host_side, &scene.path("/sys/fs/bpf"))
            .unwrap();
        scene.enforcer().start().unwrap();
        send_frame(&scene, &mut web, &attachment.host_side);
        recorded(&scene, Hook::TcIngress, Outcome::Dropped, Reason::RawPacket, "web");
        assert_nothing_reached_the_metadata_service(&mut scene);
    }
}

#[test]
fn behind_a_classifier_that_lets_everything_pass_the_socket_layer_holds() {
    let mut scene = prepared();
    let (mut web, attachment) = scene.routed_container("web", Ipv4Addr::new(10, 77, 2, 10)).unwrap();
    scene.route_to(&attachment).unwrap();
    scene.enforcer().start().unwrap();
    Program::returning("lab_classifier", Kind::Classifier, PASS)
        .unwrap()
        .attach_to_ingress(scene.host_network(), &attachment.host_side, &scene.path("/sys/fs/bpf"))
        .unwrap();
    assert_is_guarded(&mut scene, &mut web, "web");
}

/// Sends a datagram to the metadata service through a packet socket.
fn send_frame(scene: &Scene, container: &mut Actor, host_side: &str) {
    let from = SocketAddrV4::new(container.address(), 4000);
    let packet = udp_packet(from, SocketAddrV4::new(IMDS_V4, 80), b"lab!");
    let hardware = scene.host_network().hardware(host_side).unwrap();
    let attempt = container.frame("eth0", hardware, untagged(&packet)).unwrap();
    assert_eq!(attempt, Attempt::Done);
}
