//! cgroup/connect4 and cgroup/connect6.

use std::net::{Ipv6Addr, SocketAddr};

use enforcer_common::{
    cgroup::MAX_LEVEL,
    event::{Hook, Outcome},
    verdict::Reason,
};
use enforcer_tests::{
    actor::{Actor, Attempt, Family},
    cgroup,
    imds::{ROLE, instance_role},
    scene::Scene,
    topology::{BRIDGE_V4, ENDPOINT, IMDS, IMDS_MAPPED, IMDS_OVER_V6, PACKET_STEER, STEER},
};

use crate::{
    EPERM, NOBODY_THERE, REFUSAL, assert_nothing_reached_the_metadata_service, recorded, scene, wait_until_classified,
};

fn cannot_connect_to_the_metadata_service(scene: &mut Scene, actor: &mut Actor) {
    for (address, hook) in [
        (IMDS, Hook::Connect4),
        (IMDS_MAPPED, Hook::Connect6),
        (IMDS_OVER_V6, Hook::Connect6),
    ] {
        assert_eq!(actor.connect(address).unwrap(), EPERM, "{address}");
        let is_wanted = |record: &enforcer_tests::audit::Record| {
            record.is_kernel(hook, Reason::ImdsBlocked) && record.is_to(address.ip()) && record.is_of("web")
        };
        let record = scene.audit().wait_for(is_wanted).unwrap();
        assert!(record.is_verdict(Outcome::Denied.name()));
        assert_eq!(record.sender.unwrap().pid, actor.pid());
        assert_eq!(record.destination.unwrap().port, address.port());
    }
    assert_nothing_reached_the_metadata_service(scene);
}

#[test]
fn a_bridge_container_cannot_connect_to_the_metadata_service() {
    let mut scene = scene();
    let mut web = scene.bridge_container("web").unwrap();
    cannot_connect_to_the_metadata_service(&mut scene, &mut web);
}

#[test]
fn a_host_mode_container_cannot_connect_to_the_metadata_service() {
    let mut scene = scene();
    let mut web = scene.host_container("web").unwrap();
    cannot_connect_to_the_metadata_service(&mut scene, &mut web);
}

#[test]
fn a_nested_cgroup_is_guarded_like_its_task() {
    let mut scene = scene();
    let mut web = scene.bridge_container("web").unwrap();
    let nested = scene.cgroup_of("web").unwrap().join("one/two/three");
    cgroup::create(&nested).unwrap();
    web.join(&nested).unwrap();
    cannot_connect_to_the_metadata_service(&mut scene, &mut web);
}

#[test]
fn a_cgroup_nobody_configured_is_guarded() {
    let mut scene = scene();
    let mut stranger = scene.host_process().unwrap();
    let unknown = scene.directory().join("root/stranger");
    cgroup::create(&unknown).unwrap();
    stranger.join(&unknown).unwrap();
    assert_eq!(stranger.connect(IMDS).unwrap(), EPERM);
    assert_nothing_reached_the_metadata_service(&mut scene);
}

/// How engines call a container's cgroup.
const CONTAINER: &str = "docker-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef.scope";

#[test]
fn a_container_in_the_cgroup_of_a_trusted_service_is_not_trusted() {
    let mut scene = Scene::builder().task("web").prepare().unwrap();
    let service = scene.trusted().join("some.service");
    let containers = [service.join(CONTAINER), service.join("deep/down").join(CONTAINER)];
    for cgroup in &containers {
        cgroup::create(cgroup).unwrap();
    }
    scene.enforcer().start().unwrap();
    for cgroup in containers.iter().chain([&containers[0].join("init")]) {
        cgroup::create(cgroup).unwrap();
        let mut container = scene
            .start(cgroup, scene.host_network(), BRIDGE_V4, Actor::start)
            .unwrap();
        assert_eq!(container.connect(IMDS).unwrap(), EPERM, "{}", cgroup.display());
        assert_eq!(container.get("/v2/credentials/self").unwrap().body_text(), REFUSAL);
    }
    assert_nothing_reached_the_metadata_service(&mut scene);
    // What is called otherwise is the service.
    let mut part = scene
        .start(&service.join("deep"), scene.host_network(), BRIDGE_V4, Actor::start)
        .unwrap();
    assert_eq!(part.connect(IMDS).unwrap(), Attempt::Done);
}

