//! `sock_ops` on both sides: the identity of the one who connects reaches the one who accepts, and only that one.

use std::{
    net::{Ipv4Addr, SocketAddr},
    thread,
};

use enforcer_common::{event::Hook, verdict::Reason};
use enforcer_tests::{
    actor::{Actor, Attempt, Family, Patience},
    cgroup,
    http::{Request, Response},
    programs::slowness,
    scene::{Scene, Task},
    topology::{ENDPOINT, STEER},
};

use crate::{REFUSAL, scene, unknown_path};

/// Asks on an open connection.
macro_rules! ask {
    ($actor:expr, $socket:expr, $path:expr) => {
        $actor.request($socket, &Request::get(&$path)).unwrap()
    };
}

fn tasks(scene: &Scene) -> (Task, Task) {
    (scene.task("web").unwrap().clone(), scene.task("batch").unwrap().clone())
}

fn is_refusal(response: &Response) -> bool {
    response.status == 400 && response.body == REFUSAL.as_bytes()
}

fn gets_its_own_credentials_only(actor: &mut Actor, own: &Task, other: &Task) {
    assert!(own.is_served_by(&actor.get(&own.path()).unwrap()));
    assert!(own.is_served_by(&actor.get(&own.path_v1()).unwrap()));
    assert!(is_refusal(&actor.get(&other.path()).unwrap()));
    assert!(is_refusal(&actor.get(&unknown_path()).unwrap()));
}

#[test]
fn each_bridge_container_gets_its_own_credentials_only() {
    let scene = scene();
    let (web, batch) = tasks(&scene);
    gets_its_own_credentials_only(&mut scene.bridge_container("web").unwrap(), &web, &batch);
    gets_its_own_credentials_only(&mut scene.bridge_container("batch").unwrap(), &batch, &web);
}

#[test]
fn each_host_mode_container_gets_its_own_credentials_only() {
    let scene = scene();
    let (web, batch) = tasks(&scene);
    gets_its_own_credentials_only(&mut scene.host_container("web").unwrap(), &web, &batch);
    gets_its_own_credentials_only(&mut scene.host_container("batch").unwrap(), &batch, &web);
}

#[test]
fn a_nested_cgroup_has_its_tasks_credentials() {
    let scene = scene();
    let (web, batch) = tasks(&scene);
    let mut actor = scene.bridge_container("web").unwrap();
    let nested = scene.cgroup_of("web").unwrap().join("one/two/three");
    cgroup::create(&nested).unwrap();
    actor.join(&nested).unwrap();
    gets_its_own_credentials_only(&mut actor, &web, &batch);
}

#[test]
fn the_endpoint_is_served_in_its_v4_mapped_spelling() {
    let scene = scene();
    let (web, _) = tasks(&scene);
    let mapped = SocketAddr::new("::ffff:169.254.170.2".parse().unwrap(), ENDPOINT.port());
    let mut actor = scene.bridge_container("web").unwrap();
    assert!(web.is_served_by(&actor.ask(mapped, &Request::get(&web.path())).unwrap()));
}

#[test]
fn a_foreign_and_an_unknown_id_cannot_be_told_apart() {
    let scene = scene();
    let (_, batch) = tasks(&scene);
    let mut actor = scene.bridge_container("web").unwrap();
    let mut answer = |path: &str| {
        let mut response = actor.get(path).unwrap();
        response.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("date"));
        response
    };
    assert_eq!(answer(&batch.path()), answer(&unknown_path()));
    for reason in ["not_owner", "unknown_id"] {
        let record = scene
            .audit()
            .wait_for(|record| record.is_endpoint("deny", reason))
            .unwrap();
        assert!(record.is_of("web"), "{record:?}");
    }
}

#[test]
fn the_record_of_a_request_names_task_and_hashed_id() {
    let scene = scene();
    let (web, _) = tasks(&scene);
    let mut actor = scene.bridge_container("web").unwrap();
    actor.get(&web.path()).unwrap();
    let is_wanted = |record: &enforcer_tests::audit::Record| record.source == "endpoint" && record.is_of("web");
    let record = scene.audit().wait_for(is_wanted).unwrap();
    assert!(record.is_verdict("permit"));
    assert_eq!(record.sender.unwrap().pid, actor.pid());
    let request = record.request.unwrap();
    assert_eq!((request.method.as_deref(), request.status), (Some("GET"), Some(200)));
    let hash = request.credential.unwrap();
    assert!(
        hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "{hash}"
    );
}

