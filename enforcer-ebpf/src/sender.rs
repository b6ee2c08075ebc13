//! The sender: its class and its identity, of the calling process or of a packet's socket.

use aya_ebpf::{
    bindings::{__sk_buff, bpf_sockopt},
    helpers::{
        bpf_get_current_ancestor_cgroup_id, bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_pid_tgid,
        bpf_get_current_uid_gid,
        generated::{
            bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_get_socket_uid, bpf_skb_ancestor_cgroup_id,
            bpf_skb_cgroup_id,
        },
    },
};
use enforcer_common::{
    cgroup::{Treatment, classify},
    identity::Identity,
};

use crate::maps::CLASSES;

#[inline(always)]
fn known(cgroup_id: u64) -> Option<u32> {
    // SAFETY: the value is read at once, before any other map operation.
    unsafe { CLASSES.get(cgroup_id) }.copied()
}

/// How the calling process is treated. The hooks run for the cgroup a socket was made in; the caller may be another one.
#[inline(always)]
pub(crate) fn treatment_of_caller() -> Treatment {
    Treatment::from_raw(treatment_of_caller_raw())
}

/// How the socket a packet came from is treated; as guarded if the packet has none.
#[inline(always)]
pub(crate) fn treatment_of_packet(skb: *mut __sk_buff) -> Treatment {
    Treatment::from_raw(treatment_of_packet_raw(skb))
}

// The walks are global BPF functions: the verifier checks them once and by themselves, instead of all that follows once
// for each of their outcomes. That makes loading several times faster.

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn treatment_of_caller_raw() -> u32 {
    // SAFETY: the helper takes any level and answers 0 for one that is too deep.
    classify(
        |level| unsafe { bpf_get_current_ancestor_cgroup_id(level as i32) },
        known,
    )
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn treatment_of_packet_raw(skb: *mut __sk_buff) -> u32 {
    // SAFETY: `skb` is the program's context; the helper takes any level and answers 0 for one that is too deep.
    classify(|level| unsafe { bpf_skb_ancestor_cgroup_id(skb, level as i32) }, known)
}

/// Identity of the calling process, from the context of a hook that tells network namespace and socket.
#[inline(always)]
pub(crate) fn identity_of_caller<C>(context: *mut C) -> Identity {
    // SAFETY: `context` is the program's context; the verifier refuses one that has no such helpers.
    let cookies = unsafe {
        (
            bpf_get_netns_cookie(context.cast()),
            bpf_get_socket_cookie(context.cast()),
        )
    };
    identity(cookies)
}

/// Identity of the calling process, from the context of a socket option, which does not tell the socket's cookie.
#[inline(always)]
pub(crate) fn identity_of_setter(context: *mut bpf_sockopt) -> Identity {
    // SAFETY: `context` is the program's context.
    identity((unsafe { bpf_get_netns_cookie(context.cast()) }, 0))
}

/// Identity of the calling process, from a context that tells nothing of the socket.
#[inline(always)]
pub(crate) fn identity_of_task() -> Identity {
    identity((0, 0))
}

#[inline(always)]
fn identity((netns_cookie, socket_cookie): (u64, u64)) -> Identity {
    let pid_tgid = bpf_get_current_pid_tgid();
    let uid_gid = bpf_get_current_uid_gid();
    Identity {
        // SAFETY: a helper without arguments or preconditions.
        cgroup_id: unsafe { bpf_get_current_cgroup_id() },
        socket_cgroup_id: 0,
        netns_cookie,
        socket_cookie,
        pid: (pid_tgid >> 32) as u32,
        tid: pid_tgid as u32,
        uid: uid_gid as u32,
        gid: (uid_gid >> 32) as u32,
        comm: bpf_get_current_comm().unwrap_or_default(),
    }
}

/// Identity of the socket a packet came from, as far as a packet tells.
#[inline(always)]
pub(crate) fn identity_of_packet(skb: *mut __sk_buff) -> Identity {
    Identity {
        cgroup_id: 0,
        // SAFETY: `skb` is the program's context; without a socket the helper answers 0.
        socket_cgroup_id: unsafe { bpf_skb_cgroup_id(skb) },
        netns_cookie: 0,
        // SAFETY: as above.
        socket_cookie: unsafe { bpf_get_socket_cookie(skb.cast()) },
        pid: 0,
        tid: 0,
        // SAFETY: as above; without a socket the helper answers the overflow UID.
        uid: unsafe { bpf_get_socket_uid(skb) },
        gid: 0,
        comm: [0; 16],
    }
}
