//! Datagrams of ordinary sockets.

use std::{fs, io};

use rustix::net::{AddressFamily, SendFlags, SocketType, connect, send, sendto};

use crate::selftest::{
    ground::{Ground, Spelling},
    packet::{ICMP, echo},
    socket::{open, udp},
};

const UDP_LITE: u32 = 136;
const PAYLOAD: &[u8] = b"selftest";
/// Who may have ping sockets; a container's root may write it.
const PING_GROUPS: &str = "/proc/sys/net/ipv4/ping_group_range";

pub(super) fn connected(ground: &Ground) -> io::Result<()> {
    let socket = udp(AddressFamily::INET)?;
    connect(&socket, &ground.service())?;
    Ok(send(&socket, PAYLOAD, SendFlags::empty()).map(drop)?)
}

pub(super) fn unconnected(ground: &Ground) -> io::Result<()> {
    let socket = udp(AddressFamily::INET)?;
    Ok(sendto(socket, PAYLOAD, SendFlags::empty(), &ground.service()).map(drop)?)
}

pub(super) fn unconnected_v6(ground: &Ground) -> io::Result<()> {
    let socket = udp(AddressFamily::INET6)?;
    Ok(sendto(socket, PAYLOAD, SendFlags::empty(), &ground.service_v6()).map(drop)?)
}

pub(super) fn embedded(ground: &Ground, spelling: Spelling) -> io::Result<()> {
    let socket = udp(AddressFamily::INET6)?;
    let to = ground.embedded(spelling);
    Ok(sendto(socket, PAYLOAD, SendFlags::empty(), &to).map(drop)?)
}

pub(super) fn udp_lite(ground: &Ground) -> io::Result<()> {
    let socket = open(AddressFamily::INET, SocketType::DGRAM, UDP_LITE)?;
    Ok(sendto(socket, PAYLOAD, SendFlags::empty(), &ground.service()).map(drop)?)
}

pub(super) fn ping(ground: &Ground) -> io::Result<()> {
    fs::write(PING_GROUPS, "0 0")?;
    let socket = open(AddressFamily::INET, SocketType::DGRAM, ICMP.into())?;
    Ok(sendto(socket, &echo(), SendFlags::empty(), &ground.service()).map(drop)?)
}
