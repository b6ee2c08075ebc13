//! `cgroup/setsockopt`: `int (struct bpf_sockopt *)`, 1 = go on, 0 = EPERM. Linux 5.3; the helpers used here for the
//! caller's identity 6.1. Beside it `lsm_cgroup/socket_setsockopt`: `int (struct socket *, int, int)`, the same answers.
//! Linux 6.0, where the BPF LSM is active.
//!
//! Two options take a socket's packets past the queueing layer, and with it past TC egress, which is all that sees them
//! on a device without a host side: `PACKET_QDISC_BYPASS`, and the memory of `AF_XDP`. A third one, `PACKET_VNET_HDR`, has
//! the kernel write a checksum wherever the sender likes, the destination included, after TC. Whatever their value is,
//! containers may not set them. The first hook does not run for 32-bit system calls, which every 64-bit process can make; the second
//! one does, but not every kernel has it switched on.

use aya_ebpf::{
    macros::{cgroup_sockopt, lsm_cgroup},
    programs::{LsmContext, SockoptContext},
};
use enforcer_common::{
    address::{Address, target},
    cgroup::CgroupClass,
    event::{Hook, Outcome},
    identity::Identity,
    verdict::Reason,
};

use super::{CONTINUE, REFUSE, answer};
use crate::{
    emit::{Decision, emit},
    rules::settings,
    sender::{identity_of_setter, identity_of_task, treatment_of_caller},
};

const SOL_PACKET: i32 = 263;
const PACKET_QDISC_BYPASS: i32 = 20;
const PACKET_VNET_HDR: i32 = 15;
const SOL_XDP: i32 = 283;
const XDP_UMEM_REG: i32 = 4;

/// The smallest page there is. A value longer than a page reaches the hook cut off, and the kernel refuses the call unless
/// the hook says that it means the original (iptables rules are such values).
const PAGE: i32 = 4096;

#[cgroup_sockopt(setsockopt)]
pub(crate) fn setsockopt(context: SockoptContext) -> i32 {
    let option = context.sockopt;
    // SAFETY: the program's context; the verifier rewrites the accesses. A length of 0 means the caller's own value.
    let which = unsafe {
        if (*option).optlen > PAGE {
            (*option).optlen = 0;
        }
        ((*option).level, (*option).optname)
    };
    if is_bypass(which) {
        refuse(|| identity_of_setter(option))
    } else {
        CONTINUE
    }
}

#[lsm_cgroup(hook = "socket_setsockopt")]
pub(crate) fn lsm_setsockopt(context: LsmContext) -> i32 {
    if is_bypass((context.arg(1), context.arg(2))) {
        refuse(identity_of_task)
    } else {
        CONTINUE
    }
}

const fn is_bypass(level_and_name: (i32, i32)) -> bool {
    matches!(
        level_and_name,
        (SOL_PACKET, PACKET_QDISC_BYPASS | PACKET_VNET_HDR) | (SOL_XDP, XDP_UMEM_REG)
    )
}

#[inline(always)]
fn refuse(identity: impl FnOnce() -> Identity) -> i32 {
    let treatment = treatment_of_caller();
    if matches!(treatment.class, CgroupClass::Host) {
        return CONTINUE;
    }
    let Some(settings) = settings() else {
        return REFUSE;
    };
    answer(emit(&Decision {
        hook: Hook::Setsockopt,
        outcome: Outcome::Denied,
        observed: settings.observes(treatment),
        reason: Reason::PacketBypass,
        target: target::NONE,
        identity: &identity(),
        destination: &Address { words: [0; 4] },
        destination_port: 0,
        source: &Address { words: [0; 4] },
        source_port: 0,
        protocol: 0,
        ifindex: 0,
    }))
}
