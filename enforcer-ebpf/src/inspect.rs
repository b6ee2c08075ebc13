//! The packet layer's decision, shared by `cgroup_skb` and TC: what a packet wants, and whether its socket may.

use aya_ebpf::bindings::__sk_buff;
use enforcer_common::{
    address::{AddressRule, target},
    cgroup::CgroupClass,
    event::{Hook, Outcome},
    handshake::HandshakeKey,
    settings::Settings,
    verdict::{Attempt, Reason, TCP, Verdict, decide},
};

use crate::{
    emit::{Decision, Fate, emit},
    handshakes::confirm,
    observed::is_news,
    origin::{Origin, is_kernels_own, mark_as_judged},
    packet::{Framing, Glance, Network, Transport, Unseen, takes_detour},
    rules::{Protected, protected, settings},
    sender::{identity_of_packet, treatment_of_packet},
};

/// Where a packet is looked at.
pub(crate) struct Layer {
    pub(crate) hook: Hook,
    pub(crate) framing: Framing,
    /// Whether the packet has left the sender's network namespace and reached the host's side.
    pub(crate) at_host: bool,
    /// Whether it goes where no packet hook of ours is behind this one.
    pub(crate) leaves: bool,
    /// Whose packets no hook has seen before this one.
    pub(crate) first_of: Origin,
    /// Whether only the destination counts, because the packet is on its way through the host.
    pub(crate) passes_through: bool,
}

/// What to do with a packet.
#[derive(Clone, Copy)]
#[repr(u32)]
pub(crate) enum Finding {
    Pass = 0,
    Drop = 1,
    /// It is for the credential endpoint, and no socket hook rewrote it.
    Steer = 2,
    /// It is for the steer port of socket hooks: whose connection it claims to be of remains to be seen.
    Claim = 3,
}

/// What a layer's hook leaves to functions of its own; each gives the number of a [`Finding`].
pub(crate) struct CloserLook {
    /// Calls [`pursue`].
    pub(crate) pursue: extern "C" fn(*mut __sk_buff) -> u32,
    /// Calls [`check_claim`].
    pub(crate) check_claim: extern "C" fn(*mut __sk_buff) -> u32,
}

/// What is decided about a suspicious packet.
enum Judgment {
    Pass,
    Steer,
    Claim,
    Record(Outcome, Reason, u32),
}

// === impl Layer ===

impl Layer {
    /// Whether a packet's source is looked at: sockets below the cgroup root are seen again where they leave.
    #[inline(always)]
    const fn minds_sources(&self) -> bool {
        (self.at_host || self.leaves) && !self.passes_through
    }

    /// Whether the host's own kernel may have sent the packet. What a container's kernel has to say to a protected
    /// destination, the container has brought it to say.
    #[inline(always)]
    const fn may_be_kernels(&self) -> bool {
        !self.at_host && !matches!(self.hook, Hook::TcDevice)
    }
}

// === impl Finding ===

impl Finding {
    /// The finding of a number that [`pursue`] gave.
    #[inline(always)]
    const fn from_raw(raw: u32) -> Self {
        match raw {
            0 => Self::Pass,
            2 => Self::Steer,
            3 => Self::Claim,
            _ => Self::Drop,
        }
    }
}

/// Decides about a packet and records what it refuses. Unrelated packets leave after a few fields and one filter; others
/// are left to `closer`: global BPF functions (as in `sender`) of the layer's hook, each with a stack of its own.
#[inline(always)]
pub(crate) fn inspect(skb: *mut __sk_buff, layer: &Layer, closer: &CloserLook) -> Finding {
    let is_suspicious = match Glance::at(skb, layer.framing) {
        Ok(glance) => is_suspicious(skb, layer, &glance),
        Err(Unseen::NotLinear) => true,
        Err(Unseen::NotIp) => false,
    };
    if !is_suspicious {
        return Finding::Pass;
    }
    let finding = Finding::from_raw((closer.pursue)(skb));
    if matches!(finding, Finding::Claim) {
        return Finding::from_raw((closer.check_claim)(skb));
    }
    finding
}

/// Whether a packet is worth a closer look: its destination is not where it ends, or it is protected, or its source is,
/// so that answers to it would go there.
#[inline(always)]
fn is_suspicious(skb: *mut __sk_buff, layer: &Layer, glance: &Glance) -> bool {
    (!glance.is_plain && !layer.passes_through && takes_detour(skb, layer.framing))
        || protected(&glance.destination).is_some()
        || (layer.minds_sources() && protected(&glance.source).is_some())
}

/// Decides about a suspicious packet and records what it refuses; gives the number of a [`Finding`].
#[inline(always)]
pub(crate) fn pursue(skb: *mut __sk_buff, layer: &Layer) -> u32 {
    let finding = find(skb, layer);
    if layer.at_host && matches!(finding, Finding::Pass) {
        mark_as_judged(skb);
    }
    finding as u32
}

#[inline(always)]
fn find(skb: *mut __sk_buff, layer: &Layer) -> Finding {
    let (Some(settings), Some(network)) = (settings(), Network::load(skb, layer.framing)) else {
        return Finding::Drop; // It has a destination but no header: not a packet.
    };
    let transport = Transport::load(skb, &network);
    match judge(skb, layer, (&network, &transport), settings) {
        Judgment::Pass => Finding::Pass,
        Judgment::Steer => Finding::Steer,
        Judgment::Claim => Finding::Claim,
        Judgment::Record(outcome, reason, target) => {
            let wanted = (outcome, reason, target);
            match record(skb, layer.hook, (&network, &transport), wanted, settings) {
                Fate::GoesOn => Finding::Pass,
                Fate::Ends => Finding::Drop,
            }
        }
    }
}

