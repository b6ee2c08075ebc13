//! What observed sockets were recorded for. Nothing of theirs is blocked, so that one attempt would otherwise be recorded
//! again with every packet it sends.

use aya_ebpf::bindings::{__sk_buff, bpf_sock};
use enforcer_common::address::Address;

use crate::{
    maps::{OBSERVED, storage},
    origin::full_socket_of,
};

/// Notes that an attempt of a socket at a destination is recorded. Where there is no memory for the note, its packets are
/// recorded as well.
#[inline(always)]
pub(crate) fn note(socket: *mut bpf_sock, destination: &Address) {
    let mut destination = *destination;
    let slot = storage(&OBSERVED, socket, &raw mut destination);
    if !slot.is_null() {
        // SAFETY: socket storage lives as long as its socket, which the program's context holds.
        unsafe { *slot = destination };
    }
}

/// Whether a packet is the first of its socket to its destination that is to be recorded, and notes that it is.
#[inline(always)]
pub(crate) fn is_news(skb: *mut __sk_buff, destination: &Address) -> bool {
    let Some(socket) = full_socket_of(skb) else {
        return true;
    };
    let slot = storage(&OBSERVED, socket, core::ptr::null_mut());
    // SAFETY: as in `note`.
    if !slot.is_null() && unsafe { *slot == *destination } {
        return false;
    }
    note(socket, destination);
    true
}
