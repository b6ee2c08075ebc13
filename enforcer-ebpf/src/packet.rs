//! Packets: the few header fields a decision needs. What a sender put outside the packet's linear part is read through
//! `bpf_skb_load_bytes`; only the few fields that all traffic is judged by are read directly where that is possible.

use core::mem::{MaybeUninit, offset_of};

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_skb_load_bytes};
use enforcer_common::{
    address::Address,
    verdict::{TCP, UDP},
};

mod detour;

use self::detour::{has_source_route, upper_layer};

const IPV4: u32 = 0x0800_u16.to_be() as u32;
const IPV6: u32 = 0x86dd_u16.to_be() as u32;

/// The two tags the kernel takes off a frame (IEEE 802.1Q and 802.1ad).
const VLAN: u32 = 0x8100_u16.to_be() as u32;
const SERVICE_VLAN: u32 = 0x88a8_u16.to_be() as u32;

/// Offset of the `EtherType` in an Ethernet frame, and where its payload begins.
const ETHER_TYPE: u32 = 12;
const ETHERNET_HEADER: u32 = 14;

/// First byte of an IPv4 header without options.
const WITHOUT_OPTIONS: u8 = 0x45;
/// IANA protocol number of `ICMPv6`.
pub(crate) const ICMPV6: u8 = 58;

const SYN: u8 = 0x02;

/// Offsets of the source and destination port in a TCP or UDP header.
pub(crate) const SOURCE_PORT: u32 = 0;
pub(crate) const DESTINATION_PORT: u32 = 2;
/// Offset of the checksum in a TCP header.
pub(crate) const TCP_CHECKSUM: u32 = 16;

#[repr(C)]
struct Ipv4Header {
    version_and_length: u8,
    type_of_service: u8,
    total_length: u16,
    identification: u16,
    flags_and_fragment: u16,
    time_to_live: u8,
    protocol: u8,
    checksum: u16,
    source: u32,
    destination: u32,
}

#[repr(C)]
struct Ipv6Header {
    version_class_label: u32,
    payload_length: u16,
    next_header: u8,
    hop_limit: u8,
    source: [u32; 4],
    destination: [u32; 4],
}

#[repr(C)]
struct TcpHeader {
    source_port: u16,
    destination_port: u16,
    sequence: u32,
    acknowledgment: u32,
    data_offset: u8,
    flags: u8,
}

/// Where a packet begins, and who says what it carries.
#[derive(Clone, Copy)]
pub(crate) enum Framing {
    /// At its IP header; the kernel's own stack has written it.
    Bare,
    /// At its Ethernet header, which the kernel has just read.
    Received,
    /// At its Ethernet header. A packet socket may tell the kernel something else than it writes there, so the header
    /// is what counts.
    Leaving,
}

/// What all traffic is judged by.
pub(crate) struct Glance {
    pub(crate) source: Address,
    pub(crate) destination: Address,
    /// Whether nothing stands between the IP header and the transport header.
    pub(crate) is_plain: bool,
}

/// Why there is nothing to see at a glance.
pub(crate) enum Unseen {
    /// ARP and the like reach no service.
    NotIp,
    /// The header is not in the packet's linear part, or not there at all.
    NotLinear,
}

/// The network layer of a packet.
pub(crate) struct Network {
    pub(crate) source: Address,
    pub(crate) destination: Address,
    pub(crate) protocol: u8,
    /// Offset of the transport header from the start of the packet.
    pub(crate) transport: u32,
    /// Bytes from `transport` to the end of the datagram, as the header says; more than any packet has where it does not
    /// say (0: the stack takes the packet's own length then).
    transport_length: u32,
    /// The transport header is in another fragment, or behind more headers than anybody reads.
    is_hidden: bool,
}

/// The transport layer of a packet; zero where it has none.
pub(crate) struct Transport {
    /// Host byte order.
    pub(crate) source_port: u16,
    /// Host byte order.
    pub(crate) destination_port: u16,
    flags: u8,
    has_payload: bool,
    /// It should have ports, but they are in another fragment, or cut off.
    pub(crate) is_hidden: bool,
}

/// Reads a `T` at an offset; `None` if the packet is shorter.
#[inline(always)]
fn load<T>(skb: *mut __sk_buff, offset: u32) -> Option<T> {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: `value` is writable for the length given; `T` is one of the headers above, all integers, so every bit
    // pattern the packet holds is a value.
    let result = unsafe { bpf_skb_load_bytes(skb.cast(), offset, value.as_mut_ptr().cast(), size_of::<T>() as u32) };
    if result != 0 {
        return None;
    }
    // SAFETY: the helper answered 0, so it filled the value.
    Some(unsafe { value.assume_init() })
}

