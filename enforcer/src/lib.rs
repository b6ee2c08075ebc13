//! The enforcer's user side: keeps instance and task credentials from containers that do not own them.
//!
//! The way of a connection, and of this list of modules:
//!
//! ```text
//! cli ─> config ─> app ─ builds, spawns, waits, drains
//!                   │
//!  kernel hooks ─ bpf ─┬─ events ───────────────────────────────> audit
//!                      └─ identity of an accepted socket ┐          ^
//!  host: cgroup tree ──────────────> attribution ── task ┤          │
//!                                                        v          │
//!                 request ─> endpoint ─> policy::decide ─┴─ Permit ─> upstream
//! ```
//!
//! # Invariants
//!
//! - Unknown is guarded, unattributed is refused: every failure on the way to an identity ends in a denial.
//! - Identity belongs to a connection, authorization to a request.
//! - [`policy`] is pure, and only it makes a [`policy::Permit`]; [`upstream`] takes nothing else.
//! - What a reload changes is one value: no request is decided by half of one configuration and half of another.
//! - A credential ID or key is in no log line, audit record or error.
//! - Recording a decision never blocks it, and a record that is lost is counted.
//! - What is pinned stays when the process ends: only `enforcer detach` removes enforcement.
//! - Only [`bpf`] names `aya`, only [`config::load`] reads the environment, only [`app`] knows every stage.

pub mod cli;
pub mod config;

pub mod app;
pub mod control;
pub mod drain;
pub mod signal;
pub mod supervisor;
pub mod telemetry;

pub mod bpf;
pub mod host;
mod sys;
pub use sys::memory::use_one_heap;

pub mod attribution;
pub mod policy;

pub mod audit;
pub mod endpoint;
pub mod upstream;

pub mod selftest;
