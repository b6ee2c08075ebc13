//! Trusted host services that fetch credentials which are not their own.

use std::path::{Path, PathBuf};

use enforcer_common::{
    event::{Hook, Outcome},
    verdict::Reason,
};
use enforcer_tests::{
    actor::{Actor, Attempt},
    audit::Record,
    cgroup,
    scene::{Scene, credential_id},
    topology::{BRIDGE_V4, ENDPOINT, IMDS},
};

use crate::{EPERM, NOBODY_THERE, REFUSAL, assert_nothing_reached_the_metadata_service, wait_until_classified};

const OWN: &str = "/v2/credentials/self";

/// A running enforcer with two consumers below the cgroup of host services: `mount` for IDs of tasks, `engine` for those
/// of execution roles. What is called docker-… there is guarded.
fn scene() -> Scene {
    let mut scene = Scene::builder().task("web").prepare().unwrap();
    let trusted = relative(&scene.trusted());
    let consumer = |name, kind| {
        format!("\n[[consumer]]\nname = \"{name}\"\ncgroups = [\"{trusted}/{name}\"]\nallow = [\"{kind}\"]\n")
    };
    let consumers = consumer("mount", "task") + &consumer("engine", "execution");
    let guarded = format!("guarded = [\"{trusted}/*/docker-*\"]");
    scene
        .configure(|text| text.replace("guarded = []", &guarded) + &consumers)
        .unwrap();
    scene.enforcer().start().unwrap();
    scene
}

fn relative(cgroup: &Path) -> String {
    let relative = cgroup.strip_prefix(cgroup::mount().unwrap()).unwrap();
    format!("/{}", relative.display())
}

/// A process below the cgroup of host services.
fn process(scene: &mut Scene, below: &str) -> Actor {
    let cgroup: PathBuf = scene.trusted().join(below);
    cgroup::create(&cgroup).unwrap();
    wait_until_classified(scene, &cgroup);
    scene
        .start(&cgroup, scene.host_network(), BRIDGE_V4, Actor::start)
        .unwrap()
}

fn recorded(scene: &Scene, verdict: &str, reason: &str) -> Record {
    scene
        .audit()
        .wait_for(|record| record.is_endpoint(verdict, reason))
        .unwrap()
}

#[test]
fn a_consumer_gets_what_it_may_have_and_nothing_of_its_own() {
    let mut scene = scene();
    let web = scene.task("web").unwrap().clone();
    let mut mount = process(&mut scene, "mount");
    assert!(web.is_served_by(&mount.get(&web.path()).unwrap()));
    let record = recorded(&scene, "permit", "consumer");
    assert_eq!((record.consumer.as_deref(), record.task), (Some("mount"), None));
    assert_eq!(mount.get(OWN).unwrap().body_text(), REFUSAL);
    recorded(&scene, "deny", "no_role");
    let steered =
        |record: &Record| record.is_kernel(Hook::Connect4, Reason::CredentialEndpoint) && record.is_verdict("steer");
    scene.audit().wait_for(steered).unwrap();
    let mut engine = process(&mut scene, "engine");
    assert_eq!(engine.get(&web.path()).unwrap().body_text(), REFUSAL);
    recorded(&scene, "deny", "not_owner");
}

#[test]
fn only_a_consumer_for_execution_roles_may_have_theirs() {
    let mut scene = scene();
    let id = credential_id().unwrap();
    let cgroup = relative(&scene.cgroup_of("web").unwrap().join("below"));
    cgroup::create(&scene.cgroup_of("web").unwrap().join("below")).unwrap();
    let add = ["task", "add", "x", "--cgroup", &cgroup, "--execution-id", &id];
    assert!(scene.enforcer().run(add).unwrap().status.success());
    let path = format!("/v2/credentials/{id}");
    let mut mount = process(&mut scene, "mount");
    assert_eq!(mount.get(&path).unwrap().body_text(), REFUSAL);
    recorded(&scene, "deny", "execution_role");
    // It may, but the enforcer's own files have none.
    let mut engine = process(&mut scene, "engine");
    assert_eq!(engine.get(&path).unwrap().body_text(), REFUSAL);
    recorded(&scene, "deny", "no_credentials");
    let mut web = scene.host_container("web").unwrap();
    assert_eq!(web.get(&path).unwrap().body_text(), REFUSAL);
}

#[test]
fn a_consumer_reaches_metadata_as_before_and_other_host_services_are_left_alone() {
    let mut scene = scene();
    let mut mount = process(&mut scene, "mount");
    assert_eq!(mount.connect(IMDS).unwrap(), Attempt::Done);
    assert_eq!(mount.connect(ENDPOINT).unwrap(), Attempt::Done);
    let mut other = scene.host_process().unwrap();
    assert_eq!(other.connect(IMDS).unwrap(), Attempt::Done);
    assert_eq!(other.connect(ENDPOINT).unwrap(), NOBODY_THERE);
}

#[test]
fn a_container_below_a_consumer_is_a_container() {
    let mut scene = scene();
    let web = scene.task("web").unwrap().clone();
    let [cgroup, later] = ["mount/docker-1", "mount/later"].map(|below| scene.trusted().join(below));
    cgroup::create(&cgroup).unwrap();
    cgroup::create(&later).unwrap();
    // The container's has been looked at by then, and nothing was to be said of it.
    wait_until_classified(&mut scene, &later);
    let mut container = scene
        .start(&cgroup, scene.host_network(), BRIDGE_V4, Actor::start)
        .unwrap();
    assert_eq!(container.connect(IMDS).unwrap(), EPERM);
    assert_eq!(container.get(&web.path()).unwrap().body_text(), REFUSAL);
    recorded(&scene, "deny", "no_task");
    let mut joined = scene.host_container("web").unwrap();
    let socket = joined.connected(ENDPOINT).unwrap();
    joined.join(&scene.trusted().join("mount")).unwrap();
    // The connection stays that of the container it was made in.
    let request = enforcer_tests::http::Request::get(&web.path());
    assert_eq!(joined.request(socket, &request).unwrap().status, 200);
    recorded(&scene, "permit", "owner");
    assert_nothing_reached_the_metadata_service(&mut scene);
}

#[test]
fn a_reload_makes_and_unmakes_consumers() {
    let mut scene = scene();
    let path = scene.task("web").unwrap().path();
    let mut mount = process(&mut scene, "mount");
    assert_eq!(mount.get(&path).unwrap().status, 200);
    scene
        .configure(|text| text.replace("allow = [\"task\"]", "allow = []"))
        .unwrap();
    assert!(scene.enforcer().run(["reload"]).unwrap().status.success());
    assert_eq!(mount.connect(ENDPOINT).unwrap(), NOBODY_THERE);
    scene
        .configure(|text| text.replace("allow = []", "allow = [\"task\"]"))
        .unwrap();
    assert!(scene.enforcer().run(["reload"]).unwrap().status.success());
    assert_eq!(mount.get(&path).unwrap().status, 200);
    let steered = |record: &Record| record.is_verdict(Outcome::Steered.name());
    scene.audit().wait_for(steered).unwrap();
}
