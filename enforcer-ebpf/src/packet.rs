//! Packets: the few header fields a decision needs. Everything is read through `bpf_skb_load_bytes`, which also reaches
//! what a sender put outside the packet's linear part.

use core::mem::MaybeUninit;

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_skb_load_bytes};
use enforcer_common::{
    address::Address,
    verdict::{TCP, UDP},
};

const IPV4: u32 = 0x0800_u16.to_be() as u32;
const IPV6: u32 = 0x86dd_u16.to_be() as u32;

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
    /// Bytes from `transport` to the end of the datagram, as the header says.
    transport_length: u32,
    /// A fragment that does not begin with the transport header.
    later_fragment: bool,
}

/// The transport layer of a packet; zero where it has none.
#[derive(Default)]
pub(crate) struct Transport {
    /// Host byte order.
    pub(crate) source_port: u16,
    /// Host byte order.
    pub(crate) destination_port: u16,
    flags: u8,
    has_payload: bool,
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
                    transport_length: u32::from(u16::from_be(header.total_length)).saturating_sub(header_length),
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
                    transport_length: u16::from_be(header.payload_length).into(),
                    later_fragment: false,
                })
            }
            _ => None,
        }
    }
}

// === impl Transport ===

impl Transport {
    /// Reads ports and flags; zero for other protocols, later fragments and headers that are cut short.
    #[inline(always)]
    pub(crate) fn load(skb: *mut __sk_buff, network: &Network) -> Self {
        if network.later_fragment {
            return Self::default();
        }
        let packed = transport_raw(
            skb,
            network.transport,
            network.protocol.into(),
            network.transport_length,
        );
        Self {
            source_port: (packed >> 48) as u16,
            destination_port: (packed >> 32) as u16,
            flags: (packed >> 8) as u8,
            has_payload: packed & 1 != 0,
        }
    }

    /// Whether this packet opens a connection.
    #[inline(always)]
    pub(crate) const fn is_syn(&self) -> bool {
        self.flags & SYN != 0
    }

    /// Whether this packet can only acknowledge or end what exists. A socket that is closed sends such packets through
    /// one of the kernel's own, so they cannot be held to their sender; forging one gains nothing.
    #[inline(always)]
    pub(crate) const fn is_harmless(&self) -> bool {
        !self.is_syn() && !self.has_payload
    }
}

/// The fields of [`Transport`] in one number. A global BPF function, as in `sender`, so that what follows is verified
/// once and not once per protocol.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn transport_raw(skb: *mut __sk_buff, offset: u32, protocol: u32, length: u32) -> u64 {
    if protocol == u32::from(UDP) {
        return match load::<[u16; 2]>(skb, offset) {
            Some([source, destination]) => pack(source, destination),
            None => 0,
        };
    }
    if protocol != u32::from(TCP) {
        return 0;
    }
    let Some(header) = load::<TcpHeader>(skb, offset) else {
        return 0;
    };
    let header_length = u32::from(header.data_offset >> 4) * 4;
    pack(header.source_port, header.destination_port) | u64::from(header.flags) << 8 | u64::from(length > header_length)
}

/// Ports in network byte order, packed in host byte order.
#[inline(always)]
const fn pack(source: u16, destination: u16) -> u64 {
    (u16::from_be(source) as u64) << 48 | (u16::from_be(destination) as u64) << 32
}
