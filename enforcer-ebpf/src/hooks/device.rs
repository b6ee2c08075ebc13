//! TC egress of the devices packets leave by: `int (struct __sk_buff *)`. Linux 4.1; socket storage from here 5.2.
//!
//! A packet socket passes no cgroup hook. Where a device has no host side, this is where its frames are seen: on the
//! host's own devices, for containers in the host's network namespace, and on devices that were moved into a
//! container's. They are seen here unless the socket goes past this layer as well, which `setsockopt` refuses it.

use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_SHOT, TC_ACT_UNSPEC},
    macros::classifier,
    programs::TcContext,
};
use enforcer_common::{
    address::{Address, target},
    cgroup::CgroupClass,
    event::{Hook, Outcome},
    verdict::Reason,
};

use crate::{
    emit::{Decision, Fate, emit},
    inspect::{CloserLook, Finding, Layer, check_claim, inspect, pursue},
    origin::{Origin, has_socket, is_forwarded, is_judged},
    packet::Framing,
    rules::settings,
    sender::{identity_of_packet, treatment_of_packet},
};

/// In the host's network namespace.
const UPLINK: Layer = Layer {
    hook: Hook::TcUplink,
    framing: Framing::Leaving,
    at_host: false,
    leaves: true,
    first_of: Origin::Packet,
    passes_through: false,
};

/// In the host's network namespace, for what it forwards.
const THROUGH: Layer = Layer {
    passes_through: true,
    ..UPLINK
};

/// In a container's.
const DEVICE: Layer = Layer {
    hook: Hook::TcDevice,
    ..UPLINK
};

#[classifier]
pub(crate) fn enforcer_uplink(context: TcContext) -> i32 {
    judge_uplink(context.skb.skb)
}

#[classifier]
pub(crate) fn enforcer_device(context: TcContext) -> i32 {
    judge_leaving(
        context.skb.skb,
        &DEVICE,
        &CloserLook {
            pursue: pursue_device,
            check_claim: check_claim_device,
        },
    )
}

/// What leaves the host. What it forwards has lost its socket, and was judged where it came in, if there was a hook: a
/// device may be newer than the last look, and frames can be sent past TC ingress.
#[inline(always)]
pub(super) fn judge_uplink(skb: *mut __sk_buff) -> i32 {
    if has_socket(skb) {
        judge_leaving(
            skb,
            &UPLINK,
            &CloserLook {
                pursue: pursue_uplink,
                check_claim: check_claim_uplink,
            },
        )
    } else if is_forwarded(skb) && !is_judged(skb) {
        judge_leaving(
            skb,
            &THROUGH,
            &CloserLook {
                pursue: pursue_through,
                check_claim: check_claim_through,
            },
        )
    } else {
        TC_ACT_UNSPEC
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn pursue_through(skb: *mut __sk_buff) -> u32 {
    pursue(skb, &THROUGH)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn check_claim_through(skb: *mut __sk_buff) -> u32 {
    check_claim(skb, &THROUGH)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn pursue_uplink(skb: *mut __sk_buff) -> u32 {
    pursue(skb, &UPLINK)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn check_claim_uplink(skb: *mut __sk_buff) -> u32 {
    check_claim(skb, &UPLINK)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn pursue_device(skb: *mut __sk_buff) -> u32 {
    pursue(skb, &DEVICE)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn check_claim_device(skb: *mut __sk_buff) -> u32 {
    check_claim(skb, &DEVICE)
}

#[inline(always)]
fn judge_leaving(skb: *mut __sk_buff, layer: &Layer, closer: &CloserLook) -> i32 {
    if layer.framing.has_stacked_tags(skb) {
        return refuse_stacked_tags(skb, layer.hook);
    }
    match inspect(skb, layer, closer) {
        Finding::Pass => TC_ACT_UNSPEC,
        // Nothing steers behind this layer, and `inspect` knows.
        Finding::Drop | Finding::Steer | Finding::Claim => TC_ACT_SHOT,
    }
}

/// The stack takes off tag after tag, so a frame below several of them reaches what a plain one does. No container needs
/// that. On a stack of its own: hooks have 512 bytes for all that is called at once.
#[inline(never)]
pub(super) fn refuse_stacked_tags(skb: *mut __sk_buff, hook: Hook) -> i32 {
    let treatment = treatment_of_packet(skb);
    if matches!(treatment.class, CgroupClass::Host) {
        return TC_ACT_UNSPEC;
    }
    let fate = emit(&Decision {
        hook,
        outcome: Outcome::Dropped,
        observed: settings().is_some_and(|settings| settings.observes(treatment)),
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
    match fate {
        Fate::GoesOn => TC_ACT_UNSPEC,
        Fate::Ends => TC_ACT_SHOT,
    }
}
