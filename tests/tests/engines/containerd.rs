//! Containers of a real containerd and runc, which the enforcer learns of from what these keep.

use enforcer_tests::{actor::Actor, containerd::Containerd, scene::Scene, topology::BRIDGE_V4};

use crate::{REFUSAL, annotation, assert_gets_its_own, assert_gets_its_own_only, claim, learning_scene};

/// How many containers ask as soon as they are there.
const IN_A_ROW: usize = 20;

/// A running enforcer that was told nothing of tasks, then containerd.
fn scene() -> (Scene, Containerd) {
    let scene = learning_scene();
    let containerd = Containerd::start(&scene).unwrap();
    (scene, containerd)
}

/// Runs a container of a task.
fn run(scene: &Scene, containerd: &Containerd, id: &str, task: &str) -> Actor {
    let (claim, role, name) = (
        claim(scene, task),
        annotation(scene, task),
        format!("enforcer.task={task}"),
    );
    let options = ["--env", &claim, "--annotation", &role, "--annotation", &name];
    containerd.run(scene, id, &options).unwrap()
}

#[test]
fn a_container_that_asks_at_once_gets_its_own_and_nothing_else() {
    let (scene, containerd) = scene();
    let mut web = run(&scene, &containerd, "web", "web");
    assert_gets_its_own(&scene, &mut web, "web");
    let mut batch = run(&scene, &containerd, "batch", "batch");
    assert_gets_its_own_only(&scene, &mut batch, "batch");
    assert_gets_its_own_only(&scene, &mut web, "web");
}

#[test]
fn no_container_asks_too_early() {
    let (scene, containerd) = scene();
    for number in 0..IN_A_ROW {
        let task = if number % 2 == 0 { "web" } else { "batch" };
        let mut container = run(&scene, &containerd, &format!("{task}-{number}"), task);
        assert_gets_its_own(&scene, &mut container, task);
    }
}

#[test]
fn what_a_container_says_of_itself_later_counts_for_nothing() {
    let (scene, containerd) = scene();
    let mut web = run(&scene, &containerd, "web", "web");
    assert_gets_its_own(&scene, &mut web, "web");
    // It claims the other's ID, and came later.
    let mut forger = containerd
        .run(&scene, "forger", &["--env", &claim(&scene, "web")])
        .unwrap();
    let theirs = scene.role("web").unwrap();
    assert_eq!(forger.get(&theirs.path()).unwrap().body_text(), REFUSAL);
    assert_gets_its_own(&scene, &mut web, "web");
}

#[test]
fn containers_are_known_while_containerd_is_gone_and_after() {
    let (scene, mut containerd) = scene();
    let web = run(&scene, &containerd, "web", "web");
    containerd.end().unwrap();
    // The container goes on, but its client has ended: another process of it has to ask.
    drop(web);
    let cgroup = scene.root().join("engine/web");
    let mut web = scene
        .start(&cgroup, scene.host_network(), BRIDGE_V4, Actor::start)
        .unwrap();
    assert_gets_its_own(&scene, &mut web, "web");
    containerd.start_again(&scene).unwrap();
    assert_gets_its_own(&scene, &mut web, "web");
    let mut batch = run(&scene, &containerd, "batch", "batch");
    assert_gets_its_own(&scene, &mut batch, "batch");
}

#[test]
fn a_restarted_enforcer_knows_the_containers_that_are_there() {
    let (mut scene, containerd) = scene();
    let mut web = run(&scene, &containerd, "web", "web");
    assert_gets_its_own(&scene, &mut web, "web");
    scene.enforcer().restart().unwrap();
    assert_gets_its_own(&scene, &mut web, "web");
}

#[test]
fn another_container_of_the_same_name_is_another_one() {
    let (scene, containerd) = scene();
    let mut web = run(&scene, &containerd, "same", "web");
    assert_gets_its_own(&scene, &mut web, "web");
    containerd.remove(&scene, "same", web).unwrap();
    let mut batch = run(&scene, &containerd, "same", "batch");
    assert_gets_its_own_only(&scene, &mut batch, "batch");
}

#[test]
fn an_id_is_free_when_its_container_is_gone() {
    let (scene, containerd) = scene();
    let (claim, role) = (claim(&scene, "web"), annotation(&scene, "web"));
    let options = ["--env", &claim, "--annotation", &role];
    let mut first = containerd.run(&scene, "first", &options).unwrap();
    assert_gets_its_own(&scene, &mut first, "web");
    let mut second = containerd.run(&scene, "second", &options).unwrap();
    let path = scene.role("web").unwrap().path();
    assert_eq!(second.get(&path).unwrap().body_text(), REFUSAL);
    containerd.remove(&scene, "first", first).unwrap();
    let mut third = containerd.run(&scene, "third", &["--annotation", &role]).unwrap();
    // Whoever is looked for next, what is gone is found gone.
    assert_eq!(third.get(&path).unwrap().body_text(), REFUSAL);
    assert_gets_its_own(&scene, &mut second, "web");
}
