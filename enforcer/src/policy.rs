//! Policy: who may have which credentials.
//!
//! [`decide`] is pure and total: it sees values only, and the [`Permit`] it returns has no other constructor, so that asking
//! an upstream without a decision does not type-check.

mod decision;
mod request;

pub use self::{
    decision::{Decision, DenialReason, Permit},
    request::{AccessRequest, ApiVersion, CredentialId, InvalidCredentialId, Wanted},
};
use crate::{
    attribution::{Attributed, Claims, Holder, Owner},
    host::treatment::Consumer,
};

/// Decides one request of one caller.
///
/// What is wrong with the caller comes before what is wrong with the ID, so that a caller nobody vouches for learns
/// nothing, not even through the audit trail, about IDs.
#[must_use]
pub fn decide(claims: &Claims, caller: &Attributed, request: &AccessRequest) -> Decision {
    let owner = match caller {
        Attributed::Task(owner) => owner,
        Attributed::Consumer(consumer) => return decide_consumer(claims, consumer, request),
        Attributed::UnknownSender => return Decision::Denial(DenialReason::UnknownSender),
        Attributed::AmbiguousSender => return Decision::Denial(DenialReason::AmbiguousSender),
        Attributed::SenderGone => return Decision::Denial(DenialReason::SenderGone),
        Attributed::SocketFromElsewhere => return Decision::Denial(DenialReason::SocketFromElsewhere),
        Attributed::NoTask => return Decision::Denial(DenialReason::NoTask),
        Attributed::Unresolved => return Decision::Denial(DenialReason::Unresolved),
    };
    match &request.wanted {
        Wanted::Own => own(claims, owner),
        Wanted::Id(credential) => match claims.holder(credential) {
            Holder::Task(holder) if *holder == owner.task => {
                Decision::Permit(Permit::new(Some(owner), claims.known(credential)))
            }
            Holder::Task(_) => Decision::Denial(DenialReason::NotOwner),
            Holder::Execution => Decision::Denial(DenialReason::ExecutionRole),
            Holder::Nobody => Decision::Denial(DenialReason::UnknownId),
        },
    }
}

/// A host service gets what the configuration lets it have, and has nothing of its own.
fn decide_consumer(claims: &Claims, consumer: &Consumer, request: &AccessRequest) -> Decision {
    let Wanted::Id(credential) = &request.wanted else {
        return Decision::Denial(DenialReason::NoRole);
    };
    match claims.holder(credential) {
        Holder::Task(task) if consumer.task => {
            Decision::Permit(Permit::new(Some(&Owner::of(task)), claims.known(credential)))
        }
        Holder::Execution if consumer.execution => Decision::Permit(Permit::new(None, claims.known(credential))),
        Holder::Task(_) => Decision::Denial(DenialReason::NotOwner),
        Holder::Execution => Decision::Denial(DenialReason::ExecutionRole),
        Holder::Nobody => Decision::Denial(DenialReason::UnknownId),
    }
}

/// The caller's own credentials, which take no ID.
fn own(claims: &Claims, owner: &Owner) -> Decision {
    let is_its_own = |credential: &&CredentialId| claims.holder(credential) == Holder::Task(&owner.task);
    let credential = owner.credential.as_ref().filter(is_its_own);
    if credential.is_none() && owner.role_arn.is_none() {
        return Decision::Denial(DenialReason::NoRole);
    }
    Decision::Permit(Permit::new(Some(owner), credential))
}

/// The permit for a request that was denied, where denials are only observed: the request is answered as if the owner had
/// asked. None if nobody could be permitted it, because it is no ID.
///
/// This is the one place where a permit does not mean ownership; nobody asks for it where policy is enforced. An ID nobody
/// is known to own is the caller's own text, checked to be one that could be granted: only an upstream that knows more IDs
/// than the sources has an answer to it.
#[must_use]
pub fn observed(claims: &Claims, request: &AccessRequest) -> Option<Permit> {
    let Wanted::Id(credential) = &request.wanted else {
        return None;
    };
    let granted = CredentialId::granted(credential.expose()).ok()?;
    let holder = match claims.holder(credential) {
        Holder::Task(task) => Some(Owner::of(task)),
        Holder::Execution | Holder::Nobody => None,
    };
    Some(Permit::new(holder.as_ref(), Some(&granted)))
}

#[cfg(test)]
mod tests;
