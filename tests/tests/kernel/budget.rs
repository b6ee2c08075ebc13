//! How many connections of one cgroup may be on their way at once.

use std::net::{Ipv4Addr, SocketAddr};

use enforcer_common::{
    event::{Hook, Outcome},
    handshake::MAX_IN_FLIGHT,
    verdict::Reason,
};
use enforcer_tests::{
    actor::{Actor, Attempt, Family, Patience, SocketId},
    topology::ENDPOINT,
};

use crate::{EPERM, recorded, scene};

/// Somebody who announces connections that lead nowhere.
const GREEDY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 250);

fn begin_connection(actor: &mut Actor) -> (SocketId, Attempt) {
    let socket = actor.open(Family::V4).unwrap();
    let source = SocketAddr::from((GREEDY, 0));
    (
        socket,
        actor.connect_from(socket, source, ENDPOINT, Patience::Leave).unwrap(),
    )
}

#[test]
fn a_cgroup_with_too_many_connections_on_their_way_is_refused_more_and_others_are_not() {
    let scene = scene();
    let mut greedy = scene.impostor("batch", GREEDY).unwrap();
    let mut sockets = Vec::new();
    for _ in 0..MAX_IN_FLIGHT {
        let (socket, attempt) = begin_connection(&mut greedy);
        assert_eq!(attempt, Attempt::Done);
        sockets.push(socket);
    }
    assert_eq!(begin_connection(&mut greedy).1, EPERM);
    recorded(
        &scene,
        Hook::Connect4,
        Outcome::Denied,
        Reason::HandshakeNotStored,
        "batch",
    );
    let task = scene.task("web").unwrap();
    let mut web = scene.bridge_container("web").unwrap();
    assert!(task.is_served_by(&web.get(&task.path()).unwrap()));
    for socket in sockets {
        greedy.abort(socket).unwrap();
    }
    assert_eq!(begin_connection(&mut greedy).1, Attempt::Done);
}
