//! Tasks that are registered while the enforcer runs.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Output,
};

use enforcer_tests::{
    actor::Actor,
    audit::Record,
    cgroup,
    enter::Place,
    scene::{Scene, credential_id},
    topology::BRIDGE_V4,
};
use serde_json::Value;

use crate::REFUSAL;

/// The role whose credentials the enforcer has; those of the scene's task `web`.
const ROLE: &str = "arn:aws:iam::111122223333:role/registered";

/// A running enforcer that has credentials of a role, and a container of no task.
fn scene() -> (Scene, PathBuf) {
    let mut scene = Scene::builder().task("web").prepare().unwrap();
    let role = format!("\n[[role]]\narn = \"{ROLE}\"\ncredentials-file = \"/etc/enforcer/web.json\"\n");
    scene.configure(|text| text + &role).unwrap();
    scene.enforcer().start().unwrap();
    let cgroup = scene.root().join("engine/container");
    cgroup::create(&cgroup).unwrap();
    (scene, cgroup)
}

/// A process in a cgroup.
fn process(scene: &Scene, cgroup: &Path) -> Actor {
    scene
        .start(cgroup, scene.host_network(), BRIDGE_V4, Actor::start)
        .unwrap()
}

fn run(scene: &mut Scene, arguments: &[&str]) -> Output {
    scene.enforcer().run(arguments).unwrap()
}

