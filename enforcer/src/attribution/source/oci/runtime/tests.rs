//! What of a container's configuration and state is understood. The inputs are what Debian's containerd 1.6, runc 1.1 and
//! crun 1.8 wrote, shortened, and others made from these; `tests/tests/engines` has them write new ones.

use std::path::{Path, PathBuf};

use super::{Spec, State};
use crate::attribution::{kubernetes::Pod, task::Fact};

fn cgroup(path: &str) -> Option<PathBuf> {
    let spec = format!(r#"{{"ociVersion":"1.0.2","linux":{{"cgroupsPath":"{path}","resources":{{}}}}}}"#);
    Spec::parse(spec.as_bytes()).unwrap().cgroup()
}

#[test]
fn an_absolute_path_is_where_it_says() {
    assert_eq!(cgroup("/default/web").unwrap(), Path::new("/default/web"));
    assert_eq!(cgroup("/kubepods/pod1//x/").unwrap(), Path::new("/kubepods/pod1/x"));
}

#[test]
fn a_systemd_path_is_a_scope_in_nested_slices() {
    for (path, expected) in [
        (
            "kubepods-burstable-pod1_2.slice:cri-containerd:web",
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice/cri-containerd-web.scope",
        ),
        ("machine.slice:libpod:web", "/machine.slice/libpod-web.scope"),
        (":runc:web", "/system.slice/runc-web.scope"),
        ("-:docker:web", "/docker-web.scope"),
        ("ignored.slice:ignored:my-own.slice", "/my.slice/my-own.slice"),
    ] {
        assert_eq!(cgroup(path).unwrap(), Path::new(expected), "{path}");
    }
}

#[test]
fn what_only_the_runtime_knows_or_nobody_is_left_to_it() {
    for path in [
        "",
        "relative",
        "a/b",
        "/",
        "/..",
        "/a/../b",
        "a:b",
        "no-slice:a:b",
        "a/b.slice:c:d",
        "system.slice:a:../b",
        "system.slice::web",
    ] {
        assert_eq!(cgroup(path), None, "{path}");
    }
    assert_eq!(Spec::parse(b"{}").unwrap().cgroup(), None);
}

#[test]
fn environment_and_annotations_are_as_the_container_was_made_with() {
    let spec = br#"{"process":{"args":["/bin/sh"],"env":["PATH=/bin","A=b=c","odd"],"cwd":"/"},
        "annotations":{"enforcer.role-arn":"arn"},"hooks":{}}"#;
    let spec = Spec::parse(spec).unwrap();
    assert!(spec.environment().eq([("PATH", "/bin"), ("A", "b=c")]));
    assert_eq!(spec.annotation("enforcer.role-arn"), Some("arn"));
    assert_eq!(spec.annotation("other"), None);
}

#[test]
fn what_is_wrong_is_told_without_what_is_there() {
    for spec in [
        r#"{"process":{"env":["A=secr"#,
        r#"{"process":{"env":"secret"}}"#,
        r#"{"process":secret}"#,
    ] {
        let problem = Spec::parse(spec.as_bytes()).err().unwrap();
        assert!(!problem.contains("secr"), "{problem}");
    }
}

#[test]
fn runc_tells_bundle_and_cgroup() {
    let state =
        br#"{"id":"web","init_process_pid":10784,"created":"2026-11-22T07:11:19.124891525Z","config":{"rootfs":"/r",
        "cgroups":{"path":"/tasks/web"},"labels":["enforcer.role-arn=x","bundle=/run/b"],"seccomp":null},
        "cgroup_paths":{"":"/sys/fs/cgroup/tasks/web"},"rootless":false}"#;
    let state = State::parse_runc(state).unwrap();
    assert_eq!(state.bundle, Path::new("/run/b"));
    assert_eq!(state.cgroup.unwrap(), Path::new("/tasks/web"));
    assert_eq!(state.created.to_string(), "2026-11-22T07:11:19.124891525Z");
}

#[test]
fn a_label_cannot_pass_for_the_bundle() {
    let state = br#"{"created":"2026-11-22T07:11:19Z","config":{"labels":["bundle=/forged","bundle=/run/b"]},"cgroup_paths":{}}"#;
    assert_eq!(State::parse_runc(state).unwrap().bundle, Path::new("/run/b"));
}

