//! TC on the host side of a container's interface: `int (struct __sk_buff *)`. Linux 4.1; socket storage from here 5.2.
//!
//! Ingress is the last place where the sending socket is visible, and the only one that sees packet sockets too. It
//! drops what must not reach the host and steers credential connections that no socket hook rewrote; egress rewrites
//! their replies. Whatever is not ours goes on to the next filter.

use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_SHOT, TC_ACT_UNSPEC},
    helpers::generated::{bpf_l4_csum_replace, bpf_skb_store_bytes},
    macros::classifier,
    programs::TcContext,
};
use enforcer_common::{
    address::{Address, target},
    cgroup::CgroupClass,
    event::{Hook, Outcome},
    settings::Settings,
    verdict::{Reason, TCP},
};

use crate::{
    emit::{Decision, emit},
    handshakes::admit,
    inspect::{Finding, Layer, inspect, key, record},
    packet::{DESTINATION_PORT, Network, SOURCE_PORT, TCP_CHECKSUM, Transport, has_stacked_tags, source_v4},
    rules::settings,
    sender::{identity_of_packet, treatment_of_packet},
};

const ETHERNET_HEADER: u32 = 14;
const INGRESS: Layer = Layer {
    hook: Hook::TcIngress,
    network_offset: ETHERNET_HEADER,
    at_host: true,
};

#[classifier]
pub(crate) fn enforcer_in(context: TcContext) -> i32 {
    let skb = context.skb.skb;
    if has_stacked_tags(skb) {
        return refuse_stacked_tags(skb);
    }
    match inspect(skb, &INGRESS) {
        Finding::Pass => TC_ACT_UNSPEC,
        Finding::Drop => TC_ACT_SHOT,
        Finding::Steer(network, transport, settings) => steer(skb, &network, &transport, settings),
    }
}

#[classifier]
pub(crate) fn enforcer_out(context: TcContext) -> i32 {
    let skb = context.skb.skb;
    let Some(settings) = settings() else {
        return TC_ACT_UNSPEC;
    };
    if source_v4(skb, ETHERNET_HEADER) != Some(settings.endpoint_address) {
        return TC_ACT_UNSPEC;
    }
    let Some(network) = Network::load(skb, ETHERNET_HEADER) else {
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

/// The stack takes off tag after tag, so a frame below several of them reaches what a plain one does. No container needs
/// that.
#[inline(always)]
fn refuse_stacked_tags(skb: *mut __sk_buff) -> i32 {
    if matches!(treatment_of_packet(skb).class, CgroupClass::Host) {
        return TC_ACT_UNSPEC;
    }
    emit(&Decision {
        hook: Hook::TcIngress,
        outcome: Outcome::Dropped,
        reason: Reason::StackedTags,
        target: target::NONE,
        identity: &identity_of_packet(skb),
        destination: &Address { words: [0; 4] },
        destination_port: 0,
        source: &Address { words: [0; 4] },
        source_port: 0,
        protocol: 0,
        // SAFETY: the program's context.
        ifindex: unsafe { (*skb).ifindex },
    });
    TC_ACT_SHOT
}

/// Takes a packet for the endpoint to the packet steer port, if its socket may.
#[inline(always)]
fn steer(skb: *mut __sk_buff, network: &Network, transport: &Transport, settings: &Settings) -> i32 {
    let key = key(network, transport, settings.packet_steer_port);
    if let Err(reason) = admit(skb, transport, &key, &identity_of_packet(skb)) {
        record(
            skb,
            &INGRESS,
            network,
            transport,
            (Outcome::Dropped, reason, target::CREDENTIALS),
        );
        return TC_ACT_SHOT;
    }
    if transport.is_syn() {
        let steered = (Outcome::Steered, Reason::CredentialEndpoint, target::CREDENTIALS);
        record(skb, &INGRESS, network, transport, steered);
    }
    replace_port(
        skb,
        network,
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
