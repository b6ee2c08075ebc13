//! What the next enforcer knows of registrations, and what is left of one that could not be kept.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use super::{
    super::{
        is_gone,
        journal::{Journal, STALE_LINES},
    },
    ID, Wanted, World, at, entry, id, open, with_id, with_role,
};
use crate::attribution::{Alarm, Cgroup, Listener, Registry, SourceKind};

/// Counts what it hears.
#[derive(Clone, Debug, Default)]
struct Heard(Arc<AtomicU32>);

impl Listener for Heard {
    fn hear(&self, _alarm: Alarm) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn registrations_outlive_the_process() {
    let mut world = World::new();
    let made = world.add(with_role("web", &["/web", "/web-2"])).await.unwrap();
    world.add(with_id("batch", &["/batch"])).await.unwrap();
    let permissions = fs::metadata(world.file()).unwrap().permissions();
    assert_eq!(permissions.mode() & 0o777, 0o600);
    let mut world = world.again();
    assert_eq!(world.add(with_role("web", &["/web"])).await.unwrap(), made);
    assert_eq!(
        (world.owner("/batch").unwrap(), world.has(&id())),
        ("batch".into(), "batch".into())
    );
}

#[tokio::test]
async fn who_only_reads_the_file_takes_nothing_from_who_writes_it() {
    let mut world = World::new();
    world.add(with_id("web", &["/web"])).await.unwrap();
    drop(open(&world.directory, &Arc::default(), &world.tree).unwrap());
    world.add(with_role("batch", &["/batch"])).await.unwrap();
    let world = world.again();
    assert_eq!(world.owner("/batch").unwrap(), "batch");
}

#[tokio::test]
async fn a_file_that_was_replaced_is_written_anew() {
    let mut world = World::new();
    world.add(with_id("web", &["/web"])).await.unwrap();
    fs::remove_file(world.file()).unwrap();
    world.add(with_role("batch", &["/batch"])).await.unwrap();
    let world = world.again();
    assert_eq!(
        (world.owner("/web").unwrap(), world.owner("/batch").unwrap()),
        ("web".into(), "batch".into())
    );
}

#[tokio::test]
async fn what_cannot_be_kept_leaves_nothing_behind() {
    let mut world = World::new();
    world.registrations.journal = Some(Journal::full());
    assert!(world.refused(with_id("web", &["/web"])).await.contains("cannot "));
    assert_eq!((world.owner("/web"), world.has(&id())), (None, "Nobody".to_owned()));
    world.add(with_id("batch", &["/batch"])).await.unwrap();
    // What was there before is there again, also if it was taken back.
    for is_over in [false, true] {
        world.registrations.journal = Some(Journal::full());
        assert!(world.registrations.remove("batch").is_err());
        let more = with_role("batch", &["/web-2"]);
        world.registrations.journal = Some(Journal::full());
        world.refused(more).await;
        assert_eq!((world.owner("/web-2"), world.has(&id())), (None, "batch".to_owned()));
        assert_eq!(world.owner("/batch").is_none(), is_over);
        if !is_over {
            world.registrations.remove("batch").unwrap();
        }
    }
}

#[tokio::test]
async fn what_cannot_be_kept_lets_nobody_else_have_its_ids_meanwhile() {
    let heard = Heard::default();
    let mut world = World::of(Registry::with_listener(heard.clone()));
    world.add(with_id("web", &["/web"])).await.unwrap();
    let claiming = entry("/docker/x", "claiming", ID);
    world.registry.put(SourceKind::Docker, claiming).unwrap();
    assert_eq!(heard.0.load(Ordering::Relaxed), 1);
    world.registrations.journal = Some(Journal::full());
    world.refused(with_role("web", &["/web-2"])).await;
    assert_eq!(world.has(&id()), "web");
    assert_eq!(heard.0.load(Ordering::Relaxed), 1, "the claim was granted for a moment");
}

#[tokio::test]
async fn a_new_file_says_what_is_new_once_and_last() {
    let mut world = World::new();
    world.add(with_id("web", &["/web"])).await.unwrap();
    fs::remove_file(world.file()).unwrap();
    world.add(with_role("batch", &["/batch"])).await.unwrap();
    let text = fs::read_to_string(world.file()).unwrap();
    let tasks = text.lines().map(|line| line.contains("\"batch\""));
    assert_eq!(tasks.collect::<Vec<_>>(), [false, false, true]);
}

#[tokio::test]
async fn what_would_be_refused_now_is_left_out_and_the_rest_holds() {
    let mut world = World::new();
    let role = Some("arn:shop".to_owned());
    let shop = Wanted {
        role_arn: role,
        ..at("shop", &["/web-2"])
    };
    for wanted in [with_id("web", &["/web"]), shop, with_role("batch", &["/batch"])] {
        world.add(wanted).await.unwrap();
    }
    world.registrations.remove("web").unwrap();
    world.edit(|text| {
        text.replace("\"web\"", "\"docker/web\"")
            .replace("arn:shop", "arn shop")
    });
    let world = world.again();
    assert_eq!((world.owner("/web"), world.owner("/web-2")), (None, None));
    assert_eq!(world.owner("/batch").unwrap(), "batch");
    assert_eq!(world.registry.read().said_by(SourceKind::Registration).count(), 1);
}

#[tokio::test]
async fn where_nothing_can_be_written_one_starts_and_registers_nothing() {
    let mut world = World::new();
    let directory = world.file().parent().unwrap().to_owned();
    fs::write(&directory, "no directory").unwrap();
    assert!(world.refused(with_id("web", &["/web"])).await.contains("cannot write"));
    fs::remove_file(&directory).unwrap();
    world.add(with_id("web", &["/web"])).await.unwrap();
    assert_eq!(world.again().owner("/web").unwrap(), "web");
}

#[tokio::test]
async fn what_was_taken_back_keeps_its_ids_from_others_as_long_as_its_cgroups_exist() {
    let mut world = World::new();
    world.add(with_id("web", &["/web"])).await.unwrap();
    world.registrations.remove("web").unwrap();
    for _ in 0..2 {
        assert_eq!((world.owner("/web"), world.has(&id())), (None, "web".to_owned()));
        world = world.again();
    }
    assert!(
        world
            .refused(with_id("batch", &["/batch"]))
            .await
            .contains("belongs to task")
    );
    world.recreate(10, 99);
    world.registry.sweep(|cgroup| is_gone(&world.tree, cgroup));
    world.add(with_id("batch", &["/batch"])).await.unwrap();
    let error = world.registrations.remove("web").unwrap_err().to_string();
    assert!(error.contains("no task \"web\" is registered"), "{error}");
}

#[tokio::test]
async fn a_task_can_be_registered_under_another_name() {
    let mut world = World::new();
    world.add(with_id("web", &["/web"])).await.unwrap();
    world.registrations.remove("web").unwrap();
    world.add(with_id("shop", &["/web"])).await.unwrap();
    for _ in 0..2 {
        assert_eq!(
            (world.owner("/web").unwrap(), world.has(&id())),
            ("shop".into(), "shop".into())
        );
        assert_eq!(world.registry.read().said_by(SourceKind::Registration).count(), 2);
        world = world.again();
    }
}

#[tokio::test]
async fn a_registration_ends_with_its_last_cgroup() {
    let mut world = World::new();
    world.add(with_id("web", &["/web", "/web-2"])).await.unwrap();
    world.recreate(10, 98);
    world.registrations.take_back_gone().unwrap();
    assert_eq!(world.owner("/web-2").unwrap(), "web");
    assert_eq!(world.owner("/web"), None);
    world.recreate(11, 99);
    let mut world = world.again();
    assert_eq!((world.owner("/web-2"), world.has(&id())), (None, "Nobody".to_owned()));
    // The path is free for somebody else, whether it was looked at or not.
    world.add(with_id("later", &["/web"])).await.unwrap();
    world.recreate(98, 100);
    world.add(with_id("last", &["/web"])).await.unwrap();
    assert_eq!(
        (world.owner("/web").unwrap(), world.has(&id())),
        ("last".into(), "last".into())
    );
}

#[tokio::test]
async fn what_another_boot_has_left_is_not_believed() {
    let mut world = World::new();
    world.add(with_id("web", &["/web"])).await.unwrap();
    world.edit(|text| text.replacen("{\"boot\":\"", "{\"boot\":\"other", 1));
    let world = world.again();
    assert_eq!((world.owner("/web"), world.has(&id())), (None, "Nobody".to_owned()));
}

#[tokio::test]
async fn a_damaged_file_is_named_and_an_unfinished_line_is_not_missed() {
    let mut world = World::new();
    world.add(with_id("web", &["/web"])).await.unwrap();
    world.edit(|text| text + "{\"add\":{\"task\":\"batch\",");
    let world = world.again();
    assert_eq!(world.owner("/web").unwrap(), "web");
    world.edit(|text| text.replace("credential-ids", "credentials"));
    let error = open(&world.directory, &Arc::default(), &world.tree)
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("line 2 of the file"), "{error}");
    assert!(!error.contains(ID), "{error}");
}

#[tokio::test]
async fn a_file_full_of_changes_is_written_anew() {
    let mut world = World::new();
    for _ in 0..STALE_LINES {
        world.add(with_id("web", &["/web"])).await.unwrap();
        world.registrations.remove("web").unwrap();
    }
    world.registrations.take_back_gone().unwrap();
    let lines = fs::read_to_string(world.file()).unwrap().lines().count();
    assert_eq!(lines, 3);
    let registered: Cgroup = entry("/web", "", "").cgroups[0].clone();
    assert!(!is_gone(&world.tree, &registered));
}
