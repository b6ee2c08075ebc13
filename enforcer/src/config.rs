//! Configuration, validated: no option that cannot be absent, no text that was not looked at.
//!
//! It has two stages: `raw` is what was written, this is what is meant. Where it is written: file, then environment,
//! then flags ([`load`]).

mod consumers;
mod invalid;
pub mod load;
mod overlay;
mod pattern;
mod protect;
mod raw;
mod sources;
mod tasks;
mod validate;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

pub use self::{
    consumers::Placed,
    invalid::InvalidConfig,
    pattern::CgroupPattern,
    protect::{Group, Groups},
    raw::{UnknownUpstream, UpstreamMode},
    sources::{DockerSource, OciSource, Sources},
};
use crate::{attribution::TaskName, bpf::Mode, policy::CredentialId};

/// Where the configuration file is unless told otherwise.
pub const DEFAULT_FILE: &str = "/etc/enforcer/enforcer.toml";

/// Everything there is to configure.
#[derive(Clone, Debug)]
pub struct Config {
    /// What is done about what is refused.
    pub mode: Mode,
    /// Which cgroups are watched, and whose processes are trusted.
    pub cgroups: Cgroups,
    /// The credential endpoint.
    pub endpoint: Endpoint,
    /// Who holds the credentials.
    pub upstream: Upstream,
    /// Blocked destinations.
    pub protect: Groups,
    /// Sockets that guarded cgroups do not get.
    pub sockets: Sockets,
    /// Directory on a bpffs where links and maps are pinned.
    pub pin_dir: PathBuf,
    /// The audit trail.
    pub audit: Audit,
    /// Where the running enforcer is told what to do.
    pub control_socket: PathBuf,
    /// Where registrations are kept.
    pub registrations: PathBuf,
    /// Where tasks are learned from besides this.
    pub sources: Sources,
    /// Trusted host services that fetch credentials which are not their own.
    pub consumers: Vec<Placed>,
    /// The tasks.
    pub tasks: Vec<Task>,
}

/// Which cgroups are watched, and whose processes are trusted.
#[derive(Clone, Debug)]
pub struct Cgroups {
    /// Absolute path of the cgroup directory that hooks attach to; none means the cgroup2 mount.
    pub root: Option<PathBuf>,
    /// Cgroups of trusted host services.
    pub host: Vec<CgroupPattern>,
    /// Guarded cgroups, where they are below a trusted one. What matches both is guarded.
    pub guarded: Vec<CgroupPattern>,
    /// Cgroups whose attempts are recorded only.
    pub observe: Vec<CgroupPattern>,
    /// Cgroups that may use blocked destinations.
    pub exceptions: Vec<Exception>,
}

/// Cgroups that may use blocked destinations.
#[derive(Clone, Debug)]
pub struct Exception {
    /// Which cgroups; those below them too.
    pub cgroups: Vec<CgroupPattern>,
    /// What they may use: bit `n` stands for group `n + 1`.
    pub groups: u16,
}

/// Sockets that guarded cgroups do not get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sockets {
    /// Raw IP sockets.
    pub raw: bool,
    /// Those of these protocols (IANA numbers).
    pub protocols: Vec<u8>,
}

/// The credential endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its address.
    pub address: Ipv4Addr,
    /// Its port, as containers write it.
    pub port: u16,
    /// Where socket hooks steer to.
    pub steer_port: u16,
    /// Where packet hooks steer to.
    pub packet_steer_port: u16,
    /// How long requests may take to finish when the service stops.
    pub drain: Duration,
}

/// Who holds the credentials.
#[derive(Clone, Debug)]
pub enum Upstream {
    /// The enforcer itself.
    Embedded(Vec<Role>),
    /// The ECS agent.
    EcsAgent {
        /// Where it answers.
        address: SocketAddr,
        /// Whether its introspection port is blocked as well.
        introspection_blocked: bool,
    },
}

/// A role the embedded agent has credentials of.
#[derive(Clone, Debug)]
pub struct Role {
    /// The one task it is for; none means every task that has this role.
    pub task: Option<TaskName>,
    /// The ARN its credentials are reported under.
    pub arn: String,
    /// File with its credentials.
    pub credentials_file: PathBuf,
}

/// The audit trail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audit {
    /// Where records go.
    pub output: AuditOutput,
    /// File with the key that hides credential IDs.
    pub key_file: PathBuf,
}

/// Where audit records go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuditOutput {
    /// Standard output.
    Stdout,
    /// Appended to a file.
    File(PathBuf),
}

/// A task.
#[derive(Clone, Debug)]
pub struct Task {
    /// Its name.
    pub name: TaskName,
    /// Its cgroups, relative to the cgroup2 mount with a leading slash; descendants belong to it too.
    pub cgroups: Vec<PathBuf>,
    /// The credential IDs it owns.
    pub credential_ids: Vec<CredentialId>,
    /// The role whose credentials it gets.
    pub role_arn: Option<Arc<str>>,
    /// Blocked destinations it may use, as in [`Exception::groups`]; none means what its cgroup may.
    pub groups: Option<u16>,
    /// Whether its attempts are recorded only; none means what holds for its cgroup.
    pub observe: Option<bool>,
}

#[cfg(test)]
mod tests;
