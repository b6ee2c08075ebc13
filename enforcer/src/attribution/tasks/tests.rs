//! Who owns what after which statements.

mod any_order;

use std::path::Path;

use jiff::Timestamp;

use super::{super::tests::entry, Tasks};
use crate::{
    attribution::{Entry, Holder, SourceKind, TaskName},
    policy::CredentialId,
};

/// What an engine says of a container that is so many seconds old since the epoch.
fn container(cgroup: &str, task: &str, credential: &str, created: i64) -> Entry {
    Entry {
        created: Timestamp::from_second(created).unwrap(),
        ..entry(cgroup, task, credential)
    }
}

fn owner(tasks: &Tasks, path: &str) -> Option<String> {
    let owner = tasks.owner(Path::new(path), |_, _| true)?;
    Some(owner.task.as_str().to_owned())
}

fn holder(tasks: &Tasks, credential: &str) -> String {
    match tasks.claims().holder(&CredentialId::requested(credential)) {
        Holder::Task(task) => task.as_str().to_owned(),
        Holder::Execution => "execution".to_owned(),
        Holder::Nobody => "nobody".to_owned(),
    }
}

#[test]
fn of_two_containers_that_claim_an_id_the_older_has_it_in_any_order() {
    let (older, newer) = (
        container("/docker/1", "older", "id", 1),
        container("/docker/2", "newer", "id", 2),
    );
    for order in [[older.clone(), newer.clone()], [newer, older]] {
        let mut tasks = Tasks::default();
        let conflicts: Vec<_> = order
            .into_iter()
            .flat_map(|entry| tasks.put(SourceKind::Docker, entry).unwrap())
            .collect();
        assert_eq!(holder(&tasks, "id"), "older");
        assert_eq!(conflicts.len(), 1);
        assert_eq!(conflicts[0].refused, TaskName::new("newer"));
        assert_eq!(conflicts[0].holder, Some(TaskName::new("older")));
    }
}

#[test]
fn what_is_stated_has_an_id_before_whoever_is_older() {
    let mut tasks = Tasks::default();
    tasks
        .put(SourceKind::Docker, container("/docker/1", "container", "id", 1))
        .unwrap();
    tasks
        .put(SourceKind::Registration, container("/r", "registered", "id", 9))
        .unwrap();
    assert_eq!(holder(&tasks, "id"), "registered");
    assert_eq!(tasks.claims().conflicts().count(), 1);
}

#[test]
fn containers_of_one_task_share_its_id_until_the_last_is_gone() {
    let mut tasks = Tasks::default();
    let (one, two) = (
        container("/ecs/1", "task", "id", 1),
        container("/ecs/2", "task", "id", 2),
    );
    assert!(tasks.put(SourceKind::Docker, one.clone()).unwrap().is_empty());
    assert!(tasks.put(SourceKind::Docker, two.clone()).unwrap().is_empty());
    tasks.remove(SourceKind::Docker, &one.id);
    tasks.sweep(|_| true);
    assert_eq!(holder(&tasks, "id"), "task");
    tasks.remove(SourceKind::Docker, &two.id);
    tasks.sweep(|_| true);
    assert_eq!(holder(&tasks, "id"), "nobody");
}

#[test]
fn an_id_is_free_only_when_the_last_cgroup_is_gone() {
    let mut tasks = Tasks::default();
    let leaving = container("/docker/1", "leaving", "id", 1);
    tasks.put(SourceKind::Docker, leaving.clone()).unwrap();
    assert!(tasks.remove(SourceKind::Docker, &leaving.id));
    assert_eq!(owner(&tasks, "/docker/1"), None);
    tasks
        .put(SourceKind::Docker, container("/docker/2", "next", "id", 2))
        .unwrap();
    tasks.sweep(|_| false);
    assert_eq!(holder(&tasks, "id"), "leaving");
    tasks.sweep(|_| true);
    assert_eq!(holder(&tasks, "id"), "next");
}

#[test]
fn a_container_that_is_taken_back_and_told_again_is_there_again() {
    let mut tasks = Tasks::default();
    let again = container("/docker/1", "again", "id", 1);
    tasks.put(SourceKind::Docker, again.clone()).unwrap();
    tasks.remove(SourceKind::Docker, &again.id);
    tasks.put(SourceKind::Docker, again).unwrap();
    tasks.sweep(|_| true);
    assert_eq!(owner(&tasks, "/docker/1/deep").unwrap(), "again");
    assert_eq!(holder(&tasks, "id"), "again");
}

