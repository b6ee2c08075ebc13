//! Changing how the enforcer works while it runs: reload, mode, and who may use what is blocked.

use std::{
    fs,
    path::Path,
    process::Output,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use enforcer_common::{
    event::{Hook, Outcome},
    verdict::Reason,
};
use enforcer_tests::{
    actor::Attempt,
    cgroup,
    scene::Scene,
    topology::{IMDS, IMDS_OVER_V6},
};

use crate::{EPERM, REFUSAL, assert_nothing_reached_the_metadata_service, recorded, scene};

/// Runs a subcommand that has to succeed.
fn told(scene: &mut Scene, arguments: &[&str]) {
    let Output { status, stderr, .. } = scene.enforcer().run(arguments).unwrap();
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
}

/// Runs a subcommand that has to fail, and returns why it did.
fn refused(scene: &mut Scene, arguments: &[&str]) -> String {
    let Output { status, stderr, .. } = scene.enforcer().run(arguments).unwrap();
    assert!(!status.success());
    String::from_utf8(stderr).unwrap()
}

/// The configuration without the task of this name.
fn without_task(text: &str, name: &str) -> String {
    let sections = text.split("[[task]]");
    let kept = sections.filter(|section| !section.contains(&format!("name = \"{name}\"")));
    kept.collect::<Vec<_>>().join("[[task]]")
}

#[test]
fn a_reload_takes_tasks_away_and_brings_them_back_and_refuses_no_other_meanwhile() {
    let mut scene = scene();
    let (own, other) = (scene.task("web").unwrap().clone(), scene.task("batch").unwrap().clone());
    let mut web = scene.bridge_container("web").unwrap();
    let mut batch = scene.bridge_container("batch").unwrap();
    let whole = scene.configuration().unwrap();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let client = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                assert!(own.is_served_by(&web.get(&own.path()).unwrap()));
                assert_eq!(web.get(&other.path()).unwrap().body_text(), REFUSAL);
                assert_eq!(web.connect(IMDS).unwrap(), EPERM);
            }
        });
        let outcome = (0..5).try_for_each(|_| {
            scene.configure(|_| without_task(&whole, "batch"))?;
            anyhow::ensure!(scene.enforcer().run(["reload"])?.status.success());
            anyhow::ensure!(batch.get(&other.path())?.body_text() == REFUSAL);
            scene.configure(|_| whole.clone())?;
            anyhow::ensure!(scene.enforcer().run(["reload"])?.status.success());
            anyhow::ensure!(other.is_served_by(&batch.get(&other.path())?));
            Ok(())
        });
        is_over.store(true, Ordering::Relaxed);
        outcome.unwrap();
        client.join().unwrap();
    });
    assert_nothing_reached_the_metadata_service(&mut scene);
}

#[test]
fn an_invalid_configuration_changes_nothing_and_is_recorded() {
    let mut scene = scene();
    let mut web = scene.bridge_container("web").unwrap();
    scene
        .configure(|text| without_task(&text, "web").replace("[endpoint]", "[endpoint]\nprot = 80"))
        .unwrap();
    // Its own reading of the configuration fails already, so the signal has to show it.
    assert!(refused(&mut scene, &["reload"]).contains("unknown key `prot`; did you mean `port`?"));
    scene.enforcer().hang_up().unwrap();
    let record = scene.audit().wait_for(|record| record.is_control("reload")).unwrap();
    assert!(record.error.unwrap().contains("stays as it was: "));
    assert_eq!(record.by.unwrap()["signal"], "SIGHUP");
    let task = scene.task("web").unwrap();
    assert!(task.is_served_by(&web.get(&task.path()).unwrap()));
}

#[test]
fn what_cannot_change_live_is_named_and_nothing_is_applied() {
    let mut scene = scene();
    let mut web = scene.bridge_container("web").unwrap();
    scene
        .configure(|text| without_task(&text, "web").replace("[endpoint]", "[endpoint]\nsteer-port = 22000"))
        .unwrap();
    let problem = refused(&mut scene, &["reload"]);
    assert!(
        problem.contains("endpoint.steer-port cannot change while the enforcer runs"),
        "{problem}"
    );
    let record = scene.audit().wait_for(|record| record.is_control("reload")).unwrap();
    assert_eq!(record.by.unwrap()["process"]["uid"], 0);
    let task = scene.task("web").unwrap();
    assert!(task.is_served_by(&web.get(&task.path()).unwrap()));
}

