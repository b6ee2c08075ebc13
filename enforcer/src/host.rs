//! What we watch and change on the host: the cgroup tree, network namespaces and their devices, the endpoint's address.

use std::io;

pub mod address;
pub mod cgroupfs;
mod changes;
pub mod classes;
pub mod containers;
pub mod coverage;
pub(crate) mod file;
mod links;
pub mod namespaces;
pub(crate) mod sock_diag;
pub mod sockets;
pub mod treatment;

/// What goes wrong with the host's network.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// No netlink socket.
    #[error("cannot open a netlink socket: {source}")]
    Socket {
        /// Why.
        source: io::Error,
    },
    /// The kernel refused a netlink request.
    #[error("cannot {operation}: {source}")]
    Netlink {
        /// What was asked, about what.
        operation: String,
        /// The kernel's answer.
        source: rtnetlink::Error,
    },
    /// A network namespace could not be used.
    #[error("cannot enter network namespace {path}: {source}")]
    Namespace {
        /// Its file.
        path: std::path::PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The processes could not be listed.
    #[error("cannot list processes: {source}")]
    Processes {
        /// Why.
        source: procfs::ProcError,
    },
    /// The namespace has no loopback device.
    #[error("this network namespace has no loopback device: the enforcer needs one for the endpoint's address")]
    NoLoopback,
    /// Changes of the network or of the cgroup tree are no longer reported.
    #[error("the kernel stopped reporting changes of {what}: restart the enforcer")]
    WatchEnded {
        /// Of what.
        what: &'static str,
    },
    /// A watch on the cgroup tree could not be set.
    #[error("cannot watch cgroup {path}: {source}")]
    Watch {
        /// The directory.
        path: std::path::PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The cgroup tree could not be read.
    #[error(transparent)]
    Cgroup(#[from] cgroupfs::CgroupError),
    /// The kernel side refused.
    #[error(transparent)]
    Bpf(#[from] crate::bpf::BpfError),
}
