//! One enforcer in the place of another, while clients go on asking.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use enforcer_tests::{
    actor::Actor,
    http::Request,
    scene::{Scene, Task},
    topology::{ENDPOINT, IMDS},
};

use crate::{EPERM, REFUSAL, assert_nothing_reached_the_metadata_service, scene};

/// How often the enforcer is replaced.
const TIMES: u32 = 5;

/// Asks until it is over; every single answer has to be right.
fn keep_asking(actor: &mut Actor, own: &Task, foreign: &Task, is_over: &AtomicBool) -> u32 {
    let mut answers = 0;
    while !is_over.load(Ordering::Relaxed) {
        let response = actor.get(&own.path()).unwrap();
        assert!(own.is_served_by(&response), "{response:?}");
        assert_eq!(actor.get(&foreign.path()).unwrap().body_text(), REFUSAL);
        assert_eq!(actor.connect(IMDS).unwrap(), EPERM);
        answers += 1;
    }
    answers
}

#[test]
fn taking_over_again_and_again_fails_no_request() {
    let mut scene = scene();
    let (web, batch) = (scene.task("web").unwrap().clone(), scene.task("batch").unwrap().clone());
    let mut bridged = scene.bridge_container("web").unwrap();
    let mut on_host = scene.host_container("batch").unwrap();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let clients = [
            scope.spawn(|| keep_asking(&mut bridged, &web, &batch, &is_over)),
            scope.spawn(|| keep_asking(&mut on_host, &batch, &web, &is_over)),
        ];
        let outcome = (0..TIMES).try_for_each(|_| scene.enforcer().take_over().map(drop));
        is_over.store(true, Ordering::Relaxed);
        outcome.unwrap();
        for client in clients {
            assert!(client.join().unwrap() > 0);
        }
    });
    assert_nothing_reached_the_metadata_service(&mut scene);
}

#[test]
fn whoever_connected_before_and_asks_after_is_answered_by_somebody() {
    let mut scene = scene();
    let task = scene.task("web").unwrap().clone();
    let mut web = scene.bridge_container("web").unwrap();
    let early = web.connected(ENDPOINT).unwrap();
    scene.enforcer().pause().unwrap();
    // Nobody accepts it before the handover begins.
    let waiting = web.connected(ENDPOINT).unwrap();
    scene.enforcer().resume().unwrap();
    let client = thread::spawn(move || {
        [early, waiting].map(|socket| {
            web.request(socket, &Request::get(&task.path()))
                .map(|response| response.status)
        })
    });
    scene.enforcer().take_over().unwrap();
    assert_eq!(client.join().unwrap().map(Result::unwrap), [200, 200]);
}

#[test]
fn with_sockets_left_to_the_service_manager_clients_wait_while_the_enforcer_is_dead() {
    let mut scene = Scene::builder().task("web").prepare().unwrap();
    scene.enforcer().keep_sockets();
    scene.enforcer().start().unwrap();
    let task = scene.task("web").unwrap().clone();
    let mut web = scene.bridge_container("web").unwrap();
    for _ in 0..3 {
        scene.enforcer().kill().unwrap();
        assert_eq!(web.connect(IMDS).unwrap(), EPERM);
        let waiting = web.connected(ENDPOINT).unwrap();
        scene.enforcer().start().unwrap();
        let response = web.request(waiting, &Request::get(&task.path())).unwrap();
        assert!(task.is_served_by(&response), "{response:?}");
    }
    assert_nothing_reached_the_metadata_service(&mut scene);
}

#[test]
fn a_successor_that_cannot_start_leaves_the_running_one_alone() {
    let mut scene = scene();
    let task = scene.task("web").unwrap().clone();
    let mut web = scene.bridge_container("web").unwrap();
    scene.configure(|text| format!("mode = 1\n{text}")).unwrap();
    let output = scene.enforcer().run(["run", "--take-over"]).unwrap();
    assert!(!output.status.success());
    assert!(task.is_served_by(&web.get(&task.path()).unwrap()));
}

#[test]
fn a_handover_is_recorded_and_the_feeds_together_have_every_denial_once() {
    let mut scene = scene();
    let mut web = scene.bridge_container("web").unwrap();
    assert_eq!(web.connect(IMDS).unwrap(), EPERM);
    let before = scene.enforcer().take_over().unwrap();
    assert_eq!(web.connect(IMDS).unwrap(), EPERM);
    assert!(scene.enforcer().terminate().unwrap().success());
    let handover = before
        .records()
        .unwrap()
        .into_iter()
        .find(|record| record.is_control("handover"));
    assert_eq!(handover.unwrap().by.unwrap()["process"]["uid"], 0);
    let mut records = before.records().unwrap();
    records.extend(scene.audit().records().unwrap());
    let denials = records
        .iter()
        .filter(|record| record.is_to(IMDS.ip()) && record.is_verdict("deny"));
    assert_eq!(denials.count(), 2);
}
