//! What is to be said of containers, from what a real engine told of one and others like it.

mod images;
mod pods;

use std::net::{Ipv4Addr, SocketAddrV4};

use serde_json::{Value, json};

use super::{
    super::{
        container::{Container, Labels},
        place::{Driver, Placing},
    },
    Rules, Said, Saying, Unproven,
};
use crate::{
    attribution::{Entry, Fact},
    policy::CredentialId,
};

/// What Docker 20.10 told of a container with labels, a credential ID and a parent cgroup.
const CAPTURED: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../tests/data/docker/inspect.json"
));

const ARN: &str = "arn:aws:ecs:us-west-2:111122223333:task/shop/0123456789abcdef0123456789abcdef";
const ROLE: &str = "arn:aws:iam::111122223333:role/web";

fn rules(driver: Driver) -> Rules {
    Rules {
        placing: Placing {
            driver,
            default_parent: None,
        },
        endpoint: SocketAddrV4::new(Ipv4Addr::new(169, 254, 170, 2), 80),
        labels: true,
    }
}

/// A container with such labels, environment and parent cgroup.
fn container(labels: &Value, environment: &Value, parent: &str) -> String {
    let container = json!({
        "Id": "ab".repeat(32),
        "Created": "2026-11-22T06:00:00.123456789Z",
        "Name": "/shop-web",
        "State": {"Status": "running"},
        "Config": {"Labels": labels, "Env": environment},
        "HostConfig": {"CgroupParent": parent, "NetworkMode": "bridge", "LogConfig": {"Type": "json-file", "Config": {}}},
    });
    container.to_string()
}

fn say(rules: &Rules, text: &str) -> Saying {
    let container: Container<'_> = serde_json::from_str(text).unwrap();
    rules.say(&container)
}

fn entry(saying: Saying) -> Entry {
    match saying {
        Saying::Entry(entry) => entry,
        Saying::Labeled(labeled) => labeled.beside(Some(&Labels::default())),
        Saying::Nothing | Saying::Unproven(_) => panic!("nothing is to be said for sure"),
    }
}

fn decided(said: Said) -> Entry {
    match said {
        Said::Entry(entry) => entry,
        Said::Undecided(_) | Said::Nothing | Said::Gone => panic!("nothing is to be said yet"),
    }
}

fn unproven(saying: Saying) -> Box<Unproven> {
    match saying {
        Saying::Unproven(unproven) => unproven,
        Saying::Entry(_) | Saying::Labeled(_) | Saying::Nothing => panic!("it is believed"),
    }
}

/// The task and the role of a container with such labels.
fn named(rules: &Rules, labels: &Value) -> (String, Option<String>) {
    let entry = entry(say(rules, &container(labels, &json!([]), "")));
    let role = entry.role_arn.map(|role| role.to_string());
    (entry.task.as_str().to_owned(), role)
}

fn claims(environment: &Value) -> Vec<CredentialId> {
    let entry = entry(say(&rules(Driver::Systemd), &container(&Value::Null, environment, "")));
    entry.credential_ids.into()
}

fn ids(of: &[&str]) -> Vec<CredentialId> {
    of.iter().map(|id| CredentialId::granted(id).unwrap()).collect()
}

fn is_forged(entry: &Entry) -> bool {
    entry.facts.iter().any(|(fact, _)| *fact == Fact::Forged)
}

#[test]
fn what_a_real_engine_tells_is_understood() {
    let entry = entry(say(&rules(Driver::Cgroupfs), CAPTURED));
    assert_eq!(entry.task.as_str(), "docker/captured");
    assert_eq!(entry.role_arn.as_deref(), Some(ROLE));
    assert_eq!(&*entry.credential_ids, ids(&["d8f91d60-f0c6-4160-b32b-3f61089b625a"]));
    assert_eq!(&*entry.execution_ids, []);
    let id = &entry.id;
    assert_eq!(entry.cgroups[0].path.to_str().unwrap(), format!("/lab/shop/{id}"));
}

