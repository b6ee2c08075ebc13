//! Who gets what, by what the sources say.

use std::sync::Arc;

use proptest::{
    prelude::{Just, Strategy, prop_assert, prop_assert_eq, prop_oneof, proptest},
    sample::select,
};

use super::{AccessRequest, ApiVersion, CredentialId, Decision, DenialReason, Wanted, decide, observed};
use crate::{
    attribution::{
        Attributed, Owner, SourceKind, TaskName, Tasks,
        tests::{entry, tasks},
    },
    host::treatment::Consumer,
};

fn id(text: &str) -> CredentialId {
    CredentialId::requested(text)
}

fn known() -> Tasks {
    tasks(&[
        ("/web", "web", "id-web"),
        ("/web-2", "web", "id-web-2"),
        ("/batch", "batch", "id-batch"),
    ])
}

fn request(credential: &str) -> AccessRequest {
    AccessRequest {
        version: ApiVersion::V2,
        wanted: Wanted::Id(id(credential)),
    }
}

const OWN: AccessRequest = AccessRequest {
    version: ApiVersion::V2,
    wanted: Wanted::Own,
};

fn task(name: &str) -> Attributed {
    Attributed::Task(Owner::of(&TaskName::new(name)))
}

fn denied(decision: Decision) -> DenialReason {
    match decision {
        Decision::Denial(reason) => reason,
        Decision::Permit(permit) => panic!("{permit:?}"),
    }
}

#[test]
fn the_owner_gets_a_permit_for_exactly_its_id() {
    let Decision::Permit(permit) = decide(known().claims(), &task("web"), &request("id-web-2")) else {
        panic!("the owner was refused");
    };
    assert_eq!(permit.task(), Some(&TaskName::new("web")));
    assert_eq!(permit.credential(), Some(&id("id-web-2")));
}

#[test]
fn ids_are_compared_byte_for_byte() {
    for other in ["ID-WEB", "id-web/", "id-web/x", " id-web", "id-we"] {
        let decision = decide(known().claims(), &task("web"), &request(other));
        assert_eq!(denied(decision), DenialReason::UnknownId);
    }
}

#[test]
fn who_asks_for_its_own_credentials_gets_those_of_its_id_or_of_its_role() {
    let tasks = known();
    let own = |credential: Option<&str>, role_arn: Option<&str>| {
        let owner = Owner {
            task: TaskName::new("web"),
            role_arn: role_arn.map(Into::into),
            credential: credential.map(id),
        };
        match decide(tasks.claims(), &Attributed::Task(owner), &OWN) {
            Decision::Permit(permit) => Ok((permit.credential().cloned(), permit.role_arn().cloned())),
            Decision::Denial(reason) => Err(reason),
        }
    };
    assert_eq!(own(Some("id-web"), None), Ok((Some(id("id-web")), None)));
    assert_eq!(own(None, Some("arn:web")), Ok((None, Some("arn:web".into()))));
    assert_eq!(own(None, None), Err(DenialReason::NoRole));
    // Its container was given the ID of another task.
    assert_eq!(own(Some("id-batch"), None), Err(DenialReason::NoRole));
    assert_eq!(
        own(Some("id-batch"), Some("arn:web")),
        Ok((None, Some("arn:web".into())))
    );
}

#[test]
fn an_execution_roles_id_is_nobodys_whoever_claims_it() {
    let mut tasks = known();
    let mut engine = entry("/docker/x", "other", "id-other");
    engine.execution_ids = [id("id-web")].into();
    let conflicts = tasks.put(SourceKind::Registration, engine).unwrap();
    assert_eq!(conflicts[0].refused, TaskName::new("web"));
    for caller in ["web", "other"] {
        let decision = decide(tasks.claims(), &task(caller), &request("id-web"));
        assert_eq!(denied(decision), DenialReason::ExecutionRole);
    }
}

#[test]
fn an_observed_denial_is_answered_as_the_owner_would_be() {
    let permit = observed(known().claims(), &request("id-batch")).unwrap();
    assert_eq!(
        (permit.task(), permit.credential()),
        (Some(&TaskName::new("batch")), Some(&id("id-batch")))
    );
    let permit = observed(known().claims(), &request("nobodys")).unwrap();
    assert_eq!((permit.task(), permit.credential()), (None, Some(&id("nobodys"))));
    for none in ["", "..", "a/b", "a b"] {
        assert_eq!(observed(known().claims(), &request(none)), None);
    }
    assert_eq!(observed(known().claims(), &OWN), None);
}

fn any_caller() -> impl Strategy<Value = Attributed> {
    prop_oneof![
        select(vec!["web", "batch", "idle"]).prop_map(task),
        Just(Attributed::UnknownSender),
        Just(Attributed::AmbiguousSender),
        Just(Attributed::SenderGone),
        Just(Attributed::SocketFromElsewhere),
        Just(Attributed::NoTask),
        Just(Attributed::Unresolved),
    ]
}

fn consumer(execution: bool, task: bool) -> Attributed {
    let name = "docker".into();
    Attributed::Consumer(Arc::new(Consumer { name, execution, task }))
}

proptest! {
    #[test]
    fn only_a_known_owner_is_permitted(
        caller in any_caller(),
        credential in select(vec!["id-web", "id-web-2", "id-batch", "", "other"]),
    ) {
        let owns = match &caller {
            Attributed::Task(owner) => matches!(
                (owner.task.as_str(), credential),
                ("web", "id-web" | "id-web-2") | ("batch", "id-batch")
            ),
            Attributed::UnknownSender | Attributed::AmbiguousSender | Attributed::SenderGone
            | Attributed::SocketFromElsewhere | Attributed::NoTask | Attributed::Unresolved
            | Attributed::Consumer(_) => false,
        };
        let decision = decide(known().claims(), &caller, &request(credential));
        prop_assert_eq!(matches!(decision, Decision::Permit(_)), owns);
    }

    #[test]
    fn a_host_service_gets_exactly_the_kinds_it_may_have(
        execution: bool,
        task: bool,
        credential in select(vec!["id-web", "id-execution", "other", ""]),
    ) {
        let mut tasks = known();
        let mut engine = entry("/docker/x", "x", "id-x");
        engine.execution_ids = [id("id-execution")].into();
        tasks.put(SourceKind::Docker, engine).unwrap();
        let may = match credential {
            "id-web" => task,
            "id-execution" => execution,
            _ => false,
        };
        let caller = consumer(execution, task);
        match decide(tasks.claims(), &caller, &request(credential)) {
            Decision::Permit(permit) => prop_assert_eq!((may, permit.credential()), (true, Some(&id(credential)))),
            Decision::Denial(_) => prop_assert!(!may),
        }
        prop_assert_eq!(denied(decide(tasks.claims(), &caller, &OWN)), DenialReason::NoRole);
    }
}