#[test]
fn what_comes_into_the_cgroup_of_a_trusted_service_is_not_trusted_from_its_first_action_on() {
    let mut scene = scene();
    let service = scene.trusted().join("new.service");
    // The process is there before its cgroup: nothing but the kernel has time to look at it.
    let mut newcomer = scene.host_process().unwrap();
    let mut cgroups = vec![service.join(CONTAINER), service.join("and/new/parts").join(CONTAINER)];
    for cgroup in &cgroups {
        cgroup::create(cgroup).unwrap();
        newcomer.join(cgroup).unwrap();
        assert_eq!(newcomer.connect(IMDS).unwrap(), EPERM, "{}", cgroup.display());
    }
    // Nobody but the kernel is there at all.
    scene.enforcer().kill().unwrap();
    cgroups = vec![service.join("later").join(CONTAINER), service.join("later")];
    for cgroup in &cgroups {
        cgroup::create(cgroup).unwrap();
        newcomer.join(cgroup).unwrap();
        assert_eq!(newcomer.connect(IMDS).unwrap(), EPERM, "{}", cgroup.display());
    }
    assert_nothing_reached_the_metadata_service(&mut scene);
}

#[test]
fn a_crowd_of_cgroups_below_a_trusted_one_is_not_trusted_and_costs_it_nothing() {
    let mut scene = Scene::builder().task("web").prepare().unwrap();
    for number in 0..1100 {
        cgroup::create(&scene.trusted().join("crowd").join(number.to_string())).unwrap();
    }
    scene.enforcer().start().unwrap();
    let log = scene.enforcer().log();
    assert!(log.contains("too many cgroups below a trusted one"), "{log}");
    let mut host = scene.host_process().unwrap();
    assert_eq!(host.connect(IMDS).unwrap(), Attempt::Done);
    host.join(&scene.trusted().join("crowd")).unwrap();
    assert_eq!(host.connect(IMDS).unwrap(), Attempt::Done);
}

#[test]
fn what_is_too_deep_in_the_cgroup_of_a_trusted_service_is_not_trusted() {
    let mut scene = scene();
    let mut deep = scene.trusted();
    let levels = deep
        .strip_prefix(cgroup::mount().unwrap())
        .unwrap()
        .components()
        .count();
    deep.extend(std::iter::repeat_n("x", MAX_LEVEL as usize - levels));
    for (cgroup, is_trusted) in [(deep.clone(), true), (deep.join("x"), false)] {
        cgroup::create(&cgroup).unwrap();
        let mut process = scene
            .start(&cgroup, scene.host_network(), BRIDGE_V4, Actor::start)
            .unwrap();
        if is_trusted {
            wait_until_classified(&mut scene, &cgroup);
        }
        let expected = if is_trusted { Attempt::Done } else { EPERM };
        assert_eq!(process.connect(IMDS).unwrap(), expected, "{}", cgroup.display());
    }
}

#[test]
fn a_socket_from_before_a_move_does_not_help() {
    let mut scene = scene();
    let mut actor = scene.host_process().unwrap();
    let socket = actor.open(Family::V4).unwrap();
    actor.join(&scene.cgroup_of("web").unwrap()).unwrap();
    assert_eq!(actor.connect_socket(socket, IMDS).unwrap(), EPERM);
    recorded(&scene, Hook::Connect4, Outcome::Denied, Reason::ImdsBlocked, "web");
    assert_nothing_reached_the_metadata_service(&mut scene);
}

#[test]
fn a_host_process_uses_the_metadata_service_and_is_recorded() {
    let mut scene = scene();
    let mut host = scene.host_process().unwrap();
    for address in [IMDS, IMDS_OVER_V6] {
        assert_eq!(instance_role(&mut host, address).unwrap(), ROLE);
    }
    for (hook, address) in [(Hook::Connect4, IMDS), (Hook::Connect6, IMDS_OVER_V6)] {
        let record = scene
            .audit()
            .wait_for(|record| record.is_kernel(hook, Reason::HostCgroup) && record.is_to(address.ip()))
            .unwrap();
        assert!(record.is_verdict(Outcome::Allowed.name()));
        assert_eq!(record.task, None);
        assert_eq!(record.sender.unwrap().pid, host.pid());
    }
    assert_eq!(scene.imds_hits().unwrap().connections, 4);
}

