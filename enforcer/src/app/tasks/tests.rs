//! What is told about tasks.

use super::{details, summaries};
use crate::{
    attribution::{
        SourceKind, Tasks,
        tests::{entry, tasks},
    },
    control::task::Holder,
    policy::CredentialId,
};

/// A configured task with a container below it, and another container that claims the task's ID.
fn known() -> Tasks {
    let mut known = tasks(&[("/ecs/web", "web", "id-web")]);
    for (cgroup, task, credential) in [("/ecs/web/1", "container", "id-1"), ("/docker/x", "greedy", "id-web")] {
        known.put(SourceKind::Docker, entry(cgroup, task, credential)).unwrap();
    }
    known
}

#[test]
fn a_task_is_listed_with_all_who_know_it_and_with_its_claims() {
    let listed = summaries(&known());
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
    let web = details(&known, "web", hash).unwrap();
    assert_eq!(
        (&*web.said[1].named, web.said[1].source),
        ("container", SourceKind::Docker)
    );
    let claims: Vec<_> = (web.claims.iter())
        .map(|claim| (&*claim.credential, &claim.holder, claim.refused.len()))
        .collect();
    assert_eq!(claims, [("#6", &Holder::Own, 1), ("#4", &Holder::Own, 0)]);
    let greedy = details(&known, "greedy", hash).unwrap();
    assert_eq!(greedy.claims[0].holder, Holder::Task("web".to_owned()));
    for told in [web, greedy] {
        let text = serde_json::to_string(&told).unwrap();
        assert!(!text.contains("id-web") && !text.contains("id-1"), "{text}");
    }
    assert_eq!(details(&known, "nobody", hash), None);
}

#[test]
fn what_was_taken_back_is_leaving_and_known_only_for_its_ids() {
    let mut known = known();
    let id = entry("/docker/x", "greedy", "").id;
    known.remove(SourceKind::Docker, &id);
    assert!(summaries(&known)[0].leaving && !summaries(&known)[1].leaving);
    known.sweep(|_| true);
    assert_eq!(summaries(&known).len(), 1);
}
