//! Containers of plain runc, which the enforcer learns of from what runc keeps and the bundle this names.

use enforcer_tests::runc::Runc;

use crate::{assert_gets_its_own_only, claim, learning_scene};

#[test]
fn a_container_that_asks_at_once_gets_its_own_and_nothing_else() {
    let scene = learning_scene();
    let runc = Runc::set_up(&scene).unwrap();
    let run = |task| {
        let role = ("enforcer.role-arn", &*scene.role(task).unwrap().role_arn);
        runc.run(&scene, task, &claim(&scene, task), role).unwrap()
    };
    let mut web = run("web");
    assert_gets_its_own_only(&scene, &mut web, "web");
    let mut batch = run("batch");
    assert_gets_its_own_only(&scene, &mut batch, "batch");
}
