//! The lab itself, without an enforcer: its ways are open, its counters count, and nothing of it stays. What these tests
//! reach is what the kernel tests expect to be closed.

#![cfg(test)]

use std::{
    fs,
    io::Read,
    net::SocketAddrV4,
    path::Path,
    process::{self, Command, Stdio},
};

use enforcer_tests::{
    actor::{
        Actor, Attempt, DatagramStyle, HeaderFrom,
        packet::{syn_packet, udp, udp_packet, untagged},
    },
    cgroup,
    enter::Place,
    http::Request,
    imds::{Hits, PORT, ROLE, instance_role},
    programs,
    scene::Scene,
    topology::{BRIDGE_HARDWARE, IMDS, IMDS_MAPPED, IMDS_OVER_V6, IMDS_V4},
    worker::Worker,
};

fn scene() -> Scene {
    Scene::builder().task("web").prepare().unwrap()
}

fn reaches_the_metadata_service_every_way(actor: &mut Actor) {
    for address in [IMDS, IMDS_MAPPED, IMDS_OVER_V6] {
        assert_eq!(actor.connect(address).unwrap(), Attempt::Done, "{address}");
        assert_eq!(actor.echo(address).unwrap(), Attempt::Done, "{address}");
        for style in [DatagramStyle::Connected, DatagramStyle::Unconnected] {
            assert_eq!(
                actor.datagram(address, style).unwrap(),
                Attempt::Done,
                "{address} {style:?}"
            );
        }
    }
}

#[test]
fn without_an_enforcer_a_bridge_container_reaches_the_metadata_service() {
    let mut scene = scene();
    assert_eq!(scene.imds_hits().unwrap(), Hits::default());
    reaches_the_metadata_service_every_way(&mut scene.bridge_container("web").unwrap());
    let hits = scene.imds_hits().unwrap();
    assert_eq!((hits.connections, hits.datagrams), (3, 9));
    assert!(hits.packets > 12, "{hits:?}");
}

#[test]
fn without_an_enforcer_a_host_mode_container_reaches_the_metadata_service() {
    let mut scene = scene();
    reaches_the_metadata_service_every_way(&mut scene.host_container("web").unwrap());
    assert_eq!(scene.imds_hits().unwrap().connections, 3);
}

#[test]
fn the_metadata_service_wants_a_session_token() {
    let scene = scene();
    let mut host = scene.host_process().unwrap();
    assert_eq!(host.ask(IMDS, &Request::get("/latest/meta-data/")).unwrap().status, 401);
    assert_eq!(instance_role(&mut host, IMDS).unwrap(), ROLE);
}

#[test]
fn every_container_has_an_address_of_its_own() {
    let scene = scene();
    let (one, other) = (
        scene.bridge_container("web").unwrap(),
        scene.bridge_container("web").unwrap(),
    );
    assert_ne!(one.address(), other.address());
}

#[test]
fn a_moved_actor_is_in_its_new_cgroup() {
    let scene = Scene::builder().task("web").task("batch").prepare().unwrap();
    let mut web = scene.bridge_container("web").unwrap();
    let batch = scene.cgroup_of("batch").unwrap();
    web.join(&batch).unwrap();
    let members = fs::read_to_string(batch.join("cgroup.procs")).unwrap();
    assert_eq!(members.trim(), web.pid().to_string());
}

#[test]
fn nothing_of_a_scene_stays() {
    let scene = scene();
    let web = scene.bridge_container("web").unwrap();
    let (cgroup, process) = (scene.directory().to_owned(), format!("/proc/{}", web.pid()));
    assert!(cgroup.exists() && Path::new(&process).exists());
    let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap();
    let before = mounts();
    drop(scene);
    assert!(!cgroup.exists());
    assert_eq!(mounts(), before);
    // The keeper kills what its owner has not: only the zombie of our own child is left until we look after it.
    let state = fs::read_to_string(format!("{process}/stat")).unwrap();
    assert!(state.contains(") Z "), "{state}");
    drop(web);
    assert!(!Path::new(&process).exists());
}

#[test]
fn nothing_of_a_scene_stays_when_its_owner_is_gone() {
    let programs = programs::directory().unwrap();
    let lab = programs.join("lab");
    let cgroup = cgroup::mount()
        .unwrap()
        .join(format!("enforcer-lab-{}-orphan", process::id()));
    // The keeper knows its owner's end, however that came, by the end of its input.
    let mut keeper = Command::new(&lab)
        .arg("keeper")
        .args([&cgroup, &programs])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    keeper.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
    let place = Place {
        cgroup: cgroup.clone(),
        network: format!("/proc/{}/ns/net", keeper.id()).into(),
        mounts: None,
        hierarchy: None,
    };
    let mut member = Worker::start({
        let mut command = place.command(&lab, &lab);
        command.arg("actor");
        command
    })
    .unwrap();
    drop(keeper.stdin.take());
    assert!(keeper.wait().unwrap().success());
    assert!(!cgroup.exists());
    assert!(member.call::<_, ()>(&()).is_err());
}

#[test]
fn handmade_packets_reach_the_metadata_service() {
    let mut scene = scene();
    let mut web = scene.bridge_container("web").unwrap();
    let (from, to) = (SocketAddrV4::new(web.address(), 4000), SocketAddrV4::new(IMDS_V4, PORT));
    let packet = udp_packet(from, to, b"lab!");
    assert_eq!(
        web.raw(IMDS_V4, HeaderFrom::Sender, packet.clone()).unwrap(),
        Attempt::Done
    );
    assert_eq!(
        web.raw(IMDS_V4, HeaderFrom::Kernel, udp(4000, PORT, b"lab!")).unwrap(),
        Attempt::Done
    );
    assert_eq!(
        web.frame("eth0", BRIDGE_HARDWARE, untagged(&packet)).unwrap(),
        Attempt::Done
    );
    assert_eq!(
        web.frame("eth0", BRIDGE_HARDWARE, untagged(&syn_packet(from, to)))
            .unwrap(),
        Attempt::Done
    );
    let hits = scene.imds_hits().unwrap();
    assert_eq!(hits.datagrams, 3, "{hits:?}");
    assert!(hits.packets >= 4, "{hits:?}");
}
