//! `enforcer check`: what it finds in the way, and how it names it.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, TcpListener},
};

use enforcer_tests::{
    foreign::{Kind, Program, Sharing},
    netlink::configure,
    scene::Scene,
    topology::{BRIDGE_V4, ENDPOINT, IMDS_V4, STEER},
};
use serde_json::Value;

fn prepared() -> Scene {
    Scene::builder().task("web").prepare().unwrap()
}

/// What the command finds under a name, and whether it ends with success.
fn found(scene: &mut Scene, name: &str) -> (Vec<Value>, bool) {
    let check = scene.enforcer().run(["check", "-o", "json"]).unwrap();
    let Value::Array(mut findings) = serde_json::from_slice(&check.stdout).unwrap() else {
        panic!("{}", String::from_utf8_lossy(&check.stdout))
    };
    findings.retain(|finding| finding["name"] == name);
    (findings, check.status.success())
}

/// Asserts that one finding of a name has a state and says all of this.
#[track_caller]
fn assert_found(scene: &mut Scene, (name, state): (&str, &str), said: &[&str]) {
    let (findings, success) = found(scene, name);
    assert!(!success || state != "fail", "{findings:?}");
    let is_wanted = |finding: &Value| {
        let means = finding["means"].as_str().unwrap();
        finding["state"] == state && said.iter().all(|part| means.contains(part))
    };
    assert!(findings.iter().any(is_wanted), "{findings:?}");
}

#[test]
fn a_program_that_keeps_others_out_is_named_with_its_number_and_owner() {
    let mut scene = prepared();
    let program = Program::returning("lab_exclusive", Kind::Connect4, 1).unwrap();
    program.attach(scene.directory(), Sharing::Exclusive).unwrap();
    let id = format!("ID {}", program.id().unwrap());
    let said = ["lab_exclusive", &id, "user 0", "connect4", "BPF_F_ALLOW_MULTI"];
    assert_found(&mut scene, ("foreign programs", "fail"), &said);
}

#[test]
fn a_program_that_may_change_what_was_judged_is_warned_of_and_one_before_is_not() {
    let mut scene = prepared();
    let attach = |scene: &Scene| {
        let program = Program::rewriting("lab_rewriting", Kind::Connect4, BRIDGE_V4, IMDS_V4).unwrap();
        program.attach(&scene.root(), Sharing::Shared).unwrap();
    };
    attach(&scene);
    scene.enforcer().start().unwrap();
    assert_found(&mut scene, ("foreign programs", "ok"), &["1 at our attach points"]);
    attach(&scene);
    assert_found(
        &mut scene,
        ("foreign programs", "warn"),
        &["lab_rewriting", "after ours"],
    );
}

#[test]
fn another_device_with_the_endpoints_address_or_a_route_to_it_is_named() {
    let mut scene = prepared();
    assert_found(&mut scene, ("endpoint address", "ok"), &[]);
    let IpAddr::V4(endpoint) = ENDPOINT.ip() else {
        panic!("the endpoint is IPv4")
    };
    configure(scene.host_network(), async |net| {
        net.route_v4((endpoint, 32), None, "br0").await
    })
    .unwrap();
    assert_found(&mut scene, ("endpoint address", "warn"), &["a route to", "br0"]);
    let address = ENDPOINT.ip();
    configure(scene.host_network(), async |net| {
        net.add_address("br0", address, 32).await
    })
    .unwrap();
    assert_found(&mut scene, ("endpoint address", "warn"), &["br0"]);
}

#[test]
fn guarded_processes_that_may_write_packets_are_counted() {
    let mut scene = prepared();
    assert_found(&mut scene, ("capabilities", "ok"), &[]);
    let _web = scene.bridge_container("web").unwrap();
    let _service = scene.host_process().unwrap();
    assert_found(
        &mut scene,
        ("capabilities", "warn"),
        &["1 guarded processes hold CAP_NET_RAW"],
    );
    assert_found(&mut scene, ("packet sockets", "ok"), &[]);
}

#[test]
fn beside_a_running_enforcer_all_is_well_and_it_is_named() {
    let mut scene = crate::scene();
    let pid = format!("pid {}", scene.enforcer().pid().unwrap());
    let (findings, success) = found(&mut scene, "service");
    assert!(
        success && findings[0]["means"].as_str().unwrap().contains(&pid),
        "{findings:?}"
    );
    assert_found(&mut scene, ("endpoint ports", "ok"), &["the running enforcer's"]);
}

#[test]
fn a_port_that_somebody_else_listens_on_is_fatal_and_named() {
    let mut scene = prepared();
    let port = STEER.port();
    let listen = || Ok(TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?);
    let _listener = scene.host_network().run(listen).unwrap();
    assert_found(&mut scene, ("service", "ok"), &["no enforcer is running"]);
    assert_found(&mut scene, ("endpoint ports", "fail"), &[&port.to_string()]);
}

#[test]
fn registrations_that_cannot_be_read_are_fatal_and_it_says_what_to_do() {
    let mut scene = prepared();
    assert_found(
        &mut scene,
        ("registrations", "ok"),
        &["/var/lib/enforcer/registrations.json"],
    );
    let file = scene.path("/var/lib/enforcer/registrations.json");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, "secret\n").unwrap();
    let said = ["line 1 of", "remove the file and register the tasks again"];
    assert_found(&mut scene, ("registrations", "fail"), &said);
    let (findings, _) = found(&mut scene, "registrations");
    assert!(!findings[0].to_string().contains("secret"), "{findings:?}");
    scene.enforcer().start().unwrap_err();
}
