//! Authorization: who is at the other end of a connection, and who is that by what holds now?

use std::{
    fmt,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
};

use enforcer_common::{handshake::Handshake, identity::Identity};
use tokio::sync::watch;
use tracing::error;

use super::access::{Access, Caller};
use crate::bpf::{Accepted, BpfError};

/// Tells who announced an accepted connection.
pub trait Attest: fmt::Debug + Send + Sync + 'static {
    /// What the kernel stored with the accepted socket; none if nobody announced the connection.
    fn handshake(&self, socket: BorrowedFd<'_>) -> Result<Option<Handshake>, BpfError>;
}

/// Knows who is at the door.
#[derive(Debug)]
pub struct Gate {
    attest: Box<dyn Attest>,
    access: watch::Receiver<Arc<Access>>,
}

/// Who is at the other end of a connection, as the kernel announced it. It stays the same as long as the connection.
#[derive(Debug)]
pub(super) struct Sender(Option<Handshake>);

// === impl Attest ===

impl Attest for Accepted {
    fn handshake(&self, socket: BorrowedFd<'_>) -> Result<Option<Handshake>, BpfError> {
        Self::handshake(self, socket)
    }
}

// === impl Gate ===

impl Gate {
    /// A gate that believes `attest` and goes by the latest of `access`.
    pub fn new(attest: impl Attest, access: watch::Receiver<Arc<Access>>) -> Self {
        Self {
            attest: Box::new(attest),
            access,
        }
    }

    /// Finds out who is at the other end. Whatever goes wrong makes it nobody, and nobody gets nothing.
    pub(super) fn sender(&self, socket: &impl AsFd) -> Sender {
        Sender(self.attest.handshake(socket.as_fd()).unwrap_or_else(|error| {
            error!(%error, "cannot read the identity of a connection; it is refused");
            None
        }))
    }

    /// Who that is by what holds now.
    pub(super) fn caller(&self, sender: &Sender) -> Caller {
        Caller::new(Arc::clone(&self.access.borrow()), sender.0.as_ref())
    }
}

// === impl Sender ===

impl Sender {
    /// As the kernel announced it.
    pub(super) fn identity(&self) -> Option<Identity> {
        self.0.map(|handshake| handshake.identity)
    }
}
