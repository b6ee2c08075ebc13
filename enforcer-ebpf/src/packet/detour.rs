//! What may stand between an IP header and the transport header: IPv4 options and IPv6 extension headers. Some of them
//! name further stations, so that the destination in the IP header is not where the packet ends. No container needs
//! that, and what is too long or too broken to be read counts as such.
//!
//! The walks are global BPF functions, as in `sender`; only packets that have such headers pay for them.

use aya_ebpf::bindings::__sk_buff;

use super::load;

/// IPv4 options (RFC 791): end of the list, nothing, loose and strict source route. All others have a length.
const END: u8 = 0;
const NOTHING: u8 = 1;
const LOOSE_ROUTE: u8 = 131;
const STRICT_ROUTE: u8 = 137;
/// An IPv4 header has room for so many bytes of options.
const MOST_OPTIONS: u32 = 40;

/// IPv6 extension headers (RFC 8200, RFC 4302, RFC 6275).
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;
const MOBILITY: u8 = 135;
/// Each kind once, and destination options twice, is the most there can be.
const MOST_HEADERS: u32 = 7;

/// What IPv6 extension headers lead to.
pub(super) struct Upper {
    pub(super) protocol: u8,
    /// Offset of the first header that is not an extension.
    pub(super) offset: u32,
    /// That header is in another fragment, or nobody can tell where.
    pub(super) is_hidden: bool,
    /// A routing header is among them, or more than can be read.
    pub(super) takes_detour: bool,
}

/// Whether the IPv4 options from `start` to `end` have a source route.
#[inline(always)]
pub(super) fn has_source_route(skb: *mut __sk_buff, start: u32, end: u32) -> bool {
    has_source_route_raw(skb, start, end) != 0
}

/// Follows extension headers from `offset`, where a header of kind `first` is.
#[inline(always)]
pub(super) fn upper_layer(skb: *mut __sk_buff, offset: u32, first: u8) -> Upper {
    let packed = upper_layer_raw(skb, offset, first.into());
    Upper {
        protocol: packed as u8,
        offset: (packed >> 32) as u32,
        is_hidden: packed & HIDDEN != 0,
        takes_detour: packed & DETOUR != 0,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn has_source_route_raw(skb: *mut __sk_buff, start: u32, end: u32) -> u32 {
    let mut at = start;
    for _ in 0..MOST_OPTIONS {
        if at >= end {
            return 0;
        }
        match load::<u8>(skb, at) {
            Some(END) => return 0,
            Some(NOTHING) => at += 1,
            None | Some(LOOSE_ROUTE | STRICT_ROUTE) => return 1,
            Some(_) => match load::<u8>(skb, at + 1) {
                Some(length @ 2..) => at += u32::from(length),
                Some(_) | None => return 1,
            },
        }
    }
    0
}

/// Bits of what [`upper_layer_raw`] gives; the protocol is below them, the offset above.
const HIDDEN: u64 = 1 << 8;
const DETOUR: u64 = 1 << 9;

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn upper_layer_raw(skb: *mut __sk_buff, offset: u32, first: u32) -> u64 {
    let (mut at, mut kind, mut flags) = (offset, first as u8, 0);
    for _ in 0..=MOST_HEADERS {
        if !matches!(
            kind,
            HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS | MOBILITY
        ) {
            return pack(kind, at, flags);
        }
        let Some([next, length, high, low]) = load::<[u8; 4]>(skb, at) else {
            break;
        };
        let length = u32::from(length);
        at += match kind {
            FRAGMENT => 8,
            AUTHENTICATION => (length + 2) * 4,
            _ => (length + 1) * 8,
        };
        if kind == ROUTING {
            flags |= DETOUR;
        }
        if kind == FRAGMENT && (high, low & 0xf8) != (0, 0) {
            return pack(next, at, flags | HIDDEN);
        }
        kind = next;
    }
    pack(kind, at, flags | HIDDEN | DETOUR)
}

#[inline(always)]
const fn pack(protocol: u8, offset: u32, flags: u64) -> u64 {
    (offset as u64) << 32 | flags | protocol as u64
}