#[test]
fn labels_name_tasks_of_their_own() {
    let rules = rules(Driver::Systemd);
    assert_eq!(named(&rules, &Value::Null), ("docker/shop-web".into(), None));
    assert_eq!(
        named(&rules, &json!({"enforcer.role-arn": ROLE})),
        ("docker/shop-web".into(), Some(ROLE.into()))
    );
    assert_eq!(named(&rules, &json!({"enforcer.task": "shop"})).0, "docker/shop-web");
    // Nobody gets into the task of a configuration, of the ECS agent, or of a container of that name.
    for name in [ARN, "web", "docker/other"] {
        assert_eq!(
            named(&rules, &json!({"enforcer.task": name, "enforcer.role-arn": ROLE})).0,
            format!("docker/task/{name}@{ROLE}")
        );
    }
    for name in ["", "a b"] {
        assert_eq!(
            named(&rules, &json!({"enforcer.task": name, "enforcer.role-arn": name})),
            ("docker/shop-web".into(), None)
        );
    }
    let passing = named(&rules, &json!({"enforcer.task": format!("shop@{ROLE}")}));
    assert_eq!(passing, ("docker/shop-web".into(), None));
}

#[test]
fn a_name_of_any_length_is_the_containers_own() {
    let text = container(&Value::Null, &json!([]), "");
    let long = text.replace("/shop-web", &format!("/{}", "x".repeat(600)));
    let entry = entry(say(&rules(Driver::Systemd), &long));
    assert_eq!(entry.task.as_str(), format!("docker/id/{}", entry.id));
}

#[test]
fn where_labels_are_not_trusted_they_name_nothing() {
    let rules = Rules {
        labels: false,
        ..rules(Driver::Systemd)
    };
    let labels = json!({"enforcer.task": "shop", "enforcer.role-arn": ROLE});
    assert_eq!(named(&rules, &labels), ("docker/shop-web".into(), None));
}

#[test]
fn every_value_of_a_variable_that_is_set_twice_is_claimed() {
    let set = |id: &str| format!("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI=/v2/credentials/{id}");
    assert_eq!(
        claims(&json!(["PATH=/bin", set("one"), set("two")])),
        ids(&["one", "two"])
    );
    assert_eq!(claims(&Value::Null), []);
}

#[test]
fn the_id_that_a_volume_is_mounted_with_is_claimed() {
    let mut inspected: Value = serde_json::from_str(&container(&Value::Null, &json!([]), "")).unwrap();
    inspected["HostConfig"]["Mounts"] = json!([
        {"Type": "bind", "Source": "/data", "Target": "/data"},
        {"Type": "volume", "Target": "/none", "VolumeOptions": {"DriverConfig": {"Name": "local", "Options": null}}},
        {"Type": "volume", "Source": "efs", "Target": "/efs", "VolumeOptions": {"DriverConfig": {
            "Name": "amazon-ecs-volume-plugin",
            "Options": {"type": "efs", "device": "fs-1:/", "o": "tls,iam,awscredsuri=/v2/credentials/one"},
        }}},
    ]);
    let entry = entry(say(&rules(Driver::Systemd), &inspected.to_string()));
    assert_eq!(&*entry.credential_ids, ids(&["one"]));
    assert_eq!(&*entry.execution_ids, []);
}

#[test]
fn the_id_of_the_log_drivers_role_is_an_execution_roles() {
    let mut inspected: Value = serde_json::from_str(&container(&Value::Null, &json!([]), "")).unwrap();
    inspected["HostConfig"]["LogConfig"]["Config"] =
        json!({"awslogs-credentials-endpoint": "/v2/credentials/execution"});
    let entry = entry(say(&rules(Driver::Systemd), &inspected.to_string()));
    assert_eq!(&*entry.execution_ids, ids(&["execution"]));
    assert_eq!(&*entry.credential_ids, []);
}

