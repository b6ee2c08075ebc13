//! The source against an engine that is not there, comes and goes, is slow, and answers nonsense.

mod ecs;
mod stub;

use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    path::Path,
    sync::Arc,
    time::Duration,
};

use serde_json::json;
use tempfile::TempDir;
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use self::stub::{HEADER, Stub, path};
use super::{Config, Docker, DockerError, Pending};
use crate::{
    attribution::{ContainerId, Registry, SourceKind, SourceState},
    drain,
};

/// How long anything may take.
const DEADLINE: Duration = Duration::from_secs(20);

/// A source, what it has told, and what keeps it at work.
struct World {
    directory: TempDir,
    docker: Arc<Docker>,
    registry: Arc<Registry>,
    _running: (JoinSet<()>, drain::Trigger),
}

// === impl World ===

impl World {
    fn new() -> Self {
        Self::with(None)
    }

    /// One where an agent makes containers.
    fn with(introspection: Option<SocketAddr>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let docker = Arc::new(Docker::new(Config {
            socket: directory.path().join("docker.sock"),
            states: vec![directory.path().join("absent"), directory.path().join("moby")],
            cgroup_parent: None,
            labels: true,
            endpoint: SocketAddrV4::new(Ipv4Addr::new(169, 254, 170, 2), 80),
            introspection,
        }));
        let registry = Arc::new(Registry::default());
        let (trigger, watcher) = drain::channel();
        let mut running = JoinSet::new();
        let (source, told) = (Arc::clone(&docker), Arc::clone(&registry));
        running.spawn(async move { source.run(&told, watcher).await });
        Self {
            directory,
            docker,
            registry,
            _running: (running, trigger),
        }
    }

    /// Waits until the registry has these tasks and the source is in such a state.
    async fn until(&self, tasks: &[&str], is_state: impl Fn(&SourceState) -> bool) {
        let holds = async {
            loop {
                let status = self.docker.status();
                if self.tasks() == tasks && is_state(&status.state) && status.containers == tasks.len() {
                    return;
                }
                sleep(Duration::from_millis(1)).await;
            }
        };
        let outcome = timeout(DEADLINE, holds).await;
        assert!(
            outcome.is_ok(),
            "{tasks:?} were expected: {:?}, {:?}",
            self.tasks(),
            self.docker.status()
        );
    }

    fn tasks(&self) -> Vec<String> {
        let tasks = self.registry.read();
        let mut said: Vec<_> = tasks.said().map(|said| said.entry.task.as_str().to_owned()).collect();
        said.sort();
        said
    }

    /// What is said of a cgroup and those above it once the engine was asked, outermost first.
    async fn find(&self, cgroup: &str) -> Result<Vec<String>, DockerError> {
        let cgroup = Path::new(cgroup);
        let found = self.docker.find(cgroup, &self.registry).await?;
        let tasks = self.registry.read();
        assert_eq!(tasks.is_said(SourceKind::Docker, cgroup), found);
        let said = tasks
            .said()
            .filter(|said| cgroup.starts_with(&said.entry.cgroups[0].path));
        let mut said: Vec<_> = said.collect();
        said.sort_by_key(|said| &said.entry.cgroups[0].path);
        Ok(said.iter().map(|said| said.entry.task.as_str().to_owned()).collect())
    }
}

fn id(digit: char) -> ContainerId {
    ContainerId::parse(&String::from(digit).repeat(64)).unwrap()
}

fn is_ready(state: &SourceState) -> bool {
    *state == SourceState::Ready
}

fn is_retrying(state: &SourceState) -> bool {
    matches!(state, SourceState::Retrying { .. })
}

/// Whether the source says that this goes wrong.
fn says(what: &str) -> impl Fn(&SourceState) -> bool {
    move |state| matches!(state, SourceState::Retrying { error, .. } if error.contains(what))
}

