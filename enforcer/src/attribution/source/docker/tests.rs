//! The source against an engine that is not there, comes and goes, is slow, and answers nonsense.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddrV4},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::json;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::broadcast,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{Config, Docker, DockerError};
use crate::{
    attribution::{ContainerId, Registry, SourceKind, SourceState},
    drain,
};

/// How long anything may take.
const DEADLINE: Duration = Duration::from_secs(20);

/// In place of a path: a header line of all answers.
const HEADER: &str = "header";

/// What an engine that does as it is told answers, by path without its query.
type Answers = Arc<Mutex<BTreeMap<String, String>>>;

/// An engine; ends when it is dropped.
struct Stub {
    answers: Answers,
    events: broadcast::Sender<String>,
    socket: PathBuf,
    connections: JoinSet<()>,
}

// === impl Stub ===

impl Stub {
    fn start(directory: &TempDir) -> Self {
        let socket = directory.path().join("docker.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let (answers, events) = (Answers::default(), broadcast::channel(16_384).0);
        let mut connections = JoinSet::new();
        let (asked, happening) = (Arc::clone(&answers), events.clone());
        connections.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&asked), happening.clone()));
            }
        });
        let stub = Self {
            answers,
            events,
            socket,
            connections,
        };
        stub.answer("/info", &json!({"CgroupDriver": "cgroupfs"}).to_string());
        stub.list(&[]);
        stub
    }

    /// Ends as an engine that is stopped does.
    fn stop(mut self) {
        self.connections.abort_all();
        std::fs::remove_file(&self.socket).unwrap();
    }

    fn answer(&self, path: &str, answer: &str) {
        self.answers.lock().unwrap().insert(path.to_owned(), answer.to_owned());
    }

    fn list(&self, containers: &[&ContainerId]) {
        let list: Vec<_> = containers
            .iter()
            .map(|id| json!({"Id": id.as_str(), "Labels": {}}))
            .collect();
        self.answer("/containers/json", &json!(list).to_string());
    }

    /// Makes a container, and says so.
    fn make(&self, id: &ContainerId, name: &str) {
        self.make_in("", id, name);
    }

    /// The same in a parent cgroup.
    fn make_in(&self, parent: &str, id: &ContainerId, name: &str) {
        let container = json!({
            "Id": id.as_str(),
            "Created": "2026-11-22T06:00:00Z",
            "Name": format!("/{name}"),
            "State": {"Status": "running"},
            "Config": {"Labels": null, "Env": null},
            "HostConfig": {"CgroupParent": parent},
        });
        self.answer(&path(id), &container.to_string());
        self.happens("create", id);
    }

    fn remove(&self, id: &ContainerId) {
        self.answers.lock().unwrap().remove(&path(id));
        self.happens("destroy", id);
    }

    fn happens(&self, what: &str, id: &ContainerId) {
        let event = json!({"Type": "container", "Action": what, "Actor": {"ID": id.as_str(), "Attributes": {}}});
        // Nobody may listen yet.
        drop(self.events.send(format!("{event}\n")));
    }
}

/// Answers on a connection as long as it lasts.
async fn serve(stream: UnixStream, answers: Answers, events: broadcast::Sender<String>) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut request = String::new();
        while !request.ends_with("\r\n\r\n") {
            if !matches!(stream.read_line(&mut request).await, Ok(1..)) {
                return;
            }
        }
        let target = request.split(' ').nth(1).unwrap();
        let path = target.split('?').next().unwrap();
        if path == "/events" {
            return tell(stream.into_inner(), events.subscribe()).await;
        }
        let (answer, header) = {
            let answers = answers.lock().unwrap();
            (
                answers.get(path).cloned(),
                answers.get(HEADER).cloned().unwrap_or_default(),
            )
        };
        let response = match answer {
            // The engine hangs.
            Some(answer) if answer.is_empty() => return std::future::pending().await,
            Some(answer) => format!(
                "HTTP/1.1 200 OK\r\n{header}Content-Length: {}\r\n\r\n{answer}",
                answer.len()
            ),
            None => "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}".to_owned(),
        };
        if stream.write_all(response.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn tell(mut stream: UnixStream, mut events: broadcast::Receiver<String>) {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned();
    let mut next = head;
    while stream.write_all(next.as_bytes()).await.is_ok() {
        let Ok(event) = events.recv().await else { return };
        next = format!("{:x}\r\n{event}\r\n", event.len());
    }
}

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
        let directory = tempfile::tempdir().unwrap();
        let docker = Arc::new(Docker::new(Config {
            socket: directory.path().join("docker.sock"),
            cgroup_parent: None,
            labels: true,
            endpoint: SocketAddrV4::new(Ipv4Addr::new(169, 254, 170, 2), 80),
            introspection: None,
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

    async fn find(&self, cgroup: &str) -> Result<Vec<String>, DockerError> {
        let found = self.docker.find(Path::new(cgroup)).await?;
        Ok(found.iter().map(|entry| entry.task.as_str().to_owned()).collect())
    }
}

fn id(digit: char) -> ContainerId {
    ContainerId::parse(&String::from(digit).repeat(64)).unwrap()
}

fn path(id: &ContainerId) -> String {
    format!("/containers/{}/json", id.as_str())
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
    for nonsense in ["<html>", "[", "null", "{}", r#"[{"Id":1}]"#, r#"[{"Id":"../x"}]"#] {
        engine.answer("/containers/json", nonsense);
        let state = world
            .docker
            .list(&world.docker.rules().await.unwrap(), &world.registry)
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
    assert_eq!(world.registry.read().count(SourceKind::Docker), 0);
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
