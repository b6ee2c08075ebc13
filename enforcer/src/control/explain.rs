//! Questions about decisions, and their answers, as they are written on the control socket.

use std::{net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::task::Secret;
use crate::attribution::SourceKind;

/// What would be decided?
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// About whom.
    pub who: Who,
    /// If it made a TCP connection to there.
    pub to: Option<SocketAddr>,
    /// If it asked the credential endpoint for this. It may hold a credential ID.
    pub path: Option<Secret>,
}

/// About whom a question is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Who {
    /// The process of this ID.
    Pid(i32),
    /// A process of this cgroup, in the host's network namespace.
    Cgroup(PathBuf),
}

/// What would be decided, and what it follows from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The cgroup it is about.
    pub cgroup: String,
    /// The cgroup's ID.
    pub cgroup_id: u64,
    /// Whether it is guarded; otherwise it is a trusted host service's.
    pub is_guarded: bool,
    /// Whether what it is refused is recorded only.
    pub is_observed: bool,
    /// Groups of blocked destinations it may use all the same.
    pub may_use: Vec<String>,
    /// Its task.
    pub task: Option<String>,
    /// The host service it is, if that may ask for credentials.
    pub consumer: Option<String>,
    /// Who says whose it is.
    pub known_from: Vec<SourceKind>,
    /// About the connection.
    pub connection: Option<Decided>,
    /// About the request.
    pub request: Option<Decided>,
}

/// A decision. The names are those of the audit feed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decided {
    /// What would be done.
    pub verdict: String,
    /// Why.
    pub reason: String,
}

// === impl Decided ===

impl Decided {
    /// A decision by its names.
    #[must_use]
    pub fn new(verdict: &str, reason: &str) -> Self {
        Self {
            verdict: verdict.to_owned(),
            reason: reason.to_owned(),
        }
    }
}
