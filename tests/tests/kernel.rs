//! The real enforcer on the real kernel, one module per hook. `tests/lab.rs` shows that without it the same attempts
//! succeed.

#![cfg(test)]

use std::path::Path;

use enforcer_common::{
    event::{Hook, Outcome},
    verdict::Reason,
};
use enforcer_tests::{
    actor::Attempt,
    audit::Record,
    cgroup,
    imds::Hits,
    scene::{Scene, credential_id},
};
use nix::errno::Errno;

/// The directory beside this file.
mod kernel {
    mod agent;
    mod audit;
    mod bind;
    mod budget;
    mod check;
    mod connect;
    mod consumers;
    mod coverage;
    mod detour;
    mod device;
    mod egress;
    mod foreign;
    mod hammer;
    mod handover;
    mod hijack;
    mod lifecycle;
    mod observe;
    mod redirect;
    mod reflect;
    mod reload;
    mod sendmsg;
    mod setsockopt;
    mod sock_create;
    mod sock_ops;
    mod stale_sockets;
    mod status;
    mod tasks;
    mod tc;
    mod unattended;
    mod upgrade;
}

/// What a refused system call gives.
const EPERM: Attempt = Attempt::Refused(Errno::EPERM);
/// What nobody listening gives.
const NOBODY_THERE: Attempt = Attempt::Refused(Errno::ECONNREFUSED);
/// The answer to a request for credentials the caller does not own.
const REFUSAL: &str =
    r#"{"code":"InvalidIdInRequest","message":"CredentialsV2Request: Credentials not found","HTTPErrorCode":400}"#;

/// How often the enforcer is asked at most for what it is to say soon.
const MOST_LOOKS: u32 = 1000;

/// Two tasks and a running enforcer.
fn scene() -> Scene {
    Scene::builder().task("web").task("batch").start().unwrap()
}

/// The path of a credential ID that nobody owns.
fn unknown_path() -> String {
    format!("/v2/credentials/{}", credential_id().unwrap())
}

/// Waits until the enforcer has told the kernel something about a cgroup.
fn wait_until_classified(scene: &mut Scene, cgroup: &Path) {
    let relative = cgroup.strip_prefix(cgroup::mount().unwrap()).unwrap();
    let told = format!("\"path\": \"/{}\"", relative.display());
    for _ in 0..MOST_LOOKS {
        let status = scene.enforcer().run(["status", "-o", "json"]).unwrap();
        if String::from_utf8(status.stdout).unwrap().contains(&told) {
            return;
        }
    }
    panic!("the enforcer never says {told}");
}

/// Waits for the record of a hook's decision about a task.
fn recorded(scene: &Scene, hook: Hook, outcome: Outcome, reason: Reason, task: &str) -> Record {
    let is_wanted =
        |record: &Record| record.is_kernel(hook, reason) && record.is_verdict(outcome.name()) && record.is_of(task);
    scene.audit().wait_for(is_wanted).unwrap()
}

fn assert_nothing_reached_the_metadata_service(scene: &mut Scene) {
    assert_eq!(scene.imds_hits().unwrap(), Hits::default());
}
