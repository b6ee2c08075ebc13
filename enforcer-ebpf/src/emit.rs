//! Events and counters. A failed reserve loses the event, never the count: emitted = delivered + dropped holds exactly.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::helpers::bpf_ktime_get_ns;
use enforcer_common::{
    address::Address,
    counter::Counter,
    event::{Event, Hook, Outcome},
    identity::Identity,
    verdict::Reason,
};

use crate::maps::{COUNTERS, EVENTS};

/// What one decision was about: everything in an event except its time.
pub(crate) struct Decision<'a> {
    pub(crate) hook: Hook,
    pub(crate) outcome: Outcome,
    pub(crate) reason: Reason,
    pub(crate) target: u32,
    pub(crate) identity: &'a Identity,
    pub(crate) destination: &'a Address,
    pub(crate) destination_port: u16,
    pub(crate) source: &'a Address,
    pub(crate) source_port: u16,
    pub(crate) protocol: u8,
    pub(crate) ifindex: u32,
}

/// Adds one to a counter of this CPU. Atomic, because a program can be interrupted by another one on the same CPU.
#[inline(always)]
pub(crate) fn count(counter: Counter) {
    if let Some(slot) = COUNTERS.get_ptr_mut(counter.to_raw()) {
        // SAFETY: a live, aligned slot of the per-CPU array.
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(slot, 1) };
    }
}

/// Counts the decision and writes its event.
#[inline(never)]
pub(crate) fn emit(decision: &Decision<'_>) {
    count(match decision.outcome {
        Outcome::Allowed => Counter::Allowed,
        Outcome::Steered => Counter::Steered,
        Outcome::Denied => Counter::Denied,
        Outcome::Dropped => Counter::Dropped,
    });
    if matches!(decision.reason, Reason::SocketLayerMissed) {
        count(Counter::SocketLayerMissed);
    }
    count(Counter::EventsEmitted);
    let Some(mut entry) = EVENTS.reserve(0) else {
        count(Counter::EventsDropped);
        return;
    };
    entry.write(Event {
        // SAFETY: helpers without arguments or preconditions.
        time_ns: unsafe { bpf_ktime_get_ns() },
        hook: decision.hook.to_raw(),
        outcome: decision.outcome.to_raw(),
        reason: decision.reason.to_raw(),
        target: decision.target,
        ifindex: decision.ifindex,
        destination: *decision.destination,
        destination_port: decision.destination_port,
        source_port: decision.source_port,
        protocol: decision.protocol.into(),
        reserved: 0,
        identity: *decision.identity,
        source: *decision.source,
    });
    entry.submit(0);
}
