//! `cgroup/bind4` and `cgroup/bind6`: `int (struct bpf_sock_addr *)`, 1 = go on, 0 = EPERM. Linux 4.17; the helpers used
//! here for the caller's identity 6.1.
//!
//! They keep containers in the host's network namespace from listening on the steer ports. While the enforcer is not
//! running, whoever listens there would be handed every task's credential ID, and could answer.

use aya_ebpf::{bindings::bpf_sock_addr, macros::cgroup_sock_addr, programs::SockAddrContext};
use enforcer_common::{
    address::{Address, target},
    cgroup::CgroupClass,
    event::{Hook, Outcome},
    settings::Settings,
    verdict::Reason,
};

use super::{CONTINUE, REFUSE, answer, connect::destination_v6};
use crate::{
    emit::{Decision, emit},
    rules::settings,
    sender::{identity_of_caller, treatment_of_caller},
};

#[cgroup_sock_addr(bind4)]
pub(crate) fn bind4(context: SockAddrContext) -> i32 {
    let socket_address = context.sock_addr;
    // SAFETY: the program's context; the verifier rewrites the read.
    let address = Address::from_v4(unsafe { (*socket_address).user_ip4 });
    check(socket_address, &address, Hook::Bind4)
}

#[cgroup_sock_addr(bind6)]
pub(crate) fn bind6(context: SockAddrContext) -> i32 {
    let socket_address = context.sock_addr;
    check(socket_address, &destination_v6(socket_address), Hook::Bind6)
}

#[inline(always)]
fn check(socket_address: *mut bpf_sock_addr, address: &Address, hook: Hook) -> i32 {
    let Some(settings) = settings() else {
        return REFUSE;
    };
    // SAFETY: the program's context; the verifier rewrites the read.
    let port = u16::from_be(unsafe { (*socket_address).user_port } as u16);
    if !settings.is_steer_port(port) || !covers_endpoint(address, settings) {
        return CONTINUE;
    }
    let identity = identity_of_caller(socket_address);
    if identity.netns_cookie != settings.host_netns_cookie {
        return CONTINUE;
    }
    let treatment = treatment_of_caller();
    if matches!(treatment.class, CgroupClass::Host) {
        return CONTINUE;
    }
    answer(emit(&Decision {
        hook,
        outcome: Outcome::Denied,
        observed: settings.observes(treatment),
        reason: Reason::SteerPortBind,
        target: target::CREDENTIALS,
        identity: &identity,
        destination: address,
        destination_port: port,
        source: &Address { words: [0; 4] },
        source_port: 0,
        protocol: 0,
        ifindex: 0,
    }))
}

/// Whether a socket bound to this address receives what is sent to the endpoint's.
#[inline(always)]
fn covers_endpoint(address: &Address, settings: &Settings) -> bool {
    match address.v4() {
        Some(v4) => v4 == 0 || v4 == settings.endpoint_address,
        None => address.words == [0; 4],
    }
}
