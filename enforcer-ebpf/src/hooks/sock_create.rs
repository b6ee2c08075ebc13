//! `cgroup/sock_create`: `int (struct bpf_sock *)`, 1 = go on, 0 = EPERM. Linux 4.10; the helpers used here for the
//! caller's identity 6.1.
//!
//! Connect hooks belong to TCP and UDP. SCTP, DCCP and UDP-Lite connect without asking any of them, on some kernels or on
//! all, and no container needs these protocols to live: it gets no such sockets, nor others the configuration names.
//! What one of them sends all the same, from a socket somebody gave it, the packet hooks drop.

use aya_ebpf::{bindings::bpf_sock, macros::cgroup_sock, programs::SockContext};
use enforcer_common::{
    address::{Address, target},
    cgroup::CgroupClass,
    event::{Hook, Outcome},
    settings::Settings,
    verdict::Reason,
};

use super::{CONTINUE, REFUSE, answer};
use crate::{
    emit::{Decision, emit},
    rules::settings,
    sender::{identity_of_caller, treatment_of_caller},
};

const SOCK_RAW: u32 = 3;

#[cgroup_sock(sock_create)]
pub(crate) fn sock_create(context: SockContext) -> i32 {
    let Some(settings) = settings() else {
        return REFUSE;
    };
    // SAFETY: the program's context; the verifier rewrites the reads.
    let (kind, protocol) = unsafe { ((*context.sock).type_, (*context.sock).protocol) };
    if is_denied(settings, kind, protocol) {
        refuse(context.sock, protocol, settings)
    } else {
        CONTINUE
    }
}

/// Linux has protocols beyond IANA's 255, MPTCP for one; they cannot be denied.
#[inline(always)]
fn is_denied(settings: &Settings, kind: u32, protocol: u32) -> bool {
    (kind == SOCK_RAW && settings.raw_sockets_denied != 0)
        || u8::try_from(protocol).is_ok_and(|protocol| settings.denies_protocol(protocol))
}

#[inline(always)]
fn refuse(socket: *mut bpf_sock, protocol: u32, settings: &Settings) -> i32 {
    let treatment = treatment_of_caller();
    if matches!(treatment.class, CgroupClass::Host) {
        return CONTINUE;
    }
    answer(emit(&Decision {
        hook: Hook::SockCreate,
        outcome: Outcome::Denied,
        observed: settings.observes(treatment),
        reason: Reason::SocketProtocol,
        target: target::NONE,
        identity: &identity_of_caller(socket),
        destination: &Address { words: [0; 4] },
        destination_port: 0,
        source: &Address { words: [0; 4] },
        source_port: 0,
        protocol: protocol as u8,
        ifindex: 0,
    }))
}
