//! Whose a sender is, by what the sources say; the tree is a table.

use std::{
    collections::HashMap,
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use enforcer_common::{
    cgroup::CgroupClass,
    handshake::{Handshake, state},
    identity::Identity,
};
use jiff::Timestamp;

use super::{Attributed, Attributor, Cgroup, CgroupPaths, Depth, Entry, Places, Registry, SourceKind, TaskName, Tasks};
use crate::{
    config::CgroupPattern,
    host::{
        cgroupfs::CgroupError,
        treatment::{Consumer, Rules, Says},
    },
    policy::CredentialId,
};

/// What a source says of a task with one cgroup and one credential ID.
pub(crate) fn entry(cgroup: &str, task: &str, credential: &str) -> Entry {
    Entry {
        id: format!("{task} in {cgroup}").into(),
        task: TaskName::new(task),
        cgroups: [Cgroup {
            path: Path::new(cgroup).into(),
            id: None,
        }]
        .into(),
        created: Timestamp::UNIX_EPOCH,
        credential_ids: [CredentialId::requested(credential)].into(),
        execution_ids: [].into(),
        role_arn: None,
        facts: [].into(),
    }
}

/// Tasks by cgroup, name and credential ID, as the configuration states them.
pub(crate) fn tasks(of: &[(&str, &str, &str)]) -> Tasks {
    let mut tasks = Tasks::default();
    for (cgroup, task, credential) in of {
        tasks.put(SourceKind::Config, entry(cgroup, task, credential)).unwrap();
    }
    tasks
}

/// Cgroups by ID.
#[derive(Clone, Debug)]
pub(crate) struct Tree(pub(crate) Arc<Mutex<HashMap<u64, &'static str>>>);

impl Tree {
    pub(crate) fn of(cgroups: &[(u64, &'static str)]) -> Self {
        Self(Arc::new(Mutex::new(cgroups.iter().copied().collect())))
    }
}

impl CgroupPaths for Tree {
    fn path_of(&self, id: u64) -> Result<Option<PathBuf>, CgroupError> {
        Ok(self.0.lock().unwrap().get(&id).map(PathBuf::from))
    }

    fn id_of(&self, path: &Path) -> Result<Option<u64>, CgroupError> {
        let tree = self.0.lock().unwrap();
        Ok(tree
            .iter()
            .find(|(_, known)| Path::new(known) == path)
            .map(|(id, _)| *id))
    }
}

/// A tree, and an attributor that knows two tasks in it.
fn world() -> (Tree, Arc<Registry>, Attributor) {
    let tree = Tree::of(&[
        (1, "/"),
        (10, "/ecs/web"),
        (11, "/ecs/web/container/deep"),
        (12, "/ecs/web-2"),
        (20, "/ecs/web/batch/x"),
        (30, "/system.slice/ssh.service"),
    ]);
    let registry = Arc::new(Registry::default());
    let entries = vec![entry("/ecs/web", "web", "a"), entry("/ecs/web/batch", "batch", "b")];
    registry.replace(SourceKind::Config, entries);
    let attributor = Attributor::new(tree.clone(), Arc::clone(&registry), Places::default());
    (tree, registry, attributor)
}

fn from(cgroup_id: u64, socket_cgroup_id: u64, state: u32) -> Handshake {
    Handshake {
        identity: Identity {
            cgroup_id,
            socket_cgroup_id,
            ..Identity::default()
        },
        state,
        reserved: 0,
    }
}

/// The task's name, or what else came of it.
fn whose(attributor: &Attributor, cgroup_id: u64, socket_cgroup_id: u64) -> String {
    let handshake = from(cgroup_id, socket_cgroup_id, state::CONFIRMED);
    let attributed = attributor.attribute(Some(&handshake));
    if let Attributed::Task(owner) = &attributed {
        owner.task.as_str().to_owned()
    } else {
        format!("{attributed:?}")
    }
}

#[test]
fn the_deepest_stated_cgroup_names_the_task() {
    let (_, _, attributor) = world();
    assert_eq!(whose(&attributor, 10, 0), "web");
    assert_eq!(whose(&attributor, 11, 10), "web");
    assert_eq!(whose(&attributor, 20, 0), "batch");
}

#[test]
fn a_cgroup_whose_name_merely_begins_alike_is_nobodys() {
    assert_eq!(whose(&world().2, 12, 12), "NoTask");
}

#[test]
fn a_packet_without_a_caller_is_attributed_by_its_socket() {
    let (_, _, attributor) = world();
    assert_eq!(whose(&attributor, 0, 11), "web");
    assert_eq!(whose(&attributor, 0, 0), "UnknownSender");
}

#[test]
fn a_socket_of_another_task_or_of_none_is_refused() {
    let (_, _, attributor) = world();
    for (caller, socket) in [(10, 20), (10, 30), (30, 10)] {
        assert_eq!(whose(&attributor, caller, socket), "SocketFromElsewhere");
    }
}

#[test]
fn a_vanished_cgroup_is_gone_unless_it_was_known() {
    let (tree, _, attributor) = world();
    assert_eq!(whose(&attributor, 99, 10), "SenderGone");
    assert_eq!(whose(&attributor, 10, 11), "web");
    tree.0.lock().unwrap().clear();
    assert_eq!(whose(&attributor, 10, 11), "web");
    assert_eq!(whose(&attributor, 20, 0), "SenderGone");
}

#[test]
fn a_change_holds_for_cgroups_that_are_known_already() {
    let (_, registry, attributor) = world();
    assert_eq!(whose(&attributor, 10, 20), "SocketFromElsewhere");
    registry.replace(SourceKind::Config, vec![entry("/ecs", "one", "a")]);
    assert_eq!(whose(&attributor, 10, 20), "one");
    registry.replace(SourceKind::Config, Vec::new());
    assert_eq!(whose(&attributor, 10, 20), "NoTask");
}

#[test]
fn who_has_the_number_of_anothers_process_is_not_the_other() {
    let (_, _, attributor) = world();
    let of = |cgroup_id| {
        let mut handshake = from(cgroup_id, cgroup_id, state::CONFIRMED);
        (handshake.identity.pid, handshake.identity.tid) = (4711, 4711);
        attributor.attribute(Some(&handshake))
    };
    for (cgroup_id, task) in [(10, "web"), (20, "batch"), (10, "web")] {
        let Attributed::Task(owner) = of(cgroup_id) else {
            panic!("it is a task's");
        };
        assert_eq!(owner.task, TaskName::new(task));
    }
    assert_eq!(of(30), Attributed::NoTask);
}

#[test]
fn what_comes_to_the_path_of_a_cgroup_that_is_gone_is_another_one() {
    let (tree, registry, attributor) = world();
    assert_eq!(whose(&attributor, 10, 0), "web");
    tree.0.lock().unwrap().remove(&10);
    tree.0.lock().unwrap().insert(40, "/ecs/web");
    assert_eq!(whose(&attributor, 10, 0), "web");
    registry.replace(SourceKind::Config, vec![entry("/ecs/web", "later", "c")]);
    assert_eq!(whose(&attributor, 10, 0), "NoTask");
    assert_eq!(whose(&attributor, 40, 0), "later");
}

#[test]
fn what_is_taken_back_is_so_for_cgroups_that_are_gone_too() {
    let (tree, registry, attributor) = world();
    assert_eq!(whose(&attributor, 11, 10), "web");
    tree.0.lock().unwrap().remove(&11);
    registry.put(SourceKind::Docker, container("/docker/1", "one")).unwrap();
    assert_eq!(whose(&attributor, 11, 10), "web");
    registry.replace(SourceKind::Config, Vec::new());
    assert_eq!(whose(&attributor, 11, 10), "NoTask");
    registry.replace(SourceKind::Config, vec![entry("/ecs/web", "web", "a")]);
    assert_eq!(whose(&attributor, 11, 10), "SocketFromElsewhere");
}

#[test]
fn what_is_not_taken_in_anew_does_not_stay_as_it_was() {
    let (_, registry, attributor) = world();
    registry
        .put(SourceKind::Registration, entry("/ecs/web-2", "registered", "c"))
        .unwrap();
    registry.replace(SourceKind::Config, vec![moved("/ecs/web-2")]);
    assert_eq!(whose(&attributor, 10, 0), "NoTask");
    assert_eq!(whose(&attributor, 12, 0), "registered");
    // Its own place may be another's from then on.
    registry.replace(SourceKind::Config, vec![moved("/ecs/web")]);
    let swapped = [moved("/ecs"), entry("/ecs/web", "one", "d")];
    registry.replace(SourceKind::Config, swapped.to_vec());
    assert_eq!(whose(&attributor, 10, 0), "one");
}

/// What the configuration says of the task that is web's at first, with another cgroup.
fn moved(cgroup: &str) -> Entry {
    Entry {
        id: entry("/ecs/web", "web", "a").id,
        ..entry(cgroup, "web", "a")
    }
}

#[test]
fn a_registered_cgroup_is_meant_and_not_its_path() {
    let (tree, registry, attributor) = world();
    let mut registered = entry("/ecs/web-2", "registered", "c");
    registered.cgroups[0].id = Some(12);
    registry.put(SourceKind::Registration, registered).unwrap();
    assert_eq!(whose(&attributor, 12, 0), "registered");
    tree.0.lock().unwrap().remove(&12);
    tree.0.lock().unwrap().insert(41, "/ecs/web-2");
    assert_eq!(whose(&attributor, 41, 0), "NoTask");
}

#[test]
fn a_host_service_that_may_ask_is_one_only_where_it_is_trusted() {
    let (tree, registry, _) = world();
    let consumer = Arc::new(Consumer {
        name: "engine".into(),
        execution: true,
        task: false,
    });
    let pattern = |path: &str| CgroupPattern::exactly(Path::new(path));
    let mut rules = Rules::default();
    let host = Says {
        class: Some(CgroupClass::Host),
        ..Says::default()
    };
    rules.add(&pattern("/system.slice/ssh.service"), host);
    for path in ["/system.slice/ssh.service", "/ecs/web-2"] {
        rules.add_consumer(&pattern(path), Arc::clone(&consumer));
    }
    let places = Places {
        rules: Arc::new(rules),
        ..Places::default()
    };
    let attributor = Attributor::new(tree, registry, places);
    let attribute = |caller, socket| attributor.attribute(Some(&from(caller, socket, state::CONFIRMED)));
    assert_eq!(attribute(30, 30), Attributed::Consumer(consumer));
    assert_eq!(attribute(12, 12), Attributed::NoTask);
    assert_eq!(attribute(30, 10), Attributed::SocketFromElsewhere);
    assert_eq!(attribute(30, 12), Attributed::SocketFromElsewhere);
}

#[test]
fn a_missing_or_ambiguous_handshake_is_nobodys() {
    let (_, _, attributor) = world();
    assert_eq!(attributor.attribute(None), Attributed::UnknownSender);
    for state in [0, state::AMBIGUOUS, 77] {
        let attributed = attributor.attribute(Some(&from(10, 10, state)));
        assert_eq!(attributed, Attributed::AmbiguousSender);
    }
}

#[test]
fn telling_whose_a_known_cgroup_is_takes_no_memory() {
    let (_, registry, attributor) = world();
    let ask = || {
        let handshake = from(11, 10, state::CONFIRMED);
        let asking = || drop(attributor.attribute(Some(&handshake)));
        allocation_counter::measure(asking).count_total
    };
    ask();
    assert_eq!(ask(), 0);
    registry
        .put(SourceKind::Docker, entry("/docker/1", "one", "c"))
        .unwrap();
    assert_eq!(ask(), 0, "after a change elsewhere");
    assert_eq!(ask(), 0);
}

/// What the Docker engine says of a container.
fn container(cgroup: &str, task: &str) -> Entry {
    Entry {
        credential_ids: [].into(),
        ..entry(cgroup, task, "")
    }
}

#[test]
fn what_looks_like_a_container_in_anothers_cgroup_is_nobodys_until_that_is_settled() {
    const OUTER: &str = "/docker/0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const INNER: &str = "/docker/0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef/docker-\
                         fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210.scope";
    let tree = Tree::of(&[(50, OUTER), (51, INNER), (52, "/docker/other")]);
    let registry = Arc::new(Registry::default());
    let attributor = Attributor::new(tree, Arc::clone(&registry), Places::default());
    registry.put(SourceKind::Docker, container(OUTER, "outer")).unwrap();
    assert_eq!(whose(&attributor, 50, 50), "outer");
    assert_eq!(whose(&attributor, 51, 51), "NoTask");
    assert_eq!(whose(&attributor, 51, 50), "SocketFromElsewhere");
    let unowned = attributor.unowned(Some(&from(51, 50, state::CONFIRMED)));
    assert_eq!(unowned.len(), 1);
    assert_eq!((unowned[0].cgroup_id, unowned[0].depth), (51, Depth::Nested));
    let outermost = attributor.unowned(Some(&from(52, 52, state::CONFIRMED)));
    assert_eq!((outermost.len(), outermost[0].depth), (1, Depth::Outermost));

    attributor.settle(51);
    assert_eq!(whose(&attributor, 51, 50), "outer");
    // That holds after other changes, and not against what an engine says later.
    registry
        .put(SourceKind::Docker, container("/docker/other", "other"))
        .unwrap();
    assert_eq!(whose(&attributor.with(Places::default()), 51, 51), "outer");
    registry.put(SourceKind::Docker, container(INNER, "inner")).unwrap();
    assert_eq!(whose(&attributor, 51, 51), "inner");
}

/// A tree with one cgroup whose name is not UTF-8, and any number of others.
#[derive(Debug)]
struct OddTree;

/// The ID of the one.
const ODD: u64 = 7;

impl CgroupPaths for OddTree {
    fn path_of(&self, id: u64) -> Result<Option<PathBuf>, CgroupError> {
        let name = if id == ODD {
            vec![0xff]
        } else {
            format!("{id:0255}").into_bytes()
        };
        Ok(Some(Path::new("/docker/web").join(OsStr::from_bytes(&name))))
    }

    fn id_of(&self, _path: &Path) -> Result<Option<u64>, CgroupError> {
        Ok(None)
    }
}

#[test]
fn a_cgroup_without_a_readable_name_is_not_kept_by_who_had_it() {
    let registry = Arc::new(Registry::default());
    let attributor = Attributor::new(OddTree, Arc::clone(&registry), Places::default());
    registry.replace(SourceKind::Config, vec![entry("/docker/web", "web", "a")]);
    assert_eq!(whose(&attributor, ODD, ODD), "web");
    registry.replace(SourceKind::Config, Vec::new());
    assert_eq!(whose(&attributor, ODD, ODD), "NoTask");
}
