//! From one binary to another: what is pinned by an older or a newer one, or by a start that never got far.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use enforcer_common::{
    ABI_VERSION,
    event::{Hook, Outcome},
    verdict::Reason,
};
use enforcer_tests::{
    actor::{Attempt, Family},
    audit::Record,
    scene::Scene,
    topology::{ENDPOINT, IMDS},
};
use nix::errno::Errno;

use crate::{EPERM, NOBODY_THERE, assert_nothing_reached_the_metadata_service, recorded, scene};

/// The pin directory.
fn pins(scene: &Scene) -> PathBuf {
    scene.path("/sys/fs/bpf/enforcer")
}

/// The directory of a layout's pins.
fn layout(scene: &Scene, number: u32) -> PathBuf {
    pins(scene).join(number.to_string())
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// The directory of the links to the cgroup root: that with the most hooks.
fn root_links(scene: &Scene) -> PathBuf {
    let directories = fs::read_dir(pins(scene).join("links")).unwrap();
    let paths = directories.map(|entry| entry.unwrap().path());
    paths.max_by_key(|path| names(path).len()).unwrap()
}

/// Replaces what is pinned, and starts again, while a container tries to use the moment.
fn upgrade(scene: &mut Scene, change: impl FnOnce(&Scene)) {
    let mut insistent = scene.bridge_container("web").unwrap();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let client = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                assert_eq!(insistent.connect(IMDS).unwrap(), EPERM);
            }
        });
        let stopped = scene.enforcer().terminate();
        change(scene);
        let started = scene.enforcer().start();
        is_over.store(true, Ordering::Relaxed);
        assert!(stopped.unwrap().success());
        started.unwrap();
        client.join().unwrap();
    });
    let web = scene.task("web").unwrap().clone();
    let mut container = scene.bridge_container("web").unwrap();
    assert!(web.is_served_by(&container.get(&web.path()).unwrap()));
    assert_eq!(names(&pins(scene)), [&ABI_VERSION.to_string(), "links"]);
    assert_nothing_reached_the_metadata_service(scene);
}

#[test]
fn an_older_layout_is_replaced_without_a_gap() {
    upgrade(&mut scene(), |scene| {
        fs::rename(layout(scene, ABI_VERSION), layout(scene, ABI_VERSION - 1)).unwrap();
    });
}

#[test]
fn the_layout_from_before_there_were_numbers_is_replaced_without_a_gap() {
    upgrade(&mut scene(), |scene| {
        let current = layout(scene, ABI_VERSION);
        fs::rename(current.join("maps"), pins(scene).join("maps")).unwrap();
        fs::remove_dir(current).unwrap();
    });
}

#[test]
fn an_upgrade_that_was_killed_half_way_is_finished_by_the_next_start() {
    upgrade(&mut scene(), |scene| {
        let (current, older) = (layout(scene, ABI_VERSION), layout(scene, ABI_VERSION - 1));
        fs::rename(&current, older).unwrap();
        fs::create_dir_all(current.join("maps")).unwrap();
        fs::remove_file(root_links(scene).join("sendmsg6")).unwrap();
    });
}

#[test]
fn hooks_an_older_enforcer_lacked_are_added_and_those_nobody_knows_removed() {
    let mut scene = scene();
    let known = names(&root_links(&scene));
    upgrade(&mut scene, |scene| {
        let links = root_links(scene);
        // Still attached, by a name that means nothing to the next start.
        fs::rename(links.join("connect4"), links.join("connect9")).unwrap();
    });
    assert_eq!(names(&root_links(&scene)), known);
}

#[test]
fn a_connection_that_is_on_its_way_during_an_upgrade_ends_soon() {
    let mut scene = scene();
    // The host has no way back to this one, so nobody ever answers it.
    let (mut web, _attachment) = scene.routed_container("web", Ipv4Addr::new(10, 77, 2, 10)).unwrap();
    let socket = web.open(Family::V4).unwrap();
    web.limit(socket, Duration::from_mins(10)).unwrap();
    thread::scope(|scope| {
        let client = scope.spawn(|| web.connect_socket(socket, ENDPOINT).unwrap());
        recorded(
            &scene,
            Hook::Connect4,
            Outcome::Steered,
            Reason::CredentialEndpoint,
            "web",
        );
        assert!(scene.enforcer().terminate().unwrap().success());
        fs::rename(layout(&scene, ABI_VERSION), layout(&scene, ABI_VERSION - 1)).unwrap();
        scene.enforcer().start().unwrap();
        assert_eq!(client.join().unwrap(), Attempt::Refused(Errno::ECONNABORTED));
    });
}

#[test]
fn a_newer_layout_is_refused_and_stays_in_force() {
    let mut scene = scene();
    let mut web = scene.bridge_container("web").unwrap();
    assert!(scene.enforcer().terminate().unwrap().success());
    let newer = layout(&scene, ABI_VERSION + 1);
    fs::rename(layout(&scene, ABI_VERSION), &newer).unwrap();
    let refused = scene.enforcer().run(["run"]).unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("newer"), "{said}");
    assert_eq!(names(&pins(&scene)), [&(ABI_VERSION + 1).to_string(), "links"]);
    assert_eq!(web.connect(IMDS).unwrap(), EPERM);
    assert_eq!(web.connect(ENDPOINT).unwrap(), NOBODY_THERE);
    assert_nothing_reached_the_metadata_service(&mut scene);
}

#[test]
fn events_an_older_layout_leaves_unread_are_told_as_lost() {
    let mut scene = scene();
    let mut web = scene.host_container("web").unwrap();
    scene.enforcer().kill().unwrap();
    for _ in 0..7 {
        assert_eq!(web.connect(IMDS).unwrap(), EPERM);
    }
    fs::rename(layout(&scene, ABI_VERSION), layout(&scene, ABI_VERSION - 1)).unwrap();
    scene.enforcer().start().unwrap();
    let told = |record: &Record| record.unattended.is_some_and(|unattended| unattended.lost == 7);
    scene.audit().wait_for(told).unwrap();
}
