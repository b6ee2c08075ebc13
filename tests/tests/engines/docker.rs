//! A Docker engine: who runs a container with a label for a role, and nothing else, gets the role's credentials in it.

use std::fs;

use enforcer_tests::{
    actor::{Actor, Attempt},
    cgroup,
    docker::{Container, Docker, Iptables},
    http::Response,
    programs::container_starts,
    scene::{Scene, credential_id},
    topology::{BRIDGE_V4, ENDPOINT},
};
use nix::errno::Errno;

/// The answer to who may have nothing.
const REFUSED: u16 = 400;

/// The caller's own credentials.
pub(super) const OWN: &str = "/v2/credentials/self";

/// How often a container is looked at that ends soon.
const MOST_LOOKS: usize = 1000;

/// Asks for what the environment says, first of all.
pub(super) const ASK: &str = r#"exec 3<>/dev/tcp/169.254.170.2/80 &&
    printf 'GET %s HTTP/1.1\r\nHost: 169.254.170.2\r\nConnection: close\r\n\r\n' "$AWS_CONTAINER_CREDENTIALS_RELATIVE_URI" >&3 &&
    cat <&3"#;

/// A running enforcer that knows two roles and no task, then an engine.
pub(super) fn scene() -> (Scene, Docker) {
    let scene = Scene::builder().role("web").role("batch").start().unwrap();
    let docker = Docker::start(&scene, Iptables::Nft).unwrap();
    (scene, docker)
}

/// Options that give a container a role and tell it to ask for its own credentials.
pub(super) fn with_role(scene: &Scene, role: &str) -> [String; 2] {
    [
        format!("--label=enforcer.role-arn={}", scene.role(role).unwrap().role_arn),
        asking(OWN),
    ]
}

/// The option that tells a container where to ask.
pub(super) fn asking(path: &str) -> String {
    format!("--env=AWS_CONTAINER_CREDENTIALS_RELATIVE_URI={path}")
}

/// A container with a role, and further options.
pub(super) fn run(scene: &Scene, docker: &Docker, [name, role, network]: [&str; 3], options: &[&str]) -> Container {
    let [label, environment] = with_role(scene, role);
    let options: Vec<_> = [&*label, &environment]
        .into_iter()
        .chain(options.iter().copied())
        .collect();
    docker.run_named(name, network, &options).unwrap()
}

#[track_caller]
pub(super) fn assert_has_only(scene: &Scene, container: &mut Actor, role: &str) {
    let answer = container.get(OWN).unwrap();
    assert!(scene.role(role).unwrap().is_served_by(&answer), "{answer:?}");
    let foreign = container
        .get("/v2/credentials/d8f91d60-f0c6-4160-b32b-3f61089b625a")
        .unwrap();
    assert_eq!(foreign.status, REFUSED);
}

#[track_caller]
pub(super) fn assert_is_refused(answer: &Response) {
    assert_eq!(answer.status, REFUSED, "{answer:?}");
}

/// What a script got is a role's credentials.
#[track_caller]
pub(super) fn assert_got(scene: &Scene, answer: &str, role: &str) {
    let body = scene.role(role).unwrap().body();
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.ends_with(&body),
        "{answer}"
    );
}

#[test]
fn containers_get_their_credentials_as_their_very_first_action() {
    let (scene, docker) = scene();
    let kinds = [
        ("web", "bridge"),
        ("batch", "host"),
        ("batch", "bridge"),
        ("web", "host"),
    ];
    let starts = container_starts().unwrap().try_into().unwrap();
    for (role, network) in kinds.into_iter().cycle().take(starts) {
        let network = &format!("--network={network}");
        let [label, environment] = with_role(&scene, role);
        let answer = docker
            .run_script(&["--rm", network, &label, &environment], ASK)
            .unwrap();
        assert_got(&scene, &answer, role);
    }
}

#[test]
fn in_every_network_mode_there_are_ones_own_credentials() {
    let (scene, docker) = scene();
    docker.network_create("shop", &[]).unwrap();
    let mut web = run(&scene, &docker, ["web", "web", "bridge"], &[]);
    assert_has_only(&scene, &mut web, "web");
    for (name, network) in [("shopping", "shop"), ("hosted", "host"), ("guest", "container:web")] {
        let mut batch = run(&scene, &docker, [name, "batch", network], &[]);
        assert_has_only(&scene, &mut batch, "batch");
        assert_has_only(&scene, &mut web, "web");
    }
    let mut isolated = run(&scene, &docker, ["isolated", "batch", "none"], &[]);
    assert_eq!(
        isolated.connect(ENDPOINT).unwrap(),
        Attempt::Refused(Errno::ENETUNREACH)
    );
}

