//! How many connections of one cgroup may be on their way at once: none can fill the handshake map for the others.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::bindings::BPF_NOEXIST;
use enforcer_common::{handshake::MAX_IN_FLIGHT, identity::Identity};

use crate::maps::IN_FLIGHT;

/// Whose budget a connection is on.
#[inline(always)]
const fn owner(identity: &Identity) -> u64 {
    match identity.cgroup_id {
        0 => identity.socket_cgroup_id,
        caller => caller,
    }
}

/// Whether the sender's cgroup has as many connections on their way as it may have.
#[inline(always)]
pub(crate) fn is_spent(identity: &Identity) -> bool {
    // SAFETY: the value is read at once.
    unsafe { IN_FLIGHT.get(owner(identity)) }.is_some_and(|count| *count >= MAX_IN_FLIGHT)
}

/// A handshake of the sender was stored.
#[inline(always)]
pub(crate) fn begin(identity: &Identity) {
    add(identity, 1);
}

/// A handshake of the sender is gone.
#[inline(always)]
pub(crate) fn end(identity: &Identity) {
    add(identity, -1);
}

/// A number that was pushed out and made again meanwhile is too low, also below zero; never too high.
#[inline(always)]
fn add(identity: &Identity, change: i64) {
    let owner = owner(identity);
    if IN_FLIGHT.get_ptr_mut(owner).is_none() && change > 0 {
        // Another CPU may have been faster: then its number counts.
        IN_FLIGHT.insert(owner, 0, BPF_NOEXIST.into()).ok();
    }
    if let Some(count) = IN_FLIGHT.get_ptr_mut(owner) {
        // SAFETY: a live, aligned map value.
        unsafe { atomic_xadd::<i64, i64, { AtomicOrdering::Relaxed }>(count, change) };
    }
}
