//! `cgroup/setsockopt`: options that take packets past the packet hooks.

use std::net::{SocketAddrV4, SocketAddrV6};

use enforcer_common::{
    event::{Hook, Outcome},
    verdict::Reason,
};
use enforcer_tests::{
    actor::{
        Actor, Attempt, Checksum, SocketOption,
        packet::{extended_packet, to_complete, udp_packet, untagged, untagged_v6},
    },
    scene::Scene,
    topology::{DIRECT_HARDWARE, IMDS_V4, IMDS_V6},
};
use nix::errno::Errno;

use crate::{EPERM, recorded, scene};

#[test]
fn a_container_cannot_take_its_packets_past_the_packet_hooks() {
    let scene = scene();
    for mut web in [
        scene.bridge_container("web").unwrap(),
        scene.host_container("web").unwrap(),
    ] {
        for option in [
            SocketOption::QdiscBypass,
            SocketOption::VnetHeader,
            SocketOption::XdpMemory,
        ] {
            let before = scene.audit().records().unwrap().len();
            assert_eq!(web.set_option(option).unwrap(), EPERM, "{option:?}");
            let record = scene.audit().next_after(before).unwrap();
            assert!(record.is_kernel(Hook::Setsockopt, Reason::PacketBypass), "{record:?}");
            assert!(record.is_verdict(Outcome::Denied.name()) && record.is_of("web"));
            assert_eq!(record.sender.unwrap().pid, web.pid());
        }
    }
}

/// From a network card in the container's namespace, behind which no hook of the host sees what the kernel has made of a
/// frame. The checksum covers the addresses and what follows, and is to be written over the destination's last two bytes.
#[test]
fn the_kernel_writes_no_checksum_over_the_destination_of_a_containers_frame() {
    let mut scene = Scene::builder().task("web").prepare().unwrap();
    let (namespace, card, source) = scene.topology().awsvpc().unwrap();
    let mut web = scene.in_container("web", &namespace, source, Actor::start).unwrap();
    let v4 = udp_packet(
        SocketAddrV4::new(card.near.0, 4000),
        SocketAddrV4::new(IMDS_V4, 80),
        b"lab!",
    );
    let v6 = extended_packet(
        SocketAddrV6::new(card.near.1, 4000, 0, 0),
        SocketAddrV6::new(IMDS_V6, 80, 0, 0),
        &[],
    );
    let frames = [
        (untagged(&to_complete(&v4, 6, 18)), 20),
        (untagged_v6(&to_complete(&v6, 26, 38)), 40),
    ];
    let mut send = |(carried, start): &(Vec<u8>, u16)| {
        let checksum = Checksum {
            start: *start,
            offset: 12,
        };
        web.frame_to_complete("eth0", DIRECT_HARDWARE, carried.clone(), checksum)
            .unwrap()
    };
    for frame in &frames {
        let before = scene.imds_hits().unwrap();
        assert_eq!(send(frame), Attempt::Done);
        assert_ne!(scene.imds_hits().unwrap(), before, "{frame:?}");
    }
    let before = scene.imds_hits().unwrap();
    scene.enforcer().start().unwrap();
    let attempts: Vec<_> = frames.iter().map(send).collect();
    assert_eq!(scene.imds_hits().unwrap(), before);
    assert_eq!(attempts, [EPERM; 2]);
    recorded(&scene, Hook::Setsockopt, Outcome::Denied, Reason::PacketBypass, "web");
}

#[test]
fn a_host_service_sets_the_options_it_likes() {
    let scene = scene();
    let mut host = scene.host_process().unwrap();
    assert_eq!(host.set_option(SocketOption::QdiscBypass).unwrap(), Attempt::Done);
    let unknown = Attempt::Refused(Errno::ENOPROTOOPT);
    assert_eq!(host.set_option(SocketOption::XdpMemory).unwrap(), unknown);
}

#[test]
fn values_longer_than_a_page_reach_the_kernel_unharmed() {
    let scene = scene();
    let mut web = scene.bridge_container("web").unwrap();
    let mut host = scene.host_process().unwrap();
    for actor in [&mut web, &mut host] {
        assert_eq!(actor.set_option(SocketOption::Long).unwrap(), Attempt::Done);
    }
}

#[test]
fn an_observed_task_sets_them_and_is_recorded() {
    let scene = Scene::builder().observed_task("web").start().unwrap();
    let mut web = scene.bridge_container("web").unwrap();
    assert_eq!(web.set_option(SocketOption::QdiscBypass).unwrap(), Attempt::Done);
    recorded(
        &scene,
        Hook::Setsockopt,
        Outcome::WouldDeny,
        Reason::PacketBypass,
        "web",
    );
}
