//! Policy: who may have which credentials.
//!
//! [`Ownership::decide`] is pure and total: it sees values only, and the [`Permit`] it returns has no other
//! constructor, so that asking an upstream without a decision does not type-check.

mod decision;
mod request;

use std::collections::HashMap;

pub use self::{
    decision::{Decision, DenialReason, Permit},
    request::{AccessRequest, ApiVersion, CredentialId, InvalidCredentialId},
};
use crate::attribution::{Attributed, TaskName};

/// Which task owns which credential ID. An ID has one owner.
#[derive(Debug, Default)]
pub struct Ownership {
    owners: HashMap<CredentialId, TaskName>,
}

// === impl Ownership ===

impl Ownership {
    /// Decides one request of one caller.
    ///
    /// What is wrong with the caller comes before what is wrong with the ID, so that a caller nobody vouches for
    /// learns nothing, not even through the audit trail, about IDs.
    #[must_use]
    pub fn decide(&self, caller: &Attributed, request: &AccessRequest) -> Decision {
        let task = match caller {
            Attributed::Task(task) => task,
            Attributed::UnknownSender => return Decision::Denial(DenialReason::UnknownSender),
            Attributed::AmbiguousSender => return Decision::Denial(DenialReason::AmbiguousSender),
            Attributed::SenderGone => return Decision::Denial(DenialReason::SenderGone),
            Attributed::SocketFromElsewhere => return Decision::Denial(DenialReason::SocketFromElsewhere),
            Attributed::NoTask => return Decision::Denial(DenialReason::NoTask),
        };
        match self.owners.get_key_value(&request.credential) {
            Some((credential, owner)) if owner == task => Decision::Permit(Permit::new(Some(owner), credential)),
            Some(_) => Decision::Denial(DenialReason::NotOwner),
            None => Decision::Denial(DenialReason::UnknownId),
        }
    }

    /// The permit for a request that was denied, where denials are only observed: the request is answered as if the owner
    /// had asked. None if nobody could be permitted it, because it is no ID.
    ///
    /// This is the one place where a permit does not mean ownership; nobody asks for it where policy is enforced. An ID
    /// nobody is known to own is the caller's own text, checked to be one that could be granted: only an upstream that
    /// knows more IDs than the configuration has an answer to it.
    #[must_use]
    pub fn observed(&self, request: &AccessRequest) -> Option<Permit> {
        match self.owners.get_key_value(&request.credential) {
            Some((credential, owner)) => Some(Permit::new(Some(owner), credential)),
            None => CredentialId::granted(request.credential.expose())
                .ok()
                .map(|credential| Permit::new(None, &credential)),
        }
    }
}

impl FromIterator<(CredentialId, TaskName)> for Ownership {
    /// The first claim of an ID wins; the configuration refuses a second one before it gets here.
    fn from_iter<I: IntoIterator<Item = (CredentialId, TaskName)>>(claims: I) -> Self {
        let mut owners = HashMap::new();
        for (credential, task) in claims {
            owners.entry(credential).or_insert(task);
        }
        Self { owners }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{
        prelude::{Just, Strategy, prop_assert_eq, prop_oneof, proptest},
        sample::select,
    };

    use super::{AccessRequest, ApiVersion, CredentialId, Decision, DenialReason, Ownership};
    use crate::attribution::{Attributed, TaskName};

    fn id(text: &str) -> CredentialId {
        CredentialId::requested(text)
    }

    fn ownership() -> Ownership {
        [("id-web", "web"), ("id-web-2", "web"), ("id-batch", "batch")]
            .into_iter()
            .map(|(credential, task)| (id(credential), TaskName::new(task)))
            .collect()
    }

    fn request(credential: &str) -> AccessRequest {
        AccessRequest {
            version: ApiVersion::V2,
            credential: id(credential),
        }
    }

    fn task(name: &str) -> Attributed {
        Attributed::Task(TaskName::new(name))
    }

    #[test]
    fn the_owner_gets_a_permit_for_exactly_its_id() {
        let Decision::Permit(permit) = ownership().decide(&task("web"), &request("id-web-2")) else {
            panic!("the owner was refused");
        };
        assert_eq!(permit.task(), Some(&TaskName::new("web")));
        assert_eq!(permit.credential(), &id("id-web-2"));
    }

    #[test]
    fn ids_are_compared_byte_for_byte() {
        for other in ["ID-WEB", "id-web/", "id-web/x", " id-web", "id-we"] {
            assert_eq!(
                ownership().decide(&task("web"), &request(other)),
                Decision::Denial(DenialReason::UnknownId)
            );
        }
    }

    #[test]
    fn the_first_claim_of_an_id_wins() {
        let claims = [("x", "web"), ("x", "batch")].map(|(credential, task)| (id(credential), TaskName::new(task)));
        let ownership: Ownership = claims.into_iter().collect();
        assert!(matches!(
            ownership.decide(&task("web"), &request("x")),
            Decision::Permit(_)
        ));
        assert_eq!(
            ownership.decide(&task("batch"), &request("x")),
            Decision::Denial(DenialReason::NotOwner)
        );
    }

    #[test]
    fn an_observed_denial_is_answered_as_the_owner_would_be() {
        let permit = ownership().observed(&request("id-batch")).unwrap();
        assert_eq!(
            (permit.task(), permit.credential()),
            (Some(&TaskName::new("batch")), &id("id-batch"))
        );
        let permit = ownership().observed(&request("nobodys")).unwrap();
        assert_eq!((permit.task(), permit.credential()), (None, &id("nobodys")));
        for none in ["", "..", "a/b", "a b"] {
            assert_eq!(ownership().observed(&request(none)), None);
        }
    }

    fn any_caller() -> impl Strategy<Value = Attributed> {
        prop_oneof![
            select(vec!["web", "batch", "idle"]).prop_map(task),
            Just(Attributed::UnknownSender),
            Just(Attributed::AmbiguousSender),
            Just(Attributed::SenderGone),
            Just(Attributed::SocketFromElsewhere),
            Just(Attributed::NoTask),
        ]
    }

    proptest! {
        #[test]
        fn only_a_known_owner_is_permitted(
            caller in any_caller(),
            credential in select(vec!["id-web", "id-web-2", "id-batch", "", "other"]),
        ) {
            let owns = match &caller {
                Attributed::Task(name) => matches!(
                    (name.as_str(), credential),
                    ("web", "id-web" | "id-web-2") | ("batch", "id-batch")
                ),
                Attributed::UnknownSender | Attributed::AmbiguousSender | Attributed::SenderGone
                | Attributed::SocketFromElsewhere | Attributed::NoTask => false,
            };
            let decision = ownership().decide(&caller, &request(credential));
            prop_assert_eq!(matches!(decision, Decision::Permit(_)), owns);
        }
    }
}