#[test]
fn a_container_is_the_same_wherever_its_cgroup_is_and_whatever_it_may() {
    let (scene, docker) = scene();
    let elsewhere = format!("--cgroup-parent={}", scene.name().join("root/elsewhere/deep").display());
    // As `--privileged`, which takes a machine where root has every capability.
    let privileges = [
        "--cap-add=ALL",
        "--cap-drop=SYS_RESOURCE",
        "--security-opt=seccomp=unconfined",
    ];
    for (name, options) in [
        ("parent", &[&*elsewhere][..]),
        ("namespace", &["--cgroupns=host"]),
        ("privileged", &privileges),
    ] {
        let mut container = run(&scene, &docker, [name, "web", "bridge"], options);
        assert_has_only(&scene, &mut container, "web");
    }
}

#[test]
fn what_is_executed_in_a_container_is_the_container() {
    let (scene, docker) = scene();
    let web = run(&scene, &docker, ["web", "web", "bridge"], &[]);
    assert_got(&scene, &docker.execute(&[], web.name(), ASK).unwrap(), "web");
    let user = docker.execute(&["--user=65534"], web.name(), ASK).unwrap();
    assert_got(&scene, &user, "web");
}

#[test]
fn a_container_that_is_restarted_gets_its_credentials_again() {
    let (scene, docker) = scene();
    let [label, environment] = with_role(&scene, "web");
    let answer = docker.run_script(&["--name=web", &label, &environment], ASK).unwrap();
    assert_got(&scene, &answer, "web");
    for _ in 0..3 {
        let answer = docker.call(["start", "--attach", "web"]).unwrap();
        assert_got(&scene, &answer, "web");
    }
}

#[test]
fn a_container_that_the_engine_restarts_gets_its_credentials_each_time() {
    const RESTARTS: usize = 3;
    let (scene, docker) = scene();
    let [label, environment] = with_role(&scene, "web");
    let policy = format!("--restart=on-failure:{RESTARTS}");
    let options = ["--detach", "--name=web", &policy, &label, &environment];
    docker.run_script(&options, &format!("{ASK}; false")).unwrap();
    let state = || docker.call(["inspect", "--format={{.State.Status}} {{.RestartCount}}", "web"]);
    let ended = format!("exited {RESTARTS}");
    // `docker wait` is over when it ends for the first time.
    let has_ended = |_: &usize| state().unwrap().trim() == ended;
    (0..MOST_LOOKS).find(has_ended).expect("it ends for good");
    let printed = docker.call(["logs", "web"]).unwrap();
    let body = scene.role("web").unwrap().body();
    assert_eq!(printed.matches(&body).count(), RESTARTS + 1, "{printed}");
}

#[test]
fn containers_share_a_task_if_they_have_the_same_role() {
    let (scene, docker) = scene();
    let id = credential_id().unwrap();
    let path = format!("/v2/credentials/{id}");
    let shop = "--label=enforcer.task=shop";
    let mut owner = run(&scene, &docker, ["owner", "web", "bridge"], &[shop, &asking(&path)]);
    let mut member = run(&scene, &docker, ["member", "web", "bridge"], &[shop]);
    let mut other = run(&scene, &docker, ["other", "batch", "bridge"], &[shop]);
    let answer = owner.get(&path).unwrap();
    assert!(scene.role("web").unwrap().is_served_by(&answer), "{answer:?}");
    assert!(scene.role("web").unwrap().is_served_by(&member.get(&path).unwrap()));
    assert_is_refused(&other.get(&path).unwrap());
    assert_has_only(&scene, &mut other, "batch");
}

#[test]
fn who_claims_anothers_id_does_not_get_it() {
    let (mut scene, docker) = scene();
    let id = credential_id().unwrap();
    let path = format!("/v2/credentials/{id}");
    let mut owner = run(&scene, &docker, ["owner", "web", "bridge"], &[&asking(&path)]);
    let mut thief = run(&scene, &docker, ["thief", "batch", "bridge"], &[&asking(&path)]);
    assert_is_refused(&thief.get(&path).unwrap());
    let answer = owner.get(&path).unwrap();
    assert!(scene.role("web").unwrap().is_served_by(&answer), "{answer:?}");
    let log = scene.enforcer().log();
    assert!(
        log.contains("claims a credential ID that is another's") && !log.contains(&id),
        "{log}"
    );
}

