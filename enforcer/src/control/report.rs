//! What the running enforcer tells about itself.

use std::net::SocketAddrV4;

use serde::{Deserialize, Serialize};

use crate::{attribution::SourceStatus, audit::Totals, host::classes::Classified};

/// How it goes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// The program's version.
    pub version: String,
    /// Its process ID.
    pub pid: u32,
    /// What is done about what is refused.
    pub mode: String,
    /// Where it listens for connections that were steered to it.
    pub listening: Vec<SocketAddrV4>,
    /// Who holds the credentials.
    pub upstream: String,
    /// Patterns of trusted host cgroups.
    pub host: Vec<String>,
    /// Patterns of cgroups that are guarded below those.
    pub guarded: Vec<String>,
    /// Patterns of cgroups that are only observed.
    pub observed: Vec<String>,
    /// Names of the groups of blocked destinations.
    pub protected: Vec<String>,
    /// Names of host services that may ask for credentials which are not their own.
    pub consumers: Vec<String>,
    /// Where tasks are learned from, and how that goes.
    pub sources: Vec<SourceStatus>,
    /// How many tasks there are; `enforcer task list` names them.
    pub tasks: usize,
    /// How many claims of credential IDs are not granted.
    pub conflicts: usize,
    /// How many cgroups look like containers and no source knows them: they are guarded, and get no credentials.
    pub unclaimed: usize,
    /// The first of them. Who may make cgroups may make many.
    pub unclaimed_first: Vec<String>,
    /// How many cgroups there are that something is said about.
    pub classified: usize,
    /// The first of them.
    pub cgroups: Vec<Classified>,
    /// What became of the audit records.
    pub audit: Totals,
}
