//! Packets, frames and connections of an actor's own making.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::{AsRawFd, OwnedFd},
};

use nix::{
    errno::Errno,
    ifaddrs::getifaddrs,
    libc,
    sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, bind, connect, recv, send, sendto,
        setsockopt, socket, sockopt,
    },
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::actor::{
    packet::{Segment, ethernet},
    protocol::{Checksum, Family, HeaderFrom},
    serve::{limit, patience, set_value, tcp_socket},
};

/// The `EtherType`s of ARP and IPv4.
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV4: u16 = 0x0800;
/// `PACKET_VNET_HDR` of `linux/if_packet.h`.
pub(super) const PACKET_VNET_HDR: libc::c_int = 15;
/// `VIRTIO_NET_HDR_F_NEEDS_CSUM` of `linux/virtio_net.h`.
const NEEDS_CHECKSUM: u8 = 1;

/// What `TCP_REPAIR` and `TCP_REPAIR_QUEUE` take; the last one says nothing to the peer.
const REPAIR_ON: i32 = 1;
const REPAIR_OFF: i32 = -1;
const RECEIVED: i32 = 1;
const SENT: i32 = 2;
/// A window for both sides.
const WINDOW: u32 = 64_000;

pub(super) fn send_raw(to: Ipv4Addr, header: HeaderFrom, bytes: &[u8]) -> io::Result<()> {
    let protocol = match header {
        HeaderFrom::Kernel => SockProtocol::Udp,
        HeaderFrom::Sender => SockProtocol::Raw,
    };
    let socket = socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
    let to = SockaddrIn::from(SocketAddrV4::new(to, 0));
    sendto(socket.as_raw_fd(), bytes, &to, MsgFlags::empty())?;
    Ok(())
}

pub(super) fn send_frame(
    interface: &str,
    hardware: [u8; 6],
    carried: &[u8],
    checksum: Option<Checksum>,
) -> io::Result<()> {
    let socket = packet_socket(ETHERTYPE_ARP)?;
    let own = bind_to(&socket, interface)?;
    let mut frame = ethernet(hardware, own, carried);
    if let Some(Checksum { start, offset }) = checksum {
        set_value(&socket, libc::SOL_PACKET, PACKET_VNET_HDR, 1_i32)?;
        let [start, offset] = [start, offset].map(u16::to_ne_bytes);
        let header = [&[NEEDS_CHECKSUM, 0, 0, 0, 0, 0][..], &start, &offset].concat();
        frame.splice(..0, header);
    }
    send(socket.as_raw_fd(), &frame, MsgFlags::empty())?;
    Ok(())
}

pub(super) fn packet_socket(ether_type: u16) -> io::Result<OwnedFd> {
    let protocol = Protocol::from(i32::from(ether_type.to_be()));
    Ok(Socket::new(Domain::PACKET, Type::RAW, Some(protocol))?.into())
}

/// The kernel's own list of interface addresses has what a packet socket must be bound to. Returns the hardware address.
fn bind_to(socket: &OwnedFd, interface: &str) -> io::Result<[u8; 6]> {
    let link = getifaddrs()?
        .filter(|entry| entry.interface_name == interface)
        .find_map(|entry| entry.address?.as_link_addr().copied())
        .ok_or(Errno::ENODEV)?;
    bind(socket.as_raw_fd(), &link)?;
    Ok(link.addr().unwrap_or_default())
}

/// A socket that receives all IPv4 packets of an interface.
pub(super) fn overhear(interface: &str) -> io::Result<OwnedFd> {
    let socket = packet_socket(ETHERTYPE_IPV4)?;
    bind_to(&socket, interface)?;
    limit(&socket, patience()?)?;
    Ok(socket)
}

/// Waits for a packet of a server to somebody else, and makes a socket that goes on in that one's place.
pub(super) fn take_over(overheard: &OwnedFd, client: SocketAddrV4, server: SocketAddrV4) -> io::Result<OwnedFd> {
    let mut frame = [0; 2048];
    let segment = loop {
        let length = recv(overheard.as_raw_fd(), &mut frame, MsgFlags::empty())?;
        let segment = Segment::read(frame.get(..length).unwrap_or_default());
        if let Some(segment) = segment.filter(|segment| segment.from == *server.ip() && segment.to == client) {
            break segment;
        }
    };
    let socket = tcp_socket(Family::V4)?;
    setsockopt(&socket, sockopt::IpTransparent, &true)?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    let repair = |option, value| set_value(&socket, libc::SOL_TCP, option, value);
    repair(libc::TCP_REPAIR, REPAIR_ON)?;
    bind(socket.as_raw_fd(), &SockaddrIn::from(client))?;
    for (queue, next) in [(SENT, segment.acknowledged), (RECEIVED, segment.next)] {
        repair(libc::TCP_REPAIR_QUEUE, queue)?;
        set_value(&socket, libc::SOL_TCP, libc::TCP_QUEUE_SEQ, next)?;
    }
    connect(socket.as_raw_fd(), &SockaddrIn::from(server))?;
    // Last update, window, largest window, own window, last update of that.
    let windows = [segment.next, WINDOW, WINDOW, WINDOW, segment.next];
    set_value(&socket, libc::SOL_TCP, libc::TCP_REPAIR_WINDOW, windows)?;
    repair(libc::TCP_REPAIR, REPAIR_OFF)?;
    Ok(socket)
}
