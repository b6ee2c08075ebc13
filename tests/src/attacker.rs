//! Attackers: the self-test's child in a container of the scene. What it can try is the enforcer's own table of
//! techniques.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::{enter::Place, programs, worker::Worker};

/// A row of the table.
#[derive(Clone, Debug, Deserialize)]
pub struct Technique {
    /// Its name.
    pub name: String,
    /// What it is after.
    pub goal: Goal,
}

/// What a technique is after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// A packet at the metadata service.
    Metadata,
    /// An answer to somebody else's credential request.
    Credentials,
    /// Nobody being served at the credential endpoint.
    Outage {
        /// How many attempts are made.
        attempts: u64,
    },
    /// Records.
    Silence {
        /// How many attempts are made.
        attempts: u64,
    },
}

/// Where an attempt is made from and what it aims at; `enforcer::selftest::ground` says what the fields are.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "as the enforcer documents them")]
pub struct Ground {
    pub interface: String,
    pub next_hop: [u8; 6],
    pub own: Ipv4Addr,
    pub own_v6: Ipv6Addr,
    pub metadata: Ipv4Addr,
    pub metadata_v6: Ipv6Addr,
    pub bystander: Ipv4Addr,
    pub bystander_v6: Ipv6Addr,
    pub in_host_network: bool,
    pub endpoint: Option<Endpoint>,
    pub cgroup: PathBuf,
    pub sibling: PathBuf,
    pub outside: PathBuf,
    pub host_network: Option<PathBuf>,
}

/// The credential endpoint, and what it must not answer.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "as the enforcer documents them")]
pub struct Endpoint {
    pub address: SocketAddr,
    pub source: Ipv4Addr,
    pub steer_ports: [u16; 2],
    pub agent_ports: Vec<u16>,
    pub foreign: String,
}

/// How an attempt went.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was made.
    Tried {
        /// What the last system call answered, `None` for success.
        errno: Option<i32>,
    },
    /// It could not be made.
    Unavailable {
        /// Why.
        why: String,
    },
}

/// A process that makes attempts on command.
#[derive(Debug)]
pub struct Attacker {
    worker: Worker,
    cgroup: PathBuf,
    address: Ipv4Addr,
}

#[derive(Serialize)]
struct Order<'a> {
    technique: &'a str,
    ground: &'a Ground,
}

/// Every technique.
pub fn techniques() -> Result<Vec<Technique>> {
    let output = Command::new(programs::directory()?.join("enforcer"))
        .args(["selftest", "--list", "--output", "json"])
        .output()
        .context("cannot start the enforcer")?;
    ensure!(output.status.success(), "the enforcer does not list its techniques");
    serde_json::from_slice(&output.stdout).context("the enforcer's list of techniques is not one")
}

// === impl Attacker ===

impl Attacker {
    /// Starts an attacker whose packets come from `address`.
    pub fn start(lab: &Path, place: &Place, address: Ipv4Addr) -> Result<Self> {
        let mut command = place.command(lab, &lab.with_file_name("enforcer"));
        command.arg("selftest-child");
        Ok(Self {
            worker: Worker::start(command)?,
            cgroup: place.cgroup.clone(),
            address,
        })
    }

    /// The cgroup it was put into.
    #[must_use]
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// The address its packets come from.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Has an attempt made.
    pub fn attempt(&mut self, technique: &str, ground: &Ground) -> Result<Outcome> {
        self.worker.call(&Order { technique, ground })
    }
}
