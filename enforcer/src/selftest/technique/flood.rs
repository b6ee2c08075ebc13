//! Floods: attempts so many that something could fill up.

use std::{io, net::SocketAddrV4};

use rustix::net::{AddressFamily, SendFlags, SocketType, sendto};

use super::endpoint::refused;
use crate::selftest::{
    ground::Ground,
    packet::{TCP, syn},
    socket::{open, udp},
};

/// How many refused attempts are made.
pub(super) const ATTEMPTS: u32 = 5_000;
/// How many connections are opened and never finished, at each of the two ports and at both.
const HALF_OPEN: u16 = 10_000;
pub(super) const HANDSHAKES: u32 = 20_000;
const FIRST_PORT: u16 = 20_000;

pub(super) fn events(ground: &Ground) -> io::Result<()> {
    let socket = udp(AddressFamily::INET)?;
    let mut outcome = Ok(0);
    for _ in 0..ATTEMPTS {
        outcome = sendto(&socket, b"selftest", SendFlags::empty(), &ground.service());
    }
    Ok(outcome.map(drop)?)
}

/// It gets nobody anything by itself; what it must not do is to open a way for others.
pub(super) fn handshakes(ground: &Ground) -> io::Result<()> {
    let endpoint = ground.endpoint()?;
    let socket = open(AddressFamily::INET, SocketType::RAW, TCP.into())?;
    for port in endpoint.steer_ports {
        let to = SocketAddrV4::new(*endpoint.address.ip(), port);
        for number in 0..HALF_OPEN {
            let segment = syn((ground.own, FIRST_PORT + number), (*to.ip(), port));
            // Each is refused by itself; what counts is how many there are.
            sendto(&socket, &segment, SendFlags::empty(), &SocketAddrV4::new(*to.ip(), 0)).ok();
        }
    }
    Err(refused())
}