#[tokio::test]
async fn containers_of_before_and_later_are_found_until_they_are_removed() {
    let world = World::new();
    let engine = Stub::start(&world.directory);
    let (web, batch) = (id('a'), id('b'));
    engine.make(&web, "web");
    engine.list(&[&web]);
    world.until(&["docker/web"], is_ready).await;
    engine.make(&batch, "batch");
    world.until(&["docker/batch", "docker/web"], is_ready).await;
    engine.make(&batch, "renamed");
    world.until(&["docker/renamed", "docker/web"], is_ready).await;
    engine.remove(&web);
    world.registry.sweep(|_| true);
    let gone = async {
        while world.tasks() != ["docker/renamed"] {
            world.registry.sweep(|_| true);
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(DEADLINE, gone).await.unwrap();
}

#[tokio::test]
async fn an_engine_that_is_not_there_is_awaited() {
    let world = World::new();
    let web = id('a');
    world.until(&[], |state| *state == SourceState::Absent).await;
    assert_eq!(world.find(&format!("/docker/{}", web.as_str())).await.unwrap(), [""; 0]);
    let engine = Stub::start(&world.directory);
    engine.make(&web, "web");
    engine.list(&[&web]);
    world.until(&["docker/web"], is_ready).await;
}

#[tokio::test]
async fn a_container_that_outlives_an_engine_nobody_has_seen_is_not_nobodys() {
    let world = World::new();
    let (left, other) = (id('a'), id('b'));
    let states = world.directory.path().join("moby");
    std::fs::create_dir_all(states.join(left.as_str())).unwrap();
    let error = world.find(&format!("/docker/{}", left.as_str())).await.unwrap_err();
    assert!(matches!(error, DockerError::Connect { .. }), "{error}");
    // Whoever made this one, it was no Docker engine.
    assert_eq!(world.find(&format!("/pods/{}", other.as_str())).await.unwrap(), [""; 0]);
}

#[tokio::test]
async fn events_that_are_none_are_called_that() {
    let world = World::new();
    let engine = Stub::start(&world.directory);
    world.until(&[], is_ready).await;
    engine.tell("<html>");
    world.until(&[], says("of events")).await;
}

#[tokio::test]
async fn what_was_said_stays_while_the_engine_is_gone() {
    let world = World::new();
    let engine = Stub::start(&world.directory);
    let (web, batch) = (id('a'), id('b'));
    engine.make(&web, "web");
    engine.list(&[&web]);
    world.until(&["docker/web"], is_ready).await;
    engine.stop();
    world
        .until(&["docker/web"], says("cannot reach the Docker engine at"))
        .await;
    let cgroup = format!("/docker/{}", batch.as_str());
    world.find(&cgroup).await.unwrap_err();

    let engine = Stub::start(&world.directory);
    engine.make(&web, "web");
    engine.make(&batch, "batch");
    engine.list(&[&web, &batch]);
    world.until(&["docker/batch", "docker/web"], is_ready).await;
    assert_eq!(world.find(&cgroup).await.unwrap(), ["docker/batch"]);
}

#[tokio::test]
async fn a_list_that_is_none_takes_nothing_back() {
    let world = World::new();
    let engine = Stub::start(&world.directory);
    let web = id('a');
    engine.make(&web, "web");
    engine.list(&[&web]);
    world.until(&["docker/web"], is_ready).await;
    engine.stop();
    world.until(&["docker/web"], is_retrying).await;
    let engine = Stub::start(&world.directory);
    engine.make(&web, "web");
    for nonsense in ["<html>", "[", "null", "{}", r#"[{"Id":1}]"#, r#"[{"Id":"../x"}]"#] {
        engine.answer("/containers/json", nonsense);
        let state = world
            .docker
            .list(
                &world.docker.rules().await.unwrap(),
                &world.registry,
                &mut Pending::default(),
            )
            .await;
        let error = state.unwrap_err().to_string();
        assert_eq!(world.tasks(), ["docker/web"], "{nonsense}");
        assert!(error.contains("containers"), "{error}");
        world.until(&["docker/web"], |state| says(&error)(state)).await;
    }
    engine.list(&[&web]);
    world.until(&["docker/web"], is_ready).await;
}

#[tokio::test]
async fn a_container_the_engine_tells_nonsense_about_is_left_out_alone() {
    let world = World::new();
    let engine = Stub::start(&world.directory);
    let (web, huge, garbled, swapped) = (id('a'), id('b'), id('c'), id('d'));
    engine.make(&web, "web");
    engine.answer(&path(&huge), &"x".repeat(4 * 1024 * 1024));
    engine.answer(&path(&garbled), "{\"Id\":");
    let other = engine.answers.lock().unwrap()[&path(&web)].clone();
    engine.answer(&path(&swapped), &other);
    engine.list(&[&huge, &garbled, &swapped, &web]);
    world.until(&["docker/web"], is_ready).await;
    for odd in [huge, garbled, swapped] {
        world.find(&format!("/docker/{}", odd.as_str())).await.unwrap_err();
    }
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_does_not_answer_is_not_waited_for_forever() {
    let world = World::new();
    let engine = Stub::start(&world.directory);
    let web = id('a');
    engine.answer(&path(&web), "");
    let error = world.find(&format!("/docker/{}", web.as_str())).await.unwrap_err();
    assert!(matches!(error, DockerError::Timeout { .. }), "{error}");
    engine.answer("/info", "");
    let error = world.docker.engine.cgroup_driver().await.unwrap_err();
    assert!(matches!(error, DockerError::Timeout { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_hangs_is_named_until_it_answers_again() {
    let world = World::new();
    let engine = Stub::start(&world.directory);
    let web = id('a');
    engine.make(&web, "web");
    engine.answer("/containers/json", "");
    world.until(&[], says("did not tell all containers within 5s")).await;
    engine.list(&[&web]);
    world.until(&["docker/web"], is_ready).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_told_of_a_container_before_older_ones_are_known() {
    let world = World::new();
    let engine = Stub::start(&world.directory);
    let younger = id('a');
    engine.make(&younger, "younger");
    let list = engine.answers.lock().unwrap()["/containers/json"].clone();
    engine.answer("/containers/json", "");
    let cgroup = format!("/docker/{}", younger.as_str());
    let error = world.find(&cgroup).await.unwrap_err();
    assert!(
        matches!(error, DockerError::Behind | DockerError::EventsEnded),
        "{error}"
    );
    engine.answer("/containers/json", &list);
    let found = async { while world.find(&cgroup).await.is_err() {} };
    timeout(DEADLINE, found).await.unwrap();
}

#[tokio::test]
async fn a_flood_of_events_misses_no_container() {
    let world = World::new();
    let engine = Stub::start(&world.directory);
    let (web, batch) = (id('a'), id('b'));
    world.until(&[], is_ready).await;
    engine.make(&web, "web");
    for _ in 0..12_000 {
        engine.happens("start", &web);
    }
    engine.list(&[&web, &batch]);
    engine.make(&batch, "batch");
    world.until(&["docker/batch", "docker/web"], is_ready).await;
}

#[tokio::test]
async fn of_containers_that_come_and_go_at_once_only_those_that_stay_are_there() {
    let world = World::new();
    let engine = Stub::start(&world.directory);
    world.until(&[], is_ready).await;
    let container = |number: &u32| ContainerId::parse(&format!("{number:064x}")).unwrap();
    let stays = |number: &u32| number.is_multiple_of(100);
    let staying: Vec<_> = (0..2_000).filter(stays).map(|number| container(&number)).collect();
    // Also for a list that is asked for in the midst of it.
    engine.list(&staying.iter().collect::<Vec<_>>());
    for number in 0..2_000 {
        engine.make(&container(&number), &number.to_string());
        if !stays(&number) {
            engine.remove(&container(&number));
        }
    }
    let mut names: Vec<_> = (0..2_000)
        .filter(stays)
        .map(|number| format!("docker/{number}"))
        .collect();
    names.sort();
    let settled = async {
        while world.tasks() != names || world.docker.status().containers != names.len() {
            world.registry.sweep(|_| true);
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(DEADLINE, settled).await.unwrap();
}

#[tokio::test]
async fn an_engine_that_keeps_no_connection_is_asked_on_others() {
    let world = World::new();
    let engine = Stub::start(&world.directory);
    engine.answer(HEADER, "Connection: close\r\n");
    let containers: Vec<_> = "0123456789abcdef".chars().map(id).collect();
    for (digit, container) in containers.iter().enumerate() {
        engine.make(container, &format!("{digit:02}"));
    }
    // Several for each connection.
    engine.list(&containers.iter().cycle().take(100).collect::<Vec<_>>());
    let names: Vec<_> = (0..16).map(|digit| format!("docker/{digit:02}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    world.until(&names, is_ready).await;
}

#[tokio::test]
async fn only_what_is_in_a_containers_own_cgroup_is_of_it() {
    let world = World::new();
    let engine = Stub::start(&world.directory);
    let (web, inner) = (id('a'), id('b'));
    engine.make(&web, "web");
    engine.make(&inner, "inner");
    let (web, inner) = (web.as_str(), inner.as_str());
    for (cgroup, task) in [
        (format!("/docker/{web}"), Some("docker/web")),
        (format!("/docker/{web}/init/deep"), Some("docker/web")),
        (format!("/docker/{web}/docker/{inner}"), Some("docker/web")),
        (format!("/docker/{inner}/x"), Some("docker/inner")),
        // Made by somebody who chose the names.
        (format!("/lookalike/{web}"), None),
        (format!("/docker/x/{web}"), None),
        (format!("/user.slice/docker/{web}"), None),
        (format!("/system.slice/docker-{web}.scope"), None),
        (format!("/docker/{}", "c".repeat(64)), None),
        ("/docker".to_owned(), None),
        (format!("/docker/{web}/{0}/{0}/{0}", "c".repeat(64)), Some("docker/web")),
    ] {
        let found = world.find(&cgroup).await.unwrap();
        assert_eq!(found, task.into_iter().collect::<Vec<_>>(), "{cgroup}");
    }
}

#[tokio::test]
async fn a_container_is_not_hidden_behind_names_of_others() {
    let world = World::new();
    let engine = Stub::start(&world.directory);
    let (web, intruder) = (id('a'), id('b'));
    engine.make(&web, "web");
    let parent = format!("/docker/{}/{1}/{1}/{1}", web.as_str(), "c".repeat(64));
    engine.make_in(&parent, &intruder, "intruder");
    let error = world
        .find(&format!("{parent}/{}", intruder.as_str()))
        .await
        .unwrap_err();
    assert!(matches!(error, DockerError::Nested { .. }), "{error}");
}

#[tokio::test]
async fn a_container_that_is_made_in_anothers_cgroup_is_one_of_its_own() {
    let world = World::new();
    let engine = Stub::start(&world.directory);
    let (web, intruder) = (id('a'), id('b'));
    engine.make(&web, "web");
    let parent = format!("/docker/{}", web.as_str());
    engine.make_in(&parent, &intruder, "intruder");
    engine.list(&[&web, &intruder]);
    let cgroup = format!("{parent}/{}", intruder.as_str());
    assert_eq!(world.find(&cgroup).await.unwrap(), ["docker/web", "docker/intruder"]);
    world.until(&["docker/intruder", "docker/web"], is_ready).await;
    let owner = world.registry.read().owner(Path::new(&cgroup), |_, _| true).unwrap();
    assert_eq!(owner.task.as_str(), "docker/intruder");
}

#[tokio::test]
async fn podman_in_dockers_place_is_no_docker_engine() {
    let world = World::new();
    let engine = Stub::start(&world.directory);
    engine.answer(HEADER, "Libpod-API-Version: 4.3.1\r\n");
    engine.make(&id('a'), "web");
    engine.list(&[&id('a')]);
    assert_eq!(
        world.find(&format!("/docker/{}", id('a').as_str())).await.unwrap(),
        [""; 0]
    );
    world
        .docker
        .session(&world.registry, &mut super::Backoff::new(DEADLINE, DEADLINE))
        .await
        .unwrap_err();
    world.until(&[], |state| *state == SourceState::Absent).await;
}

#[tokio::test]
async fn an_unknown_way_to_make_cgroups_is_told() {
    let world = World::new();
    let engine = Stub::start(&world.directory);
    engine.answer("/info", &json!({"CgroupDriver": "none"}).to_string());
    world.until(&[], says("\"none\"")).await;
}
