//! Authorization: who is at the other end of a connection, and who is that by what holds now?

use std::{
    fmt,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
    sync::Arc,
    time::Duration,
};

use enforcer_common::{handshake::Handshake, identity::Identity};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout_at},
};
use tracing::{debug, error};

use super::access::{Access, Caller};
use crate::{
    attribution::{Holder, Resolution, Resolver},
    bpf::{Accepted, BpfError},
    policy::Wanted,
};

/// How often it is looked whether a credential ID is known by now.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

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
    resolver: Resolver,
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
    /// A gate that believes `attest`, goes by the latest of `access`, and has looked up who is not known.
    pub fn new(attest: impl Attest, access: watch::Receiver<Arc<Access>>, resolver: Resolver) -> Self {
        Self {
            attest: Box::new(attest),
            access,
            resolver,
        }
    }

    /// Finds out who is at the other end. Whatever goes wrong makes it nobody, and nobody gets nothing.
    pub(super) fn sender(&self, socket: &impl AsFd) -> Sender {
        Sender(self.attest.handshake(socket.as_fd()).unwrap_or_else(|error| {
            error!(%error, "cannot read the identity of a connection; it is refused");
            None
        }))
    }

    /// Until when somebody may wait who comes now.
    pub(super) fn deadline(&self) -> Instant {
        self.resolver.deadline()
    }

    /// Waits until the ID that a host service asks for is known: it may be a container's that is just being made.
    pub(super) async fn wait_until_known(&self, wanted: &Wanted, until: Instant) {
        let Wanted::Id(credential) = wanted else {
            return;
        };
        let registry = Arc::clone(self.access.borrow().attributor.registry());
        let known = async {
            while registry.read().claims().holder(credential) == Holder::Nobody {
                sleep(LOOK_AGAIN).await;
            }
        };
        if timeout_at(until, known).await.is_err() {
            debug!("a host service asks for a credential ID that nobody has");
        }
    }

    /// Who that is by what holds now. Of one whose cgroup nobody knows, the sources are asked before, as long as there is time.
    pub(super) async fn caller(&self, sender: &Sender, until: Instant) -> Caller {
        let now = || Caller::new(Arc::clone(&self.access.borrow()), sender.0.as_ref());
        let caller = now();
        if !caller.is_in_doubt() {
            return caller;
        }
        let attributor = Arc::clone(&self.access.borrow().attributor);
        let mut resolution = Resolution::Complete;
        for unowned in attributor.unowned(sender.0.as_ref()) {
            let path = Path::new(&*unowned.located.path);
            match self.resolver.resolve(path, unowned.depth, until).await {
                Resolution::Complete => attributor.settle(unowned.cgroup_id),
                Resolution::Unknown => resolution = Resolution::Unknown,
            }
        }
        match resolution {
            Resolution::Complete => now(),
            Resolution::Unknown => now().unresolved(),
        }
    }
}

// === impl Sender ===

impl Sender {
    /// One that the kernel would announce like this.
    pub(super) const fn of(handshake: Handshake) -> Self {
        Self(Some(handshake))
    }

    /// As the kernel announced it.
    pub(super) fn identity(&self) -> Option<Identity> {
        self.0.map(|handshake| handshake.identity)
    }
}
