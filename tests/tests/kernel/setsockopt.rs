//! `cgroup/setsockopt`: options that take packets past the packet hooks.

use enforcer_common::{
    event::{Hook, Outcome},
    verdict::Reason,
};
use enforcer_tests::{
    actor::{Attempt, SocketOption},
    scene::Scene,
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