#[test]
fn what_is_stated_owns_the_containers_below_it_and_what_they_claim() {
    for is_stated_first in [true, false] {
        let mut tasks = Tasks::default();
        let stated = entry("/ecs/web", "web", "id-web");
        let below = container("/ecs/web/1", "container", "id-1", 1);
        if is_stated_first {
            tasks.put(SourceKind::Config, stated.clone()).unwrap();
            tasks.put(SourceKind::Docker, below).unwrap();
        } else {
            tasks.put(SourceKind::Docker, below).unwrap();
            tasks.put(SourceKind::Config, stated.clone()).unwrap();
        }
        assert_eq!(owner(&tasks, "/ecs/web/1/init").unwrap(), "web");
        assert_eq!(holder(&tasks, "id-1"), "web");
        tasks.remove(SourceKind::Config, &stated.id);
        tasks.sweep(|_| true);
        assert_eq!(owner(&tasks, "/ecs/web/1/init").unwrap(), "container");
        assert_eq!(holder(&tasks, "id-1"), "container");
        assert_eq!(holder(&tasks, "id-web"), "nobody");
    }
}

#[test]
fn a_task_that_is_stated_anew_under_another_name_keeps_its_ids() {
    for source in [SourceKind::Config, SourceKind::Registration] {
        let mut tasks = Tasks::default();
        let (web, mut shop) = (entry("/ecs/web", "web", "id"), container("/ecs/web", "shop", "id", 9));
        tasks.put(source, web.clone()).unwrap();
        tasks
            .put(SourceKind::Docker, container("/ecs/web/1", "container", "id-1", 1))
            .unwrap();
        tasks.remove(source, &web.id);
        assert_eq!(
            (holder(&tasks, "id"), holder(&tasks, "id-1")),
            ("web".into(), "container".into())
        );
        let conflicts = if source == SourceKind::Registration {
            tasks.register(shop.clone()).unwrap()
        } else {
            tasks.put(source, shop.clone()).unwrap()
        };
        tasks.sweep(|_| false);
        assert_eq!(conflicts, []);
        assert_eq!(owner(&tasks, "/ecs/web/1").unwrap(), "shop");
        assert_eq!(
            (holder(&tasks, "id"), holder(&tasks, "id-1")),
            ("shop".into(), "shop".into())
        );
        assert_eq!(tasks.count(source), 1);
        // What it does not state is not its own.
        shop.credential_ids = [CredentialId::requested("other")].into();
        tasks.put(source, shop).unwrap();
        assert_eq!(
            (holder(&tasks, "id"), holder(&tasks, "other")),
            ("web".into(), "shop".into())
        );
    }
}

#[test]
fn an_id_that_was_taken_back_elsewhere_too_is_not_anothers() {
    let mut tasks = Tasks::default();
    let mut web = entry("/a", "web", "id");
    web.cgroups = [web.cgroups[0].clone(), entry("/b", "", "").cgroups[0].clone()].into();
    tasks.register(web.clone()).unwrap();
    tasks.remove(SourceKind::Registration, &web.id);
    let taken = tasks.register(entry("/a", "shop", "id")).unwrap_err();
    assert_eq!(taken.holder(), Some(&TaskName::new("web")));
    let mut shop = entry("/b", "shop", "id");
    shop.cgroups = web.cgroups;
    tasks.register(shop.clone()).unwrap();
    assert_eq!(holder(&tasks, "id"), "shop");
    // One of them is gone, and the other is not.
    tasks.sweep(|cgroup| *cgroup.path == *Path::new("/a"));
    shop.cgroups = entry("/b", "", "").cgroups;
    tasks.register(shop).unwrap();
    assert_eq!((holder(&tasks, "id"), tasks.said().count()), ("shop".into(), 2));
    tasks.sweep(|_| true);
    assert_eq!(tasks.said().count(), 1);
}

