//! Authorization: who is at the other end of a connection, and may they have what they ask for?

use std::{
    fmt,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
};

use enforcer_common::{handshake::Handshake, identity::Identity};
use tracing::error;

use crate::{
    attribution::{Attributed, Attributor, Located, TaskName},
    bpf::{Accepted, BpfError},
    policy::{AccessRequest, Decision, Ownership},
};

/// Tells who announced an accepted connection.
pub trait Attest: fmt::Debug + Send + Sync + 'static {
    /// What the kernel stored with the accepted socket; none if nobody announced the connection.
    fn handshake(&self, socket: BorrowedFd<'_>) -> Result<Option<Handshake>, BpfError>;
}

/// Knows who is who, and who owns what.
#[derive(Debug)]
pub struct Gate {
    attest: Box<dyn Attest>,
    attributor: Arc<Attributor>,
    ownership: Ownership,
}

/// Who is at the other end of a connection. It stays the same as long as the connection.
#[derive(Debug)]
pub(super) struct Sender {
    attributed: Attributed,
    /// As the kernel announced it.
    pub(super) identity: Option<Identity>,
    /// Where its cgroup is.
    pub(super) located: Option<Arc<Located>>,
}

// === impl Attest ===

impl Attest for Accepted {
    fn handshake(&self, socket: BorrowedFd<'_>) -> Result<Option<Handshake>, BpfError> {
        Self::handshake(self, socket)
    }
}

// === impl Gate ===

impl Gate {
    /// A gate that believes `attest`.
    pub fn new(attest: impl Attest, attributor: Arc<Attributor>, ownership: Ownership) -> Self {
        Self {
            attest: Box::new(attest),
            attributor,
            ownership,
        }
    }

    /// Finds out who is at the other end. Whatever goes wrong makes it nobody, and nobody gets nothing.
    pub(super) fn sender(&self, socket: &impl AsFd) -> Sender {
        let handshake = self.attest.handshake(socket.as_fd()).unwrap_or_else(|error| {
            error!(%error, "cannot read the identity of a connection; it is refused");
            None
        });
        let identity = handshake.map(|handshake| handshake.identity);
        let cgroup = identity.map_or(0, |identity| identity.sender_cgroup());
        Sender {
            attributed: self.attributor.attribute(handshake.as_ref()),
            identity,
            located: self.attributor.locate(cgroup),
        }
    }

    /// Decides one request.
    pub(super) fn decide(&self, sender: &Sender, request: &AccessRequest) -> Decision {
        self.ownership.decide(&sender.attributed, request)
    }
}

// === impl Sender ===

impl Sender {
    /// The task it is, if it is one.
    pub(super) const fn task(&self) -> Option<&TaskName> {
        match &self.attributed {
            Attributed::Task(task) => Some(task),
            Attributed::UnknownSender
            | Attributed::AmbiguousSender
            | Attributed::SenderGone
            | Attributed::SocketFromElsewhere
            | Attributed::NoTask => None,
        }
    }
}