#[test]
fn an_environment_that_is_rewritten_while_it_runs_changes_nothing() {
    let (scene, docker) = scene();
    let id = credential_id().unwrap();
    let path = format!("/v2/credentials/{id}");
    let _owner = run(&scene, &docker, ["owner", "web", "bridge"], &[&asking(&path)]);
    let plain = docker.run_named("plain", "bridge", &[]).unwrap();
    for options in [vec![asking(&path)], vec![asking(OWN)]] {
        let options: Vec<_> = options.iter().map(String::as_str).collect();
        let answer = docker.execute(&options, plain.name(), ASK).unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
}

#[test]
fn labels_that_name_others_tasks_give_nothing() {
    let scene = Scene::builder().task("batch").role("web").start().unwrap();
    let docker = Docker::start(&scene, Iptables::Nft).unwrap();
    let arn = "arn:aws:ecs:us-west-2:111122223333:task/shop/0123456789abcdef0123456789abcdef";
    let label = format!("--label=com.amazonaws.ecs.task-arn={arn}");
    let mut forger = run(&scene, &docker, ["forger", "web", "bridge"], &[&label]);
    assert_is_refused(&forger.get(OWN).unwrap());
    let mut member = run(
        &scene,
        &docker,
        ["member", "web", "bridge"],
        &["--label=enforcer.task=batch"],
    );
    assert_is_refused(&member.get(&scene.task("batch").unwrap().path()).unwrap());
    assert_has_only(&scene, &mut member, "web");
}

#[test]
fn a_cgroup_that_is_called_like_a_containers_is_nobodys() {
    let (scene, docker) = scene();
    let mut web = run(&scene, &docker, ["web", "web", "bridge"], &[]);
    let own = cgroup::of_process(web.pid()).unwrap();
    let id = own.file_name().unwrap();
    let engine = scene.root().join("engine");
    for lookalike in [
        scene.root().join("lookalike").join(id),
        engine.join("other").join(id),
        scene.root().join("docker").join(id),
    ] {
        fs::create_dir_all(&lookalike).unwrap();
        let network = scene.host_network();
        let mut impostor = scene.start(&lookalike, network, web.address(), Actor::start).unwrap();
        assert_is_refused(&impostor.get(OWN).unwrap());
    }
    assert_has_only(&scene, &mut web, "web");
}

#[test]
fn containers_older_than_the_enforcer_are_found() {
    let mut scene = Scene::builder().role("web").prepare().unwrap();
    let docker = Docker::start(&scene, Iptables::Nft).unwrap();
    let mut web = run(&scene, &docker, ["web", "web", "bridge"], &[]);
    scene.enforcer().start().unwrap();
    assert_has_only(&scene, &mut web, "web");
    scene.enforcer().terminate().unwrap();
    let mut later = run(&scene, &docker, ["later", "web", "host"], &[]);
    scene.enforcer().start().unwrap();
    for container in [&mut web, &mut later] {
        assert_has_only(&scene, container, "web");
    }
}

#[test]
fn an_engine_may_go_and_come_back() {
    let (scene, mut docker) = scene();
    let [label, environment] = with_role(&scene, "web");
    let options = ["--detach", "--name=web", "--network=host", &label, &environment];
    docker.run_script(&options, "exec sleep infinity").unwrap();
    let pid = docker.call(["inspect", "--format={{.State.Pid}}", "web"]).unwrap();
    let cgroup = cgroup::of_process(pid.trim().parse().unwrap()).unwrap();
    let (network, address) = (scene.host_network(), BRIDGE_V4);
    let mut web = scene.start(&cgroup, network, address, Actor::start).unwrap();
    assert_has_only(&scene, &mut web, "web");
    docker.stop().unwrap();
    assert_has_only(&scene, &mut web, "web");
    docker.start_again(&scene).unwrap();
    assert_has_only(&scene, &mut web, "web");
    let mut batch = run(&scene, &docker, ["batch", "batch", "bridge"], &[]);
    assert_has_only(&scene, &mut batch, "batch");
}
