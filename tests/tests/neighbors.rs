//! The real enforcer beside real programs of the distribution: a Docker engine and iptables, with the rules they write.
//! On this machine's kernel only, because the virtual machines hold no programs but ours.

#![cfg(test)]

use enforcer_common::verdict::Reason;
use enforcer_tests::{
    actor::{Actor, Attempt, DatagramStyle},
    imds::Hits,
    scene::Scene,
    topology::{IMDS, IMDS_MAPPED},
};
use nix::errno::Errno;

/// The directory beside this file.
mod neighbors {
    mod bridges;
    mod docker;
    mod iptables;
}

/// The cells of the matrix, which the engine's networks have as well.
#[path = "matrix"]
mod matrix {
    pub(super) mod cell;
    mod fence;
    mod gap;
    pub(super) mod spot;
    mod status;
    mod together;
}

/// What a refused system call gives.
const EPERM: Attempt = Attempt::Refused(Errno::EPERM);
/// The answer to a request for credentials the caller does not own.
const REFUSAL: &str =
    r#"{"code":"InvalidIdInRequest","message":"CredentialsV2Request: Credentials not found","HTTPErrorCode":400}"#;

/// The metadata service is refused to a container of a task and the feed says so; nothing arrives.
fn assert_has_no_metadata_service(scene: &mut Scene, container: &mut Actor, task: &str) {
    for to in [IMDS, IMDS_MAPPED] {
        assert_eq!(container.connect(to).unwrap(), EPERM);
        assert_eq!(container.datagram(to, DatagramStyle::Unconnected).unwrap(), EPERM);
    }
    scene
        .audit()
        .wait_for(|record| record.reason.as_deref() == Some(Reason::ImdsBlocked.name()) && record.is_of(task))
        .unwrap();
    assert_eq!(scene.imds_hits().unwrap(), Hits::default());
}

/// A container of a task gets this task's credentials and nobody else's.
fn assert_has_only_its_own_credentials(scene: &Scene, container: &mut Actor, task: &str) {
    for other in scene.tasks() {
        let response = container.get(&other.path()).unwrap();
        if other.name == task {
            assert!(other.is_served_by(&response), "{response:?}");
        } else {
            assert_eq!(response.body_text(), REFUSAL);
        }
    }
}
