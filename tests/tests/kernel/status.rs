//! `enforcer status`, with the service running and without.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _, path::Path};

use enforcer_tests::{cgroup, enter::Place, scene::Scene, topology::IMDS};
use serde_json::Value;

use crate::{EPERM, scene};

/// What it says, and whether it calls that healthy.
fn status(scene: &mut Scene) -> (bool, Value) {
    let output = scene.enforcer().run(["status", "-o", "json"]).unwrap();
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["healthy"], output.status.success());
    let text = scene.enforcer().run(["status"]).unwrap();
    assert_eq!(text.status, output.status, "{}", String::from_utf8_lossy(&text.stdout));
    (output.status.success(), told)
}

fn hooks(told: &Value) -> Vec<&str> {
    let hooks = told["hooks"].as_array().unwrap();
    hooks.iter().map(|hook| hook["hook"].as_str().unwrap()).collect()
}

#[test]
fn a_running_enforcer_tells_its_hooks_tasks_and_counters() {
    let mut scene = scene();
    let mut web = scene.bridge_container("web").unwrap();
    for _ in 0..3 {
        assert_eq!(web.connect(IMDS).unwrap(), EPERM);
    }
    let (is_healthy, told) = status(&mut scene);
    assert!(is_healthy, "{told}");
    for hook in [
        "connect4",
        "connect6",
        "sendmsg4",
        "bind6",
        "egress",
        "sock_ops",
        "sock_create",
        "setsockopt",
    ] {
        assert!(hooks(&told).contains(&hook), "{hook}: {told}");
    }
    assert_eq!(told["kernel"]["counters"]["denied"], 3);
    assert_eq!(told["service"]["pid"], scene.enforcer().pid().unwrap());
    assert_eq!(
        (&told["service"]["tasks"], &told["service"]["conflicts"]),
        (&2.into(), &0.into())
    );
    for task in scene.tasks() {
        assert!(task.secrets().iter().all(|secret| !told.to_string().contains(secret)));
    }
}

#[test]
fn a_container_that_no_source_knows_is_told() {
    let mut scene = scene();
    let name = format!("docker-{}.scope", "0123456789abcdef".repeat(4));
    for parent in [
        scene.root().join("engine"),
        scene.cgroup_of("web").unwrap(),
        scene.trusted(),
    ] {
        cgroup::create(&parent.join(&name)).unwrap();
    }
    let (_, told) = status(&mut scene);
    assert_eq!(told["service"]["unclaimed"], 2);
    let mut unclaimed: Vec<_> = (told["service"]["unclaimed_first"].as_array().unwrap().iter())
        .map(|cgroup| cgroup.as_str().unwrap().to_owned())
        .collect();
    unclaimed.sort();
    // Who is in a trusted service's cgroup is not trusted with it.
    let expected = ["root/engine", "root/host"].map(|parent| scene.name().join(parent).join(&name));
    assert_eq!(unclaimed, expected.map(|path| path.to_str().unwrap().to_owned()));
}

#[test]
fn cgroups_of_any_name_and_number_can_be_told_and_command_no_terminal() {
    let mut scene = scene();
    let delegated = scene.root().join(OsStr::from_bytes(b"\xff\x1b]0;healthy\x07"));
    for number in 0..40 {
        cgroup::create(&delegated.join(format!("{number:064x}"))).unwrap();
    }
    let (is_healthy, told) = status(&mut scene);
    assert!(is_healthy);
    assert_eq!(told["service"]["unclaimed"], 40);
    assert_eq!(told["service"]["unclaimed_first"].as_array().unwrap().len(), 32);
    let text = scene.enforcer().run(["status"]).unwrap();
    assert!(text.status.success() && !text.stdout.contains(&0x1b));
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains(r"\u{1b}]0;healthy\u{7}/"), "{text}");
}

#[test]
fn without_the_service_the_hooks_and_their_counters_are_told_and_it_is_not_healthy() {
    let mut scene = scene();
    let mut web = scene.bridge_container("web").unwrap();
    scene.enforcer().kill().unwrap();
    assert_eq!(web.connect(IMDS).unwrap(), EPERM);
    let (is_healthy, told) = status(&mut scene);
    assert!(!is_healthy && told["service"].is_null());
    assert!(hooks(&told).contains(&"connect4"));
    assert_eq!(told["kernel"]["counters"]["denied"], 1);
    assert!(
        told["problems"].to_string().contains("no credentials are served"),
        "{told}"
    );
}

#[test]
fn only_observing_is_not_healthy_and_neither_is_nothing_at_all() {
    let mut scene = scene();
    assert!(scene.enforcer().run(["mode", "observe"]).unwrap().status.success());
    let (is_healthy, told) = status(&mut scene);
    assert!(
        !is_healthy && told["problems"].to_string().contains("the mode is observe"),
        "{told}"
    );
    assert!(scene.enforcer().terminate().unwrap().success());
    assert!(scene.enforcer().run(["detach"]).unwrap().status.success());
    let (is_healthy, told) = status(&mut scene);
    assert!(
        !is_healthy && hooks(&told).is_empty() && told["kernel"].is_null(),
        "{told}"
    );
}

#[test]
fn a_container_with_the_control_socket_commands_nothing() {
    let scene = scene();
    let socket = scene.path("/run/enforcer/control.sock");
    let command = |lab: &Path, place: &Place, _address| {
        let mut command = place.command(lab, &lab.with_file_name("enforcer"));
        command.env("ENFORCER_CONTROL_SOCKET", &socket);
        Ok(command)
    };
    for arguments in [
        &["mode", "observe"][..],
        &["reload"],
        &["status"],
        &["run", "--take-over"],
    ] {
        let mut command = scene.in_host_container("web", command).unwrap();
        let output = command.args(arguments).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(!output.status.success() && said.contains("is guarded"), "{said}");
    }
    let mut web = scene.host_container("web").unwrap();
    assert_eq!(web.connect(IMDS).unwrap(), EPERM);
}
