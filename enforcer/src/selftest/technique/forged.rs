//! IP packets written by hand, and options that change where a packet ends.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6},
    os::fd::AsFd as _,
};

use rustix::net::{AddressFamily, SendFlags, SocketType, sendto};

use crate::{
    selftest::{
        ground::Ground,
        packet::{
            ICMP, Ipv4, TCP, UDP, echo, ipv6, ipv6_fragment, ipv6_routed, source_route as route_through, syn, udp,
            udp_v6,
        },
        socket::{self, inet6, open},
    },
    sys::socket::set_option,
};

/// `IPPROTO_RAW`: the header is the sender's.
const OWN_HEADER: u32 = 255;
const IP_OPTIONS: (libc::c_int, libc::c_int) = (libc::IPPROTO_IP, libc::IP_OPTIONS);
/// An address for examples (RFC 5737), which nobody has.
const NOWHERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// More fragments follow.
const MORE: u16 = 0x2000;

pub(super) fn raw(ground: &Ground) -> io::Result<()> {
    let socket = open(AddressFamily::INET, SocketType::RAW, UDP.into())?;
    Ok(sendto(socket, &udp(), SendFlags::empty(), &ground.service()).map(drop)?)
}

pub(super) fn raw_icmp(ground: &Ground) -> io::Result<()> {
    let socket = open(AddressFamily::INET, SocketType::RAW, ICMP.into())?;
    Ok(sendto(socket, &echo(), SendFlags::empty(), &ground.service()).map(drop)?)
}

pub(super) fn raw_header(ground: &Ground) -> io::Result<()> {
    inject(&Ipv4::new(ground.own, ground.metadata, UDP, udp()))
}

pub(super) fn raw_v6(ground: &Ground) -> io::Result<()> {
    let socket = open(AddressFamily::INET6, SocketType::RAW, UDP.into())?;
    let to = inet6(ground.service_v6());
    let datagram = udp_v6(ground.own_v6, ground.metadata_v6);
    Ok(sendto(socket, &datagram, SendFlags::empty(), &to).map(drop)?)
}

pub(super) fn raw_header_v6(ground: &Ground) -> io::Result<()> {
    let datagram = udp_v6(ground.own_v6, ground.metadata_v6);
    let packet = ipv6(ground.own_v6, ground.metadata_v6, UDP, &datagram);
    inject_v6(ground.metadata_v6, &packet)
}

/// The socket's own destination is a neighbor; the stations on the way there are the option's.
pub(super) fn source_route(ground: &Ground) -> io::Result<()> {
    let socket = socket::udp(AddressFamily::INET)?;
    let stations = [
        &[131, 11, 4][..],
        &ground.bystander.octets(),
        &ground.metadata.octets(),
        &[0],
    ]
    .concat();
    set_option(socket.as_fd(), IP_OPTIONS, &stations)?;
    Ok(sendto(socket, b"selftest", SendFlags::empty(), &ground.neighbor()).map(drop)?)
}

pub(super) fn source_route_raw(ground: &Ground) -> io::Result<()> {
    let mut packet = Ipv4::new(ground.own, ground.bystander, UDP, udp());
    packet.options = route_through(ground.metadata);
    inject(&packet)
}

pub(super) fn routing_header(ground: &Ground) -> io::Result<()> {
    let datagram = udp_v6(ground.own_v6, ground.metadata_v6);
    let stations = [ground.bystander_v6, ground.metadata_v6];
    inject_v6(ground.bystander_v6, &ipv6_routed(ground.own_v6, stations, &datagram))
}

/// The first fragment has no more than the ports, the second one not even these.
pub(super) fn fragments(ground: &Ground) -> io::Result<()> {
    let datagram = udp();
    let (head, tail) = datagram.split_at_checked(8).unwrap_or_default();
    let mut first = Ipv4::new(ground.own, ground.metadata, UDP, head.to_vec());
    first.fragment = MORE;
    let mut second = Ipv4::new(ground.own, ground.metadata, UDP, tail.to_vec());
    second.fragment = 1;
    let outcome = inject(&first);
    inject(&second).and(outcome)
}

pub(super) fn fragments_v6(ground: &Ground) -> io::Result<()> {
    let datagram = udp_v6(ground.own_v6, ground.metadata_v6);
    let packet = ipv6_fragment(ground.own_v6, ground.metadata_v6, &datagram);
    inject_v6(ground.metadata_v6, &packet)
}

pub(super) fn spoofed(ground: &Ground) -> io::Result<()> {
    inject(&Ipv4::new(NOWHERE, ground.metadata, UDP, udp()))
}

/// Nobody listens there, so the neighbor's kernel answers: to whom the packet claims to come from.
pub(super) fn reflected(ground: &Ground) -> io::Result<()> {
    let segment = syn((ground.metadata, 40_017), (ground.bystander, 9));
    inject(&Ipv4::new(ground.metadata, ground.bystander, TCP, segment))
}

fn inject(packet: &Ipv4) -> io::Result<()> {
    let socket = open(AddressFamily::INET, SocketType::RAW, OWN_HEADER)?;
    let to = SocketAddrV4::new(packet.to, 0);
    Ok(sendto(socket, &packet.bytes(), SendFlags::empty(), &to).map(drop)?)
}

fn inject_v6(to: Ipv6Addr, packet: &[u8]) -> io::Result<()> {
    let socket = open(AddressFamily::INET6, SocketType::RAW, OWN_HEADER)?;
    let to = SocketAddrV6::new(to, 0, 0, 0);
    Ok(sendto(socket, packet, SendFlags::empty(), &to).map(drop)?)
}
