//! An engine that does as it is told.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::broadcast,
    task::JoinSet,
};

use crate::attribution::ContainerId;

/// In place of a path: a header line of all answers.
pub(super) const HEADER: &str = "header";

/// What an engine that does as it is told answers, by path without its query.
type Answers = Arc<Mutex<BTreeMap<String, String>>>;

/// An engine; ends when it is dropped.
pub(super) struct Stub {
    pub(super) answers: Answers,
    events: broadcast::Sender<String>,
    socket: PathBuf,
    connections: JoinSet<()>,
}

// === impl Stub ===

impl Stub {
    pub(super) fn start(directory: &TempDir) -> Self {
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
    pub(super) fn stop(mut self) {
        self.connections.abort_all();
        std::fs::remove_file(&self.socket).unwrap();
    }

    pub(super) fn answer(&self, path: &str, answer: &str) {
        self.answers.lock().unwrap().insert(path.to_owned(), answer.to_owned());
    }

    pub(super) fn list(&self, containers: &[&ContainerId]) {
        let list: Vec<_> = containers
            .iter()
            .map(|id| json!({"Id": id.as_str(), "Labels": {}}))
            .collect();
        self.answer("/containers/json", &json!(list).to_string());
    }

    /// Makes a container, and says so.
    pub(super) fn make(&self, id: &ContainerId, name: &str) {
        self.make_in("", id, name);
    }

    /// The same in a parent cgroup.
    pub(super) fn make_in(&self, parent: &str, id: &ContainerId, name: &str) {
        let container = json!({
            "Id": id.as_str(),
            "Created": "2026-11-22T06:00:00Z",
            "Name": format!("/{name}"),
            "State": {"Status": "running"},
            "Config": {"Labels": null, "Env": null},
            "HostConfig": {"CgroupParent": parent},
        });
        self.inspected(id, &container);
    }

    /// Makes a container of which this is told, and says so.
    pub(super) fn inspected(&self, id: &ContainerId, container: &Value) {
        self.answer(&path(id), &container.to_string());
        self.happens("create", id);
    }

    pub(super) fn remove(&self, id: &ContainerId) {
        self.answers.lock().unwrap().remove(&path(id));
        self.happens("destroy", id);
    }

    pub(super) fn happens(&self, what: &str, id: &ContainerId) {
        let event = json!({"Type": "container", "Action": what, "Actor": {"ID": id.as_str(), "Attributes": {}}});
        self.tell(&format!("{event}\n"));
    }

    pub(super) fn tell(&self, text: &str) {
        // Nobody may listen yet.
        drop(self.events.send(text.to_owned()));
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

pub(super) fn path(id: &ContainerId) -> String {
    format!("/containers/{}/json", id.as_str())
}
