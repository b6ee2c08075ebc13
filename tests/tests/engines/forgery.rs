//! What containers of a Docker engine, and who may choose how they are made, try to pass for others.

use std::{fs, path::Path, thread};

use enforcer_tests::{
    actor::{Actor, Attempt},
    cgroup,
    docker::Container,
    scene::{Scene, credential_id},
    topology::{BRIDGE_V4, IMDS},
};
use nix::errno::Errno;

use super::docker::{ASK, OWN, asking, assert_got, assert_has_only, assert_is_refused, run, scene, with_role};

/// How often the heir of a credential ID asks for it at most.
const MOST_TRIES: u32 = 100_000;

/// The beginning of a refusal.
const REFUSED: &str = "HTTP/1.1 400 ";

/// Shows processes of another container in place of the real ones, and asks then.
const FAKE_PROC: &str = r#"mkdir -p /fake/self /fake/1 &&
    echo "0::$VICTIM" | tee /fake/self/cgroup > /fake/1/cgroup &&
    mount --bind /fake /proc && grep -q "$VICTIM" /proc/self/cgroup &&"#;

/// The option that puts a container into a cgroup.
fn put_into(cgroup: &Path) -> String {
    let relative = cgroup.strip_prefix(cgroup::mount().unwrap()).unwrap();
    format!("--cgroup-parent=/{}", relative.display())
}

fn cgroup_of(container: &Container) -> std::path::PathBuf {
    cgroup::of_process(container.pid()).unwrap()
}

fn process(scene: &Scene, cgroup: &Path) -> Actor {
    fs::create_dir_all(cgroup).unwrap();
    scene
        .start(cgroup, scene.host_network(), BRIDGE_V4, Actor::start)
        .unwrap()
}

#[test]
fn an_image_chooses_no_role_for_its_containers() {
    let (scene, docker) = scene();
    let [label, own] = with_role(&scene, "web");
    let maker = docker.create(&[&label, "--label=enforcer.task=shop"]).unwrap();
    docker.commit(&maker).unwrap();
    let answer = docker.run_script(&["--rm", &own], ASK).unwrap();
    assert!(answer.starts_with(REFUSED), "{answer}");
    scene
        .audit()
        .wait_for(|record| record.source == "attribution" && record.reason.as_deref() == Some("forged"))
        .unwrap();
    let [label, own] = with_role(&scene, "batch");
    let answer = docker.run_script(&["--rm", &label, &own], ASK).unwrap();
    assert_got(&scene, &answer, "batch");
}

#[test]
fn a_container_that_is_put_into_the_cgroup_of_another_is_itself_from_its_first_action() {
    let (scene, docker) = scene();
    let path = format!("/v2/credentials/{}", credential_id().unwrap());
    let mut web = run(&scene, &docker, ["web", "web", "bridge"], &[&asking(&path)]);
    let inside = put_into(&cgroup_of(&web));
    let [label, own] = with_role(&scene, "batch");
    for _ in 0..3 {
        let answer = docker.run_script(&["--rm", &inside, &label, &own], ASK).unwrap();
        assert_got(&scene, &answer, "batch");
        for asked in [OWN, &path] {
            let answer = docker.run_script(&["--rm", &inside, &asking(asked)], ASK).unwrap();
            assert!(answer.starts_with(REFUSED), "{answer}");
        }
    }
    assert_has_only(&scene, &mut web, "web");
}

#[test]
fn a_container_that_is_put_below_a_registered_one_is_not_registered_with_it() {
    let (mut scene, docker) = scene();
    let web = docker.run_named("web", "bridge", &[]).unwrap();
    let id = docker.call(["inspect", "--format={{.Id}}", "web"]).unwrap();
    let role = scene.role("web").unwrap().role_arn.clone();
    let add = [
        "task",
        "add",
        "registered",
        "--container",
        id.trim(),
        "--role-arn",
        &role,
    ];
    let added = scene.enforcer().run(add).unwrap();
    let uri = String::from_utf8(added.stdout).unwrap();
    assert!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
    let inside = put_into(&cgroup_of(&web));
    let answer = docker.run_script(&["--rm", &inside, &asking(uri.trim())], ASK).unwrap();
    assert!(answer.starts_with(REFUSED), "{answer}");
    let answer = docker.execute(&[&asking(uri.trim())], "web", ASK).unwrap();
    assert_got(&scene, &answer, "web");
    let unknown = scene
        .enforcer()
        .run([
            "task",
            "add",
            "nobody",
            "--container",
            &"0".repeat(64),
            "--role-arn",
            &role,
        ])
        .unwrap();
    let said = String::from_utf8(unknown.stderr).unwrap();
    assert!(
        !unknown.status.success() && said.contains("no source knows the container"),
        "{said}"
    );
}

