//! Starting, stopping, dying: what stays in force, and what the audit feed has to show.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use anyhow::ensure;
use enforcer_common::{
    event::{Hook, Outcome},
    verdict::Reason,
};
use enforcer_tests::{
    actor::{Attempt, DatagramStyle},
    audit::Record,
    bench::gauge::{Action, Gauge},
    http::Request,
    scene::Scene,
    topology::{ENDPOINT, IMDS, IMDS_OVER_V6},
};

use crate::{EPERM, NOBODY_THERE, REFUSAL, assert_nothing_reached_the_metadata_service, recorded, scene, unknown_path};

#[test]
fn a_killed_enforcer_leaves_its_guard_and_the_next_one_takes_over() {
    let mut scene = scene();
    let mut web = scene.bridge_container("web").unwrap();
    let mut host = scene.host_container("web").unwrap();
    scene.enforcer().kill().unwrap();
    for container in [&mut web, &mut host] {
        assert_eq!(container.connect(IMDS).unwrap(), EPERM);
        assert_eq!(
            container.datagram(IMDS_OVER_V6, DatagramStyle::Unconnected).unwrap(),
            EPERM
        );
        assert_eq!(container.connect(ENDPOINT).unwrap(), NOBODY_THERE);
    }

    scene.enforcer().start().unwrap();
    let task = scene.task("web").unwrap();
    for container in [&mut web, &mut host] {
        assert!(task.is_served_by(&container.get(&task.path()).unwrap()));
        assert_eq!(container.connect(IMDS).unwrap(), EPERM);
    }
    recorded(&scene, Hook::Connect4, Outcome::Denied, Reason::ImdsBlocked, "web");
    assert_nothing_reached_the_metadata_service(&mut scene);
}

#[test]
fn a_first_start_that_fails_leaves_the_metadata_service_blocked() {
    for file in ["/var/lib/enforcer/registrations.json", "/var/lib/enforcer/audit.key"] {
        let mut scene = Scene::builder().task("web").prepare().unwrap();
        let path = scene.path(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "nothing that can be read\n").unwrap();
        scene.enforcer().start().unwrap_err();
        let mut web = scene.host_container("web").unwrap();
        assert_eq!(web.connect(IMDS).unwrap(), EPERM, "{file}");
        assert_nothing_reached_the_metadata_service(&mut scene);
    }
}

#[test]
fn killing_and_starting_again_and_again_loses_nothing() {
    let mut scene = scene();
    let mut web = scene.bridge_container("web").unwrap();
    for _ in 0..5 {
        scene.enforcer().kill().unwrap();
        assert_eq!(web.connect(IMDS).unwrap(), EPERM);
        scene.enforcer().start().unwrap();
        let task = scene.task("web").unwrap();
        assert!(task.is_served_by(&web.get(&task.path()).unwrap()));
    }
}

#[test]
fn while_it_dies_and_comes_back_nobody_gets_a_wrong_answer() {
    let mut scene = scene();
    let (own, foreign) = (scene.task("web").unwrap().clone(), scene.task("batch").unwrap().path());
    let mut web = scene.bridge_container("web").unwrap();
    let mut patient = scene.bridge_container("web").unwrap();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let client = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                // No answer is no wrong answer: for moments nobody listens.
                if let Ok(response) = web.get(&own.path()) {
                    assert!(own.is_served_by(&response), "{response:?}");
                }
                if let Ok(response) = web.get(&foreign) {
                    assert_eq!(response.body_text(), REFUSAL);
                }
                assert_eq!(web.connect(IMDS).unwrap(), EPERM);
            }
        });
        let enforcer = scene.enforcer();
        let lives = (0..5).try_for_each(|_| {
            enforcer.kill()?;
            enforcer.start()?;
            let response = patient.get(&own.path())?;
            // No panic here: it would leave the client running.
            ensure!(own.is_served_by(&response), "{response:?}");
            Ok(())
        });
        is_over.store(true, Ordering::Relaxed);
        lives.unwrap();
        client.join().unwrap();
    });
    assert_nothing_reached_the_metadata_service(&mut scene);
}

#[test]
fn a_stopped_enforcer_leaves_its_guard() {
    let mut scene = scene();
    let mut web = scene.bridge_container("web").unwrap();
    assert!(scene.enforcer().terminate().unwrap().success());
    assert_eq!(web.connect(IMDS).unwrap(), EPERM);
    assert_eq!(web.connect(ENDPOINT).unwrap(), NOBODY_THERE);
    assert_nothing_reached_the_metadata_service(&mut scene);
}

#[test]
fn stopping_does_not_wait_for_idle_connections() {
    let mut scene = scene();
    let mut web = scene.bridge_container("web").unwrap();
    let socket = web.connected(ENDPOINT).unwrap();
    let path = scene.task("web").unwrap().path();
    assert_eq!(web.request(socket, &Request::get(&path)).unwrap().status, 200);
    assert!(scene.enforcer().terminate().unwrap().success());
    assert!(web.request(socket, &Request::get(&path)).is_err());
}

#[test]
fn detach_removes_the_guard() {
    let mut scene = scene();
    let mut web = scene.bridge_container("web").unwrap();
    assert!(scene.enforcer().terminate().unwrap().success());
    assert_eq!(web.connect(IMDS).unwrap(), EPERM);
    let detach = scene.enforcer().run(["detach"]).unwrap();
    assert!(detach.status.success(), "{}", String::from_utf8_lossy(&detach.stderr));
    assert_eq!(web.connect(IMDS).unwrap(), Attempt::Done);
}