#[test]
fn the_mode_switches_live_and_a_reload_brings_the_configured_one_back() {
    let mut scene = scene();
    let mut web = scene.bridge_container("web").unwrap();
    let foreign = scene.task("batch").unwrap().clone();
    assert_eq!(web.connect(IMDS).unwrap(), EPERM);
    told(&mut scene, &["mode", "observe"]);
    assert_eq!(web.connect(IMDS).unwrap(), Attempt::Done);
    assert!(foreign.is_served_by(&web.get(&foreign.path()).unwrap()));
    recorded(&scene, Hook::Connect4, Outcome::WouldDeny, Reason::ImdsBlocked, "web");
    let is_observed = |record: &enforcer_tests::audit::Record| record.is_endpoint("would_deny", "not_owner");
    scene.audit().wait_for(is_observed).unwrap();
    told(&mut scene, &["reload"]);
    assert_eq!(web.connect(IMDS).unwrap(), EPERM);
    assert_eq!(web.get(&foreign.path()).unwrap().body_text(), REFUSAL);
    scene.audit().wait_for(|record| record.is_control("reload")).unwrap();
    let modes: Vec<_> = scene
        .audit()
        .records()
        .unwrap()
        .into_iter()
        .filter_map(|record| record.mode)
        .collect();
    assert_eq!(modes, ["observe", "enforce"]);
}

/// Keeps 500 cgroups there: each is there for several looks at the tree, and each look finds some that no earlier one did.
fn keep_making_cgroups(directory: &Path, is_over: &AtomicBool) {
    let cgroup = |number: usize| directory.join(number.to_string());
    (0..500).for_each(|number| fs::create_dir(cgroup(number)).unwrap());
    let mut oldest = 0;
    while !is_over.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(2));
        fs::create_dir(cgroup(oldest + 500)).unwrap();
        fs::remove_dir(cgroup(oldest)).unwrap();
        oldest += 1;
    }
}

#[test]
fn who_never_stops_making_cgroups_below_a_trusted_one_keeps_no_command_waiting() {
    let mut scene = scene();
    let restless = scene.trusted().join("restless");
    cgroup::create(&restless).unwrap();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| keep_making_cgroups(&restless, &is_over));
        let outcome = (0..5).try_for_each(|_| {
            let output = scene.enforcer().run(["reload"])?;
            anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Ok(())
        });
        is_over.store(true, Ordering::Relaxed);
        outcome.unwrap();
    });
}

#[test]
fn one_task_can_be_observed_while_others_are_not() {
    let mut scene = scene();
    scene
        .configure(|text| text.replace("name = \"web\"", "name = \"web\"\nobserve = true"))
        .unwrap();
    told(&mut scene, &["reload"]);
    let (own, other) = (scene.task("web").unwrap().clone(), scene.task("batch").unwrap().clone());
    let mut web = scene.bridge_container("web").unwrap();
    let mut batch = scene.bridge_container("batch").unwrap();
    assert_eq!(web.connect(IMDS).unwrap(), Attempt::Done);
    assert_eq!(batch.connect(IMDS).unwrap(), EPERM);
    assert!(other.is_served_by(&web.get(&other.path()).unwrap()));
    assert_eq!(batch.get(&own.path()).unwrap().body_text(), REFUSAL);
    recorded(&scene, Hook::Connect4, Outcome::WouldDeny, Reason::ImdsBlocked, "web");
    recorded(&scene, Hook::Connect4, Outcome::Denied, Reason::ImdsBlocked, "batch");
}

#[test]
fn an_exception_lets_one_task_use_what_is_blocked_and_records_each_use() {
    let mut scene = scene();
    let mut web = scene.bridge_container("web").unwrap();
    let mut batch = scene.bridge_container("batch").unwrap();
    assert_eq!(web.connect(IMDS).unwrap(), EPERM);
    scene
        .configure(|text| text.replace("name = \"web\"", "name = \"web\"\nallow = [\"imds\"]"))
        .unwrap();
    told(&mut scene, &["reload"]);
    for address in [IMDS, IMDS_OVER_V6] {
        assert_eq!(web.connect(address).unwrap(), Attempt::Done);
        assert_eq!(batch.connect(address).unwrap(), EPERM);
    }
    recorded(&scene, Hook::Connect4, Outcome::Allowed, Reason::Exception, "web");
    scene.configure(|text| text.replace("allow = [\"imds\"]", "")).unwrap();
    told(&mut scene, &["reload"]);
    assert_eq!(web.connect(IMDS).unwrap(), EPERM);
}

#[test]
fn a_group_can_be_added_and_turned_off() {
    let mut scene = scene();
    let mut web = scene.bridge_container("web").unwrap();
    let bridge = (enforcer_tests::topology::BRIDGE_V4, 80).into();
    assert_ne!(web.connect(bridge).unwrap(), EPERM);
    let groups = format!(
        "[protect.imds]\nenabled = false\n[protect.bridge]\naddresses = [\"{}\"]\nports = [80]\n[audit]",
        enforcer_tests::topology::BRIDGE_V4
    );
    scene.configure(|text| text.replace("[audit]", &groups)).unwrap();
    told(&mut scene, &["reload"]);
    assert_eq!(web.connect(bridge).unwrap(), EPERM);
    assert_eq!(web.connect(IMDS).unwrap(), Attempt::Done);
}
