//! `cgroup_skb/egress`: `int (struct __sk_buff *)`, 1 = pass, 0 = drop and EPERM. Linux 4.10; socket storage and cookie
//! from here 5.2.
//!
//! It sees the final packet of every IP socket made below the cgroup root, whatever created it, beginning at the IP
//! header. What it drops, a socket hook should have refused, or no socket hook can see.

use aya_ebpf::{macros::cgroup_skb, programs::SkBuffContext};
use enforcer_common::event::Hook;

use crate::inspect::{Finding, Layer, inspect};

const PASS: i32 = 1;
const DROP: i32 = 0;

#[cgroup_skb(egress)]
pub(crate) fn egress(context: SkBuffContext) -> i32 {
    match inspect(
        context.skb.skb,
        &Layer {
            hook: Hook::Egress,
            network_offset: 0,
            at_host: false,
        },
    ) {
        // A TCP socket's credential SYN that no socket hook rewrote: TC steers it on the host's side.
        Finding::Pass | Finding::Steer(..) => PASS,
        Finding::Drop => DROP,
    }
}