/// What a subcommand prints that has to succeed.
fn told(scene: &mut Scene, arguments: &[&str]) -> String {
    let Output { status, stdout, stderr } = run(scene, arguments);
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

fn json(scene: &mut Scene, arguments: &[&str]) -> Value {
    serde_json::from_str(&told(scene, &[arguments, &["-o", "json"]].concat())).unwrap()
}

/// Why a subcommand fails that has to.
fn refused(scene: &mut Scene, arguments: &[&str]) -> String {
    let Output { status, stderr, .. } = run(scene, arguments);
    assert!(!status.success());
    String::from_utf8(stderr).unwrap()
}

/// A cgroup as it is registered.
fn relative(cgroup: &Path) -> String {
    let relative = cgroup.strip_prefix(cgroup::mount().unwrap()).unwrap();
    format!("/{}", relative.display())
}

/// Registers a task with the role, and gives the path for its containers.
fn register(scene: &mut Scene, task: &str, cgroup: &Path) -> String {
    let cgroup = relative(cgroup);
    let uri = told(scene, &["task", "add", task, "--cgroup", &cgroup, "--role-arn", ROLE]);
    uri.trim().to_owned()
}

#[test]
fn a_registered_task_is_served_what_it_was_told_to_ask_for_until_that_is_taken_back() {
    let (mut scene, cgroup) = scene();
    let secret = scene.task("web").unwrap().secret_key.clone();
    let mut container = process(&scene, &cgroup);
    assert_eq!(container.get("/v2/credentials/self").unwrap().body_text(), REFUSAL);
    let uri = register(&mut scene, "registered", &cgroup);
    assert!(uri.starts_with("/v2/credentials/") && uri.len() == 48, "{uri}");
    for path in [&*uri, "/v2/credentials/self"] {
        let answer = container.get(path).unwrap();
        assert!(answer.status == 200 && answer.body_text().contains(&secret));
        assert!(answer.body_text().contains(ROLE));
    }
    let mut web = scene.host_container("web").unwrap();
    assert_eq!(web.get(&uri).unwrap().body_text(), REFUSAL);
    assert_eq!(register(&mut scene, "registered", &cgroup), uri);
    told(&mut scene, &["task", "remove", "registered"]);
    assert_eq!(container.get(&uri).unwrap().body_text(), REFUSAL);
    assert!(refused(&mut scene, &["task", "remove", "registered"]).contains("is registered"));
    for command in ["task-add", "task-remove"] {
        let record = scene.audit().wait_for(|record| record.is_control(command)).unwrap();
        assert!(record.is_of("registered"));
    }
    let told = scene.audit().text() + &scene.enforcer().log();
    assert!(!told.contains(uri.rsplit('/').next().unwrap()));
}

#[test]
fn a_registration_outlives_the_enforcer_however_that_ends() {
    let (mut scene, cgroup) = scene();
    let mut container = process(&scene, &cgroup);
    let uri = register(&mut scene, "registered", &cgroup);
    scene.enforcer().restart().unwrap();
    assert_eq!(container.get(&uri).unwrap().status, 200);
    scene.enforcer().kill().unwrap();
    scene.enforcer().start().unwrap();
    assert_eq!(container.get(&uri).unwrap().status, 200);
    scene.enforcer().take_over().unwrap();
    assert_eq!(container.get(&uri).unwrap().status, 200);
    told(&mut scene, &["task", "remove", "registered"]);
    scene.enforcer().restart().unwrap();
    assert_eq!(container.get(&uri).unwrap().body_text(), REFUSAL);
}

#[test]
fn a_second_enforcer_that_has_to_give_up_takes_no_registration_with_it() {
    let (mut scene, cgroup) = scene();
    let engine = scene.root().join("engine");
    register(&mut scene, "earlier", &engine);
    let reason = refused(&mut scene, &["run"]);
    assert!(reason.contains("another enforcer is running"), "{reason}");
    let uri = register(&mut scene, "registered", &cgroup);
    scene.enforcer().restart().unwrap();
    assert_eq!(process(&scene, &cgroup).get(&uri).unwrap().status, 200);
}

#[test]
fn what_cannot_be_written_down_is_not_registered_and_the_enforcer_starts_all_the_same() {
    let (mut scene, cgroup) = scene();
    // It has the name of the file that is to come in the place of the old one.
    let obstacle = scene.path("/var/lib/enforcer/registrations.new");
    fs::create_dir(&obstacle).unwrap();
    scene.enforcer().restart().unwrap();
    let path = relative(&cgroup);
    let add = ["task", "add", "registered", "--cgroup", &path, "--role-arn", ROLE];
    assert!(refused(&mut scene, &add).contains("cannot write"));
    assert!(!told(&mut scene, &["task", "list"]).contains("registered"));
    fs::remove_dir(&obstacle).unwrap();
    let uri = told(&mut scene, &add);
    scene.enforcer().restart().unwrap();
    assert_eq!(process(&scene, &cgroup).get(uri.trim()).unwrap().status, 200);
}

#[test]
fn what_comes_to_the_path_of_a_registered_cgroup_is_not_it() {
    let (mut scene, cgroup) = scene();
    let uri = register(&mut scene, "registered", &cgroup);
    cgroup::destroy(&cgroup).unwrap();
    cgroup::create(&cgroup).unwrap();
    let mut other = process(&scene, &cgroup);
    assert_eq!(other.get(&uri).unwrap().body_text(), REFUSAL);
    scene.enforcer().restart().unwrap();
    assert_eq!(other.get(&uri).unwrap().body_text(), REFUSAL);
    // It stands in nobody's way.
    let uri = register(&mut scene, "other", &cgroup);
    assert_eq!(other.get(&uri).unwrap().status, 200);
}

#[test]
fn a_conflict_is_refused_without_a_word_about_the_id() {
    let (mut scene, cgroup) = scene();
    let web = scene.task("web").unwrap().clone();
    let cgroup = relative(&cgroup);
    let add = [
        "task",
        "add",
        "other",
        "--cgroup",
        &cgroup,
        "--credential-id",
        &web.credential_id,
    ];
    let reason = refused(&mut scene, &add);
    assert!(reason.contains("belongs to task \"web\" already"), "{reason}");
    assert!(!reason.contains(&web.credential_id));
    let of_web = relative(&scene.cgroup_of("web").unwrap());
    let reason = refused(&mut scene, &["task", "add", "other", "--cgroup", &of_web]);
    assert!(reason.contains("by config"), "{reason}");
    let trusted = relative(&scene.trusted());
    let reason = refused(&mut scene, &["task", "add", "other", "--cgroup", &trusted]);
    assert!(reason.contains("is trusted"), "{reason}");
    assert!(!scene.enforcer().log().contains(&web.credential_id));
}

#[test]
fn tasks_are_listed_and_shown_without_their_ids() {
    let (mut scene, cgroup) = scene();
    let path = relative(&cgroup);
    let id = credential_id().unwrap();
    told(
        &mut scene,
        &["task", "add", "registered", "--cgroup", &path, "--credential-id", &id],
    );
    let list = json(&mut scene, &["task", "list"]);
    assert_eq!(list[0]["task"], "registered");
    assert_eq!(list[0]["sources"][0], "registration");
    assert_eq!((&list[0]["granted"], &list[0]["refused"]), (&1.into(), &0.into()));
    assert_eq!(list[1]["sources"][0], "config");
    let shown = json(&mut scene, &["task", "show", "registered"]);
    assert_eq!(shown["said"][0]["cgroups"][0][0], Value::from(path));
    assert_eq!(shown["claims"][0]["holder"], "own");
    let texts = told(&mut scene, &["task", "list"]) + &told(&mut scene, &["task", "show", "registered"]);
    assert!(texts.contains("registered") && !texts.contains(&id) && !shown.to_string().contains(&id));
    assert!(refused(&mut scene, &["task", "show", "nobody"]).contains("nobody knows"));
}

#[test]
fn a_role_nobody_has_credentials_for_is_told_wherever_one_looks() {
    let (mut scene, cgroup) = scene();
    let path = relative(&cgroup);
    let unknown = "arn:aws:iam::111122223333:role/REGISTERED";
    let add = ["task", "add", "registered", "--cgroup", &path, "--role-arn", unknown];
    let Output { status, stderr, .. } = run(&mut scene, &add);
    let warning = String::from_utf8(stderr).unwrap();
    assert!(status.success() && warning.contains(unknown), "{warning}");
    for command in [&["task", "list"][..], &["task", "show", "registered"]] {
        let text = told(&mut scene, command);
        assert!(text.contains(&format!("{unknown} NO CREDENTIALS")), "{text}");
    }
    let own = "/v2/credentials/self";
    let text = told(&mut scene, &["explain", "--cgroup", &path, "--path", own]);
    assert!(text.contains("deny: no_credentials"), "{text}");
    assert_eq!(process(&scene, &cgroup).get(own).unwrap().body_text(), REFUSAL);
    let is_denied = |record: &Record| record.is_endpoint("deny", "no_credentials") && record.is_of("registered");
    scene.audit().wait_for(is_denied).unwrap();
}

#[test]
fn a_container_with_the_control_socket_registers_nothing() {
    let (mut scene, cgroup) = scene();
    let socket = scene.path("/run/enforcer/control.sock");
    let command = |lab: &Path, place: &Place, _address| {
        let mut command = place.command(lab, &lab.with_file_name("enforcer"));
        command.env("ENFORCER_CONTROL_SOCKET", &socket);
        Ok(command)
    };
    let cgroup = relative(&cgroup);
    let mut command = scene.in_host_container("web", command).unwrap();
    let add = ["task", "add", "forged", "--cgroup", &cgroup, "--role-arn", ROLE];
    let output = command.args(add).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("is guarded"), "{said}");
    let list = told(&mut scene, &["task", "list"]);
    assert!(!list.contains("forged"), "{list}");
}

