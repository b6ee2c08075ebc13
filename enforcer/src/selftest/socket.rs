//! Sockets as techniques make them: of any family and protocol, and never waiting for long.

use std::{
    io,
    net::{SocketAddrV4, SocketAddrV6},
    os::fd::OwnedFd,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{OFlags, fcntl_setfl},
    net::{
        AddressFamily, Protocol, RawProtocol, SocketFlags, SocketType, addr::SocketAddrArg, connect, socket_with,
        sockopt::socket_error,
    },
};

use super::ground::Ground;
use crate::sys::sockaddr::RawAddress;

/// How long a connection may take that nobody refuses: the service is next door.
const PATIENCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 200_000_000,
};

/// Makes a socket; protocol 0 is the type's usual one.
pub(super) fn open(family: AddressFamily, kind: SocketType, protocol: u32) -> io::Result<OwnedFd> {
    let protocol = RawProtocol::new(protocol).map(Protocol::from_raw);
    Ok(socket_with(family, kind, SocketFlags::CLOEXEC, protocol)?)
}

/// Makes a socket for TCP.
pub(super) fn tcp(family: AddressFamily) -> io::Result<OwnedFd> {
    open(family, SocketType::STREAM, 0)
}

/// Makes a socket for UDP.
pub(super) fn udp(family: AddressFamily) -> io::Result<OwnedFd> {
    open(family, SocketType::DGRAM, 0)
}

/// Connects, and waits a moment for the outcome. By then the first packet has left, whatever became of it.
pub(super) fn start(socket: &OwnedFd, to: &impl SocketAddrArg) -> io::Result<()> {
    fcntl_setfl(socket, OFlags::NONBLOCK)?;
    match connect(socket, to) {
        Err(rustix::io::Errno::INPROGRESS) => await_connection(socket),
        outcome => Ok(outcome?),
    }
}

/// Waits a moment for a connection that has begun.
pub(super) fn await_connection(socket: &OwnedFd) -> io::Result<()> {
    let mut watched = [PollFd::new(socket, PollFlags::OUT)];
    if poll(&mut watched, Some(&PATIENCE))? == 0 {
        return Err(io::Error::from_raw_os_error(libc::ETIMEDOUT));
    }
    Ok(socket_error(socket)??)
}

/// `struct sockaddr_in`
pub(super) fn inet(address: SocketAddrV4) -> RawAddress {
    let family = u16::try_from(libc::AF_INET).unwrap_or_default().to_ne_bytes();
    let port = address.port().to_be_bytes();
    RawAddress([&family[..], &port, &address.ip().octets(), &[0; 8]].concat())
}

/// `struct sockaddr_in6` without a port, as raw sockets want it.
pub(super) fn inet6(address: SocketAddrV6) -> SocketAddrV6 {
    SocketAddrV6::new(*address.ip(), 0, 0, 0)
}

/// `struct sockaddr_ll` of the ground's next hop.
pub(super) fn link(ground: &Ground, kind: u16) -> io::Result<RawAddress> {
    let family = u16::try_from(libc::AF_PACKET).unwrap_or_default().to_ne_bytes();
    let index = interface_index(&ground.interface)?.cast_signed().to_ne_bytes();
    Ok(RawAddress(
        [
            &family[..],
            &kind.to_be_bytes(),
            &index,
            &[0; 3],
            &[6],
            &ground.next_hop,
            &[0; 2],
        ]
        .concat(),
    ))
}

/// Index of an interface of the caller's network namespace.
pub(super) fn interface_index(name: &str) -> io::Result<u32> {
    Ok(rustix::net::netdevice::name_to_index(
        open(AddressFamily::INET, SocketType::DGRAM, 0)?,
        name,
    )?)
}
