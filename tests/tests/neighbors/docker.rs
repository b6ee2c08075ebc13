//! Containers of a real Docker engine in every network mode, with the engine's own iptables rules in place and applied
//! to bridged packets.

use std::net::SocketAddrV4;

use enforcer_common::{
    event::{Hook, Outcome},
    verdict::Reason,
};
use enforcer_tests::{
    actor::{
        Attempt,
        packet::{syn_packet, udp_packet, untagged},
    },
    docker::{Docker, Iptables},
    imds::{Hits, ROLE, instance_role},
    scene::Scene,
    topology::{ENDPOINT, IMDS, IMDS_V4},
};
use nix::errno::Errno;

use crate::{EPERM, assert_has_no_metadata_service, assert_has_only_its_own_credentials};

/// A running enforcer, then an engine.
fn scene() -> (Scene, Docker) {
    let scene = Scene::builder().task("web").task("batch").start().unwrap();
    let docker = Docker::start(&scene, Iptables::Nft).unwrap();
    (scene, docker)
}

#[test]
fn without_an_enforcer_a_container_reaches_the_metadata_service() {
    let mut scene = Scene::builder().task("web").prepare().unwrap();
    let docker = Docker::start(&scene, Iptables::Nft).unwrap();
    let mut web = docker.run("web", "bridge", &[]).unwrap();
    assert_eq!(instance_role(&mut web, IMDS).unwrap(), ROLE);
    let hits = scene.imds_hits().unwrap();
    let gateway = scene.host_network().hardware("docker0").unwrap();
    let packet = udp_packet(
        SocketAddrV4::new(web.address(), 4000),
        SocketAddrV4::new(IMDS_V4, 80),
        b"lab!",
    );
    assert_eq!(web.frame("eth0", gateway, untagged(&packet)).unwrap(), Attempt::Done);
    assert_eq!(scene.imds_hits().unwrap().datagrams, hits.datagrams + 1);
}

#[test]
fn on_the_default_bridge_there_are_only_ones_own_credentials() {
    let (mut scene, docker) = scene();
    let mut web = docker.run("web", "bridge", &[]).unwrap();
    assert_has_no_metadata_service(&mut scene, &mut web, "web");
    assert_has_only_its_own_credentials(&scene, &mut web, "web");
}

#[test]
fn on_user_defined_networks_there_are_only_ones_own_credentials() {
    let (mut scene, docker) = scene();
    docker.network_create("shop", &[]).unwrap();
    docker.network_create("office", &[]).unwrap();
    let mut web = docker.run("web", "shop", &[]).unwrap();
    let mut batch = docker.run("batch", "office", &[]).unwrap();
    for (container, task) in [(&mut web, "web"), (&mut batch, "batch")] {
        assert_has_no_metadata_service(&mut scene, container, task);
        assert_has_only_its_own_credentials(&scene, container, task);
    }
}

#[test]
fn in_the_hosts_network_there_are_only_ones_own_credentials() {
    let (mut scene, docker) = scene();
    let mut web = docker.run("web", "host", &[]).unwrap();
    assert_has_no_metadata_service(&mut scene, &mut web, "web");
    assert_has_only_its_own_credentials(&scene, &mut web, "web");
}

#[test]
fn in_another_tasks_network_there_are_only_ones_own_credentials() {
    let (mut scene, docker) = scene();
    let web = docker.run("web", "bridge", &[]).unwrap();
    let shared = format!("container:{}", web.name());
    let mut batch = docker.run("batch", &shared, &[]).unwrap();
    assert_has_no_metadata_service(&mut scene, &mut batch, "batch");
    assert_has_only_its_own_credentials(&scene, &mut batch, "batch");
}

#[test]
fn without_a_network_there_is_nothing() {
    let (mut scene, docker) = scene();
    let mut web = docker.run("web", "none", &[]).unwrap();
    assert_has_no_metadata_service(&mut scene, &mut web, "web");
    assert_eq!(web.connect(ENDPOINT).unwrap(), Attempt::Refused(Errno::ENETUNREACH));
}

#[test]
fn a_container_that_may_change_its_network_has_only_its_own_credentials() {
    let (mut scene, docker) = scene();
    let options = ["--cap-add", "NET_ADMIN", "--security-opt", "seccomp=unconfined"];
    let mut web = docker.run("web", "bridge", &options).unwrap();
    assert_has_no_metadata_service(&mut scene, &mut web, "web");
    assert_has_only_its_own_credentials(&scene, &mut web, "web");
}

#[test]
fn frames_of_a_container_do_not_reach_the_metadata_service() {
    let mut scene = Scene::builder().task("web").prepare().unwrap();
    let docker = Docker::start(&scene, Iptables::Nft).unwrap();
    let mut web = docker.run("web", "bridge", &[]).unwrap();
    scene.enforcer().start().unwrap();
    let gateway = scene.host_network().hardware("docker0").unwrap();
    let (from, to) = (SocketAddrV4::new(web.address(), 4000), SocketAddrV4::new(IMDS_V4, 80));
    for packet in [udp_packet(from, to, b"lab!"), syn_packet(from, to)] {
        assert_eq!(web.frame("eth0", gateway, untagged(&packet)).unwrap(), Attempt::Done);
    }
    scene
        .audit()
        .wait_for(|record| {
            record.is_kernel(Hook::TcIngress, Reason::RawPacket)
                && record.is_verdict(Outcome::Dropped.name())
                && record.is_of("web")
        })
        .unwrap();
    assert_eq!(scene.imds_hits().unwrap(), Hits::default());
}

#[test]
fn containers_older_than_the_enforcer_have_only_their_own_credentials() {
    let mut scene = Scene::builder().task("web").task("batch").prepare().unwrap();
    let docker = Docker::start(&scene, Iptables::Nft).unwrap();
    let mut web = docker.run("web", "bridge", &[]).unwrap();
    scene.enforcer().start().unwrap();
    assert_has_no_metadata_service(&mut scene, &mut web, "web");
    assert_has_only_its_own_credentials(&scene, &mut web, "web");
}

#[test]
fn an_engine_with_the_old_iptables_works_beside_the_enforcer() {
    let scene = Scene::builder().task("web").task("batch").start().unwrap();
    // Each network adds rules; a table of them is replaced by one system call with all of it.
    let docker = Docker::start(&scene, Iptables::Legacy).unwrap();
    for number in 0..8 {
        docker.network_create(&format!("network{number}"), &[]).unwrap();
    }
    let mut web = docker.run("web", "network7", &["--publish", "8080:80"]).unwrap();
    assert_eq!(web.connect(IMDS).unwrap(), EPERM);
    assert_has_only_its_own_credentials(&scene, &mut web, "web");
}
