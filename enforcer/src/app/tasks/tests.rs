//! What is told about tasks.

use std::{net::Ipv4Addr, sync::Arc};

use super::{details, lacks, summaries, without_credentials};
use crate::{
    attribution::{
        SourceKind, TaskName, Tasks,
        tests::{entry, tasks},
    },
    config,
    control::task::Holder,
    policy::CredentialId,
    upstream::{Upstream, Vouch},
};

/// A configured task with a container below it, and another container that claims the task's ID.
fn known() -> Tasks {
    let mut known = tasks(&[("/ecs/web", "web", "id-web")]);
    for (cgroup, task, credential) in [("/ecs/web/1", "container", "id-1"), ("/docker/x", "greedy", "id-web")] {
        known.put(SourceKind::Docker, entry(cgroup, task, credential)).unwrap();
    }
    known
}

/// Vouches for nobody.
#[derive(Debug)]
struct Nobody;

impl Vouch for Nobody {
    fn vouches_for(&self, _cgroup_id: u64) -> bool {
        false
    }
}

/// There are credentials for everybody.
fn nothing_lacks(_task: &TaskName, _role_arn: &Arc<str>) -> bool {
    false
}

#[test]
fn a_task_is_listed_with_all_who_know_it_and_with_its_claims() {
    let listed = summaries(&known(), nothing_lacks);
    let told: Vec<_> = (listed.iter())
        .map(|task| (&*task.task, task.containers, task.cgroups, task.granted, task.refused))
        .collect();
    assert_eq!(told, [("greedy", 1, 1, 0, 1), ("web", 1, 2, 2, 0)]);
    assert_eq!(listed[1].sources, [SourceKind::Config, SourceKind::Docker]);
}

#[test]
fn everything_about_a_task_is_told_but_its_ids() {
    let known = known();
    let hash = |credential: &CredentialId| format!("#{}", credential.expose().len());
    let web = details(&known, "web", hash, nothing_lacks).unwrap();
    assert_eq!(
        (&*web.said[1].named, web.said[1].source),
        ("container", SourceKind::Docker)
    );
    let claims: Vec<_> = (web.claims.iter())
        .map(|claim| (&*claim.credential, &claim.holder, claim.refused.len()))
        .collect();
    assert_eq!(claims, [("#6", &Holder::Own, 1), ("#4", &Holder::Own, 0)]);
    let greedy = details(&known, "greedy", hash, nothing_lacks).unwrap();
    assert_eq!(greedy.claims[0].holder, Holder::Task("web".to_owned()));
    for told in [web, greedy] {
        let text = serde_json::to_string(&told).unwrap();
        assert!(!text.contains("id-web") && !text.contains("id-1"), "{text}");
    }
    assert_eq!(details(&known, "nobody", hash, nothing_lacks), None);
}

#[test]
fn what_was_taken_back_is_leaving_and_known_only_for_its_ids() {
    let mut known = known();
    let id = entry("/docker/x", "greedy", "").id;
    known.remove(SourceKind::Docker, &id);
    assert!(summaries(&known, nothing_lacks)[0].leaving && !summaries(&known, nothing_lacks)[1].leaving);
    known.sweep(|_| true);
    assert_eq!(summaries(&known, nothing_lacks).len(), 1);
}

#[test]
fn what_was_taken_back_is_not_listed_of_a_task_that_goes_on() {
    let mut known = known();
    let mut container = entry("/ecs/web/1", "container", "id-1");
    let id = Arc::clone(&container.id);
    container.role_arn = Some("arn:old".into());
    known.put(SourceKind::Docker, container).unwrap();
    for (sources, containers, cgroups, role_arn) in [
        (&[SourceKind::Config, SourceKind::Docker][..], 1, 2, Some("arn:old")),
        (&[SourceKind::Config], 0, 1, None),
    ] {
        let web = &summaries(&known, nothing_lacks)[1];
        assert_eq!(
            (&*web.sources, web.containers, web.cgroups),
            (sources, containers, cgroups)
        );
        assert_eq!(
            (web.role_arn.as_deref(), web.granted, web.leaving),
            (role_arn, 2, false)
        );
        known.remove(SourceKind::Docker, &id);
    }
}

#[test]
fn who_registers_a_role_that_gives_nothing_is_told_why() {
    let agent = config::Upstream::EcsAgent {
        address: (Ipv4Addr::LOCALHOST, 51679).into(),
        introspection_blocked: false,
    };
    let agent = Upstream::build(&agent, None, Arc::new(Nobody));
    let embedded = Upstream::build(&config::Upstream::Embedded(Vec::new()), None, Arc::new(Nobody));
    let (task, role) = (TaskName::new("web"), Arc::from("arn:web"));
    let warning = without_credentials(&agent, &task, &role, false).unwrap();
    assert!(
        warning.contains("knows no roles") && warning.contains("--credential-id"),
        "{warning}"
    );
    assert_eq!(without_credentials(&agent, &task, &role, true), None);
    for has_id in [false, true] {
        let warning = without_credentials(&embedded, &task, &role, has_id).unwrap();
        assert!(warning.contains("configure them as [[role]]"), "{warning}");
    }
    assert!(lacks(&embedded)(&task, &role) && !lacks(&agent)(&task, &role));
}

#[test]
fn a_role_nobody_has_credentials_for_is_marked() {
    let mut known = known();
    for (cgroup, task, role_arn) in [("/docker/y", "shop", "arn:SHOP"), ("/docker/z", "stock", "arn:stock")] {
        let mut container = entry(cgroup, task, "");
        container.role_arn = Some(role_arn.into());
        known.put(SourceKind::Docker, container).unwrap();
    }
    let lacks = |_task: &TaskName, role_arn: &Arc<str>| **role_arn == *"arn:SHOP";
    let marked: Vec<_> = (summaries(&known, lacks).into_iter())
        .filter_map(|task| task.no_credentials.then_some(task.task))
        .collect();
    assert_eq!(marked, ["shop"]);
    for (task, is_marked) in [("shop", true), ("stock", false), ("web", false)] {
        let shown = details(&known, task, |_| String::new(), lacks).unwrap();
        assert_eq!(shown.said[0].no_credentials, is_marked, "{task}");
    }
}
