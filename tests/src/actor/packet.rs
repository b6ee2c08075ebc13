//! Packets written by hand.

use std::{
    mem,
    net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6},
};

use enforcer_common::verdict::{TCP, UDP};

/// The `EtherType` of IPv4.
const IPV4: [u8; 2] = [0x08, 0x00];
/// The `EtherType` of IPv6.
const IPV6: [u8; 2] = [0x86, 0xdd];
/// A VLAN tag (IEEE 802.1Q) with ID 0, which means no VLAN at all.
const TAG: [u8; 4] = [0x81, 0x00, 0x00, 0x00];
const ETHERNET_HEADER: usize = 14;
/// IANA protocol numbers.
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// The flags of a connection's first and last packets.
const SYN: u8 = 0x02;
const FIN: u8 = 0x01;
/// The flag of all its other packets.
pub const ACK: u8 = 0x10;

/// What of a TCP packet tells how to go on with its connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    pub(super) from: Ipv4Addr,
    pub(super) to: SocketAddrV4,
    /// The number of the byte that follows.
    pub(super) next: u32,
    /// The number of the byte that is expected.
    pub(super) acknowledged: u32,
}

// === impl Segment ===

impl Segment {
    /// Reads an Ethernet frame, `None` if it does not carry TCP over IPv4 without options, or only an acknowledgment.
    pub(super) fn read(frame: &[u8]) -> Option<Self> {
        let packet = frame.get(ETHERNET_HEADER..)?;
        let [0x45, _, high, low, .., TCP] = *packet.get(..10)? else {
            return None;
        };
        let (ip, segment) = packet
            .get(..u16::from_be_bytes([high, low]).into())?
            .split_at_checked(20)?;
        let word = |bytes: &[u8], at| Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
        let port = u16::from_be_bytes(*segment.get(2..)?.first_chunk()?);
        let [offset, flags] = *segment.get(12..)?.first_chunk()?;
        let payload = segment.len().checked_sub(usize::from(offset >> 4) * 4)?;
        let length = u32::try_from(payload).ok()? + u32::from(flags & (SYN | FIN) != 0);
        (length > 0).then_some(Self {
            from: word(ip, 12)?.into(),
            to: SocketAddrV4::new(word(ip, 16)?.into(), port),
            next: word(segment, 4)?.wrapping_add(length),
            acknowledged: word(segment, 8)?,
        })
    }
}

/// An Ethernet frame; what it carries begins with its `EtherType`.
#[must_use]
pub fn ethernet(to: [u8; 6], from: [u8; 6], carried: &[u8]) -> Vec<u8> {
    [&to[..], &from, carried].concat()
}

/// An IPv4 packet as a frame carries it.
#[must_use]
pub fn untagged(packet: &[u8]) -> Vec<u8> {
    [&IPV4, packet].concat()
}

/// An IPv6 packet as a frame carries it.
#[must_use]
pub fn untagged_v6(packet: &[u8]) -> Vec<u8> {
    [&IPV6, packet].concat()
}

/// An IPv4 packet below two VLAN tags.
#[must_use]
pub fn double_tagged(packet: &[u8]) -> Vec<u8> {
    [&TAG, &TAG, &IPV4[..], packet].concat()
}

/// A UDP datagram in an IPv4 packet.
#[must_use]
pub fn udp_packet(from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
    ipv4([*from.ip(), *to.ip()], &[], UDP, &udp(from.port(), to.port(), payload))
}

/// A UDP datagram in an IPv4 packet that goes to `to`, and is to go on from there to `onwards` (loose source route).
#[must_use]
pub fn source_routed_packet(from: SocketAddrV4, to: SocketAddrV4, onwards: Ipv4Addr) -> Vec<u8> {
    let options = [&[1, 131, 7, 4][..], &onwards.octets()].concat();
    let datagram = udp(from.port(), to.port(), b"lab!");
    ipv4([*from.ip(), *to.ip()], &options, UDP, &datagram)
}

/// An echo request over IPv4.
#[must_use]
pub fn echo_request(from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
    let message = |checksum: [u8; 2]| [&[8, 0][..], &checksum, &[0; 4], b"lab!"].concat();
    ipv4([from, to], &[], ICMP, &message(checksum(&message([0; 2]))))
}

/// An echo request over IPv6.
#[must_use]
pub fn echo_request_v6(from: Ipv6Addr, to: Ipv6Addr) -> Vec<u8> {
    let message = |checksum: [u8; 2]| [&[128, 0][..], &checksum, &[0; 4], b"lab!"].concat();
    let unsigned = message([0; 2]);
    let pseudo = [
        &from.octets()[..],
        &to.octets(),
        &[0; 2],
        &length(unsigned.len()),
        &[0, 0, 0, ICMPV6],
        &unsigned,
    ]
    .concat();
    let message = message(checksum(&pseudo));
    [
        &[0x60, 0, 0, 0][..],
        &length(message.len()),
        &[ICMPV6, 64],
        &from.octets(),
        &to.octets(),
        &message,
    ]
    .concat()
}

