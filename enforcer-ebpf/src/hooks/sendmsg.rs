//! `cgroup/sendmsg4` and `cgroup/sendmsg6`: `int (struct bpf_sock_addr *)`, 1 = go on, 0 = EPERM. Linux 4.18.
//!
//! They run for unconnected UDP only. A v4-mapped destination comes through sendmsg4. Nothing is ever steered here:
//! the endpoint speaks TCP, and `decide` refuses the rest.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};
use enforcer_common::{address::Address, event::Hook};

use super::connect::{check, destination_v6};

#[cgroup_sock_addr(sendmsg4)]
pub(crate) fn sendmsg4(context: SockAddrContext) -> i32 {
    let socket_address = context.sock_addr;
    // SAFETY: the program's context; the verifier rewrites the read.
    let destination = Address::from_v4(unsafe { (*socket_address).user_ip4 });
    check(socket_address, &destination, Hook::Sendmsg4)
}

#[cgroup_sock_addr(sendmsg6)]
pub(crate) fn sendmsg6(context: SockAddrContext) -> i32 {
    let socket_address = context.sock_addr;
    check(socket_address, &destination_v6(socket_address), Hook::Sendmsg6)
}
