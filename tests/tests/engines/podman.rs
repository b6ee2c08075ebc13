//! Containers of a real Podman, which the enforcer learns of from what Podman and its runtime keep.

use enforcer_tests::{actor::Actor, podman::Podman, scene::Scene};

use crate::{annotation, assert_gets_its_own, assert_gets_its_own_only, claim, learning_scene};

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
