//! Scans of what runtimes keep, in directories of their own, and of a tree of cgroups that is made up.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::{self, Permissions},
    io,
    net::{Ipv4Addr, SocketAddrV4},
    os::unix::{
        ffi::OsStrExt,
        fs::{PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use tempfile::TempDir;

use super::{Changes, Scanner, Scope};
use crate::{
    attribution::{
        CgroupPaths,
        source::{
            Believed,
            oci::{file::Trust, place::Place},
        },
    },
    host::cgroupfs::CgroupError,
};

/// IDs of cgroups by their paths.
#[derive(Clone, Debug, Default)]
struct Tree(Arc<Mutex<Cgroups>>);

#[derive(Debug, Default)]
struct Cgroups {
    ids: HashMap<PathBuf, u64>,
    failing: Option<io::ErrorKind>,
}

impl CgroupPaths for Tree {
    fn path_of(&self, _id: u64) -> Result<Option<PathBuf>, CgroupError> {
        Ok(None)
    }

    fn id_of(&self, path: &Path) -> Result<Option<u64>, CgroupError> {
        let cgroups = self.0.lock().unwrap();
        if let Some(kind) = cgroups.failing {
            return Err(CgroupError::File {
                operation: "look up",
                path: path.to_owned(),
                source: kind.into(),
            });
        }
        Ok(cgroups.ids.get(path).copied())
    }
}

/// A host with containerd, runc and crun.
struct Host {
    directory: TempDir,
    tree: Tree,
    scanner: Scanner,
}

impl Host {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let place = |place: &str| Place::parse(&directory.path().join(place)).unwrap();
        let tree = Tree::default();
        let scope = Scope {
            places: ["bundles/*/*/config.json", "runc/*/state.json", "crun/*/status"]
                .map(place)
                .into(),
            skipped: &["moby"],
            endpoint: SocketAddrV4::new(Ipv4Addr::new(169, 254, 170, 2), 80),
            believed: Believed {
                containers: true,
                podman: false,
                pods: false,
            },
            kubelet: directory.path().join("kubelet"),
            trust: Trust::own(),
        };
        let scanner = Scanner::new(scope, Arc::new(tree.clone()));
        Self {
            directory,
            tree,
            scanner,
        }
    }

    fn write(&self, path: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    /// A bundle of containerd with a cgroup of its own, and an ID it claims.
    fn bundle(&self, name: &str, cgroup: &str, claim: &str) -> PathBuf {
        self.write(&format!("bundles/{name}/config.json"), &config(cgroup, claim))
    }

    fn cgroup(&self, path: &str, id: u64) {
        self.tree.0.lock().unwrap().ids.insert(path.into(), id);
    }

    fn no_cgroup(&self, path: &str) {
        self.tree.0.lock().unwrap().ids.remove(Path::new(path));
    }

    /// What is new: containers' tasks, cgroup IDs and claims.
    fn news(&mut self) -> Vec<(String, u64, String)> {
        let changes = self.scanner.scan();
        assert!(changes.refused.is_empty(), "{:?}", changes.refused);
        told(&changes)
    }
}

fn told(changes: &Changes) -> Vec<(String, u64, String)> {
    let claim = |ids: &[crate::policy::CredentialId]| ids.first().map_or_else(String::new, |id| id.expose().to_owned());
    let tell = |entry: &crate::attribution::Entry| {
        let cgroup_id = entry.cgroups[0].id.unwrap();
        (entry.task.as_str().to_owned(), cgroup_id, claim(&entry.credential_ids))
    };
    changes.put.iter().map(tell).collect()
}

fn config(cgroup: &str, claim: &str) -> String {
    format!(
        r#"{{"process":{{"env":["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI=/v2/credentials/{claim}"]}},"linux":{{"cgroupsPath":"{cgroup}"}}}}"#
    )
}

fn web(cgroup_id: u64, claim: &str) -> Vec<(String, u64, String)> {
    vec![("oci/container/default/web".to_owned(), cgroup_id, claim.to_owned())]
}

#[test]
fn a_bundle_tells_its_container_once() {
    let mut host = Host::new();
    host.bundle("default/web", "/default/web", "one");
    host.cgroup("/default/web", 7);
    assert_eq!(host.news(), web(7, "one"));
    assert_eq!(host.news(), []);
}

#[test]
fn a_container_that_is_gone_is_taken_back() {
    let mut host = Host::new();
    let bundle = host.bundle("default/web", "/default/web", "one");
    host.cgroup("/default/web", 7);
    host.news();
    fs::remove_dir_all(bundle.parent().unwrap()).unwrap();
    assert_eq!(host.scanner.scan().removed, [bundle.to_str().unwrap()]);
    assert_eq!(host.scanner.scan().removed, [""; 0]);
}

#[test]
fn nothing_is_said_of_a_container_whose_cgroup_is_not_there() {
    let mut host = Host::new();
    host.bundle("default/web", "/default/web", "one");
    assert_eq!(host.news(), []);
    host.cgroup("/default/web", 7);
    assert_eq!(host.news(), web(7, "one"));
}

#[test]
fn a_container_that_starts_again_is_as_old_as_it_was_and_nothing_is_taken_back_meanwhile() {
    let mut host = Host::new();
    let bundle = host.bundle("default/web", "/default/web", "one");
    host.cgroup("/default/web", 7);
    let created = host.scanner.scan().put[0].created;
    host.no_cgroup("/default/web");
    let stopped = host.scanner.scan();
    assert_eq!((stopped.removed.len(), stopped.containers), (0, 0));
    // An engine writes the configuration anew, and takes its time.
    fs::remove_file(&bundle).unwrap();
    assert_eq!(host.scanner.scan().removed, [""; 0]);
    host.write("bundles/default/web/config.json", "{");
    assert_eq!(host.scanner.scan().removed, [""; 0]);
    host.bundle("default/web", "/default/web", "one");
    assert_eq!(host.scanner.scan().removed, [""; 0]);
    host.cgroup("/default/web", 8);
    let started = host.scanner.scan();
    assert_eq!(told(&started), web(8, "one"));
    assert_eq!(started.put[0].created, created);
}

#[test]
fn what_an_engine_keeps_elsewhere_stays_known_until_it_is_removed() {
    let mut host = Host::new();
    let id = "0123456789abcdef".repeat(4);
    let bundle = host.write(
        &format!("containers/{id}/userdata/config.json"),
        &config("/machine/web", "one"),
    );
    let directory = bundle.parent().unwrap().to_owned();
    let path = format!("crun/{id}/status");
    let status = |created| {
        let bundle = directory.display();
        format!(r#"{{"created":"{created}","cgroup-path":"/machine/web","bundle":"{bundle}"}}"#)
    };
    let state = host.write(&path, &status("2026-11-22T07:11:19Z"));
    host.cgroup("/machine/web", 7);
    let created = host.scanner.scan().put[0].created;
    // The runtime forgets it, the engine does not.
    fs::remove_file(&state).unwrap();
    host.no_cgroup("/machine/web");
    assert_eq!(host.scanner.scan().removed, [""; 0]);
    fs::write(&bundle, config("/machine/web", "one")).unwrap();
    host.write(&path, &status("2026-11-22T08:11:19Z"));
    host.cgroup("/machine/web", 8);
    let started = host.scanner.scan();
    assert_eq!(started.put[0].cgroups[0].id, Some(8));
    assert_eq!(started.put[0].created, created);
    fs::remove_file(&state).unwrap();
    fs::remove_dir_all(directory).unwrap();
    assert_eq!(host.scanner.scan().removed, [state.to_str().unwrap()]);
}

#[test]
fn containers_of_one_plain_bundle_are_each_known() {
    let mut host = Host::new();
    let bundle = host.write("anywhere/config.json", &config("", "one"));
    for (name, id) in [("a", 7), ("b", 8)] {
        let directory = bundle.parent().unwrap().display();
        let status =
            format!(r#"{{"created":"2026-11-22T07:11:19Z","cgroup-path":"/mine/{name}","bundle":"{directory}"}}"#);
        host.write(&format!("crun/{name}/status"), &status);
        host.cgroup(&format!("/mine/{name}"), id);
    }
    let mut news = host.news();
    news.sort();
    let runtime = host.directory.path().join("crun");
    let one = |name: &str, id| (format!("oci{}/{name}", runtime.display()), id, "one".to_owned());
    assert_eq!(news, [one("a", 7), one("b", 8)]);
    fs::remove_file(host.directory.path().join("crun/a/status")).unwrap();
    assert_eq!(host.scanner.scan().removed.len(), 1);
    // Its bundle may be gone, or out of sight: that is told, and changes nothing.
    fs::remove_file(&bundle).unwrap();
    let changes = host.scanner.scan();
    assert_eq!((changes.removed.len(), changes.unlisted), (0, None));
    let reasons: Vec<_> = changes.refused.values().map(ToString::to_string).collect();
    assert!(reasons[0].contains("not for this service to see"), "{reasons:?}");
}

#[test]
fn while_the_system_fails_nothing_that_is_known_is_taken_back() {
    let mut host = Host::new();
    host.bundle("default/web", "/default/web", "one");
    host.cgroup("/default/web", 7);
    assert_eq!(host.news(), web(7, "one"));
    let fail = |host: &Host, failing| host.tree.0.lock().unwrap().failing = failing;
    // Nobody can have it fail by naming what cannot be.
    fail(&host, Some(io::ErrorKind::InvalidFilename));
    assert_eq!(host.scanner.scan().unlisted, None);
    fail(&host, Some(io::ErrorKind::OutOfMemory));
    let changes = host.scanner.scan();
    assert_eq!(changes.removed, [""; 0]);
    assert!(changes.unlisted.unwrap().contains("default/web"));
    fail(&host, None);
    assert_eq!(host.news(), []);
}

#[test]
fn what_comes_to_the_same_names_later_is_another_container() {
    let mut host = Host::new();
    let bundle = host.bundle("default/web", "/default/web", "one");
    host.cgroup("/default/web", 7);
    host.news();
    fs::remove_file(bundle).unwrap();
    host.bundle("default/web", "/default/web", "two");
    host.cgroup("/default/web", 8);
    assert_eq!(host.news(), web(8, "two"));
    host.cgroup("/default/web", 9);
    assert_eq!(host.news(), web(9, "two"));
}

#[test]
fn a_half_written_bundle_is_read_when_it_is_whole() {
    let mut host = Host::new();
    let text = config("/default/web", "one");
    let bundle = host.write("bundles/default/web/config.json", &text[..40]);
    host.cgroup("/default/web", 7);
    let changes = host.scanner.scan();
    assert!(changes.put.is_empty() && changes.unlisted.is_none());
    let reason = changes.refused[&bundle].to_string();
    assert!(reason.contains("cut off") && !reason.contains("one"), "{reason}");
    fs::write(&bundle, text).unwrap();
    assert_eq!(host.news(), web(7, "one"));
}

#[test]
fn a_runtimes_state_tells_where_the_cgroup_is() {
    let mut host = Host::new();
    let bundle = host.bundle("default/web", "", "one");
    let bundle = bundle.parent().unwrap().display();
    let state = format!(
        r#"{{"created":"2026-11-22T07:11:19Z","config":{{"labels":["bundle={bundle}"]}},"cgroup_paths":{{"":"/sys/fs/cgroup/mine/web"}}}}"#
    );
    host.cgroup("/mine/web", 7);
    assert_eq!(host.news(), []);
    host.write("runc/web/state.json", &state);
    assert_eq!(host.news(), web(7, "one"));
}

#[test]
fn a_container_seems_as_old_before_its_state_is_written_as_after() {
    let mut host = Host::new();
    let bundle = host.bundle("default/web", "/mine/web", "one");
    host.cgroup("/mine/web", 7);
    let before = host.scanner.scan().put[0].created;
    assert_ne!(before.subsec_nanosecond(), 0, "it is not older than it is");
    let directory = bundle.parent().unwrap().display();
    let state = format!(
        r#"{{"created":"2000-01-02T03:04:05Z","config":{{"labels":["bundle={directory}"]}},"cgroup_paths":{{"":"/sys/fs/cgroup/mine/web"}}}}"#
    );
    host.write("runc/web/state.json", &state);
    assert_eq!(host.scanner.scan().put[0].created, before);
}

#[test]
fn a_plain_container_is_found_by_its_state() {
    let mut host = Host::new();
    let bundle = host.write("anywhere/config.json", &config("", "one"));
    let bundle = bundle.parent().unwrap().display().to_string();
    let status = format!(r#"{{"created":"2026-11-22T07:11:19Z","cgroup-path":"/mine/web","bundle":"{bundle}"}}"#);
    let status = host.write("crun/plain/status", &status);
    host.cgroup("/mine/web", 7);
    // Another runtime may have one of this name too.
    let task = format!("oci{}/crun/plain", host.directory.path().display());
    assert_eq!(host.news(), [(task, 7, "one".to_owned())]);
    assert_eq!(host.news(), []);
    fs::remove_file(status).unwrap();
    assert_eq!(host.scanner.scan().removed.len(), 1);
}

#[test]
fn dockers_containers_are_left_to_dockers_source() {
    let mut host = Host::new();
    host.bundle("moby/web", "/docker/web", "one");
    host.cgroup("/docker/web", 7);
    assert_eq!(host.news(), []);
}

#[test]
fn a_bundle_in_a_containers_own_files_is_none() {
    let mut host = Host::new();
    host.write("bundles/default/web/rootfs/config.json", &config("/default/web", "one"));
    host.write("bundles/default/config.json", &config("/default/web", "one"));
    host.cgroup("/default/web", 7);
    assert_eq!(host.news(), []);
}

#[test]
fn what_cannot_be_believed_is_passed_over_with_the_reason() {
    let mut host = Host::new();
    let outside = TempDir::new().unwrap();
    fs::write(outside.path().join("config.json"), config("/default/web", "one")).unwrap();
    host.cgroup("/default/web", 7);
    let bundles = host.directory.path().join("bundles/default");
    fs::create_dir_all(&bundles).unwrap();
    symlink(outside.path(), bundles.join("link")).unwrap();
    fs::create_dir(bundles.join(OsStr::from_bytes(b"\xff"))).unwrap();
    let open = host.bundle("default/open", "/default/web", "one");
    fs::set_permissions(&open, Permissions::from_mode(0o666)).unwrap();
    let large = host.bundle("default/large", "/default/web", "one");
    fs::File::options()
        .write(true)
        .open(&large)
        .unwrap()
        .set_len(64 << 20)
        .unwrap();
    host.bundle("default/good", "/default/web", "two");
    let changes = host.scanner.scan();
    assert_eq!(told(&changes).len(), 1);
    assert_eq!(changes.containers, 1);
    assert_eq!(changes.unlisted, None);
    let reasons: Vec<_> = changes.refused.values().map(ToString::to_string).collect();
    for part in ["symbolic link", "not UTF-8", "written by others", "larger than"] {
        assert!(
            reasons.iter().any(|reason| reason.contains(part)),
            "{part}: {reasons:?}"
        );
    }
    assert_eq!(reasons.len(), 4, "{reasons:?}");
}

#[test]
fn directories_that_cannot_be_listed_are_told_apart_from_empty_ones() {
    let mut host = Host::new();
    let changes = host.scanner.scan();
    assert!(!changes.is_present && changes.unlisted.is_none());
    let bundles = host.directory.path().join("bundles");
    fs::create_dir(&bundles).unwrap();
    fs::set_permissions(&bundles, Permissions::from_mode(0o777)).unwrap();
    let changes = host.scanner.scan();
    assert!(changes.unlisted.unwrap().contains("bundles"));
}
