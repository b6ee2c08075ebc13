//! The audit record: what is recorded.

use std::sync::Arc;

use enforcer_common::{event::Event, identity::Identity};
use jiff::Timestamp;
use serde::Serialize;

use super::redact::CredentialHash;
use crate::{
    attribution::{Alarm, Located},
    policy::DenialReason,
};

/// One numbered record.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) seq: u64,
    pub(super) time: Timestamp,
    pub(super) body: Body,
}

/// What a record is about.
#[derive(Debug)]
pub(super) enum Body {
    Kernel(KernelDecision),
    Endpoint(Endpoint, Option<CredentialHash>),
    Control(Change),
    Attribution(Alarm, Option<CredentialHash>),
    Unattended(Unattended),
    Lost(Lost),
}

/// A decision of a hook.
#[derive(Debug)]
pub struct KernelDecision {
    /// What the hook wrote.
    pub event: Event,
    /// Where the sender's cgroup is, if that can be told.
    pub located: Option<Arc<Located>>,
}

/// A decision of the credential endpoint.
#[derive(Debug)]
pub struct Endpoint {
    /// Permitted or not, and why.
    pub verdict: Verdict,
    /// The caller, as the kernel announced it.
    pub identity: Option<Identity>,
    /// Where the caller's cgroup is, and so its task.
    pub located: Option<Arc<Located>>,
    /// What it asked for and what it was answered.
    pub request: Request,
}

/// What of a request may be recorded. Nothing, if it was the connection that was refused.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Request {
    /// The method, if it is a standard one: others may hold anything.
    pub method: Option<&'static str>,
    /// The credential API's path without the ID; other paths may hold anything.
    pub path: Option<&'static str>,
    /// The answer's status; none if the caller went away before it was ready.
    pub status: Option<u16>,
}

/// Permitted, or denied and why.
#[derive(Clone, Copy, Debug)]
pub enum Verdict {
    /// Permitted, and why.
    Permit(Ground),
    /// Refused.
    Deny(DenialReason),
    /// Answered all the same, because it is only observed.
    WouldDeny(DenialReason),
}

/// Why somebody gets credentials.
#[derive(Clone, Copy, Debug)]
pub enum Ground {
    /// They are its own.
    Owner,
    /// It is a host service that may have them.
    Consumer,
}

/// A change of how the enforcer works, or an attempt at one.
#[derive(Clone, Debug, Serialize)]
pub struct Change {
    /// What was wanted.
    pub command: &'static str,
    /// Who wanted it.
    pub by: By,
    /// The mode afterwards.
    pub mode: &'static str,
    /// The task it was about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// Why it was not done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Who wanted a change: a signal, or a process that used the control socket.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// The name of the signal.
    Signal(&'static str),
    /// The process.
    Process {
        /// Its user ID.
        uid: u32,
        /// Its process ID, if it could be told.
        pid: Option<i32>,
    },
}

/// What happened since the last enforcer read the ring buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Unattended {
    /// Events that waited in the ring buffer; their records follow.
    pub events: u64,
    /// Attempts refused among them.
    pub denied: u64,
    /// Packets dropped among them.
    pub dropped: u64,
    /// Events that have no record, because the ring buffer had no room for them.
    pub lost: u64,
}

/// How many records are missing since the last such record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Lost {
    /// Kernel events that found no room in the ring buffer.
    pub(super) ring: u64,
    /// Records that found no room in the queue.
    pub(super) queue: u64,
}

// === impl Verdict ===

impl Verdict {
    /// Its names in the feed: what was done, and why.
    #[must_use]
    pub const fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Permit(Ground::Owner) => ("permit", "owner"),
            Self::Permit(Ground::Consumer) => ("permit", "consumer"),
            Self::Deny(reason) => ("deny", reason.name()),
            Self::WouldDeny(reason) => ("would_deny", reason.name()),
        }
    }
}

// === impl Body ===

impl Body {
    pub(super) const fn is_kernel(&self) -> bool {
        matches!(self, Self::Kernel(_))
    }

    /// The process ID of whose attempt it is; 0 if that is not known.
    pub(super) fn pid(&self) -> u32 {
        match self {
            Self::Kernel(decision) => decision.event.identity.pid,
            Self::Endpoint(decision, _) => decision.identity.map_or(0, |identity| identity.pid),
            Self::Control(_) | Self::Attribution(..) | Self::Unattended(_) | Self::Lost(_) => 0,
        }
    }
}
