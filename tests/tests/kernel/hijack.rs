//! Connections to the endpoint that somebody else on the bridge takes over: the attacker has the host send it what is for
//! the owner (ARP), learns where the connection is, and goes on with it by a socket that was steered itself.

use std::{
    net::{SocketAddr, SocketAddrV4},
    time::Duration,
};

use enforcer_common::{
    event::{Hook, Outcome},
    verdict::Reason,
};
use enforcer_tests::{
    actor::{Actor, Attempt, Family, Patience},
    audit::Record,
    http::Request,
    namespace::NetNs,
    netlink::configure,
    scene::Scene,
    topology::ENDPOINT,
};

use crate::recorded;

/// Long enough for an answer, which is not to come.
const SOON: Duration = Duration::from_secs(1);

/// What the host's neighbor table is after the attacker has claimed the owner's address.
fn redirect(scene: &Scene, owner: &Actor, attacker: &NetNs) {
    let (address, hardware) = (owner.address(), attacker.hardware("eth0").unwrap());
    configure(scene.host_network(), async |net| {
        net.add_neighbor("br0", address, hardware).await
    })
    .unwrap();
}

/// Takes the connection from `client` over and asks for its owner's credentials.
fn assert_gets_nothing(scene: &Scene, web: &mut Actor, client: SocketAddrV4, overhear: impl FnOnce(&NetNs)) {
    let SocketAddr::V4(endpoint) = ENDPOINT else {
        panic!("the endpoint is IPv4")
    };
    let namespace = NetNs::of_process(web.pid()).unwrap();
    let ears = web.overhear("eth0").unwrap();
    overhear(&namespace);
    let stolen = web.take_over(ears, client, endpoint).unwrap();
    // Only now, or the attacker's kernel would end what it does not know.
    configure(&namespace, async |net| net.add_address("eth0", *client.ip(), 32).await).unwrap();
    web.limit(stolen, SOON).unwrap();
    let path = scene.task("batch").unwrap().path();
    let answer = web.request(stolen, &Request::get(&path));
    assert!(answer.is_err(), "{answer:?}");
    recorded(scene, Hook::TcIngress, Outcome::Dropped, Reason::SenderMismatch, "web");
}

fn permits(scene: &Scene) -> usize {
    let records = scene.audit().records().unwrap();
    records.iter().filter(|record| record.is_verdict("permit")).count()
}

fn scene_with_two() -> (Scene, Actor, Actor) {
    let mut scene = Scene::builder().task("web").task("batch").prepare().unwrap();
    let containers = ["web", "batch"].map(|task| scene.bridge_container(task).unwrap());
    scene.enforcer().start().unwrap();
    let [web, batch] = containers;
    (scene, web, batch)
}

#[test]
fn a_connection_taken_over_before_it_is_accepted_gets_nothing() {
    let (scene, mut web, mut batch) = scene_with_two();
    let client = SocketAddrV4::new(batch.address(), 40001);
    assert_gets_nothing(&scene, &mut web, client, |attacker| {
        redirect(&scene, &batch, attacker);
        let socket = batch.open(Family::V4).unwrap();
        batch
            .connect_from(socket, client.into(), ENDPOINT, Patience::Leave)
            .unwrap();
    });
    assert_eq!(permits(&scene), 0);
}

#[test]
fn a_connection_taken_over_after_it_was_accepted_gets_nothing() {
    let (scene, mut web, mut batch) = scene_with_two();
    let client = SocketAddrV4::new(batch.address(), 40001);
    let socket = batch.open(Family::V4).unwrap();
    let connected = batch.connect_from(socket, client.into(), ENDPOINT, Patience::Wait);
    assert_eq!(connected.unwrap(), Attempt::Done);
    assert_gets_nothing(&scene, &mut web, client, |attacker| {
        redirect(&scene, &batch, attacker);
        // The answer to the owner's own request tells the attacker where the connection is.
        batch.limit(socket, SOON).unwrap();
        let path = scene.task("batch").unwrap().path();
        batch.request(socket, &Request::get(&path)).unwrap_err();
    });
    let is_permit = |record: &Record| record.is_endpoint("permit", "owner") && record.is_of("batch");
    scene.audit().wait_for(is_permit).unwrap();
    assert_eq!(permits(&scene), 1);
}
