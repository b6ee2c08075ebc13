//! `cgroup_skb/egress`: `int (struct __sk_buff *)`, 1 = pass, 0 = drop and EPERM. Linux 4.10; socket storage and cookie
//! from here 5.2.
//!
//! It sees the final packet of every IP socket made below the cgroup root, whatever created it, beginning at the IP
//! header. What it drops, a socket hook should have refused, or no socket hook can see.

use aya_ebpf::{bindings::__sk_buff, macros::cgroup_skb, programs::SkBuffContext};
use enforcer_common::event::Hook;

use super::{CONTINUE, REFUSE};
use crate::{
    inspect::{CloserLook, Finding, Layer, check_claim, inspect, pursue},
    origin::Origin,
    packet::Framing,
};

const LAYER: Layer = Layer {
    hook: Hook::Egress,
    framing: Framing::Bare,
    at_host: false,
    leaves: false,
    first_of: Origin::Raw,
    passes_through: false,
};

const CLOSER_LOOK: CloserLook = CloserLook {
    pursue: pursue_egress,
    check_claim: check_claim_egress,
};

#[cgroup_skb(egress)]
pub(crate) fn egress(context: SkBuffContext) -> i32 {
    match inspect(context.skb.skb, &LAYER, &CLOSER_LOOK) {
        // A TCP socket's credential SYN that no socket hook rewrote: TC steers it on the host's side.
        Finding::Pass | Finding::Steer => CONTINUE,
        Finding::Drop | Finding::Claim => REFUSE,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn pursue_egress(skb: *mut __sk_buff) -> u32 {
    pursue(skb, &LAYER)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn check_claim_egress(skb: *mut __sk_buff) -> u32 {
    check_claim(skb, &LAYER)
}
