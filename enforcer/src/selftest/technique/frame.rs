//! Frames from packet sockets, which no socket hook sees.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
};

use rustix::net::{AddressFamily, SendFlags, SocketType, bind, send, sendto};

use crate::{
    selftest::{
        ground::Ground,
        packet::{IPV4, IPV6, Ipv4, UDP, VLAN, frame, ipv6, tagged, udp, udp_v6},
        socket::{link, open},
    },
    sys::{ia32, mapping::Mapping, socket::set_option},
};

const AF_PACKET: AddressFamily = AddressFamily::PACKET;
const SOL_PACKET: libc::c_int = 263;
const PACKET_TX_RING: libc::c_int = 13;
/// `PACKET_QDISC_BYPASS`
const QDISC_BYPASS: (libc::c_int, libc::c_int) = (SOL_PACKET, 20);

/// A hardware address of our own choice: nothing checks the sender's.
pub(super) const HARDWARE: [u8; 6] = [0x02, 0x53, 0x45, 0x4c, 0x46, 0x01];

/// One block of one page of two frames is the smallest ring there is.
const RING: [u32; 4] = [4096, 1, 2048, 2];
const RING_LENGTH: usize = 4096;
/// `TP_STATUS_SEND_REQUEST`
const SEND_REQUEST: u32 = 1;
/// Where `tpacket_hdr` (version 1, 64 bit) has the length, and where its frame begins.
const LENGTH_OFFSET: usize = 8;
const FRAME_OFFSET: usize = 32;

pub(super) fn raw(ground: &Ground) -> io::Result<()> {
    send_frame(ground, &socket(SocketType::RAW)?, IPV4, &packet(ground))
}

pub(super) fn raw_v6(ground: &Ground) -> io::Result<()> {
    let datagram = udp_v6(ground.own_v6, ground.metadata_v6);
    let packet = ipv6(ground.own_v6, ground.metadata_v6, UDP, &datagram);
    send_frame(ground, &socket(SocketType::RAW)?, IPV6, &packet)
}

pub(super) fn raw_bypass(ground: &Ground) -> io::Result<()> {
    send_frame(ground, &bypassing(SocketType::RAW)?, IPV4, &packet(ground))
}

/// The 32-bit call is one that only the BPF LSM sees.
pub(super) fn raw_bypass_32bit(ground: &Ground) -> io::Result<()> {
    let socket = socket(SocketType::RAW)?;
    ia32::set_option(socket.as_fd(), QDISC_BYPASS, &1_u32.to_ne_bytes())?;
    send_frame(ground, &socket, IPV4, &packet(ground))
}

pub(super) fn vlan(ground: &Ground) -> io::Result<()> {
    let tagged = tagged(IPV4, &packet(ground));
    send_frame(ground, &socket(SocketType::RAW)?, VLAN, &tagged)
}

pub(super) fn vlan_stacked(ground: &Ground) -> io::Result<()> {
    let twice = tagged(VLAN, &tagged(IPV4, &packet(ground)));
    send_frame(ground, &socket(SocketType::RAW)?, VLAN, &twice)
}

pub(super) fn dgram(ground: &Ground) -> io::Result<()> {
    send_packet(ground, &socket(SocketType::DGRAM)?)
}

pub(super) fn dgram_bypass(ground: &Ground) -> io::Result<()> {
    send_packet(ground, &bypassing(SocketType::DGRAM)?)
}

pub(super) fn ring(ground: &Ground) -> io::Result<()> {
    let socket = socket(SocketType::RAW)?;
    let request = RING.map(u32::to_ne_bytes).concat();
    set_option(socket.as_fd(), (SOL_PACKET, PACKET_TX_RING), &request)?;
    bind(&socket, &link(ground, IPV4)?)?;
    let frame = frame(ground.next_hop, HARDWARE, IPV4, &packet(ground));
    let ring = Mapping::of_socket(socket.as_fd(), 0, RING_LENGTH)?;
    ring.write(FRAME_OFFSET, &frame)?;
    let length = u32::try_from(frame.len()).map_err(io::Error::other)?;
    ring.write(LENGTH_OFFSET, &length.to_ne_bytes())?;
    ring.publish(0, SEND_REQUEST)?;
    Ok(send(&socket, &[], SendFlags::empty()).map(drop)?)
}

/// What every frame here carries.
pub(super) fn packet(ground: &Ground) -> Vec<u8> {
    Ipv4::new(ground.own, ground.metadata, UDP, udp()).bytes()
}

/// It is to receive nothing, hence no protocol.
fn socket(kind: SocketType) -> io::Result<OwnedFd> {
    open(AF_PACKET, kind, 0)
}

fn bypassing(kind: SocketType) -> io::Result<OwnedFd> {
    let socket = socket(kind)?;
    set_option(socket.as_fd(), QDISC_BYPASS, &1_u32.to_ne_bytes())?;
    Ok(socket)
}

fn send_frame(ground: &Ground, socket: &OwnedFd, kind: u16, packet: &[u8]) -> io::Result<()> {
    let frame = frame(ground.next_hop, HARDWARE, kind, packet);
    Ok(sendto(socket, &frame, SendFlags::empty(), &link(ground, kind)?).map(drop)?)
}

fn send_packet(ground: &Ground, socket: &OwnedFd) -> io::Result<()> {
    Ok(sendto(socket, &packet(ground), SendFlags::empty(), &link(ground, IPV4)?).map(drop)?)
}
