//! Cgroups: sockets and processes that were elsewhere before.

use std::{fs, io, os::fd::OwnedFd, path::Path};

use rustix::net::AddressFamily;

use crate::selftest::{
    ground::Ground,
    socket::{start, tcp},
};

/// Name of the cgroup a container makes for itself.
const NESTED: &str = "nested";

pub(super) fn socket_from_outside(ground: &Ground) -> io::Result<()> {
    let socket = made_in(ground, &ground.outside)?;
    start(&socket, &ground.service())
}

pub(super) fn nested(ground: &Ground) -> io::Result<()> {
    let nested = ground.cgroup.join(NESTED);
    fs::create_dir_all(&nested)?;
    let outcome = connect_from(ground, &nested);
    fs::remove_dir(&nested).and(outcome)
}

pub(super) fn moved(ground: &Ground) -> io::Result<()> {
    connect_from(ground, &ground.sibling)
}

/// A TCP socket made while the process was in another cgroup.
pub(super) fn made_in(ground: &Ground, cgroup: &Path) -> io::Result<OwnedFd> {
    join(cgroup)?;
    let socket = tcp(AddressFamily::INET);
    join(&ground.cgroup)?;
    socket
}

/// Connects while the process is in another cgroup.
fn connect_from(ground: &Ground, cgroup: &Path) -> io::Result<()> {
    let socket = tcp(AddressFamily::INET)?;
    join(cgroup)?;
    let outcome = start(&socket, &ground.service());
    join(&ground.cgroup).and(outcome)
}

/// Moves the whole process; 0 stands for the writer.
fn join(cgroup: &Path) -> io::Result<()> {
    fs::write(cgroup.join("cgroup.procs"), "0")
}
