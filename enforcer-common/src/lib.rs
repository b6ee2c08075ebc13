//! What the enforcer's kernel side (`enforcer-ebpf`) and user side (`enforcer`) must agree on: the records they
//! exchange, and the pure functions both of them run.
//!
//! Everything here is `no_std`, free of allocation and free of I/O. The records are plain old data with a layout that
//! a test pins; a change of layout needs a new [`ABI_VERSION`].

#![no_std]

pub mod pod;

pub mod address;
pub mod cgroup;
pub mod verdict;

pub mod counter;
pub mod event;
pub mod handshake;
pub mod identity;
pub mod settings;

/// Version of every record and map in this crate. Pinned maps lie below a directory of this number: an older one is
/// replaced at the next start, a newer one is refused.
pub const ABI_VERSION: u32 = 2;