#[test]
fn where_runc_uses_other_hierarchies_only_there_is_no_cgroup() {
    let state = br#"{"created":"2026-11-22T07:11:19Z","config":{"labels":["bundle=/run/b"]},
        "cgroup_paths":{"memory":"/sys/fs/cgroup/memory/web"}}"#;
    assert_eq!(State::parse_runc(state).unwrap().cgroup, None);
}

#[test]
fn beside_other_hierarchies_the_unified_one_is_mounted_elsewhere() {
    let state = br#"{"created":"2026-11-22T07:11:19Z","config":{"labels":["bundle=/run/b"]},
        "cgroup_paths":{"memory":"/sys/fs/cgroup/memory/web","":"/sys/fs/cgroup/unified/web"}}"#;
    assert_eq!(State::parse_runc(state).unwrap().cgroup.unwrap(), Path::new("/web"));
}

#[test]
fn crun_tells_bundle_and_cgroup() {
    let status = |cgroup| {
        let text = format!(
            r#"{{"pid":27743,"process-start-time":4280248,"cgroup-path":"{cgroup}","scope":"","rootfs":"/r",
            "systemd-cgroup":false,"bundle":"/run/b","created":"2026-11-22T11:07:05.009517Z","owner":"","detached":false,
            "external_descriptors":"[\"pipe:[32765267]\"]"}}"#
        );
        State::parse_crun(text.as_bytes()).unwrap()
    };
    assert_eq!(status("/pod/libpod-1").cgroup.unwrap(), Path::new("/pod/libpod-1"));
    assert_eq!(status("pod/libpod-1").cgroup.unwrap(), Path::new("/pod/libpod-1"));
    assert_eq!(status("").cgroup, None);
    assert_eq!(status("/x").bundle, Path::new("/run/b"));
}

#[test]
fn a_state_that_is_none_is_refused() {
    for state in ["", "{}", "[]", r#"{"created":"x"}"#] {
        assert!(State::parse_runc(state.as_bytes()).is_err(), "{state}");
        assert!(State::parse_crun(state.as_bytes()).is_err(), "{state}");
    }
}

/// What engines wrote: `ctr` 1.6 and Podman 4.3 on Debian 12, without what no container differs in here; and what containerd
/// and CRI-O write for a kubelet by their sources, made after these.
macro_rules! data {
    ($name:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/oci/", $name))
    };
}

#[test]
fn what_engines_wrote_tells_containers_cgroups_and_states() {
    let libpod = "libpod-cd3612825852d70cd32fff93983825a4df82bcb6f20510a3ed3c7b46a489b2d2";
    for (config, state, cgroup) in [
        (data!("ctr-config.json"), data!("ctr-state.json"), "web"),
        (data!("podman-config.json"), data!("podman-state.json"), libpod),
    ] {
        let (spec, state) = (
            Spec::parse(config.as_bytes()).unwrap(),
            State::parse_runc(state.as_bytes()).unwrap(),
        );
        let cgroup = Path::new("/engine").join(cgroup);
        assert_eq!((spec.cgroup(), state.cgroup), (Some(cgroup.clone()), Some(cgroup)));
        assert!(state.bundle.starts_with("/run/containerd") || state.bundle.ends_with("userdata"));
        let role = spec.annotation("enforcer.role-arn");
        assert_eq!(role, Some("arn:aws:iam::111122223333:role/web"));
        assert_eq!(
            spec.environment().filter(|(name, _)| name.starts_with("AWS_")).count(),
            1
        );
    }
}

#[test]
fn what_runtimes_write_for_a_kubelet_tells_the_pod() {
    let uid = "aaaa2b4a-f398-41c0-928b-049e1cc4ec40";
    for config in [data!("cri-containerd-config.json"), data!("crio-config.json")] {
        let spec = Spec::parse(config.as_bytes()).unwrap();
        let pod = Pod::of(|key| spec.annotation(key), &spec.cgroup().unwrap());
        let pod = pod.unwrap().unwrap();
        assert_eq!(pod.task().as_str(), format!("kubernetes/shop/web-0/{uid}"));
        assert!(pod.facts().any(|fact| fact == (Fact::Container, "app".into())));
    }
}
