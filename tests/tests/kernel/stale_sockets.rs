//! Connections that are older than the enforcer: those of guarded processes to protected destinations end when it starts.

use enforcer_tests::{
    actor::{Actor, Attempt, SocketId},
    http::Request,
    scene::Scene,
    topology::{IMDS, IMDS_MAPPED, IMDS_OVER_V6},
};

/// Connections to the metadata service in each spelling of its address, each of them in use.
fn connections(actor: &mut Actor) -> Vec<SocketId> {
    let sockets = [IMDS, IMDS_MAPPED, IMDS_OVER_V6].map(|address| actor.connected(address).unwrap());
    for socket in sockets {
        assert!(is_usable(actor, socket));
    }
    sockets.to_vec()
}

fn is_usable(actor: &mut Actor, socket: SocketId) -> bool {
    actor.request(socket, &Request::get("/latest/meta-data/")).is_ok()
}

#[test]
fn a_containers_connections_to_the_metadata_service_end_when_the_enforcer_starts() {
    let mut scene = Scene::builder().task("web").prepare().unwrap();
    let mut containers = [
        scene.bridge_container("web").unwrap(),
        scene.host_container("web").unwrap(),
    ];
    let sockets = containers.each_mut().map(connections);
    let mut service = scene.host_process().unwrap();
    let trusted = connections(&mut service);
    scene.enforcer().start().unwrap();
    for (container, sockets) in containers.iter_mut().zip(&sockets) {
        assert!(!sockets.iter().any(|socket| is_usable(container, *socket)));
    }
    assert!(trusted.iter().all(|socket| is_usable(&mut service, *socket)));
    assert_eq!(scene.enforcer().log().matches("ended a connection").count(), 6);
}

#[test]
fn a_restart_ends_no_connection_that_the_earlier_enforcer_took() {
    let mut scene = crate::scene();
    let mut service = scene.host_process().unwrap();
    let trusted = connections(&mut service);
    scene.enforcer().restart().unwrap();
    assert!(trusted.iter().all(|socket| is_usable(&mut service, *socket)));
    assert_eq!(scene.enforcer().log().matches("ended a connection").count(), 0);
}

#[test]
fn a_containers_datagram_sockets_to_the_metadata_service_are_disconnected_when_the_enforcer_starts() {
    let mut scene = Scene::builder().task("web").prepare().unwrap();
    let mut web = scene.bridge_container("web").unwrap();
    let mut service = scene.host_process().unwrap();
    let sockets = [&mut web, &mut service].map(|actor| {
        let socket = actor.connected_datagram(IMDS).unwrap();
        assert_eq!(actor.send(socket).unwrap(), Attempt::Done);
        socket
    });
    scene.enforcer().start().unwrap();
    assert_eq!(service.send(sockets[1]).unwrap(), Attempt::Done);
    let before = scene.imds_hits().unwrap();
    assert!(matches!(web.send(sockets[0]).unwrap(), Attempt::Refused(_)));
    assert_eq!(scene.imds_hits().unwrap(), before);
}
