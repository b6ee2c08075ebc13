//! System calls no crate offers safely: one safe function each, and nothing else is unsafe about them.

pub(crate) mod bpf;
pub(crate) mod file_handle;
pub(crate) mod ia32;
pub(crate) mod inherited;
pub(crate) mod mapping;
pub(crate) mod memory;
pub(crate) mod namespace;
pub(crate) mod rcu;
pub(crate) mod readiness;
pub(crate) mod sockaddr;
pub(crate) mod socket;
pub(crate) mod uring;
