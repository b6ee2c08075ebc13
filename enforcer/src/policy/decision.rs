//! What a decision is: a permit, or a denial with its reason.

use std::sync::Arc;

use super::request::CredentialId;
use crate::attribution::{Owner, TaskName};

/// The outcome for one request.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    /// The caller owns what it asks for, or is a host service that may have it.
    Permit(Permit),
    /// It does not get it.
    Denial(DenialReason),
}

/// Proof that policy allowed one request. Upstreams take it instead of the request.
///
/// What it holds comes from what the sources say, not from the caller's bytes; how it is where denials are only observed
/// tells [`super::observed`].
#[derive(Debug, PartialEq, Eq)]
pub struct Permit {
    task: Option<TaskName>,
    role_arn: Option<Arc<str>>,
    credential: Option<CredentialId>,
}

/// Why a request is refused. The names are part of the audit schema and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DenialReason {
    /// Nobody announced the connection: no hook saw its sender.
    UnknownSender,
    /// Two network namespaces claimed the connection.
    AmbiguousSender,
    /// The sender's cgroup no longer exists, so nobody can tell whose it was.
    SenderGone,
    /// The caller uses a socket that was made in another task's cgroup, or in no task's.
    SocketFromElsewhere,
    /// The sender's cgroup belongs to no task.
    NoTask,
    /// No source could tell in time which task the sender's cgroup belongs to; it may ask again.
    Unresolved,
    /// It asks for its own credentials, and its task has neither an ID nor a role, or it is no task.
    NoRole,
    /// The ID is another task's.
    NotOwner,
    /// The ID is an execution role's.
    ExecutionRole,
    /// Nobody has this ID.
    UnknownId,
    /// It may have what it asks for, but nobody has credentials for that: its role is not configured, or the ECS agent does
    /// not know the ID.
    NoCredentials,
    /// A request that cannot be granted: no ID, a method other than GET and HEAD, or a path that does not decode. What
    /// is not even HTTP is no request, and has no record.
    Malformed,
    /// Not a path of the credential endpoint.
    NotCredentials,
    /// The connection was closed without reading from it, because its sender has its share of connections.
    TooManyConnections,
}

// === impl Permit ===

impl Permit {
    pub(super) fn new(owner: Option<&Owner>, credential: Option<&CredentialId>) -> Self {
        Self {
            task: owner.map(|owner| owner.task.clone()),
            role_arn: owner.and_then(|owner| owner.role_arn.clone()),
            credential: credential.cloned(),
        }
    }

    /// The task that owns the credentials, as far as the sources know.
    #[must_use]
    pub const fn task(&self) -> Option<&TaskName> {
        self.task.as_ref()
    }

    /// The task's role, as far as the sources know.
    #[must_use]
    pub const fn role_arn(&self) -> Option<&Arc<str>> {
        self.role_arn.as_ref()
    }

    /// Which of its credentials; none if it has a role and was given no ID.
    #[must_use]
    pub const fn credential(&self) -> Option<&CredentialId> {
        self.credential.as_ref()
    }
}

// === impl DenialReason ===

impl DenialReason {
    /// The name in audit records.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::UnknownSender => "unknown_sender",
            Self::AmbiguousSender => "ambiguous_sender",
            Self::SenderGone => "sender_gone",
            Self::SocketFromElsewhere => "socket_from_elsewhere",
            Self::NoTask => "no_task",
            Self::Unresolved => "unresolved",
            Self::NoRole => "no_role",
            Self::NotOwner => "not_owner",
            Self::ExecutionRole => "execution_role",
            Self::UnknownId => "unknown_id",
            Self::NoCredentials => "no_credentials",
            Self::Malformed => "malformed",
            Self::NotCredentials => "not_credentials",
            Self::TooManyConnections => "too_many_connections",
        }
    }
}
