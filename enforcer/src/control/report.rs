//! What the running enforcer tells about itself.

use std::{net::SocketAddrV4, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{audit::Totals, bpf::Mode, host::classes::Classified};

/// How it goes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// The program's version.
    pub version: String,
    /// Its process ID.
    pub pid: u32,
    /// What is done about what is refused.
    pub mode: Mode,
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
    /// The tasks.
    pub tasks: Vec<TaskReport>,
    /// The cgroups there are that something is said about.
    pub cgroups: Vec<Classified>,
    /// What became of the audit records.
    pub audit: Totals,
}

/// A task.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TaskReport {
    /// Its name.
    pub name: String,
    /// Its cgroups.
    pub cgroups: Vec<PathBuf>,
    /// How many credential IDs it owns.
    pub credentials: usize,
}