#[test]
fn what_would_be_decided_is_explained_and_nothing_is_recorded() {
    let (mut scene, cgroup) = scene();
    let uri = register(&mut scene, "registered", &cgroup);
    let of_web = scene.task("web").unwrap().path();
    let process = process(&scene, &cgroup);
    let (pid, path) = (process.pid().to_string(), relative(&cgroup));
    for who in [["--pid", &*pid], ["--cgroup", &*path]] {
        for (to, decided) in [
            ("169.254.169.254:80", ["deny", "imds_blocked"]),
            ("169.254.170.2:80", ["steer", "credential_endpoint"]),
            ("10.77.0.1:80", ["pass", "not_protected"]),
        ] {
            let told = json(&mut scene, &["explain", who[0], who[1], "--to", to]);
            assert_eq!(
                (&told["task"], &told["known_from"][0]),
                (&"registered".into(), &"registration".into())
            );
            assert_eq!([&told["connection"]["verdict"], &told["connection"]["reason"]], decided);
        }
        for (path, decided) in [
            (&*uri, ["permit", "owner"]),
            (&*of_web, ["deny", "not_owner"]),
            ("/v2/credentials/none", ["deny", "unknown_id"]),
            ("/v3/x", ["deny", "not_credentials"]),
        ] {
            let told = json(&mut scene, &["explain", who[0], who[1], "--path", path]);
            assert_eq!([&told["request"]["verdict"], &told["request"]["reason"]], decided);
        }
    }
    let text = told(&mut scene, &["explain", "--pid", &pid, "--to", "169.254.169.254:80"]);
    assert!(
        text.contains("guarded") && text.contains("deny: imds_blocked"),
        "{text}"
    );
    let trusted = relative(&scene.trusted());
    let text = told(
        &mut scene,
        &["explain", "--cgroup", &trusted, "--to", "169.254.169.254:80"],
    );
    assert!(
        text.contains("trusted") && text.contains("allow: host_cgroup"),
        "{text}"
    );
    assert!(refused(&mut scene, &["explain", "--cgroup", "/nowhere"]).contains("there is no cgroup"));
    assert_eq!(run(&mut scene, &["explain"]).status.code(), Some(2));
    // The feed is written one after the other: what was to come before this is there now.
    told(&mut scene, &["task", "remove", "registered"]);
    scene
        .audit()
        .wait_for(|record| record.is_control("task-remove"))
        .unwrap();
    assert!(!scene.audit().text().contains(r#""source":"endpoint""#));
}
