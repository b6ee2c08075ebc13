//! What a packet came from.

use aya_ebpf::{
    bindings::{__sk_buff, bpf_sock},
    helpers::generated::{bpf_sk_fullsock, bpf_skb_cgroup_id},
};
use enforcer_common::verdict::{TCP, UDP};

use crate::packet::{ICMPV6, Network, Transport};

const AF_PACKET: u32 = 17;
const SOCK_RAW: u32 = 3;
const ICMP: u8 = 1;
/// ID of the hierarchy's root: the node number of a kernfs root is always 1.
const ROOT_CGROUP: u64 = 1;

/// What a packet came from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A stream or datagram socket, which a socket hook has judged.
    Hooked,
    /// An IP socket without socket hooks: raw, or of a protocol that has none.
    Raw,
    /// A packet socket: no cgroup hook sees what it sends.
    Packet,
    /// No socket that anybody can tell.
    Unknown,
}

// === impl Origin ===

impl Origin {
    #[inline(always)]
    pub(crate) fn of(skb: *mut __sk_buff) -> Self {
        let Some(socket) = full_socket_of(skb) else {
            return Self::Unknown;
        };
        // SAFETY: `full_socket_of` gives a socket the program's context holds; the verifier rewrites the reads.
        let (family, kind, protocol) = unsafe { ((*socket).family, (*socket).type_, (*socket).protocol) };
        if family == AF_PACKET {
            Self::Packet
        } else if kind != SOCK_RAW && (protocol == u32::from(TCP) || protocol == u32::from(UDP)) {
            Self::Hooked
        } else {
            Self::Raw
        }
    }
}

/// The socket a packet came from; `None` if it is closed, or was never there.
#[inline(always)]
pub(crate) fn full_socket_of(skb: *mut __sk_buff) -> Option<*mut bpf_sock> {
    // SAFETY: the program's context; the helper takes the common part of its socket, checked for null.
    let socket = unsafe {
        let common = (*skb).__bindgen_anon_2.sk;
        if common.is_null() {
            return None;
        }
        bpf_sk_fullsock(common)
    };
    if socket.is_null() { None } else { Some(socket) }
}

/// Whether a packet came from any socket, even one that is closing. One that was forwarded has none.
#[inline(always)]
pub(crate) fn has_socket(skb: *mut __sk_buff) -> bool {
    // SAFETY: the program's context.
    !unsafe { (*skb).__bindgen_anon_2.sk }.is_null()
}

/// Whether a packet came into this network namespace through a device.
#[inline(always)]
pub(crate) fn is_forwarded(skb: *mut __sk_buff) -> bool {
    // SAFETY: the program's context.
    unsafe { (*skb).ingress_ifindex != 0 }
}

/// What the stack carries from a packet's ingress to its egress if it may go to a protected destination: a value of
/// `tc_index`, and bits of `mark`. Either one can be forged. A filter of a container's own network namespace sets the
/// first, but no mark gets out of that; a socket option sets marks in the host's namespace, but no `tc_index`.
const JUDGED: u32 = 0xe4f0;
const JUDGED_MARK: u32 = 0xe400_0000;

/// Has a packet pass where it leaves the host: its sender was visible here, and may.
#[inline(always)]
pub(crate) fn mark_as_judged(skb: *mut __sk_buff) {
    // SAFETY: the program's context; TC programs may write these fields.
    unsafe {
        (*skb).tc_index = JUDGED;
        (*skb).mark |= JUDGED_MARK;
    }
}

/// Whether a packet was let through where it came in.
#[inline(always)]
pub(crate) fn is_judged(skb: *mut __sk_buff) -> bool {
    // SAFETY: the program's context.
    let (index, mark) = unsafe { ((*skb).tc_index, (*skb).mark) };
    index == JUDGED && mark & JUDGED_MARK == JUDGED_MARK
}

/// Whether a packet came from one of the kernel's own sockets, which are in the root cgroup.
#[inline(always)]
pub(crate) fn is_in_root_cgroup(skb: *mut __sk_buff) -> bool {
    // SAFETY: `skb` is the program's context; without a socket the helper answers 0.
    unsafe { bpf_skb_cgroup_id(skb) == ROOT_CGROUP }
}

/// Whether the kernel made the packet to end or keep in order what exists: an acknowledgment or reset without a payload,
/// or ICMP, sent for a closing socket or by one of its own. What has no socket at all was forwarded, and proves nothing.
#[inline(always)]
pub(crate) fn is_kernels_own(skb: *mut __sk_buff, network: &Network, transport: &Transport) -> bool {
    let is_harmless = match network.protocol {
        TCP => !transport.is_hidden && transport.is_harmless(),
        ICMP | ICMPV6 => true,
        _ => false,
    };
    is_harmless && has_socket(skb) && (full_socket_of(skb).is_none() || is_in_root_cgroup(skb))
}
