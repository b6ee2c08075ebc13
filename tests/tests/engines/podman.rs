//! Containers of a real Podman, which the enforcer learns of from what Podman and its runtime keep.

use enforcer_tests::{actor::Actor, podman::Podman, scene::Scene};

use crate::{REFUSAL, annotation, assert_gets_its_own, assert_gets_its_own_only, claim, learner, learning_scene};

/// A running enforcer that believes annotations of Podman's containers, and Podman.
fn scene() -> (Scene, Podman) {
    let mut scene = learner().prepare().unwrap();
    scene
        .configure(|text| text + "\n[sources.oci]\npodman-annotations = true\n")
        .unwrap();
    scene.enforcer().start().unwrap();
    let podman = Podman::set_up(&scene).unwrap();
    (scene, podman)
}

fn run(scene: &Scene, podman: &Podman, name: &str, task: &str) -> Actor {
    let (claim, role) = (claim(scene, task), annotation(scene, task));
    podman
        .run(scene, name, &["--env", &claim, "--annotation", &role])
        .unwrap()
}

#[test]
fn a_container_that_asks_at_once_gets_its_own_and_nothing_else() {
    let (scene, podman) = scene();
    let mut web = run(&scene, &podman, "web", "web");
    assert_gets_its_own(&scene, &mut web, "web");
    let mut batch = run(&scene, &podman, "batch", "batch");
    assert_gets_its_own_only(&scene, &mut batch, "batch");
    assert_gets_its_own_only(&scene, &mut web, "web");
}

#[test]
fn a_container_has_its_id_while_it_is_stopped_and_when_it_starts_again() {
    let (scene, podman) = scene();
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

#[test]
fn an_image_chooses_no_role_for_its_containers() {
    let scene = learning_scene();
    let podman = Podman::set_up(&scene).unwrap();
    podman.annotate_image(&scene, &annotation(&scene, "web")).unwrap();
    let mut container = podman.run(&scene, "web", &["--env", &claim(&scene, "web")]).unwrap();
    // What it claims is its own, if nobody else's; what a role's name alone would give is not.
    let answer = container.get(&scene.role("web").unwrap().path()).unwrap();
    assert_eq!(answer.body_text(), REFUSAL);
    let answer = container.get("/v2/credentials/self").unwrap();
    assert_eq!(answer.body_text(), REFUSAL);
}