#[test]
fn what_is_taken_back_leaves_the_containers_below_it_their_ids() {
    let mut tasks = Tasks::default();
    let stated = entry("/ecs/web", "web", "id-web");
    let over = container("/ecs/web/2", "over", "id-2", 1);
    tasks.put(SourceKind::Config, stated.clone()).unwrap();
    tasks
        .put(SourceKind::Docker, container("/ecs/web/1", "container", "id-1", 1))
        .unwrap();
    tasks.put(SourceKind::Docker, over.clone()).unwrap();
    tasks.remove(SourceKind::Docker, &over.id);
    assert_eq!(tasks.count(SourceKind::Docker), 1);
    tasks.remove(SourceKind::Config, &stated.id);
    tasks.sweep(|_| false);
    assert_eq!(owner(&tasks, "/ecs/web/1").unwrap(), "container");
    let holders = ["id-1", "id-2", "id-web"].map(|id| holder(&tasks, id));
    assert_eq!(holders, ["container", "web", "web"]);
    let names = tasks.said().map(|said| (said.task.as_str().to_owned(), said.is_over));
    let mut names: Vec<_> = names.collect();
    names.sort();
    assert_eq!(
        names,
        [("container", false), ("web", true), ("web", true)].map(|(task, is_over)| (task.to_owned(), is_over))
    );
}

#[test]
fn what_merely_begins_alike_is_not_below_what_is_stated() {
    let mut tasks = Tasks::default();
    for (cgroup, credential) in [
        ("/a/x", "inside"),
        ("/a-b/x", "beside"),
        ("/a-b", "before"),
        ("/ab", "behind"),
    ] {
        let entry = container(cgroup, "container", credential, 1);
        tasks.put(SourceKind::Docker, entry).unwrap();
    }
    tasks
        .put(SourceKind::Registration, container("/a", "registered", "id", 2))
        .unwrap();
    assert_eq!(holder(&tasks, "inside"), "registered");
    assert_eq!(owner(&tasks, "/a/x/y").as_deref(), Some("registered"));
    for (credential, cgroup) in [("beside", "/a-b/x"), ("before", "/a-b/y"), ("behind", "/ab")] {
        assert_eq!(holder(&tasks, credential), "container");
        assert_eq!(owner(&tasks, cgroup).as_deref(), Some("container"));
    }
}

#[test]
fn a_cgroup_that_is_stated_cannot_be_stated_to_be_anothers() {
    let mut tasks = Tasks::default();
    tasks.put(SourceKind::Config, entry("/ecs/web", "web", "a")).unwrap();
    let taken = tasks
        .put(SourceKind::Registration, entry("/ecs/web", "other", "b"))
        .unwrap_err();
    assert_eq!(
        taken.to_string(),
        "cgroup /ecs/web belongs to task \"web\" already, by config"
    );
    assert_eq!(holder(&tasks, "b"), "nobody");
}

#[test]
fn the_engine_names_the_task_and_the_runtime_below_adds_to_it() {
    let mut tasks = Tasks::default();
    let mut runtime = container("/docker/1", "oci", "id-runtime", 2);
    runtime.role_arn = Some("arn:role".into());
    tasks.put(SourceKind::Oci, runtime).unwrap();
    tasks
        .put(SourceKind::Docker, container("/docker/1", "docker", "id-engine", 1))
        .unwrap();
    let owner = tasks.owner(Path::new("/docker/1"), |_, _| true).unwrap();
    assert_eq!(owner.task, TaskName::new("docker"));
    assert_eq!(owner.role_arn.as_deref(), Some("arn:role"));
    assert_eq!(holder(&tasks, "id-runtime"), "docker");
    assert_eq!(holder(&tasks, "id-engine"), "docker");
}

/// A container in the cgroup of another, as a container's maker can choose with `--cgroup-parent`.
const INNER: &str = "/docker/1/2";

#[test]
fn a_container_in_the_cgroup_of_another_is_one_of_its_own_whatever_is_said_of_the_outer_one() {
    let (outer, inner) = (
        container("/docker/1", "outer", "id-1", 1),
        container(INNER, "inner", "id-2", 2),
    );
    let stated = entry("/docker/1", "stated", "id");
    let said = [
        (SourceKind::Docker, outer),
        (SourceKind::Docker, inner),
        (SourceKind::Registration, stated),
    ];
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut tasks = Tasks::default();
        for at in order {
            let (source, entry) = said[at].clone();
            tasks.put(source, entry).unwrap();
        }
        assert_eq!(owner(&tasks, "/docker/1/init").unwrap(), "stated", "{order:?}");
        assert_eq!(owner(&tasks, "/docker/1/2/init").unwrap(), "inner", "{order:?}");
        assert_eq!(holder(&tasks, "id-1"), "stated", "{order:?}");
        assert_eq!(holder(&tasks, "id-2"), "inner", "{order:?}");
        // It may be stated to be somebody's nevertheless.
        tasks.put(SourceKind::Config, entry(INNER, "nested", "id-3")).unwrap();
        assert_eq!(owner(&tasks, "/docker/1/2/init").unwrap(), "nested", "{order:?}");
        assert_eq!(holder(&tasks, "id-2"), "nested", "{order:?}");
    }
}