#[test]
fn a_container_in_its_ecs_tasks_cgroup_is_of_the_task_unless_the_agent_says_otherwise() {
    let labels = json!({"com.amazonaws.ecs.task-arn": ARN, "enforcer.role-arn": ROLE, "enforcer.task": "shop"});
    let relay = json!({"com.amazonaws.ecs.task-arn": "arn:::::/service-connect-relay-1-2"});
    for (driver, labels, parent, task, path) in [
        (
            Driver::Systemd,
            &labels,
            "ecstasks-0123456789abcdef0123456789abcdef.slice",
            ARN,
            "/ecstasks.slice/ecstasks-0123456789abcdef0123456789abcdef.slice",
        ),
        (
            Driver::Cgroupfs,
            &labels,
            "/ecs/0123456789abcdef0123456789abcdef",
            ARN,
            "/ecs/0123456789abcdef0123456789abcdef",
        ),
        (
            Driver::Systemd,
            &relay,
            "ecstasks-service-connect-relay-1-2.slice",
            "arn:::::/service-connect-relay-1-2",
            "/ecstasks.slice/ecstasks-service.slice/ecstasks-service-connect.slice/ecstasks-service-connect-relay.slice",
        ),
    ] {
        let said = || unproven(say(&rules(driver), &container(labels, &json!([]), parent)));
        for member in [decided(said().asked(true)), said().not_asked()] {
            assert_eq!(member.task.as_str(), task);
            assert_eq!(member.role_arn, None, "a task definition's labels give no role");
            assert!(member.cgroups[0].path.starts_with(path), "{:?}", member.cgroups);
            assert!(!is_forged(&member));
        }
        // Its maker chose the label and the cgroup.
        let forger = decided(said().asked(false));
        assert!(forger.task.as_str() == "docker/shop-web" && is_forged(&forger));
    }
}

#[test]
fn outside_the_tasks_cgroup_only_the_agent_can_tell() {
    let rules = rules(Driver::Systemd);
    let labels = json!({"com.amazonaws.ecs.task-arn": ARN, "enforcer.role-arn": ROLE});
    let claim = json!(["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI=/v2/credentials/one"]);
    let unproven = |parent: &str| unproven(say(&rules, &container(&labels, &claim, parent)));
    for parent in ["", "system.slice", "ecstasks-0123456789abcdef.slice", "ecstasks.slice"] {
        assert_eq!(decided(unproven(parent).asked(true)).task.as_str(), ARN);
        for entry in [decided(unproven(parent).asked(false)), unproven(parent).not_asked()] {
            assert_eq!(entry.task.as_str(), "docker/shop-web");
            assert_eq!(entry.role_arn, None);
            assert_eq!(&*entry.credential_ids, ids(&["one"]));
            assert!(is_forged(&entry));
        }
    }
}

#[test]
fn a_container_that_the_agent_may_not_know_yet_is_not_said_to_be_forged_at_once() {
    let labels = json!({"com.amazonaws.ecs.task-arn": ARN});
    let text = container(&labels, &json!([]), "").replace("running", "created");
    let unproven = unproven(say(&rules(Driver::Systemd), &text));
    assert!(matches!(unproven.asked(false), Said::Undecided(entry) if is_forged(&entry)));
}

#[test]
fn what_is_no_arn_names_no_task() {
    for arn in ["", "web", "arn:aws:ecs:1:2:task/a b"] {
        let labels = json!({"com.amazonaws.ecs.task-arn": arn});
        let entry = entry(say(&rules(Driver::Systemd), &container(&labels, &json!([]), "")));
        assert_eq!(entry.task.as_str(), "docker/shop-web");
        assert!(is_forged(&entry), "{arn:?}");
    }
}

#[test]
fn nothing_is_said_of_a_container_whose_cgroup_cannot_be_told() {
    let saying = say(
        &rules(Driver::Cgroupfs),
        &container(&Value::Null, &json!([]), "relative"),
    );
    assert!(matches!(saying, Saying::Nothing));
}

#[test]
fn an_answer_of_another_shape_is_refused() {
    let good = container(&Value::Null, &json!([]), "");
    for (from, to) in [
        ("\"Id\":\"ab", "\"Id\":\"AB"),
        ("2026-11-22T06:00:00.123456789Z", "yesterday"),
        ("\"Env\":[]", "\"Env\":{}"),
        ("\"Env\":[]", "\"Env\":[1]"),
        ("\"HostConfig\"", "\"Other\""),
    ] {
        let text = good.replace(from, to);
        assert_ne!(text, good);
        assert!(serde_json::from_str::<Container<'_>>(&text).is_err(), "{to}");
    }
}
