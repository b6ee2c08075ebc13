//! The hooks, one family per file.

use crate::emit::Fate;

pub(crate) mod bind;
pub(crate) mod connect;
pub(crate) mod device;
pub(crate) mod egress;
pub(crate) mod sendmsg;
pub(crate) mod setsockopt;
pub(crate) mod sock_create;
pub(crate) mod sock_ops;
pub(crate) mod tc;

/// What a cgroup hook answers to let an attempt go on.
const CONTINUE: i32 = 1;
/// What a cgroup hook answers to end it: EPERM for the caller.
const REFUSE: i32 = 0;

#[inline(always)]
const fn answer(fate: Fate) -> i32 {
    match fate {
        Fate::GoesOn => CONTINUE,
        Fate::Ends => REFUSE,
    }
}
