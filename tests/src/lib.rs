//! The lab: a scene with a "host", containers and a fake metadata service, in namespaces and cgroups of its own, where
//! the real enforcer runs on the real kernel.
//!
//! A [`scene::Scene`] is built from guards, each of which removes what it made: [`keeper`] holds the namespaces and
//! takes the scene down even when the test is killed, [`topology`] is the network, [`actor`]s are the processes that
//! try things, [`imds`] counts what reaches the metadata service, [`enforcer`] is the program under test and [`audit`]
//! its feed. [`demo`] shows it all to a person, [`mod@bench`] measures what it costs.
//!
//! Everything a scene needs is in the kernel and in the `lab` program beside the tests, which plays all these parts;
//! so it also runs as the only program of a virtual machine.

pub mod scene;

pub mod actor;
pub mod agent;
pub mod attacker;
pub mod audit;
pub mod containerd;
pub mod docker;
pub mod enforcer;
pub mod foreign;
mod image;
pub mod imds;
pub mod podman;
pub mod rootfs;
pub mod runc;
pub mod stub;

pub mod cgroup;
pub mod keeper;
pub mod manager;
pub mod namespace;
pub mod netlink;
pub mod programs;
pub mod topology;

pub mod enter;
pub mod http;
pub mod worker;

pub mod bench;
pub mod demo;
