//! `cgroup/connect4` and `cgroup/connect6`: `int (struct bpf_sock_addr *)`, 1 = go on, 0 = EPERM. Linux 4.17; the
//! helpers used here for the caller's identity 6.1.
//!
//! They run in the caller's context, before the source port is chosen. A v4-mapped destination comes through connect6.

use aya_ebpf::{
    bindings::{bpf_sock, bpf_sock_addr},
    macros::cgroup_sock_addr,
    programs::SockAddrContext,
};
use enforcer_common::{
    address::{Address, AddressRule, Spelling},
    event::{Hook, Outcome},
    settings::Settings,
    verdict::{Attempt, Reason, TCP, Verdict, decide},
};

use super::{CONTINUE, REFUSE, answer};
use crate::{
    emit::{Decision, emit},
    handshakes::remember,
    observed::note,
    rules::{Protected, protected, settings},
    sender::{identity_of_caller, treatment_of_caller},
};

const IPPROTO_MPTCP: u32 = 262;

static INTROSPECTION: AddressRule = AddressRule::INTROSPECTION;

#[cgroup_sock_addr(connect4)]
pub(crate) fn connect4(context: SockAddrContext) -> i32 {
    let socket_address = context.sock_addr;
    // SAFETY: the program's context; the verifier rewrites the read.
    let destination = Address::from_v4(unsafe { (*socket_address).user_ip4 });
    check(socket_address, &destination, Hook::Connect4)
}

#[cgroup_sock_addr(connect6)]
pub(crate) fn connect6(context: SockAddrContext) -> i32 {
    let socket_address = context.sock_addr;
    check(socket_address, &destination_v6(socket_address), Hook::Connect6)
}

/// The IPv6 destination of a socket hook, read word by word as the verifier wants it.
#[inline(always)]
pub(crate) fn destination_v6(socket_address: *mut bpf_sock_addr) -> Address {
    // SAFETY: the program's context; the verifier rewrites the reads.
    let [a, b, c, d] = unsafe { (*socket_address).user_ip6 };
    Address { words: [a, b, c, d] }
}

/// The shared body of all four socket address hooks.
#[inline(always)]
pub(crate) fn check(socket_address: *mut bpf_sock_addr, destination: &Address, hook: Hook) -> i32 {
    match protected(destination) {
        Some(protected) => check_protected(socket_address, destination, hook, &protected),
        None if is_introspection(socket_address) => {
            let protected = Protected {
                rule: &INTROSPECTION,
                spelling: Spelling::Direct,
            };
            check_protected(socket_address, destination, hook, &protected)
        }
        None => CONTINUE,
    }
}

/// Whether this is the port of the ECS agent's introspection, at whatever address.
#[inline(always)]
fn is_introspection(socket_address: *mut bpf_sock_addr) -> bool {
    // SAFETY: the program's context; the verifier rewrites the read.
    let port = u16::from_be(unsafe { (*socket_address).user_port } as u16);
    port != 0 && settings().is_some_and(|settings| settings.introspection_port == port)
}

#[inline(always)]
fn check_protected(
    socket_address: *mut bpf_sock_addr,
    destination: &Address,
    hook: Hook,
    protected: &Protected<'_>,
) -> i32 {
    let Some(settings) = settings() else {
        return REFUSE;
    };
    // SAFETY: the program's context; the verifier rewrites the reads.
    let (port, protocol) = unsafe { ((*socket_address).user_port, (*socket_address).protocol) };
    let port = u16::from_be(port as u16);
    let protocol = if protocol == IPPROTO_MPTCP { TCP } else { protocol as u8 };
    if !protected.rule.covers(protocol, port) {
        return CONTINUE; // Loopback has a rule for the agent's ports; everything else on it ends here.
    }
    let mut identity = identity_of_caller(socket_address);
    let attempt = Attempt {
        treatment: treatment_of_caller(),
        spelling: protected.spelling,
        protocol,
        port,
        in_host_netns: identity.netns_cookie == settings.host_netns_cookie,
    };
    let (outcome, reason) = match decide(protected.rule, &attempt, settings.endpoint_port) {
        Verdict::Pass => return CONTINUE,
        Verdict::Allow(reason) => (Outcome::Allowed, reason),
        Verdict::Deny(reason) => (Outcome::Denied, reason),
        Verdict::Steer => steer(socket_address, settings, &mut identity),
    };
    let observed = settings.observes(attempt.treatment);
    if observed && outcome.is_refusal() {
        note(socket_of(socket_address), &destination.canonical().0);
    }
    answer(emit(&Decision {
        hook,
        outcome,
        observed,
        reason,
        target: protected.rule.target,
        identity: &identity,
        destination,
        destination_port: port,
        source: &Address { words: [0; 4] },
        source_port: 0,
        protocol: attempt.protocol,
        ifindex: 0,
    }))
}

#[inline(always)]
fn socket_of(socket_address: *mut bpf_sock_addr) -> *mut bpf_sock {
    // SAFETY: the program's context; the verifier knows this socket is never null here.
    unsafe { (*socket_address).__bindgen_anon_1.sk }
}

/// Rewrites the port; the address stays, because it is one of the host's own.
#[inline(always)]
fn steer(
    socket_address: *mut bpf_sock_addr,
    settings: &Settings,
    identity: &mut enforcer_common::identity::Identity,
) -> (Outcome, Reason) {
    if !remember(socket_of(socket_address), identity) {
        return (Outcome::Denied, Reason::HandshakeNotStored);
    }
    // SAFETY: the program's context; connect hooks may write the port.
    unsafe { (*socket_address).user_port = settings.steer_port.to_be().into() };
    (Outcome::Steered, Reason::CredentialEndpoint)
}