/// Reads a `T` at an offset, directly where it lies in the packet's linear part.
#[inline(always)]
fn peek<T>(skb: *mut __sk_buff, offset: u32) -> Option<T> {
    linear(skb, offset).or_else(|| load(skb, offset))
}

/// Reads a `T` at an offset; `None` if it does not lie in the packet's linear part.
#[inline(always)]
fn linear<T>(skb: *mut __sk_buff, offset: u32) -> Option<T> {
    // SAFETY: the program's context; the verifier makes packet pointers of these fields.
    let (data, end) = unsafe { ((*skb).data as usize, (*skb).data_end as usize) };
    let start = data + offset as usize;
    if start + size_of::<T>() > end {
        return None;
    }
    // SAFETY: checked to lie inside the packet, as the verifier demands; it also refuses a read that the architecture
    // could not make at this alignment.
    Some(unsafe { (start as *const T).read() })
}

/// The IPv4 source of a received packet in network byte order; `None` if it is not IPv4 or is cut short.
#[inline(always)]
pub(crate) fn source_v4(skb: *mut __sk_buff) -> Option<u32> {
    match Framing::Received.ether_type(skb) {
        IPV4 => peek(skb, ETHERNET_HEADER + offset_of!(Ipv4Header, source) as u32),
        _ => None,
    }
}

// === impl Framing ===

impl Framing {
    /// Offset of the IP header.
    #[inline(always)]
    const fn network(self) -> u32 {
        match self {
            Self::Bare => 0,
            Self::Received | Self::Leaving => ETHERNET_HEADER,
        }
    }

    /// What a packet carries, in network byte order; 0, which is nothing, where it is too short to tell.
    #[inline(always)]
    fn ether_type(self, skb: *mut __sk_buff) -> u32 {
        match self {
            // SAFETY: `skb` is the program's context.
            Self::Bare | Self::Received => unsafe { (*skb).protocol },
            Self::Leaving => load::<u16>(skb, ETHER_TYPE).unwrap_or(0).into(),
        }
    }

    /// As [`Self::ether_type`]; `None` where that does not lie in the packet's linear part.
    #[inline(always)]
    fn linear_ether_type(self, skb: *mut __sk_buff) -> Option<u32> {
        match self {
            Self::Bare | Self::Received => Some(self.ether_type(skb)),
            Self::Leaving => linear::<u16>(skb, ETHER_TYPE).map(u32::from),
        }
    }

    /// Whether a frame has a VLAN tag that the kernel does not keep beside it: of a received one it has taken off the
    /// first tag, and to one that leaves it adds its own later. Where it cannot be seen, the frame is looked at more closely,
    /// and with such a tag it is no packet.
    #[inline(always)]
    pub(crate) fn has_stacked_tags(self, skb: *mut __sk_buff) -> bool {
        matches!(self.linear_ether_type(skb), Some(VLAN | SERVICE_VLAN))
    }
}

// === impl Glance ===

impl Glance {
    /// Looks at a packet.
    #[inline(always)]
    pub(crate) fn at(skb: *mut __sk_buff, framing: Framing) -> Result<Self, Unseen> {
        match framing.linear_ether_type(skb) {
            Some(IPV4) => linear(skb, framing.network()).map(|header| Self::of_v4(&header)),
            Some(IPV6) => linear(skb, framing.network()).map(|header| Self::of_v6(&header)),
            Some(_) => return Err(Unseen::NotIp),
            None => None,
        }
        .ok_or(Unseen::NotLinear)
    }

    #[inline(always)]
    const fn of_v4(header: &Ipv4Header) -> Self {
        Self {
            source: Address::from_v4(header.source),
            destination: Address::from_v4(header.destination),
            is_plain: header.version_and_length == WITHOUT_OPTIONS,
        }
    }

    #[inline(always)]
    const fn of_v6(header: &Ipv6Header) -> Self {
        Self {
            source: Address { words: header.source },
            destination: Address {
                words: header.destination,
            },
            is_plain: matches!(header.next_header, TCP | UDP | ICMPV6),
        }
    }
}

/// Whether a packet that is not plain names further stations on its way, or more headers than anybody reads.
#[inline(always)]
pub(crate) fn takes_detour(skb: *mut __sk_buff, framing: Framing) -> bool {
    let network = framing.network();
    match framing.ether_type(skb) {
        IPV4 => match load::<u8>(skb, network) {
            Some(first) => has_source_route(
                skb,
                network + size_of::<Ipv4Header>() as u32,
                network + header_length(first),
            ),
            None => true,
        },
        _ => match load::<Ipv6Header>(skb, network) {
            Some(header) => upper_layer(skb, network + size_of::<Ipv6Header>() as u32, header.next_header).takes_detour,
            None => true,
        },
    }
}

