//! What a record tells of whom it is about.

use std::process;

use enforcer_tests::{scene::Scene, topology::IMDS};

use crate::EPERM;

/// How often is enough.
const ATTEMPTS: usize = 20;

#[test]
fn a_record_tells_which_process_it_was() {
    let scene = Scene::builder().task("web").start().unwrap();
    let mut web = scene.bridge_container("web").unwrap();
    // On a busy machine a record may go without.
    let told = (0..ATTEMPTS).find_map(|attempt| {
        assert_eq!(web.connect(IMDS).unwrap(), EPERM);
        let sender = scene.audit().next_after(attempt).unwrap().sender.unwrap();
        assert_eq!(sender.pid, web.pid());
        sender.process
    });
    let told = told.unwrap();
    assert!(told.executable.unwrap().ends_with("/lab"));
    assert_eq!(told.command.last().unwrap(), "actor");
    assert!(told.ancestors.iter().any(|ancestor| ancestor.pid == process::id()));
}
