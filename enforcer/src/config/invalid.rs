//! What does not make sense in a configuration.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use super::validate::USUAL_MOUNT;
use crate::{attribution::InvalidPlace, policy::InvalidCredentialId};

/// What does not make sense. Names the key, and never a credential ID.
#[derive(Debug, thiserror::Error)]
pub enum InvalidConfig {
    /// A path must be absolute and without `.`, `..`.
    #[error("{key}: {path:?} must be an absolute path without `..`")]
    Path {
        /// The key.
        key: String,
        /// Its value.
        path: PathBuf,
    },
    /// A path that begins at the wrong place.
    #[error("{key}: {path:?} must be relative to the cgroup2 mount, without {USUAL_MOUNT}")]
    NotRelative {
        /// The key.
        key: String,
        /// Its value.
        path: PathBuf,
    },
    /// A cgroup that cannot be a task's.
    #[error("task {task:?}: {cgroup:?} is no cgroup of a task: it must be below the root, and without any of `*?[]`")]
    TaskCgroup {
        /// The task.
        task: String,
        /// The cgroup.
        cgroup: PathBuf,
    },
    /// A cgroup pattern is none.
    #[error("{key}: {pattern:?} is not a pattern: {source}")]
    Pattern {
        /// The key.
        key: &'static str,
        /// Its value.
        pattern: PathBuf,
        /// What is wrong with it.
        source: glob::PatternError,
    },
    /// Not where a runtime keeps its files.
    #[error("sources.oci.roots: {path:?}: {cause}")]
    Place {
        /// The path.
        path: PathBuf,
        /// What is wrong with it.
        cause: InvalidPlace,
    },
    /// Ports must be different and not 0.
    #[error("endpoint.port, endpoint.steer-port and endpoint.packet-steer-port must be three different ports, not 0")]
    Ports,
    /// The endpoint's address cannot be an endpoint's.
    #[error("endpoint.address: {address} must be a unicast address that is neither loopback nor unspecified")]
    Address {
        /// The address.
        address: Ipv4Addr,
    },
    /// The ECS agent cannot be there.
    #[error("endpoint.agent: {agent} {problem}; it must be where the ECS agent listens")]
    Agent {
        /// The address.
        agent: SocketAddr,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// An address cannot be blocked and be the endpoint.
    #[error("protect.{group}.addresses: {address} is the endpoint's address too")]
    ProtectedIsEndpoint {
        /// The group.
        group: String,
        /// The address.
        address: IpAddr,
    },
    /// A group without addresses.
    #[error("protect.{group}: it has no addresses; give it some, or set enabled = false if it is one of {built_in}")]
    NoAddresses {
        /// The group.
        group: String,
        /// The names of groups that have addresses of their own.
        built_in: String,
    },
    /// An address that is none to connect to.
    #[error("protect.{group}.addresses: {address} is no address to protect")]
    ProtectedAddress {
        /// The group.
        group: String,
        /// The address.
        address: IpAddr,
    },
    /// Two groups of one address.
    #[error("protect.{group}.addresses: {address} is in protect.{other} too; an address has one meaning")]
    SharedAddress {
        /// The group.
        group: String,
        /// The address.
        address: IpAddr,
        /// Who has it already.
        other: String,
    },
    /// The kernel side has room for four ports of a group.
    #[error("protect.{group}.ports: at most four ports, none of them 0; an empty list means all")]
    ProtectedPorts {
        /// The group.
        group: String,
    },
    /// The kernel side tells so many groups apart.
    #[error("protect: {found} groups besides the built-in ones, at most {most} are possible")]
    TooManyGroups {
        /// How many there are.
        found: usize,
        /// How many there may be.
        most: usize,
    },
    /// The kernel side has room for so many addresses.
    #[error("protect: {found} addresses in all groups together, at most {most} are possible")]
    TooManyAddresses {
        /// How many there are.
        found: usize,
        /// How many there may be.
        most: usize,
    },
    /// An exception for a group that does not exist.
    #[error("{key}: no group of destinations is called {group:?}{hint}")]
    UnknownGroup {
        /// The key.
        key: String,
        /// The name.
        group: String,
        /// The nearest one.
        hint: String,
    },
    /// Two tasks of one name.
    #[error("task {task:?}: another task has this name")]
    DuplicateTask {
        /// The name.
        task: String,
    },
    /// Two roles of one ARN.
    #[error("there are two [[role]] of ARN {arn:?}")]
    DuplicateRole {
        /// The ARN.
        arn: String,
    },
    /// A task without a name.
    #[error("a task has an empty name")]
    UnnamedTask,
    /// A name that sources give.
    #[error(
        "task {task:?}: names that begin with docker/, oci/ or kubernetes/ are those of containers nobody lists; take another one"
    )]
    NameOfContainers {
        /// The name.
        task: String,
    },
    /// A bad role.
    #[error("{arn:?} is no role's ARN: it has no spaces or control characters, and is not empty")]
    RoleArn {
        /// As it was written.
        arn: String,
    },
    /// Two tasks of one cgroup.
    #[error("task {task:?}: its cgroup {cgroup:?} is task {other:?}'s too")]
    SharedCgroup {
        /// The task.
        task: String,
        /// The cgroup.
        cgroup: PathBuf,
        /// Who has it already.
        other: String,
    },
    /// A consumer that makes no sense.
    #[error("consumer {consumer:?}: {problem}")]
    Consumer {
        /// Its name.
        consumer: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A task without a cgroup.
    #[error("task {task:?}: it has no cgroups, so nothing could ever be attributed to it")]
    NoCgroups {
        /// The task.
        task: String,
    },
    /// A credential ID is none.
    #[error("task {task:?}: number {number} of its credential-ids: {source}")]
    CredentialId {
        /// The task.
        task: String,
        /// Which one, counted from 1.
        number: usize,
        /// What is wrong with it.
        source: InvalidCredentialId,
    },
    /// A credential ID that is claimed twice.
    #[error("task {task:?}: number {number} of its credential-ids belongs to task {other:?} already")]
    SharedCredentialId {
        /// The task.
        task: String,
        /// Which one, counted from 1.
        number: usize,
        /// Who has it already.
        other: String,
    },
    /// The embedded upstream needs to know where credentials come from.
    #[error("task {task:?}: with upstream = \"embedded\" it needs {key}, because it has credential-ids or a role")]
    Missing {
        /// The task.
        task: String,
        /// The key.
        key: &'static str,
    },
}
