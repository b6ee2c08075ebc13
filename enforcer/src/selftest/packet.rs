//! Packets written by hand. Nobody has to answer them, so that UDP goes without a checksum where that is allowed.

use std::net::{Ipv4Addr, Ipv6Addr};

/// IANA protocol numbers.
pub(super) const ICMP: u8 = 1;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const IPV6_ROUTING: u8 = 43;
const IPV6_FRAGMENT: u8 = 44;

/// `EtherType`s.
pub(super) const IPV4: u16 = 0x0800;
pub(super) const IPV6: u16 = 0x86dd;
pub(super) const VLAN: u16 = 0x8100;

/// The ports of what is written here.
const SOURCE_PORT: u16 = 40_017;
const PORT: u16 = 80;

/// An IPv4 packet to be.
#[derive(Clone, Debug)]
pub(super) struct Ipv4 {
    pub(super) from: Ipv4Addr,
    pub(super) to: Ipv4Addr,
    pub(super) protocol: u8,
    /// Flags and offset (in units of 8 bytes), as in the header.
    pub(super) fragment: u16,
    /// Their number is a multiple of 4.
    pub(super) options: Vec<u8>,
    pub(super) payload: Vec<u8>,
}

// === impl Ipv4 ===

impl Ipv4 {
    /// A packet without options.
    pub(super) fn new(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, payload: Vec<u8>) -> Self {
        Self {
            from,
            to,
            protocol,
            fragment: 0,
            options: Vec::new(),
            payload,
        }
    }

    /// The packet.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let words = 5 + self.options.len() / 4;
        let total = words * 4 + self.payload.len();
        let header = |checksum: [u8; 2]| {
            [
                &[0x40 | low_byte(words), 0][..],
                &length(total),
                &[0x77, 0x01],
                &self.fragment.to_be_bytes(),
                &[64, self.protocol],
                &checksum,
                &self.from.octets(),
                &self.to.octets(),
                &self.options,
            ]
            .concat()
        };
        [header(checksum(&header([0; 2]))), self.payload.clone()].concat()
    }
}

/// An IPv6 packet; `next` says what the payload begins with.
pub(super) fn ipv6(from: Ipv6Addr, to: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
    [
        &[0x60, 0, 0, 0][..],
        &length(payload.len()),
        &[next, 64],
        &from.octets(),
        &to.octets(),
        payload,
    ]
    .concat()
}

/// An IPv6 packet that is to go on to `last` when it has arrived at `first`: a segment routing header (RFC 8754).
pub(super) fn ipv6_routed(from: Ipv6Addr, [first, last]: [Ipv6Addr; 2], payload: &[u8]) -> Vec<u8> {
    let routing = [
        // Next header, length in units of 8 bytes after the first, type, segments left, last entry, flags, tag.
        &[UDP, 4, 4, 1, 1, 0, 0, 0][..],
        &last.octets(),
        &first.octets(),
        payload,
    ]
    .concat();
    ipv6(from, first, IPV6_ROUTING, &routing)
}

/// The first fragment of an IPv6 packet.
pub(super) fn ipv6_fragment(from: Ipv6Addr, to: Ipv6Addr, payload: &[u8]) -> Vec<u8> {
    let fragment = [&[UDP, 0, 0, 1, 0, 0, 0x77, 1][..], payload].concat();
    ipv6(from, to, IPV6_FRAGMENT, &fragment)
}

/// A loose source route (RFC 791) with one further station.
pub(super) fn source_route(station: Ipv4Addr) -> Vec<u8> {
    [&[131, 7, 4][..], &station.octets(), &[0]].concat()
}

/// A UDP datagram.
pub(super) fn udp() -> Vec<u8> {
    let payload = b"selftest";
    [
        &SOURCE_PORT.to_be_bytes()[..],
        &PORT.to_be_bytes(),
        &length(8 + payload.len()),
        &[0, 0],
        payload,
    ]
    .concat()
}

/// A UDP datagram over IPv6, where the checksum is required.
pub(super) fn udp_v6(from: Ipv6Addr, to: Ipv6Addr) -> Vec<u8> {
    let mut datagram = udp();
    let pseudo = [
        &from.octets()[..],
        &to.octets(),
        &[0, 0],
        &length(datagram.len()),
        &[0, 0, 0, UDP],
        &datagram,
    ]
    .concat();
    if let Some(field) = datagram.get_mut(6..8) {
        field.copy_from_slice(&checksum(&pseudo));
    }
    datagram
}

/// The first segment of a TCP connection.
pub(super) fn syn(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16)) -> Vec<u8> {
    let segment = |checksum: [u8; 2]| {
        [
            &from.1.to_be_bytes()[..],
            &to.1.to_be_bytes(),
            &[0, 0, 0x77, 1],
            &[0; 4],
            &[0x50, 0x02, 0xff, 0xff],
            &checksum,
            &[0; 2],
        ]
        .concat()
    };
    let unsigned = segment([0; 2]);
    let pseudo = [
        &from.0.octets()[..],
        &to.0.octets(),
        &[0, TCP],
        &length(unsigned.len()),
        &unsigned,
    ]
    .concat();
    segment(checksum(&pseudo))
}

/// An ICMP echo request.
pub(super) fn echo() -> Vec<u8> {
    let message = |checksum: [u8; 2]| [&[8, 0][..], &checksum, &[0x77, 1, 0, 1]].concat();
    message(checksum(&message([0; 2])))
}

/// An Ethernet frame.
pub(super) fn frame(to: [u8; 6], from: [u8; 6], kind: u16, packet: &[u8]) -> Vec<u8> {
    [&to[..], &from, &kind.to_be_bytes(), packet].concat()
}

/// What a VLAN tag is followed by: priority 0, no VLAN, and the packet's own type.
pub(super) fn tagged(kind: u16, packet: &[u8]) -> Vec<u8> {
    [&[0, 0][..], &kind.to_be_bytes(), packet].concat()
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

/// Lengths in headers have 16 bits; nothing here is that long.
fn length(bytes: usize) -> [u8; 2] {
    u16::try_from(bytes).unwrap_or(u16::MAX).to_be_bytes()
}

fn low_byte(number: usize) -> u8 {
    number.to_le_bytes().first().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::{Ipv4, UDP, checksum, ipv6_routed, source_route, syn, udp, udp_v6};

    const HERE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const THERE: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

    #[test]
    fn a_header_sums_up_to_zero_with_its_checksum_and_options() {
        let mut packet = Ipv4::new(HERE, THERE, UDP, udp());
        assert_eq!(checksum(&packet.bytes()[..20]), [0, 0]);
        packet.options = source_route(THERE);
        assert_eq!(packet.bytes()[0], 0x47);
        assert_eq!(checksum(&packet.bytes()[..28]), [0, 0]);
    }

    #[test]
    fn segments_and_datagrams_have_their_lengths() {
        assert_eq!(syn((HERE, 1), (THERE, 80)).len(), 20);
        let (from, to) = (Ipv6Addr::LOCALHOST, Ipv6Addr::LOCALHOST);
        let datagram = udp_v6(from, to);
        assert_eq!(
            usize::from(u16::from_be_bytes([datagram[4], datagram[5]])),
            datagram.len()
        );
        assert_eq!(ipv6_routed(from, [to, to], &datagram).len(), 40 + 40 + datagram.len());
    }
}
