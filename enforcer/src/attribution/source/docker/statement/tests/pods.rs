//! Containers of pods, as cri-dockerd has the engine make them.

use serde_json::{Value, json};

use super::{Driver, ROLE, entry, is_forged, rules, say};
use crate::attribution::{Entry, Fact};

const UID: &str = "aaaa2b4a-f398-41c0-928b-049e1cc4ec40";
const OTHER: &str = "bbbb2b4a-f398-41c0-928b-049e1cc4ec40";

/// The name of the slice that the kubelet makes for a pod.
fn slice(uid: &str) -> String {
    format!("kubepods-burstable-pod{}.slice", uid.replace('-', "_"))
}

fn labels(uid: &str) -> Value {
    json!({
        "annotation.io.kubernetes.container.restartCount": "0",
        "io.kubernetes.container.logpath": format!("/var/log/pods/shop_web-0_{uid}/app/0.log"),
        "io.kubernetes.container.name": "app",
        "io.kubernetes.docker.type": "container",
        "io.kubernetes.pod.name": "web-0",
        "io.kubernetes.pod.namespace": "shop",
        "io.kubernetes.pod.uid": uid,
        "io.kubernetes.sandbox.id": "cd".repeat(32),
    })
}

/// A container as cri-dockerd makes it, with such labels in such a parent cgroup.
fn said(driver: Driver, labels: &Value, parent: &str) -> Entry {
    let inspected = json!({
        "Id": "ab".repeat(32),
        "Created": "2026-11-22T06:00:00.123456789Z",
        "Name": format!("/k8s_app_web-0_shop_{UID}_0"),
        "State": {"Status": "running"},
        "Config": {"Labels": labels, "Env": ["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI=/v2/credentials/one"]},
        "HostConfig": {
            "CgroupParent": parent,
            "NetworkMode": format!("container:{}", "cd".repeat(32)),
            "LogConfig": {"Type": "json-file", "Config": {}},
        },
    });
    entry(say(&rules(driver), &inspected.to_string()))
}

#[test]
fn all_containers_of_a_pod_are_one_task() {
    let task = format!("kubernetes/shop/web-0/{UID}");
    let mut sandbox = labels(UID);
    sandbox["io.kubernetes.docker.type"] = json!("podsandbox");
    sandbox["io.kubernetes.container.name"] = json!("POD");
    let group = format!("/kubepods/besteffort/pod{UID}");
    for (driver, parent) in [(Driver::Systemd, slice(UID)), (Driver::Cgroupfs, group)] {
        for labels in [&labels(UID), &sandbox] {
            let entry = said(driver, labels, &parent);
            assert_eq!(entry.task.as_str(), task);
            assert_eq!(entry.credential_ids.len(), 1);
            assert!(!is_forged(&entry));
        }
    }
    let facts = said(Driver::Systemd, &labels(UID), &slice(UID)).facts;
    for (fact, text) in [
        (Fact::Namespace, "shop"),
        (Fact::Pod, "web-0"),
        (Fact::PodUid, UID),
        (Fact::Container, "app"),
    ] {
        let told: Vec<_> = facts.iter().filter(|(told, _)| *told == fact).collect();
        assert_eq!(told, [&(fact, text.into())]);
    }
}

#[test]
fn an_images_labels_put_no_container_into_a_pod() {
    let entry = said(Driver::Systemd, &labels(UID), "");
    assert_eq!(entry.task.as_str(), format!("docker/k8s_app_web-0_shop_{UID}_0"));
}

#[test]
fn a_pods_author_chooses_no_role_where_pods_have_no_cgroups() {
    let mut labels = labels(UID);
    labels["enforcer.role-arn"] = json!(ROLE);
    assert_eq!(said(Driver::Systemd, &labels, "").role_arn, None);
}

#[test]
fn a_container_in_the_cgroup_of_another_pod_is_not_believed() {
    let entry = said(Driver::Systemd, &labels(UID), &slice(OTHER));
    assert_eq!(entry.task.as_str(), format!("docker/k8s_app_web-0_shop_{UID}_0"));
    assert!(is_forged(&entry));
}

#[test]
fn what_is_in_a_pods_cgroup_and_says_nothing_is_a_task_of_its_own() {
    let entry = said(Driver::Systemd, &json!({}), &slice(UID));
    assert_eq!(entry.task.as_str(), format!("docker/k8s_app_web-0_shop_{UID}_0"));
    assert!(!is_forged(&entry));
}

#[test]
fn labels_that_mean_something_elsewhere_mean_nothing_in_a_pod() {
    let mut labels = labels(UID);
    labels["enforcer.role-arn"] = json!(ROLE);
    labels["enforcer.task"] = json!("shop");
    labels["com.amazonaws.ecs.task-arn"] = json!("arn:aws:ecs:us-west-2:111122223333:task/shop/1");
    // Of containerd's names, which a pod's author may choose here.
    labels["io.kubernetes.cri.sandbox-name"] = json!("other");
    labels["io.kubernetes.cri.sandbox-namespace"] = json!("other");
    let entry = said(Driver::Systemd, &labels, &slice(UID));
    assert_eq!(entry.task.as_str(), format!("kubernetes/shop/web-0/{UID}"));
    assert_eq!(entry.role_arn, None);
    assert!(!is_forged(&entry));
}
