//! A fake ECS agent on the host: its introspection, which names the containers of each task, and its credential endpoint,
//! each literally as the real one answers.

use std::{
    io,
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    enter::Place,
    http::{Request, Response},
    worker::{self, Worker},
};

/// Where the agent tells of its tasks, and where it gives credentials.
const INTROSPECTION: u16 = 51678;
const CREDENTIALS: u16 = 51679;

/// A task, as the agent knows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AgentTask {
    /// Its ARN.
    pub arn: String,
    /// The IDs of its containers.
    pub containers: Vec<String>,
    /// Those of containers that only the agent needs, as the one that keeps the task's network: it knows whose they are, and
    /// lists none of them.
    pub internal: Vec<String>,
    /// How often it is asked about a container of the task before it knows one: it inspects what it has made, too.
    pub unaware: u32,
    /// The ID of its role's credentials.
    pub credential_id: String,
    /// The credentials.
    pub credentials: String,
}

/// What introspection says of a container it does not know.
const NOTHING: &str = r#"{"Arn":"","KnownStatus":"","Family":"","Version":"","Containers":null}"#;

/// The running agent.
#[derive(Debug)]
pub struct Agent {
    worker: Worker,
}

/// What the agent knows.
type Tasks = Arc<Mutex<Vec<AgentTask>>>;

// === impl Agent ===

impl Agent {
    /// Starts the agent.
    pub fn start(lab: &Path, place: &Place, _: Ipv4Addr) -> Result<Self> {
        let mut command = place.command(lab, lab);
        command.arg("agent");
        Ok(Self {
            worker: Worker::start(command)?,
        })
    }

    /// Tells it of a task, in place of what it knew of the task before.
    pub fn know(&mut self, task: &AgentTask) -> Result<()> {
        self.worker.call(task)
    }
}

/// `lab agent`.
pub fn run() -> Result<()> {
    let tasks = Tasks::default();
    for (port, answer) in [
        (INTROSPECTION, introspect as fn(&mut [AgentTask], &str) -> Response),
        (CREDENTIALS, give),
    ] {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).context("cannot be an ECS agent")?;
        let tasks = Arc::clone(&tasks);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let tasks = Arc::clone(&tasks);
                // A client that breaks off is no concern of the agent.
                thread::spawn(move || converse(stream?, &tasks, answer));
            }
        });
    }
    worker::serve(|task: AgentTask| {
        let mut tasks = tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.retain(|known| known.arn != task.arn);
        tasks.push(task);
    })
}

fn converse(mut stream: TcpStream, tasks: &Tasks, answer: fn(&mut [AgentTask], &str) -> Response) -> io::Result<()> {
    while let Some(request) = Request::receive(&mut stream)? {
        let answer = answer(
            &mut tasks.lock().unwrap_or_else(PoisonError::into_inner),
            &request.target,
        );
        answer.send(&mut stream)?;
    }
    Ok(())
}

/// `/v1/tasks?dockerid=<id>`: the task of a container.
fn introspect(tasks: &mut [AgentTask], target: &str) -> Response {
    let Some(id) = target.strip_prefix("/v1/tasks?dockerid=") else {
        return Response::text(404, NOTHING);
    };
    let is_its = |task: &&mut AgentTask| {
        task.containers
            .iter()
            .chain(&task.internal)
            .any(|container| container == id)
    };
    let Some(task) = tasks.iter_mut().find(is_its) else {
        return Response::text(404, NOTHING);
    };
    if let Some(left) = task.unaware.checked_sub(1) {
        task.unaware = left;
        return Response::text(404, NOTHING);
    }
    let container = |id: &String| {
        json!({
            "DockerId": id, "DockerName": format!("ecs-fam-7-app-{}", &id[..20]), "Name": "app",
            "Image": "busybox:latest", "ImageID": "sha256:00",
        })
    };
    let containers: Vec<_> = task.containers.iter().map(container).collect();
    let told = json!({
        "Arn": task.arn, "DesiredStatus": "RUNNING", "KnownStatus": "RUNNING", "Family": "fam", "Version": "7",
        "Containers": containers,
    });
    Response::text(200, &told.to_string())
}

/// `/v2/credentials/<id>`: the credentials, to whoever knows the ID.
fn give(tasks: &mut [AgentTask], target: &str) -> Response {
    let of = |id: &str| tasks.iter().find(|task| task.credential_id == id);
    match target.strip_prefix("/v2/credentials/").and_then(of) {
        Some(task) => Response::text(200, &task.credentials),
        None => Response::text(
            400,
            r#"{"code":"InvalidIdInRequest","message":"CredentialsV2Request: Credentials not found","HTTPErrorCode":400}"#,
        ),
    }
}
