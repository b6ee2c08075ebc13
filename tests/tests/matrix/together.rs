//! Rows that need more than one process, or one that was there before the enforcer.

use std::net::SocketAddr;

use enforcer_common::verdict::{TCP, UDP};
use enforcer_tests::{
    actor::{Actor, Attempt, Family, Patience, SocketId},
    attacker::Outcome,
    http::Request,
    scene::{Scene, Task},
    topology::{ENDPOINT, IMDS},
};

use super::{
    cell::{Cell, DONE, Trial},
    spot::{ATTACKER, VICTIM},
};

/// Source port of connections two sides claim.
const PORT: u16 = 41_018;

/// Connections to the metadata service that are older than the enforcer, where they can be made, and whether they work.
pub(crate) struct Established([Old; 2]);

struct Old {
    technique: &'static str,
    /// IANA number.
    protocol: u8,
    socket: Option<SocketId>,
    is_real: bool,
}

// === impl Established ===

impl Established {
    pub(crate) fn open(trial: &mut Trial) -> Self {
        let owner = &mut trial.spot.owner;
        let sockets = [
            ("established-tcp", TCP, owner.connected(IMDS).ok()),
            ("established-udp", UDP, owner.connected_datagram(IMDS).ok()),
        ];
        Self(sockets.map(|(technique, protocol, socket)| Old {
            technique,
            protocol,
            socket,
            is_real: use_it(trial, socket) > 0,
        }))
    }

    /// Uses them again. Whoever was ended cannot be refused any more: the log tells of it instead.
    pub(crate) fn cells(self, trial: &mut Trial) -> Vec<Cell> {
        let log = trial.scene.enforcer().log();
        let cells = self.0.into_iter().map(|old| {
            let protocol = format!(" protocol={} ", old.protocol);
            let is_end = |line: &&str| line.contains("ended a connection") && line.contains(&protocol);
            let ended = log.lines().filter(is_end).count() as u64;
            let mut leaked = 0;
            let refused = trial.recorded(|trial| {
                leaked = use_it(trial, old.socket);
                0
            });
            Cell {
                technique: old.technique.to_owned(),
                is_real: old.is_real,
                outcome: DONE,
                leaked,
                recorded: refused + ended,
                problem: None,
            }
        });
        cells.collect()
    }
}

/// Sends by a socket, and tells how many packets arrive.
fn use_it(trial: &mut Trial, socket: Option<SocketId>) -> u64 {
    let before = trial.arrived();
    if let Some(socket) = socket {
        // Whether the call fails is not what counts.
        trial.spot.owner.send(socket).unwrap();
    }
    trial.arrived() - before
}

/// Somebody in a network of its own with the address of another claims a connection the other is about to make: the
/// attacker one of the victim, then the other way around. Nobody may get what is the claimant's.
pub(crate) fn claimed(trial: &mut Trial) -> Cell {
    let is_real = trial.is_owner_served();
    let endpoint = trial.spot.ground.endpoint.clone();
    let (mut leaked, mut recorded) = (0, 0);
    if let Some(endpoint) = &endpoint {
        recorded = trial.recorded(|Trial { scene, spot, .. }| {
            let mut victim = scene.bridge_container(VICTIM).unwrap();
            let address = victim.address();
            leaked += u64::from(gets_the_claimants(scene, ATTACKER, &mut victim, (address, PORT).into()));
            let source = (endpoint.source, PORT).into();
            leaked += u64::from(gets_the_claimants(scene, VICTIM, &mut spot.owner, source));
            0
        });
    }
    Cell {
        technique: "claimed-address".to_owned(),
        is_real,
        outcome: match endpoint {
            Some(_) => DONE,
            None => Outcome::Unavailable {
                why: "no credential endpoint can be reached from here".to_owned(),
            },
        },
        leaked,
        recorded,
        problem: None,
    }
}

/// Whether an actor gets the claimant's credentials on a connection that the claimant has announced.
fn gets_the_claimants(scene: &Scene, claimant: &str, actor: &mut Actor, source: SocketAddr) -> bool {
    let task: &Task = scene.task(claimant).unwrap();
    let SocketAddr::V4(address) = source else {
        panic!("{source} is no IPv4 address");
    };
    let mut impostor = scene.impostor(claimant, *address.ip()).unwrap();
    let claim = impostor.open(Family::V4).unwrap();
    impostor.connect_from(claim, source, ENDPOINT, Patience::Leave).unwrap();
    let socket = actor.open(Family::V4).unwrap();
    let connected = actor.connect_from(socket, source, ENDPOINT, Patience::Wait).unwrap();
    let is_theirs = connected == Attempt::Done
        && actor
            .request(socket, &Request::get(&task.path()))
            .is_ok_and(|response| task.is_served_by(&response));
    actor.abort(socket).unwrap();
    is_theirs
}
