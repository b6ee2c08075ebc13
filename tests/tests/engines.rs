//! The real enforcer with real container engines, which it learns tasks from. On this machine's kernel only, because the
//! virtual machines hold no programs but ours.

#![cfg(test)]

use enforcer_tests::{
    actor::Actor,
    scene::{Builder, Scene},
};

/// The directory beside this file.
mod engines {
    mod containerd;
    mod docker;
    mod ecs;
    mod forgery;
    mod podman;
    mod runc;
    mod sdk;
}

/// The answer to a request for credentials the caller does not own.
const REFUSAL: &str =
    r#"{"code":"InvalidIdInRequest","message":"CredentialsV2Request: Credentials not found","HTTPErrorCode":400}"#;

/// Who there is.
const ROLES: [&str; 2] = ["web", "batch"];

/// What an enforcer is to have that has two roles, and is told nothing of tasks.
fn learner() -> Builder {
    ROLES.iter().fold(Scene::builder(), |builder, role| builder.role(role))
}

/// A running enforcer like that.
fn learning_scene() -> Scene {
    learner().start().unwrap()
}

/// The variable that tells a container its credential ID.
fn claim(scene: &Scene, role: &str) -> String {
    let path = scene.role(role).unwrap().path();
    format!("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI={path}")
}

/// The annotation that gives a container a role.
fn annotation(scene: &Scene, role: &str) -> String {
    format!("enforcer.role-arn={}", scene.role(role).unwrap().role_arn)
}

/// A container gets the credentials of its role.
fn assert_gets_its_own(scene: &Scene, container: &mut Actor, role: &str) {
    let role = scene.role(role).unwrap();
    let response = container.get(&role.path()).unwrap();
    assert!(role.is_served_by(&response), "{response:?}");
}

/// A container gets its credentials, by its ID and without one, and is refused everybody else's.
fn assert_gets_its_own_only(scene: &Scene, container: &mut Actor, role: &str) {
    for other in ROLES.iter().filter(|other| **other != role) {
        let theirs = scene.role(other).unwrap();
        assert_eq!(container.get(&theirs.path()).unwrap().body_text(), REFUSAL);
    }
    assert_gets_its_own(scene, container, role);
    let own = container.get("/v2/credentials/self").unwrap();
    assert!(scene.role(role).unwrap().is_served_by(&own), "{own:?}");
}