/// Decides about a packet to the steer port of socket hooks and records what it refuses; gives the number of a
/// [`Finding`].
#[inline(always)]
pub(crate) fn check_claim(skb: *mut __sk_buff, layer: &Layer) -> u32 {
    let (Some(settings), Some(network)) = (settings(), Network::load(skb, layer.framing)) else {
        return Finding::Drop as u32;
    };
    let transport = Transport::load(skb, &network);
    let key = key(&network, &transport, settings.steer_port);
    match confirm(skb, &transport, &key, settings, layer.at_host) {
        Ok(()) => Finding::Pass as u32,
        Err(reason) => refuse_claim(skb, layer.hook, &network, &transport, reason) as u32,
    }
}

/// On a stack of its own, as [`confirm`].
#[inline(never)]
fn refuse_claim(skb: *mut __sk_buff, hook: Hook, network: &Network, transport: &Transport, reason: Reason) -> Finding {
    let refused = (Outcome::Dropped, reason, target::CREDENTIALS);
    match settings().map(|settings| record(skb, hook, (network, transport), refused, settings)) {
        Some(Fate::GoesOn) => Finding::Pass,
        Some(Fate::Ends) | None => Finding::Drop,
    }
}

/// Looks at the packet as [`is_suspicious`] does, in the same order.
#[inline(always)]
fn judge(skb: *mut __sk_buff, layer: &Layer, packet: (&Network, &Transport), settings: &Settings) -> Judgment {
    let (network, transport) = packet;
    if !layer.passes_through && takes_detour(skb, layer.framing) {
        // A container's kernel answers on the way its sender chose.
        let may_pass = layer.may_be_kernels() && is_kernels_own(skb, network, transport);
        return refuse_guarded(skb, may_pass, Reason::SourceRoute, target::NONE);
    }
    if let Some(protected) = protected(&network.destination) {
        return match covered(protected.rule, packet, transport.destination_port) {
            Some(port) => judge_destination(skb, layer, &protected, packet, (port, settings)),
            None => Judgment::Pass,
        };
    }
    match protected(&network.source) {
        Some(protected)
            if layer.minds_sources() && covered(protected.rule, packet, transport.source_port).is_some() =>
        {
            let may_pass = is_kernels_own(skb, network, transport);
            refuse_guarded(skb, may_pass, Reason::SpoofedSource, protected.rule.target)
        }
        _ => Judgment::Pass,
    }
}

/// The port of a packet if a rule is about it. One that nobody can read may be the protected one.
#[inline(always)]
fn covered(rule: &AddressRule, (network, transport): (&Network, &Transport), port: u16) -> Option<u16> {
    let [first, ..] = rule.ports;
    let port = if transport.is_hidden { first } else { port };
    rule.covers(network.protocol, port).then_some(port)
}

/// Host services may send what they like, and so may the kernel where that `may_pass`.
#[inline(always)]
fn refuse_guarded(skb: *mut __sk_buff, may_pass: bool, reason: Reason, target: u32) -> Judgment {
    if may_pass || matches!(treatment_of_packet(skb).class, CgroupClass::Host) {
        return Judgment::Pass;
    }
    Judgment::Record(Outcome::Dropped, reason, target)
}

#[inline(always)]
fn judge_destination(
    skb: *mut __sk_buff,
    layer: &Layer,
    protected: &Protected<'_>,
    (network, transport): (&Network, &Transport),
    (port, settings): (u16, &Settings),
) -> Judgment {
    let origin = Origin::of(skb);
    let is_hooked = matches!(origin, Origin::Hooked);
    let attempt = Attempt {
        treatment: treatment_of_packet(skb),
        spelling: protected.spelling,
        protocol: network.protocol,
        port,
        // Which namespace a packet is in, no helper tells on every kernel. Raw packets to a port of the agent are taken
        // for the host's; those of other sockets a connect hook has judged.
        in_host_netns: layer.at_host || !is_hooked,
    };
    let target = protected.rule.target;
    let is_steered = target == target::CREDENTIALS
        && network.protocol == TCP
        && port == settings.steer_port
        && attempt.treatment.is_steered();
    if is_steered {
        return Judgment::Claim;
    }
    match decide(protected.rule, &attempt, settings.endpoint_port) {
        // What came through another hook of ours is recorded there.
        Verdict::Allow(reason) if origin == layer.first_of => Judgment::Record(Outcome::Allowed, reason, target),
        Verdict::Pass | Verdict::Allow(_) => Judgment::Pass,
        Verdict::Steer if !layer.leaves && (layer.at_host || is_hooked) => Judgment::Steer,
        Verdict::Steer | Verdict::Deny(_) if layer.may_be_kernels() && is_kernels_own(skb, network, transport) => {
            Judgment::Pass
        }
        Verdict::Steer | Verdict::Deny(_) if is_hooked => {
            Judgment::Record(Outcome::Dropped, Reason::SocketLayerMissed, target)
        }
        Verdict::Steer | Verdict::Deny(_) => Judgment::Record(Outcome::Dropped, Reason::RawPacket, target),
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

/// Writes the event of a packet: what was done, why, and what its destination is. Of an observed socket's packets to one
/// destination only the first is recorded.
#[inline(always)]
pub(crate) fn record(
    skb: *mut __sk_buff,
    hook: Hook,
    (network, transport): (&Network, &Transport),
    (outcome, reason, target): (Outcome, Reason, u32),
    settings: &Settings,
) -> Fate {
    let observed = outcome.is_refusal() && !reason.is_about_identity() && settings.observes(treatment_of_packet(skb));
    if observed && !is_news(skb, &network.destination) {
        return Fate::GoesOn;
    }
    emit(&Decision {
        hook,
        outcome,
        observed,
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
    })
}
