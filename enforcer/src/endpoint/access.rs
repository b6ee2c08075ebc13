//! Access: everything about who gets what that a reload can change, as one value, so that a request never sees half of
//! one configuration and half of another.

use std::{path::Path, sync::Arc};

use enforcer_common::handshake::Handshake;

use super::limits::Whose;
use crate::{
    attribution::{Attributed, Attributor, Located},
    policy::{self, AccessRequest, Decision, Permit},
    upstream::{Upstream, Vouch},
};

/// Who is who, who owns what, and who holds it.
#[derive(Debug)]
pub struct Access {
    /// Tells whose a cgroup is, and whose a credential ID.
    pub attributor: Arc<Attributor>,
    /// Has the credentials.
    pub upstream: Upstream,
}

/// Who a sender is at the moment of one request.
#[derive(Debug)]
pub(super) struct Caller {
    access: Arc<Access>,
    attributed: Attributed,
    /// Where its cgroup is.
    pub(super) located: Option<Arc<Located>>,
}

// === impl Caller ===

impl Caller {
    pub(super) fn new(access: Arc<Access>, handshake: Option<&Handshake>) -> Self {
        let cgroup = handshake.map_or(0, |handshake| handshake.identity.sender_cgroup());
        Self {
            attributed: access.attributor.attribute(handshake),
            located: access.attributor.locate(cgroup),
            access,
        }
    }

    /// Decides one request.
    pub(super) fn decide(&self, request: &AccessRequest) -> Decision {
        let tasks = self.access.attributor.registry().read();
        policy::decide(tasks.claims(), &self.attributed, request)
    }

    /// The permit for a request that was denied, if denials of this caller are only observed.
    pub(super) fn observed(&self, request: &AccessRequest) -> Option<Permit> {
        // Of one whose place is in doubt, another may have put it into an observed place.
        let place = match self.attributed {
            Attributed::Task(_) | Attributed::NoTask => self.located.as_deref(),
            Attributed::Consumer(_)
            | Attributed::UnknownSender
            | Attributed::AmbiguousSender
            | Attributed::SenderGone
            | Attributed::SocketFromElsewhere
            | Attributed::Unresolved => None,
        };
        let observes = self.access.attributor.observes(place);
        let tasks = self.access.attributor.registry().read();
        observes.then(|| policy::observed(tasks.claims(), request)).flatten()
    }

    /// Who is asked for its credentials.
    pub(super) fn upstream(&self) -> &Upstream {
        &self.access.upstream
    }

    /// Whether it is a host service that may ask for credentials which are not its own.
    pub(super) const fn is_consumer(&self) -> bool {
        matches!(self.attributed, Attributed::Consumer(_))
    }

    /// Whose connections it has.
    pub(super) fn whose(&self) -> Whose {
        match &self.attributed {
            Attributed::Task(owner) => Whose::Task(owner.task.clone()),
            Attributed::Consumer(consumer) => Whose::Consumer(Arc::clone(consumer)),
            Attributed::UnknownSender
            | Attributed::AmbiguousSender
            | Attributed::SenderGone
            | Attributed::SocketFromElsewhere
            | Attributed::NoTask => Whose::Nobody,
            Attributed::Unresolved => Whose::Unresolved,
        }
    }

    /// The same caller, of whom the sources could not be asked in time.
    pub(super) fn unresolved(mut self) -> Self {
        if self.is_in_doubt() {
            self.attributed = Attributed::Unresolved;
        }
        self
    }

    /// Whether a source may know better who this is.
    pub(super) const fn is_in_doubt(&self) -> bool {
        matches!(self.attributed, Attributed::NoTask | Attributed::SocketFromElsewhere)
    }
}

// === impl Vouch ===

impl Vouch for Attributor {
    /// Trusted host services may, and while nothing is blocked, everybody.
    fn vouches_for(&self, cgroup_id: u64) -> bool {
        let is_trusted = |located: Arc<Located>| self.trusts(Path::new(&*located.path));
        self.observes(None) || self.locate(cgroup_id).is_some_and(is_trusted)
    }
}
