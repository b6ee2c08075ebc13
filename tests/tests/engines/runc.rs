//! Containers of plain runc and crun, which the enforcer learns of from what these keep and the bundle this names.

use enforcer_tests::runc::{Program, Runc};

use crate::{assert_gets_its_own_only, claim, learning_scene};

/// A container that asks at once gets its own and nothing else.
fn assert_tells_containers_apart(program: Program) {
    let scene = learning_scene();
    let runtime = Runc::set_up(&scene, program).unwrap();
    let run = |task| {
        let role = ("enforcer.role-arn", &*scene.role(task).unwrap().role_arn);
        runtime.run(&scene, task, &claim(&scene, task), role).unwrap()
    };
    let mut web = run("web");
    assert_gets_its_own_only(&scene, &mut web, "web");
    let mut batch = run("batch");
    assert_gets_its_own_only(&scene, &mut batch, "batch");
}

#[test]
fn containers_of_runc_are_told_apart_at_once() {
    assert_tells_containers_apart(Program::Runc);
}

#[test]
fn containers_of_crun_are_told_apart_at_once() {
    assert_tells_containers_apart(Program::Crun);
}
