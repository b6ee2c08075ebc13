//! Configuration, validated: no option that cannot be absent, no text that was not looked at.
//!
//! It has two stages: `raw` is what was written, this is what is meant. Where it is written: file, then environment,
//! then flags ([`load`]).

pub mod load;
mod overlay;
mod raw;
mod validate;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

pub use self::raw::{UnknownUpstream, UpstreamMode};
use crate::{attribution::TaskName, policy::CredentialId};

/// Where the configuration file is unless told otherwise.
pub const DEFAULT_FILE: &str = "/etc/enforcer/enforcer.toml";

/// Everything there is to configure.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which cgroups are watched, and whose processes are trusted.
    pub cgroups: Cgroups,
    /// The credential endpoint.
    pub endpoint: Endpoint,
    /// Who holds the credentials.
    pub upstream: Upstream,
    /// Addresses of the instance metadata service.
    pub metadata: Vec<IpAddr>,
    /// Directory on a bpffs where links and maps are pinned.
    pub pin_dir: PathBuf,
    /// The audit trail.
    pub audit: Audit,
    /// The tasks.
    pub tasks: Vec<Task>,
}

/// Which cgroups are watched, and whose processes are trusted.
#[derive(Clone, Debug)]
pub struct Cgroups {
    /// Absolute path of the cgroup directory that hooks attach to; none means the cgroup2 mount.
    pub root: Option<PathBuf>,
    /// Cgroups of trusted host services, relative to the cgroup2 mount with a leading slash. `*` stands for any run of
    /// characters within a component.
    pub host: Vec<PathBuf>,
    /// Guarded cgroups, where they are below a trusted one; the tasks' own cgroups included. What matches both is
    /// guarded.
    pub guarded: Vec<PathBuf>,
}

/// The credential endpoint.
#[derive(Clone, Debug)]
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
    /// The ECS agent at this address.
    EcsAgent(SocketAddr),
}

/// What the embedded agent needs to know of a task.
#[derive(Clone, Debug)]
pub struct Role {
    /// The task.
    pub task: TaskName,
    /// The ARN its credentials are reported under.
    pub arn: String,
    /// File with its credentials.
    pub credentials_file: PathBuf,
}

/// The audit trail.
#[derive(Clone, Debug)]
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
}

#[cfg(test)]
mod tests;