/// Length of an IPv4 header by its first byte.
#[inline(always)]
const fn header_length(first: u8) -> u32 {
    (first & 0x0f) as u32 * 4
}

// === impl Network ===

impl Network {
    /// Reads the IP header, `None` if this is neither IPv4 nor IPv6 or is cut short (the stack drops that).
    #[inline(always)]
    pub(crate) fn load(skb: *mut __sk_buff, framing: Framing) -> Option<Self> {
        match framing.ether_type(skb) {
            IPV4 => Some(Self::of_v4(&load(skb, framing.network())?, framing.network())),
            IPV6 => Some(Self::of_v6(skb, &load(skb, framing.network())?, framing.network())),
            _ => None,
        }
    }

    #[inline(always)]
    const fn of_v4(header: &Ipv4Header, offset: u32) -> Self {
        let length = header_length(header.version_and_length);
        Self {
            source: Address::from_v4(header.source),
            destination: Address::from_v4(header.destination),
            protocol: header.protocol,
            transport: offset + length,
            transport_length: length_or_most(header.total_length).saturating_sub(length),
            is_hidden: u16::from_be(header.flags_and_fragment) & 0x1fff != 0,
        }
    }

    #[inline(always)]
    fn of_v6(skb: *mut __sk_buff, header: &Ipv6Header, offset: u32) -> Self {
        let payload = offset + size_of::<Ipv6Header>() as u32;
        let upper = upper_layer(skb, payload, header.next_header);
        Self {
            source: Address { words: header.source },
            destination: Address {
                words: header.destination,
            },
            protocol: upper.protocol,
            transport: upper.offset,
            transport_length: length_or_most(header.payload_length)
                .saturating_sub(upper.offset.saturating_sub(payload)),
            is_hidden: upper.is_hidden,
        }
    }
}

// === impl Transport ===

impl Transport {
    /// Reads ports and flags; zero for other protocols.
    #[inline(always)]
    pub(crate) fn load(skb: *mut __sk_buff, network: &Network) -> Self {
        let packed = if network.is_hidden {
            HIDDEN
        } else {
            transport_raw(
                skb,
                network.transport,
                network.protocol.into(),
                network.transport_length,
            )
        };
        Self {
            source_port: (packed >> 48) as u16,
            destination_port: (packed >> 32) as u16,
            flags: (packed >> 8) as u8,
            has_payload: packed & PAYLOAD != 0,
            is_hidden: packed & HIDDEN != 0,
        }
    }

    /// Whether this packet opens a connection.
    #[inline(always)]
    pub(crate) const fn is_syn(&self) -> bool {
        self.flags & SYN != 0
    }

    /// Whether this packet can only acknowledge or end what exists. A socket that is closed sends such packets through
    /// one of the kernel's own, so they cannot be held to the socket of their connection.
    #[inline(always)]
    pub(crate) const fn is_harmless(&self) -> bool {
        !self.is_syn() && !self.has_payload
    }
}

/// Bits of what [`transport_raw`] gives.
const PAYLOAD: u64 = 1;
const HIDDEN: u64 = 2;

/// The fields of [`Transport`] in one number. A global BPF function, as in `sender`, so that what follows is verified
/// once and not once per protocol.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn transport_raw(skb: *mut __sk_buff, offset: u32, protocol: u32, length: u32) -> u64 {
    if protocol == u32::from(UDP) {
        return match load::<[u16; 2]>(skb, offset) {
            Some([source, destination]) => pack(source, destination),
            None => HIDDEN,
        };
    }
    if protocol != u32::from(TCP) {
        return 0;
    }
    let Some(header) = load::<TcpHeader>(skb, offset) else {
        return HIDDEN;
    };
    let header_length = u32::from(header.data_offset >> 4) * 4;
    let payload = if length > header_length { PAYLOAD } else { 0 };
    pack(header.source_port, header.destination_port) | u64::from(header.flags) << 8 | payload
}

/// A length field in network byte order; where it is 0, more than any packet has.
#[inline(always)]
const fn length_or_most(network_order: u16) -> u32 {
    match network_order {
        0 => u32::MAX,
        length => u16::from_be(length) as u32,
    }
}

/// Ports in network byte order, packed in host byte order.
#[inline(always)]
const fn pack(source: u16, destination: u16) -> u64 {
    (u16::from_be(source) as u64) << 48 | (u16::from_be(destination) as u64) << 32
}