#[test]
fn a_host_process_is_recorded_at_the_endpoint_but_not_steered() {
    let scene = scene();
    let mut host = scene.host_process().unwrap();
    assert_eq!(host.connect(ENDPOINT).unwrap(), NOBODY_THERE);
    let record = scene
        .audit()
        .wait_for(|record| record.is_kernel(Hook::Connect4, Reason::HostCgroup) && record.is_to(ENDPOINT.ip()))
        .unwrap();
    assert!(record.is_verdict(Outcome::Allowed.name()));
}

#[test]
fn a_container_cannot_connect_to_other_ports_of_the_endpoint() {
    let scene = scene();
    let mut web = scene.bridge_container("web").unwrap();
    for address in [STEER, PACKET_STEER, SocketAddr::new(ENDPOINT.ip(), 443)] {
        assert_eq!(web.connect(address).unwrap(), EPERM, "{address}");
        let record = scene
            .audit()
            .wait_for(|record| {
                record.is_kernel(Hook::Connect4, Reason::EndpointPort)
                    && record.destination.as_ref().is_some_and(|to| to.port == address.port())
            })
            .unwrap();
        assert!(record.is_of("web"));
    }
}

#[test]
fn the_endpoint_in_a_translators_spelling_is_refused() {
    let scene = scene();
    let mut web = scene.bridge_container("web").unwrap();
    let [high, low] = [0xa9fe, 0xaa02];
    for address in [
        Ipv6Addr::new(0x0064, 0xff9b, 0, 0, 0, 0, high, low),
        Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
        Ipv6Addr::new(0, 0, 0, 0, 0, 0, high, low),
    ] {
        assert_eq!(web.connect((address, 80).into()).unwrap(), EPERM, "{address}");
    }
    recorded(&scene, Hook::Connect6, Outcome::Denied, Reason::EndpointEmbedded, "web");
}

#[test]
fn unprotected_destinations_are_none_of_our_business() {
    let scene = scene();
    let mut web = scene.bridge_container("web").unwrap();
    assert_eq!(web.connect((BRIDGE_V4, 80).into()).unwrap(), NOBODY_THERE);
    // The feed is in order: what comes after would come after.
    assert_eq!(web.connect(IMDS).unwrap(), EPERM);
    recorded(&scene, Hook::Connect4, Outcome::Denied, Reason::ImdsBlocked, "web");
    assert!(
        scene
            .audit()
            .records()
            .unwrap()
            .iter()
            .all(|record| !record.is_to(BRIDGE_V4))
    );
}

#[test]
fn the_agents_introspection_is_out_of_reach_at_every_address() {
    let scene = Scene::builder().task("web").in_front_of_ecs_agent().start().unwrap();
    let mut bridged = scene.bridge_container("web").unwrap();
    let mut host = scene.host_container("web").unwrap();
    let of_the_host = ["10.77.0.1:51678", "[::ffff:10.77.0.1]:51678", "[fd77::1]:51678"];
    for to in of_the_host.map(|to| to.parse().unwrap()) {
        for container in [&mut bridged, &mut host] {
            assert_eq!(container.connect(to).unwrap(), EPERM, "{to}");
        }
        let hook = if to.is_ipv4() { Hook::Connect4 } else { Hook::Connect6 };
        recorded(&scene, hook, Outcome::Denied, Reason::AgentDirect, "web");
    }
    let loopback = "127.0.0.1:51678".parse().unwrap();
    assert_eq!(host.connect(loopback).unwrap(), EPERM);
    assert_eq!(host.connect("[::1]:51678".parse().unwrap()).unwrap(), EPERM);
    // A container's own loopback is its own business, and the host's services may ask the agent.
    assert_eq!(bridged.connect(loopback).unwrap(), NOBODY_THERE);
    assert_eq!(scene.host_process().unwrap().connect(loopback).unwrap(), NOBODY_THERE);
}