#[test]
fn every_request_of_a_connection_is_decided_on_its_own() {
    let scene = scene();
    let (web, batch) = tasks(&scene);
    let mut actor = scene.bridge_container("web").unwrap();
    let socket = actor.connected(ENDPOINT).unwrap();
    for _ in 0..3 {
        assert!(web.is_served_by(&ask!(actor, socket, web.path())));
        assert!(is_refusal(&ask!(actor, socket, batch.path())));
        assert!(is_refusal(&ask!(actor, socket, unknown_path())));
    }
}

#[test]
fn a_moved_process_has_the_credentials_of_where_it_is() {
    let scene = scene();
    let (web, batch) = tasks(&scene);
    let mut actor = scene.bridge_container("web").unwrap();
    gets_its_own_credentials_only(&mut actor, &web, &batch);
    actor.join(&scene.cgroup_of("batch").unwrap()).unwrap();
    gets_its_own_credentials_only(&mut actor, &batch, &web);
}

#[test]
fn a_connection_stays_that_of_the_task_that_made_it() {
    let scene = scene();
    let (web, batch) = tasks(&scene);
    let mut actor = scene.bridge_container("web").unwrap();
    let socket = actor.connected(ENDPOINT).unwrap();
    actor.join(&scene.cgroup_of("batch").unwrap()).unwrap();
    assert!(web.is_served_by(&ask!(actor, socket, web.path())));
    assert!(is_refusal(&ask!(actor, socket, batch.path())));
}

#[test]
fn a_socket_of_one_task_connected_by_another_gets_nothing() {
    let scene = scene();
    let (web, batch) = tasks(&scene);
    let mut actor = scene.bridge_container("web").unwrap();
    let socket = actor.open(Family::V4).unwrap();
    actor.join(&scene.cgroup_of("batch").unwrap()).unwrap();
    assert_eq!(actor.connect_socket(socket, ENDPOINT).unwrap(), Attempt::Done);
    assert!(is_refusal(&ask!(actor, socket, web.path())));
    scene
        .audit()
        .wait_for(|record| record.is_endpoint("deny", "socket_from_elsewhere"))
        .unwrap();
    let socket = actor.open(Family::V4).unwrap();
    actor.join(&scene.cgroup_of("web").unwrap()).unwrap();
    assert_eq!(actor.connect_socket(socket, ENDPOINT).unwrap(), Attempt::Done);
    assert!(is_refusal(&ask!(actor, socket, batch.path())));
}

#[test]
fn a_connection_nobody_announced_is_refused_with_a_reason() {
    let scene = scene();
    let (web, _) = tasks(&scene);
    let mut host = scene.host_process().unwrap();
    assert!(is_refusal(&host.ask(STEER, &Request::get(&web.path())).unwrap()));
    scene
        .audit()
        .wait_for(|record| record.is_endpoint("deny", "unknown_sender"))
        .unwrap();
    scene
        .audit()
        .wait_for(|record| record.is_kernel(Hook::SockOpsOwn, Reason::HandshakeMissing))
        .unwrap();
}

