//! Containers of a real Podman, which the enforcer learns of from what Podman and its runtime keep.

use enforcer_tests::{actor::Actor, podman::Podman, scene::Scene};

use crate::{REFUSAL, annotation, assert_gets_its_own, assert_gets_its_own_only, claim, learning_scene};

fn run(scene: &Scene, podman: &Podman, name: &str, task: &str) -> Actor {
    let (claim, role) = (claim(scene, task), annotation(scene, task));
    podman
        .run(scene, name, &["--env", &claim, "--annotation", &role])
        .unwrap()
}

#[test]
fn a_container_that_asks_at_once_gets_its_own_and_nothing_else() {
    let scene = learning_scene();
    let podman = Podman::set_up(&scene).unwrap();
    let mut web = run(&scene, &podman, "web", "web");
    assert_gets_its_own(&scene, &mut web, "web");
    let mut batch = run(&scene, &podman, "batch", "batch");
    assert_gets_its_own_only(&scene, &mut batch, "batch");
    assert_gets_its_own_only(&scene, &mut web, "web");
}

#[test]
fn a_container_has_its_id_while_it_is_stopped_and_when_it_starts_again() {
    let scene = learning_scene();
    let podman = Podman::set_up(&scene).unwrap();
    let theirs = scene.role("web").unwrap().path();
    let web = run(&scene, &podman, "web", "web");
    let mut other = podman.run(&scene, "other", &["--env", &claim(&scene, "web")]).unwrap();
    let mut assert_is_refused = || assert_eq!(other.get(&theirs).unwrap().body_text(), REFUSAL);
    assert_is_refused();
    podman.stop(&scene, "web", web).unwrap();
    // Whoever is looked for next, what is stopped is found stopped.
    let mut batch = run(&scene, &podman, "batch", "batch");
    assert_gets_its_own(&scene, &mut batch, "batch");
    assert_is_refused();
    let mut web = podman.start_again(&scene, "web").unwrap();
    assert_gets_its_own_only(&scene, &mut web, "web");
    assert_is_refused();
}
