//! TC on the host side of a container's interface: `int (struct __sk_buff *)`. Linux 4.1; socket storage from here 5.2.
//!
//! Ingress is the last place where the sending socket is visible, and the only one that sees packet sockets too. It
//! drops what must not reach the host and steers credential connections that no socket hook rewrote; egress rewrites
//! their replies, and drops what a host-mode container puts on the wire there. Whatever is not ours goes on to the next
//! filter.

use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_SHOT, TC_ACT_UNSPEC},
    helpers::generated::{bpf_l4_csum_replace, bpf_skb_store_bytes},
    macros::classifier,
    programs::TcContext,
};
use enforcer_common::{
    address::target,
    event::{Hook, Outcome},
    verdict::{Reason, TCP},
};

use super::device::{judge_uplink, refuse_stacked_tags};
use crate::{
    emit::Fate,
    handshakes::admit,
    inspect::{CloserLook, Finding, Layer, check_claim, inspect, key, pursue, record},
    origin::Origin,
    packet::{DESTINATION_PORT, Framing, Network, SOURCE_PORT, TCP_CHECKSUM, Transport, source_v4},
    rules::settings,
    sender::identity_of_packet,
};

const INGRESS: Layer = Layer {
    hook: Hook::TcIngress,
    framing: Framing::Received,
    at_host: true,
    leaves: false,
    first_of: Origin::Packet,
    passes_through: false,
};

const CLOSER_LOOK: CloserLook = CloserLook {
    pursue: pursue_ingress,
    check_claim: check_claim_ingress,
};

#[classifier]
pub(crate) fn enforcer_in(context: TcContext) -> i32 {
    let skb = context.skb.skb;
    if INGRESS.framing.has_stacked_tags(skb) {
        return refuse_stacked_tags(skb, INGRESS.hook);
    }
    match inspect(skb, &INGRESS, &CLOSER_LOOK) {
        Finding::Pass => TC_ACT_UNSPEC,
        Finding::Drop | Finding::Claim => TC_ACT_SHOT,
        Finding::Steer => steer(skb),
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn pursue_ingress(skb: *mut __sk_buff) -> u32 {
    pursue(skb, &INGRESS)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn check_claim_ingress(skb: *mut __sk_buff) -> u32 {
    check_claim(skb, &INGRESS)
}

#[classifier]
pub(crate) fn enforcer_out(context: TcContext) -> i32 {
    let skb = context.skb.skb;
    if judge_uplink(skb) == TC_ACT_SHOT {
        return TC_ACT_SHOT;
    }
    restore_port(skb)
}

/// Gives a reply of the enforcer to a connection that TC steered the port its client knows.
#[inline(always)]
fn restore_port(skb: *mut __sk_buff) -> i32 {
    match settings() {
        Some(settings) if source_v4(skb) == Some(settings.endpoint_address) => restore_port_of_reply(skb),
        _ => TC_ACT_UNSPEC,
    }
}

/// A global BPF function, as in `sender`, with a stack of its own.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn restore_port_of_reply(skb: *mut __sk_buff) -> i32 {
    let Some(settings) = settings() else {
        return TC_ACT_UNSPEC;
    };
    let Some(network) = Network::load(skb, Framing::Received) else {
        return TC_ACT_UNSPEC;
    };
    if Transport::load(skb, &network).source_port != settings.packet_steer_port || network.protocol != TCP {
        return TC_ACT_UNSPEC;
    }
    replace_port(
        skb,
        &network,
        SOURCE_PORT,
        settings.packet_steer_port,
        settings.endpoint_port,
    )
}

/// Takes a packet for the endpoint to the packet steer port, if its socket may. A global BPF function, as in
/// `sender`.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn steer(skb: *mut __sk_buff) -> i32 {
    let (Some(settings), Some(network)) = (settings(), Network::load(skb, INGRESS.framing)) else {
        return TC_ACT_SHOT;
    };
    let transport = Transport::load(skb, &network);
    let packet = (&network, &transport);
    let key = key(&network, &transport, settings.packet_steer_port);
    if let Err(reason) = admit(skb, &transport, &key, &identity_of_packet(skb)) {
        let refused = (Outcome::Dropped, reason, target::CREDENTIALS);
        if record(skb, INGRESS.hook, packet, refused, settings) == Fate::Ends {
            return TC_ACT_SHOT;
        }
    } else if transport.is_syn() {
        let steered = (Outcome::Steered, Reason::CredentialEndpoint, target::CREDENTIALS);
        if record(skb, INGRESS.hook, packet, steered, settings) == Fate::Ends {
            return TC_ACT_SHOT;
        }
    }
    replace_port(
        skb,
        &network,
        DESTINATION_PORT,
        settings.endpoint_port,
        settings.packet_steer_port,
    )
}

/// Replaces a TCP port (host byte order) and mends the checksum. A packet that cannot be rewritten must not go on.
#[inline(always)]
fn replace_port(skb: *mut __sk_buff, network: &Network, field: u32, from: u16, to: u16) -> i32 {
    let (from, to) = (from.to_be(), to.to_be());
    let checksum = network.transport + TCP_CHECKSUM;
    // SAFETY: `skb` is the program's context; the helper checks the offset.
    if unsafe { bpf_l4_csum_replace(skb, checksum, from.into(), to.into(), size_of::<u16>() as u64) } != 0 {
        return TC_ACT_SHOT;
    }
    let value = (&raw const to).cast();
    // SAFETY: as above; `value` points to two readable bytes.
    if unsafe { bpf_skb_store_bytes(skb, network.transport + field, value, size_of::<u16>() as u32, 0) } != 0 {
        return TC_ACT_SHOT;
    }
    TC_ACT_UNSPEC
}
