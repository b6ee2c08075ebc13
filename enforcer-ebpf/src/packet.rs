//! Packets: the few header fields a decision needs. What a sender put outside the packet's linear part is read through
//! `bpf_skb_load_bytes`; only the one field that all traffic is judged by is read directly where that is possible.

use core::mem::{MaybeUninit, offset_of};

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_skb_load_bytes};
use enforcer_common::{
    address::Address,
    verdict::{TCP, UDP},
};

const IPV4: u32 = 0x0800_u16.to_be() as u32;
const IPV6: u32 = 0x86dd_u16.to_be() as u32;

/// The two tags the kernel takes off a frame (IEEE 802.1Q and 802.1ad).
const VLAN: u32 = 0x8100_u16.to_be() as u32;
const SERVICE_VLAN: u32 = 0x88a8_u16.to_be() as u32;

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
    /// A fragment that does not begin with the transport header.
    later_fragment: bool,
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

/// Whether a frame has another VLAN tag behind the one the kernel has taken off already.
#[inline(always)]
pub(crate) fn has_stacked_tags(skb: *mut __sk_buff) -> bool {
    // SAFETY: `skb` is the program's context.
    matches!(unsafe { (*skb).protocol }, VLAN | SERVICE_VLAN)
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
    // SAFETY: the program's context; the verifier makes packet pointers of these fields.
    let (data, end) = unsafe { ((*skb).data as usize, (*skb).data_end as usize) };
    let start = data + offset as usize;
    if start + size_of::<T>() > end {
        return load(skb, offset);
    }
    // SAFETY: checked to lie inside the packet, as the verifier demands; it also refuses a read that the architecture
    // could not make at this alignment.
    Some(unsafe { (start as *const T).read() })
}

/// The destination of a packet whose IP header is at `offset`; `None` if it is not IP or is cut short.
#[inline(always)]
pub(crate) fn destination(skb: *mut __sk_buff, offset: u32) -> Option<Address> {
    // SAFETY: `skb` is the program's context.
    match unsafe { (*skb).protocol } {
        IPV4 => Some(Address::from_v4(peek(
            skb,
            offset + offset_of!(Ipv4Header, destination) as u32,
        )?)),
        IPV6 => Some(Address {
            words: peek(skb, offset + offset_of!(Ipv6Header, destination) as u32)?,
        }),
        _ => None,
    }
}

/// The IPv4 source of a packet in network byte order; `None` if it is not IPv4 or is cut short.
#[inline(always)]
pub(crate) fn source_v4(skb: *mut __sk_buff, offset: u32) -> Option<u32> {
    // SAFETY: `skb` is the program's context.
    match unsafe { (*skb).protocol } {
        IPV4 => peek(skb, offset + offset_of!(Ipv4Header, source) as u32),
        _ => None,
    }
}

// === impl Network ===

impl Network {
    /// Reads the IP header at `offset`, `None` if this is neither IPv4 nor IPv6 or is cut short (the stack drops that).
    #[inline(always)]
    pub(crate) fn load(skb: *mut __sk_buff, offset: u32) -> Option<Self> {
        // SAFETY: `skb` is the program's context.
        match unsafe { (*skb).protocol } {
            IPV4 => {
                let header: Ipv4Header = load(skb, offset)?;
                let header_length = u32::from(header.version_and_length & 0x0f) * 4;
                Some(Self {
                    source: Address::from_v4(header.source),
                    destination: Address::from_v4(header.destination),
                    protocol: header.protocol,
                    transport: offset + header_length,
                    transport_length: length_or_most(header.total_length).saturating_sub(header_length),
                    later_fragment: u16::from_be(header.flags_and_fragment) & 0x1fff != 0,
                })
            }
            IPV6 => {
                let header: Ipv6Header = load(skb, offset)?;
                Some(Self {
                    source: Address { words: header.source },
                    destination: Address {
                        words: header.destination,
                    },
                    protocol: header.next_header,
                    transport: offset + size_of::<Ipv6Header>() as u32,
                    transport_length: length_or_most(header.payload_length),
                    later_fragment: false,
                })
            }
            _ => None,
        }
    }
}

// === impl Transport ===

impl Transport {
    /// Reads ports and flags; zero for other protocols.
    #[inline(always)]
    pub(crate) fn load(skb: *mut __sk_buff, network: &Network) -> Self {
        let packed = if network.later_fragment {
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