#[test]
fn containers_with_the_same_address_are_told_apart() {
    const SHARED: Ipv4Addr = Ipv4Addr::new(10, 77, 9, 9);
    let from = |port| SocketAddr::from((SHARED, port));

    let scene = scene();
    let (web, batch) = tasks(&scene);
    let (mut one, one_link) = scene.routed_container("web", SHARED).unwrap();
    let (mut two, two_link) = scene.routed_container("batch", SHARED).unwrap();
    let connect = |actor: &mut Actor, port| {
        let socket = actor.open(Family::V4).unwrap();
        let attempt = actor
            .connect_from(socket, from(port), ENDPOINT, Patience::Wait)
            .unwrap();
        assert_eq!(attempt, Attempt::Done);
        socket
    };

    scene.route_to(&one_link).unwrap();
    let first = connect(&mut one, 40001);
    assert!(web.is_served_by(&ask!(one, first, web.path())));

    scene.route_to(&two_link).unwrap();
    let second = connect(&mut two, 40002);
    assert!(batch.is_served_by(&ask!(two, second, batch.path())));
    assert!(is_refusal(&ask!(two, second, web.path())));

    scene.route_to(&one_link).unwrap();
    assert!(is_refusal(&ask!(one, first, batch.path())));
    one.abort(first).unwrap();

    // Now even the port is the same.
    scene.route_to(&two_link).unwrap();
    let third = connect(&mut two, 40001);
    assert!(is_refusal(&ask!(two, third, web.path())));
    assert!(batch.is_served_by(&ask!(two, third, batch.path())));
}

/// The impostor announces a tuple it cannot use, then its owner does. The owner may be refused; nobody gets what is not
/// theirs.
#[test]
fn an_impostors_claim_never_gives_anybody_a_foreign_identity() {
    let scene = scene();
    let (web, batch) = tasks(&scene);
    let mut actor = scene.bridge_container("web").unwrap();
    let mut impostor = scene.impostor("batch", actor.address()).unwrap();
    for (port, path) in [(40001, web.path()), (40002, batch.path())] {
        let source = SocketAddr::from((actor.address(), port));
        let claim = impostor.open(Family::V4).unwrap();
        impostor.connect_from(claim, source, ENDPOINT, Patience::Leave).unwrap();
        let socket = actor.open(Family::V4).unwrap();
        if actor.connect_from(socket, source, ENDPOINT, Patience::Wait).unwrap() == Attempt::Done {
            let response = ask!(actor, socket, path);
            let is_own = path == web.path() && web.is_served_by(&response);
            assert!(is_own || is_refusal(&response), "{response:?}");
        }
    }
    let records = scene.audit().records().unwrap();
    assert!(
        !records
            .iter()
            .any(|record| record.is_verdict("permit") && record.is_of("batch"))
    );
}

/// Clients in the host's namespace share its address, so a port is all that tells the two connections apart.
#[test]
fn a_client_gone_before_accept_leaves_nothing_to_its_ports_next_user() {
    let mut scene = scene();
    let (web, batch) = tasks(&scene);
    let mut first = scene.host_container("web").unwrap();
    let mut second = scene.host_container("batch").unwrap();
    let source = SocketAddr::new(ENDPOINT.ip(), 40001);
    scene.enforcer().pause().unwrap();
    let gone = first.open(Family::V4).unwrap();
    assert_eq!(
        first.connect_from(gone, source, ENDPOINT, Patience::Wait).unwrap(),
        Attempt::Done
    );
    first.abort(gone).unwrap();
    let socket = second.open(Family::V4).unwrap();
    assert_eq!(
        second.connect_from(socket, source, ENDPOINT, Patience::Wait).unwrap(),
        Attempt::Done
    );
    scene.enforcer().resume().unwrap();
    assert!(is_refusal(&ask!(second, socket, web.path())));
    assert!(batch.is_served_by(&ask!(second, socket, batch.path())));
}

#[test]
fn a_thousand_clients_of_two_tasks_get_no_wrong_answer() {
    // The server does not wait long for those an emulated machine is late with.
    let clients = 500 / slowness().unwrap();
    let scene = scene();
    let (web, batch) = tasks(&scene);
    let unknown = unknown_path();
    let crowd = |own: &Task, other: &Task| {
        let mut actor = scene.bridge_container(&own.name).unwrap();
        let counted = actor
            .crowd(clients, &[&own.path(), &other.path(), &unknown, &own.path()])
            .unwrap();
        let each = 2 * usize::try_from(clients).unwrap();
        let [(served, successes), (refused, refusals)] = &counted[..] else {
            panic!("{counted:?}")
        };
        assert!(own.is_served_by(served) && is_refusal(refused), "{counted:?}");
        assert_eq!((*successes, *refusals), (each, each));
    };
    thread::scope(|scope| {
        scope.spawn(|| crowd(&web, &batch));
        scope.spawn(|| crowd(&batch, &web));
    });
}