#[test]
fn what_is_left_of_a_container_in_the_cgroup_of_another_is_nobodys() {
    let mut tasks = Tasks::default();
    let inner = container(INNER, "inner", "id-2", 2);
    tasks.put(SourceKind::Docker, inner.clone()).unwrap();
    tasks
        .put(SourceKind::Docker, container("/docker/1", "outer", "id-1", 1))
        .unwrap();
    tasks.remove(SourceKind::Docker, &inner.id);
    assert_eq!(owner(&tasks, "/docker/1/2/init"), None);
    assert_eq!(owner(&tasks, "/docker/1").unwrap(), "outer");
    assert_eq!(holder(&tasks, "id-2"), "inner");
    tasks.sweep(|_| true);
    assert_eq!(owner(&tasks, "/docker/1/2").unwrap(), "outer");
}

#[test]
fn only_what_looks_like_a_container_below_a_container_may_be_anothers() {
    let id = "0123456789abcdef".repeat(4);
    let mut tasks = Tasks::default();
    tasks
        .put(
            SourceKind::Docker,
            container(&format!("/docker/{id}"), "outer", "id-1", 1),
        )
        .unwrap();
    tasks.put(SourceKind::Config, entry("/ecs/web", "web", "id-2")).unwrap();
    tasks
        .put(
            SourceKind::Config,
            entry(&format!("/docker/{id}/{id}"), "stated", "id-3"),
        )
        .unwrap();
    for (path, may_be) in [
        ("/docker/ID", false),
        ("/docker/ID/init", false),
        ("/docker/ID/docker/init/deep", false),
        ("/docker/ID/ID", false),
        ("/docker/ID/ID/init", false),
        ("/ecs/web/ID", false),
        ("/docker/else/ID", false),
        ("/docker/ID/docker/ID", true),
        ("/docker/ID/docker-ID.scope/init", true),
        ("/docker/ID/libpod-ID", true),
        ("/docker/ID/ID/ID", true),
    ] {
        assert_eq!(
            tasks.may_be_anothers(Path::new(&path.replace("ID", &id))),
            may_be,
            "{path}"
        );
    }
}

/// One whose engine uses an execution role's ID for it.
fn executed(cgroup: &str, task: &str, execution: &str, created: i64) -> Entry {
    Entry {
        credential_ids: [].into(),
        execution_ids: [CredentialId::requested(execution)].into(),
        ..container(cgroup, task, "", created)
    }
}

#[test]
fn an_execution_roles_id_is_nobodys_who_claims_it_later_or_beside_it() {
    for (claimant, created) in [("other", 2), ("other", 1), ("executed", 0)] {
        for is_named_first in [true, false] {
            let mut tasks = Tasks::default();
            let mut said = [
                executed("/docker/1", "executed", "id", 1),
                container("/docker/2", claimant, "id", created),
            ];
            if !is_named_first {
                said.reverse();
            }
            for entry in said {
                tasks.put(SourceKind::Docker, entry).unwrap();
            }
            assert_eq!(holder(&tasks, "id"), "execution");
            let conflicts: Vec<_> = tasks.claims().conflicts().collect();
            assert_eq!(conflicts.len(), 1);
            assert_eq!(
                (&conflicts[0].refused, &conflicts[0].holder),
                (&TaskName::new(claimant), &None)
            );
        }
    }
}

#[test]
fn who_calls_anothers_id_an_execution_roles_does_not_take_it_away() {
    let mut tasks = Tasks::default();
    tasks
        .put(SourceKind::Docker, container("/docker/1", "owner", "id", 1))
        .unwrap();
    let conflicts = tasks
        .put(SourceKind::Docker, executed("/docker/2", "thief", "id", 2))
        .unwrap();
    assert_eq!(holder(&tasks, "id"), "owner");
    assert_eq!(conflicts.len(), 1);
    assert_eq!(conflicts[0].refused, TaskName::new("thief"));
    assert_eq!(conflicts[0].holder, Some(TaskName::new("owner")));
    // Whoever states it explicitly is believed.
    tasks
        .put(SourceKind::Registration, executed("/r", "registered", "id", 3))
        .unwrap();
    assert_eq!(holder(&tasks, "id"), "execution");
}
