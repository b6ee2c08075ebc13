//! Decisions take effect here: they are counted and recorded, and whoever asked is told whether the attempt ends. Where
//! a sender is only observed, nothing ends, and that is known here alone.
//!
//! A failed reserve loses the event, never the count: emitted = delivered + dropped holds exactly.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::helpers::bpf_ktime_get_ns;
use enforcer_common::{
    address::Address,
    counter::Counter,
    event::{Hook, Outcome},
    identity::Identity,
    verdict::Reason,
};

use crate::maps::{COUNTERS, EVENTS};

/// What one decision was about: everything in an event except its time.
pub(crate) struct Decision<'a> {
    pub(crate) hook: Hook,
    /// As decided; what becomes of it depends on `observed`.
    pub(crate) outcome: Outcome,
    /// Whether a refusal is recorded only, see `Settings::observes`.
    pub(crate) observed: bool,
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

/// What becomes of an attempt.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    GoesOn,
    Ends,
}

/// Counts the decision, writes its event, and tells what becomes of the attempt.
#[inline(always)]
#[must_use]
pub(crate) fn emit(decision: &Decision<'_>) -> Fate {
    let outcome = if decision.observed {
        decision.outcome.observed()
    } else {
        decision.outcome
    };
    record(decision, outcome);
    if outcome.is_refusal() { Fate::Ends } else { Fate::GoesOn }
}

/// Counts a decision that came to this outcome and writes its event.
#[inline(never)]
pub(crate) fn record(decision: &Decision<'_>, outcome: Outcome) {
    count(match outcome {
        Outcome::Allowed => Counter::Allowed,
        Outcome::Steered => Counter::Steered,
        Outcome::Denied => Counter::Denied,
        Outcome::Dropped => Counter::Dropped,
        Outcome::WouldDeny | Outcome::WouldDrop => Counter::Observed,
    });
    if matches!(
        (outcome, decision.reason),
        (Outcome::Dropped, Reason::SocketLayerMissed)
    ) {
        count(Counter::SocketLayerMissed);
    }
    count(Counter::EventsEmitted);
    let Some(mut entry) = EVENTS.reserve(0) else {
        count(Counter::EventsDropped);
        return;
    };
    let event = entry.as_mut_ptr();
    // SAFETY: the reserved record is writable and 8-byte aligned. It is written field by field, because a whole one on
    // the stack would take a quarter of what a hook has (512 bytes, all calls together). Every field is written.
    unsafe {
        (*event).time_ns = bpf_ktime_get_ns();
        (*event).hook = decision.hook.to_raw();
        (*event).outcome = outcome.to_raw();
        (*event).reason = decision.reason.to_raw();
        (*event).target = decision.target;
        (*event).ifindex = decision.ifindex;
        (*event).protocol = decision.protocol.into();
        (*event).destination = *decision.destination;
        (*event).source = *decision.source;
        (*event).destination_port = decision.destination_port;
        (*event).source_port = decision.source_port;
        (*event).reserved = 0;
        (*event).identity = *decision.identity;
    }
    entry.submit(0);
}
