//! The hooks, one family per file.

pub(crate) mod bind;
pub(crate) mod connect;
pub(crate) mod egress;
pub(crate) mod sendmsg;
pub(crate) mod sock_ops;
pub(crate) mod tc;