/// A packet that shows another destination than it has, and becomes this one when the checksum is written: the word at
/// `field` is replaced by another one, and the last word by one that makes the checksum from `start` on the first.
#[must_use]
pub fn to_complete(packet: &[u8], start: usize, field: usize) -> Vec<u8> {
    let mut shown = packet.to_vec();
    let last = shown.len().saturating_sub(2);
    let wanted = put(&mut shown, field, [7, 7]);
    put(&mut shown, last, [0; 2]);
    let others = checksum(shown.get(start..).unwrap_or_default());
    let sum = checksum(&[wanted.map(|byte| !byte), others].concat());
    put(&mut shown, last, sum.map(|byte| !byte));
    shown
}

/// A UDP datagram in an IPv6 packet, behind extension headers of these kinds, eight bytes each.
#[must_use]
pub fn extended_packet(from: SocketAddrV6, to: SocketAddrV6, headers: &[u8]) -> Vec<u8> {
    let datagram = udp(from.port(), to.port(), b"lab!");
    let chain = headers.iter().copied().chain([UDP]);
    let kinds: Vec<u8> = chain.collect();
    // Padding, or a routing header that has nothing left to do.
    let extensions: Vec<u8> = kinds
        .iter()
        .skip(1)
        .flat_map(|next| [*next, 0, 1, 0, 0, 0, 0, 0])
        .collect();
    [
        &[0x60, 0, 0, 0][..],
        &length(extensions.len() + datagram.len()),
        kinds.get(..1).unwrap_or_default(),
        &[64],
        &from.ip().octets(),
        &to.ip().octets(),
        &extensions,
        &datagram,
    ]
    .concat()
}

/// A UDP datagram, header included; it goes without a checksum, as IPv4 permits.
#[must_use]
pub fn udp(from_port: u16, to_port: u16, payload: &[u8]) -> Vec<u8> {
    [
        &ports(from_port, to_port),
        &length(8 + payload.len())[..],
        &[0, 0],
        payload,
    ]
    .concat()
}

/// The first packet of a TCP connection.
#[must_use]
pub fn syn_packet(from: SocketAddrV4, to: SocketAddrV4) -> Vec<u8> {
    tcp_packet(from, to, SYN, &[])
}

/// A packet of a TCP connection; the number of bytes of its payload is even.
#[must_use]
pub fn tcp_packet(from: SocketAddrV4, to: SocketAddrV4, flags: u8, payload: &[u8]) -> Vec<u8> {
    let segment = |checksum: [u8; 2]| {
        [
            &ports(from.port(), to.port())[..],
            &[0, 0, 0, 1],
            &[0; 4],
            &[0x50, flags, 0xff, 0xff],
            &checksum,
            &[0; 2],
            payload,
        ]
        .concat()
    };
    let unsigned = segment([0; 2]);
    let pseudo = [
        &from.ip().octets()[..],
        &to.ip().octets(),
        &[0, TCP],
        &length(unsigned.len()),
        &unsigned,
    ]
    .concat();
    ipv4([*from.ip(), *to.ip()], &[], TCP, &segment(checksum(&pseudo)))
}

/// The same packet with a total length of 0, which large packets of the kernel's own have.
#[must_use]
pub fn without_length(packet: &[u8]) -> Vec<u8> {
    packet
        .iter()
        .enumerate()
        .map(|(index, byte)| if matches!(index, 2 | 3) { 0 } else { *byte })
        .collect()
}

/// The length of the options is a multiple of four.
fn ipv4([from, to]: [Ipv4Addr; 2], options: &[u8], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let header = |checksum: [u8; 2]| {
        let words = u8::try_from(5 + options.len() / 4).unwrap_or(15);
        let total = length(20 + options.len() + payload.len());
        [
            &[0x40 | words, 0][..],
            &total,
            &[0; 4],
            &[64, protocol],
            &checksum,
            &from.octets(),
            &to.octets(),
            options,
        ]
        .concat()
    };
    [header(checksum(&header([0; 2]))), payload.to_vec()].concat()
}

/// Replaces two bytes, and returns what was there.
fn put(bytes: &mut [u8], at: usize, word: [u8; 2]) -> [u8; 2] {
    let place = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut);
    place.map_or(word, |place| mem::replace(place, word))
}

fn ports(from: u16, to: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (from.to_be_bytes(), to.to_be_bytes());
    [a, b, c, d]
}

/// Lengths in these headers have 16 bits; the lab sends nothing that long.
fn length(bytes: usize) -> [u8; 2] {
    u16::try_from(bytes).unwrap_or(u16::MAX).to_be_bytes()
}

/// The Internet checksum (RFC 1071) of bytes whose number is even.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let (pairs, _) = bytes.as_chunks();
    let sum = pairs
        .iter()
        .fold(0_u32, |sum, pair| sum + u32::from(u16::from_be_bytes(*pair)));
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    (!u16::try_from(folded).unwrap_or(u16::MAX)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddrV4};

    use super::{checksum, syn_packet, udp_packet};

    const FROM: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 77, 0, 10), 40000);
    const TO: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(169, 254, 170, 2), 21680);

    #[test]
    fn the_checksum_is_that_of_the_rfc() {
        let example = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(checksum(&example), (!0xddf2_u16).to_be_bytes());
    }

    #[test]
    fn headers_sum_up_to_zero_with_their_checksum() {
        for packet in [syn_packet(FROM, TO), udp_packet(FROM, TO, b"lab!")] {
            assert_eq!(checksum(&packet[..20]), [0, 0]);
            assert_eq!(usize::from(u16::from_be_bytes([packet[2], packet[3]])), packet.len());
        }
    }
}