#[test]
fn a_log_that_nobody_reads_keeps_nobody_waiting() {
    let mut scene = Scene::builder().task("web").prepare().unwrap();
    scene.enforcer().leave_log_unread();
    scene.enforcer().start().unwrap();
    let mut web = scene.bridge_container("web").unwrap();
    let task = scene.task("web").unwrap().clone();
    assert!(task.is_served_by(&web.get(&task.path()).unwrap()));
    let reload = scene.enforcer().run(["reload"]).unwrap();
    assert!(reload.status.success(), "{}", String::from_utf8_lossy(&reload.stderr));
    assert!(scene.enforcer().terminate().unwrap().success());
}

#[test]
fn an_address_the_endpoint_does_not_have_any_more_is_taken_away() {
    const ELSEWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(169, 254, 171, 7)), 80);
    let mut scene = Scene::builder().task("web").prepare().unwrap();
    let there = |scene: &Scene| scene.host_process().unwrap().connect(ELSEWHERE).unwrap();
    let before = there(&scene);
    let usual = scene.configuration().unwrap();
    let moved = format!("[endpoint]\naddress = \"{}\"", ELSEWHERE.ip());
    scene.configure(|text| text.replace("[endpoint]", &moved)).unwrap();
    scene.enforcer().start().unwrap();
    assert_eq!(there(&scene), NOBODY_THERE);
    scene.configure(|_| usual).unwrap();
    scene.enforcer().restart().unwrap();
    assert_eq!(there(&scene), before);
    assert_ne!(before, NOBODY_THERE);
}

#[test]
fn check_finds_a_host_fit_to_run() {
    let mut scene = Scene::builder().task("web").prepare().unwrap();
    let check = scene.enforcer().run(["check", "-o", "json"]).unwrap();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
    let findings: serde_json::Value = serde_json::from_slice(&check.stdout).unwrap();
    assert!(!findings.is_null());
}

#[test]
fn the_feed_has_every_number_and_no_secret() {
    let mut scene = scene();
    let mut web = scene.bridge_container("web").unwrap();
    let mut batch = scene.host_container("batch").unwrap();
    let paths: Vec<_> = scene
        .tasks()
        .iter()
        .flat_map(|task| [task.path(), task.path_v1()])
        .collect();
    for actor in [&mut web, &mut batch] {
        for path in &paths {
            actor.get(path).unwrap();
        }
        actor.get(&unknown_path()).unwrap();
        assert_eq!(actor.connect(IMDS).unwrap(), EPERM);
    }
    assert!(scene.enforcer().terminate().unwrap().success());

    let records = scene.audit().records().unwrap();
    assert!(
        (1..).zip(&records).all(|(number, record)| record.seq == number),
        "{records:?}"
    );
    assert!(records.iter().all(|record| record.lost.is_none()), "{records:?}");
    assert_eq!(records.iter().filter(|record| record.source == "endpoint").count(), 10);
    let written = scene.audit().text() + &scene.enforcer().log();
    for secret in scene.tasks().iter().flat_map(|task| task.secrets().map(str::to_owned)) {
        assert!(!written.contains(&secret), "a secret is in the feed or in the log");
    }
}

#[test]
fn what_the_ring_loses_while_nobody_reads_is_told_by_the_next_start() {
    let mut scene = scene();
    let mut web = scene.in_host_container("web", Gauge::start).unwrap();
    scene.enforcer().kill().unwrap();
    // The ring holds some 29,000 events.
    web.repeat(Action::SendUdp, IMDS, 32_000).unwrap();
    scene.enforcer().start().unwrap();
    let told = |record: &Record| record.unattended.is_some_and(|unattended| unattended.lost > 1_000);
    let unattended = scene.audit().wait_for(told).unwrap().unattended.unwrap();
    assert_eq!(unattended.events + unattended.lost, 32_000);
}

#[test]
fn an_exception_reaches_no_other_group_while_a_start_numbers_them_anew() {
    let mut scene = scene();
    // Groups are numbered by name: what is in one group stays in it, the other changes places with it.
    let text = scene.configuration().unwrap();
    let text = text.replace("name = \"web\"", "name = \"web\"\nallow = [\"mine\"]");
    let with_other = |name: &str| {
        format!("{text}\n[protect.mine]\naddresses = [\"127.8.8.8\"]\n[protect.{name}]\naddresses = [\"127.9.9.9\"]\n")
    };
    let mut web = scene.host_container("web").unwrap();
    scene.configure(|_| with_other("zebra")).unwrap();
    scene.enforcer().restart().unwrap();
    let is_over = AtomicBool::new(false);
    thread::scope(|threads| {
        let client = threads.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                assert_eq!(web.connect(([127, 9, 9, 9], 80).into()).unwrap(), EPERM);
            }
            web.connect(([127, 8, 8, 8], 80).into()).unwrap()
        });
        let outcome = ["ant", "zebra", "ant", "zebra"].map(|name| {
            scene.configure(|_| with_other(name))?;
            scene.enforcer().kill()?;
            scene.enforcer().start()
        });
        is_over.store(true, Ordering::Relaxed);
        outcome.into_iter().collect::<Result<(), _>>().unwrap();
        assert_eq!(client.join().unwrap(), NOBODY_THERE);
    });
}

#[test]
fn detach_of_other_pins_touches_nothing() {
    let mut scene = scene();
    let mut web = scene.bridge_container("web").unwrap();
    let path = scene.task("web").unwrap().path();
    let detach = scene
        .enforcer()
        .run_with("ENFORCER_BPF_PIN_DIR", "/run/precious", ["detach"])
        .unwrap();
    assert!(detach.status.success(), "{}", String::from_utf8_lossy(&detach.stderr));
    assert_eq!(web.get(&path).unwrap().status, 200);
    assert_eq!(web.connect(IMDS).unwrap(), EPERM);
}
