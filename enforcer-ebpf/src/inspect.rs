//! The packet layer's decision, shared by `cgroup_skb` and TC: what a packet wants, and whether its socket may.

use aya_ebpf::{
    bindings::{__sk_buff, bpf_sock},
    helpers::generated::bpf_sk_fullsock,
};
use enforcer_common::{
    address::target,
    cgroup::CgroupClass,
    event::{Hook, Outcome},
    handshake::HandshakeKey,
    settings::Settings,
    verdict::{Attempt, Reason, TCP, UDP, Verdict, decide},
};

use crate::{
    emit::{Decision, emit},
    handshakes::confirm,
    packet::{Network, Transport, destination},
    rules::{Protected, protected, settings},
    sender::{identity_of_packet, treatment_of_packet},
};

const SOCK_RAW: u32 = 3;

/// Where a packet is looked at.
pub(crate) struct Layer {
    pub(crate) hook: Hook,
    /// Offset of the IP header.
    pub(crate) network_offset: u32,
    /// Whether the packet has left the sender's network namespace and reached the host's side.
    pub(crate) at_host: bool,
}

/// What to do with a packet.
pub(crate) enum Finding {
    Pass,
    Drop,
    /// It is for the credential endpoint, and no socket hook rewrote it.
    Steer(Network, Transport, &'static Settings),
}

/// Decides about a packet and records what it refuses. Unrelated packets leave after one field and one filter.
#[inline(always)]
pub(crate) fn inspect(skb: *mut __sk_buff, layer: &Layer) -> Finding {
    let Some(destination) = destination(skb, layer.network_offset) else {
        return Finding::Pass; // Not IP: ARP and the like reach no service.
    };
    let Some(protected) = protected(&destination) else {
        return Finding::Pass;
    };
    match Network::load(skb, layer.network_offset) {
        Some(network) => inspect_protected(skb, layer, network, &protected),
        None => Finding::Drop, // It has a destination but no header: not a packet.
    }
}

#[inline(always)]
fn inspect_protected(skb: *mut __sk_buff, layer: &Layer, network: Network, protected: &Protected<'_>) -> Finding {
    let Some(settings) = settings() else {
        return Finding::Drop;
    };
    let transport = Transport::load(skb, &network);
    // A port nobody can read may be the protected one.
    let [first, ..] = protected.rule.ports;
    let port = if transport.is_hidden {
        first
    } else {
        transport.destination_port
    };
    if !protected.rule.covers(network.protocol, port) {
        return Finding::Pass;
    }
    let reason = reason_of_packet(skb);
    let is_raw = matches!(reason, Reason::RawPacket);
    let attempt = Attempt {
        treatment: treatment_of_packet(skb),
        spelling: protected.spelling,
        protocol: network.protocol,
        port,
        // Which namespace a packet is in, no helper tells on every kernel. Raw packets to a port of the agent are taken
        // for the host's; those of other sockets a connect hook has judged.
        in_host_netns: layer.at_host || is_raw,
    };
    let target = protected.rule.target;
    let steered = target == target::CREDENTIALS
        && network.protocol == TCP
        && port == settings.steer_port
        && !matches!(attempt.treatment.class, CgroupClass::Host);
    let (outcome, reason) = if steered {
        let key = key(&network, &transport, settings.steer_port);
        match confirm(skb, &transport, &key, settings, layer.at_host) {
            Ok(()) => return Finding::Pass,
            Err(reason) => (Outcome::Dropped, reason),
        }
    } else {
        match decide(protected.rule, &attempt, settings.endpoint_port) {
            // What a host service does through a socket hook is recorded there.
            Verdict::Allow(reason) if is_raw && !layer.at_host => (Outcome::Allowed, reason),
            Verdict::Pass | Verdict::Allow(_) => return Finding::Pass,
            Verdict::Steer if layer.at_host || !is_raw => return Finding::Steer(network, transport, settings),
            Verdict::Steer | Verdict::Deny(_) => (Outcome::Dropped, reason),
        }
    };
    record(skb, layer, &network, &transport, (outcome, reason, target));
    if matches!(outcome, Outcome::Dropped) {
        Finding::Drop
    } else {
        Finding::Pass
    }
}

/// The handshake key of a packet to the credential endpoint.
#[inline(always)]
pub(crate) fn key(network: &Network, transport: &Transport, server_port: u16) -> HandshakeKey {
    HandshakeKey {
        client: network.source.v4().unwrap_or(0),
        server: network.destination.v4().unwrap_or(0),
        client_port: transport.source_port,
        server_port,
    }
}

/// Writes the event of a packet: what was done, why, and what its destination is.
#[inline(always)]
pub(crate) fn record(
    skb: *mut __sk_buff,
    layer: &Layer,
    network: &Network,
    transport: &Transport,
    (outcome, reason, target): (Outcome, Reason, u32),
) {
    emit(&Decision {
        hook: layer.hook,
        outcome,
        reason,
        target,
        identity: &identity_of_packet(skb),
        destination: &network.destination,
        destination_port: transport.destination_port,
        source: &network.source,
        source_port: transport.source_port,
        protocol: network.protocol,
        // SAFETY: the program's context.
        ifindex: unsafe { (*skb).ifindex },
    });
}

/// A stream or datagram socket should have been stopped by a socket hook; anything else only packets show.
#[inline(always)]
fn reason_of_packet(skb: *mut __sk_buff) -> Reason {
    match full_socket_of(skb) {
        // SAFETY: `full_socket_of` gives a socket the program's context holds; the verifier rewrites the reads.
        Some(socket) if unsafe { (*socket).type_ } != SOCK_RAW && unsafe { is_hooked((*socket).protocol) } => {
            Reason::SocketLayerMissed
        }
        _ => Reason::RawPacket,
    }
}

/// Whether sockets of a protocol pass a socket hook.
const fn is_hooked(protocol: u32) -> bool {
    protocol == TCP as u32 || protocol == UDP as u32
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
