//! What the source says of itself while files are half-written, cannot be believed, or cannot be listed.

use std::{
    fs::{self, Permissions},
    net::{Ipv4Addr, SocketAddrV4},
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use tempfile::TempDir;

use super::{
    Believed, LONGEST_REST, Oci, REST, Scan, Scans, Scope, Shared, SourceState, Status, file::Trust, place::Place,
    scan::Scanner,
};
use crate::{
    attribution::{CgroupPaths, Registry},
    host::cgroupfs::CgroupError,
};

/// A tree where every cgroup there can be is there.
#[derive(Clone, Copy, Debug)]
struct Tree;

impl CgroupPaths for Tree {
    fn path_of(&self, _id: u64) -> Result<Option<PathBuf>, CgroupError> {
        Ok(None)
    }

    fn id_of(&self, _path: &Path) -> Result<Option<u64>, CgroupError> {
        Ok(Some(7))
    }
}

/// The source, and where it looks for bundles.
fn source() -> (TempDir, Oci) {
    let directory = TempDir::new().unwrap();
    let place = Place::parse(&directory.path().join("bundles/*/config.json")).unwrap();
    let scope = Scope {
        places: [place].into(),
        skipped: &[],
        endpoint: SocketAddrV4::new(Ipv4Addr::new(169, 254, 170, 2), 80),
        believed: Believed {
            containers: true,
            podman: false,
            pods: false,
        },
        kubelet: directory.path().join("kubelet"),
        trust: Trust::own(),
    };
    let cgroups: Arc<dyn CgroupPaths> = Arc::new(Tree);
    let shared = Shared {
        registry: Arc::new(Registry::default()),
        cgroups: Arc::clone(&cgroups),
        scans: Mutex::new(Scans {
            scanner: Scanner::new(scope, cgroups),
            last: None,
        }),
        status: Mutex::new(Status::default()),
    };
    let shared = Arc::new(shared);
    (directory, Oci { shared })
}

fn write(directory: &TempDir, name: &str, text: &str) -> PathBuf {
    let bundle = directory.path().join("bundles").join(name);
    fs::create_dir_all(&bundle).unwrap();
    let path = bundle.join("config.json");
    fs::write(&path, text).unwrap();
    path
}

fn config(name: &str) -> String {
    format!(r#"{{"linux":{{"cgroupsPath":"/{name}"}}}}"#)
}

#[tokio::test]
async fn what_is_passed_over_is_told_with_the_reason_and_keeps_no_other_from_being_known() {
    let (directory, oci) = source();
    assert_eq!(oci.status().state, SourceState::Absent);
    write(&directory, "good", &config("good"));
    let half = write(&directory, "half", &config("half")[..10]);
    symlink(half.parent().unwrap(), directory.path().join("bundles/around")).unwrap();
    let huge = write(&directory, "huge", "");
    fs::File::options()
        .write(true)
        .open(&huge)
        .unwrap()
        .set_len(9 << 20)
        .unwrap();
    let open = write(&directory, "open", &config("open"));
    fs::set_permissions(&open, Permissions::from_mode(0o622)).unwrap();

    assert!(oci.find(Path::new("/good/init")).await.unwrap());
    assert!(!oci.find(Path::new("/open")).await.unwrap());
    let status = oci.status();
    assert_eq!((status.state, status.containers), (SourceState::Ready, 1));
    let reasons = status.passed_over;
    assert_eq!(reasons.len(), 4, "{reasons:?}");
    for (path, reason) in [
        ("/around", "symbolic link"),
        ("/half/", "not complete, or malformed"),
        ("/huge/", "larger than 8388608 bytes"),
        ("/open/", "let root own it"),
    ] {
        let is_told = |told: &String| told.contains(path) && told.contains(reason);
        assert!(reasons.iter().any(is_told), "{path}: {reasons:?}");
    }
    fs::write(&half, config("half")).unwrap();
    assert!(oci.find(Path::new("/half")).await.unwrap());
    assert_eq!(oci.status().passed_over.len(), 3);
}

#[tokio::test]
async fn while_a_directory_cannot_be_listed_nobody_is_told_that_there_is_no_container() {
    let (directory, oci) = source();
    write(&directory, "good", &config("good"));
    assert!(oci.find(Path::new("/good")).await.unwrap());
    let is_known = || {
        oci.shared
            .registry
            .read()
            .owner(Path::new("/good"), |_, _| true)
            .is_some()
    };
    let bundles = directory.path().join("bundles");
    fs::set_permissions(&bundles, Permissions::from_mode(0o777)).unwrap();
    for cgroup in ["/good", "/other"] {
        oci.find(Path::new(cgroup)).await.unwrap_err();
    }
    assert!(is_known());
    let SourceState::Retrying { error, .. } = oci.status().state else {
        panic!("{:?}", oci.status());
    };
    assert!(error.contains("bundles can be written by others than root"), "{error}");
    fs::set_permissions(&bundles, Permissions::from_mode(0o755)).unwrap();
    assert!(!oci.find(Path::new("/other")).await.unwrap());
    assert_eq!(oci.status().state, SourceState::Ready);
    assert!(is_known());
}

#[tokio::test]
async fn what_is_left_of_a_container_whose_bundle_is_gone_is_nobodys_however_often_it_asks() {
    let (directory, oci) = source();
    let bundle = write(&directory, "left", &config("left"));
    let registry = &oci.shared.registry;
    let is_owned = || registry.read().owner(Path::new("/left"), |_, _| true).is_some();
    assert!(oci.find(Path::new("/left")).await.unwrap() && is_owned());
    fs::remove_dir_all(bundle.parent().unwrap()).unwrap();
    for _ in 0..2 {
        assert!(!oci.find(Path::new("/left")).await.unwrap() && !is_owned());
    }
}

#[tokio::test]
async fn those_who_ask_again_and_again_do_not_have_everything_looked_at_all_the_time() {
    let (directory, oci) = source();
    write(&directory, "good", &config("good"));
    oci.find(Path::new("/good")).await.unwrap();
    // As if there were many containers.
    let took = Duration::from_millis(50);
    let ended = {
        let mut scans = oci.shared.scans.lock().unwrap();
        let last = scans.last.as_mut().unwrap();
        last.took = took;
        last.began + took
    };
    write(&directory, "new", &config("new"));
    assert!(oci.find(Path::new("/new")).await.unwrap());
    assert!(ended.elapsed() >= took * REST, "{:?}", ended.elapsed());
    // Nobody has to wait for long.
    let scan = Scan {
        began: ended,
        took: took * 1000,
        outcome: Ok(()),
    };
    assert_eq!(scan.rests_until(), ended + took * 1000 + LONGEST_REST);
}