#[test]
fn cgroups_that_a_container_makes_are_its_own_whatever_it_calls_them() {
    let (scene, docker) = scene();
    let web = run(&scene, &docker, ["web", "web", "bridge"], &[]);
    let batch = run(&scene, &docker, ["batch", "batch", "bridge"], &[]);
    let others = cgroup_of(&batch);
    let name = others.file_name().unwrap().to_str().unwrap();
    for below in [
        name.to_owned(),
        format!("docker-{name}.scope"),
        format!("init/{}", "0".repeat(64)),
    ] {
        let mut process = process(&scene, &cgroup_of(&web).join(&below));
        assert_has_only(&scene, &mut process, "web");
    }
}

#[test]
fn a_container_that_is_put_below_a_trusted_service_is_guarded() {
    let (mut scene, docker) = scene();
    let below = put_into(&scene.trusted().join("some.service"));
    let mut web = run(&scene, &docker, ["web", "web", "host"], &[&below]);
    assert_eq!(web.connect(IMDS).unwrap(), Attempt::Refused(Errno::EPERM));
    assert_has_only(&scene, &mut web, "web");
    let cgroup = cgroup_of(&web);
    let relative = cgroup.strip_prefix(cgroup::mount().unwrap()).unwrap();
    let explained = scene
        .enforcer()
        .run(["explain", "--cgroup", &format!("/{}", relative.display())])
        .unwrap();
    let told = String::from_utf8(explained.stdout).unwrap();
    assert!(told.contains("guarded"), "{told}");
}

#[test]
fn a_proc_that_shows_another_container_changes_nothing() {
    let (scene, docker) = scene();
    let web = run(&scene, &docker, ["web", "web", "bridge"], &[]);
    let victim = cgroup_of(&web);
    let victim = format!(
        "--env=VICTIM=/{}",
        victim.strip_prefix(cgroup::mount().unwrap()).unwrap().display()
    );
    let options = [
        "--rm",
        "--cap-add=SYS_ADMIN",
        "--security-opt=seccomp=unconfined",
        "--security-opt=apparmor=unconfined",
        &victim,
        &asking(OWN),
    ];
    let script = format!("{FAKE_PROC} {ASK}");
    let answer = docker.run_script(&options, &script).unwrap();
    assert!(answer.starts_with(REFUSED), "{answer}");
}

#[test]
fn of_two_containers_that_race_for_an_id_one_has_it_and_keeps_it() {
    let (scene, docker) = scene();
    for round in 0..3 {
        let path = format!("/v2/credentials/{}", credential_id().unwrap());
        let names = ["one", "two"].map(|name| format!("{name}-{round}"));
        let start = |name: &str| run(&scene, &docker, [name, "web", "bridge"], &[&asking(&path)]);
        let mut racers = thread::scope(|scope| {
            let racers: Vec<_> = names.iter().map(|name| scope.spawn(|| start(name))).collect();
            racers
                .into_iter()
                .map(|racer| racer.join().unwrap())
                .collect::<Vec<_>>()
        });
        let mut statuses = || -> Vec<u16> {
            racers
                .iter_mut()
                .map(|racer| racer.get(&path).unwrap().status)
                .collect()
        };
        let first = statuses();
        assert!(first == [200, 400] || first == [400, 200], "{first:?}");
        assert_eq!(statuses(), first);
    }
}

#[test]
fn an_id_is_nobody_elses_while_a_process_of_its_container_is_left() {
    let (scene, docker) = scene();
    let path = format!("/v2/credentials/{}", credential_id().unwrap());
    let owner = run(&scene, &docker, ["owner", "web", "bridge"], &[&asking(&path)]);
    let cgroup = cgroup_of(&owner);
    let mut left = process(&scene, &cgroup);
    assert!(scene.role("web").unwrap().is_served_by(&left.get(&path).unwrap()));
    docker.call(["rm", "--force", "owner"]).unwrap();
    let mut heir = run(&scene, &docker, ["heir", "web", "bridge"], &[&asking(&path)]);
    for container in [&mut left, &mut *heir] {
        assert_is_refused(&container.get(&path).unwrap());
    }
    drop(left);
    cgroup::destroy(&cgroup).unwrap();
    let role = scene.role("web").unwrap();
    // Whether a cgroup is gone is looked at once a second.
    assert!((0..MOST_TRIES).any(|_| role.is_served_by(&heir.get(&path).unwrap())));
}
