//! A Docker engine's API without an engine: a process that tells of as many containers as wanted, from memory. Nothing
//! but the time of its client can be the measure of how fast it is listed.

use std::{
    collections::{BTreeMap, VecDeque},
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    runtime::{self, Runtime},
    sync::broadcast,
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};

use self::told::{Container, captured};
use crate::worker::{self, Worker};

mod told;

/// Events that wait for a client; one that is further behind is left alone, as engines do.
const EVENTS: usize = 16_384;

/// How many of the containers that come and go there are at a time.
const PASSING: usize = 200;

/// What every answer of an engine begins with.
const HEAD: &str = "HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nContent-Type: application/json\r\nDocker-Experimental: false\r\n\
                    Ostype: linux\r\nServer: Docker/20.10.24+dfsg1 (linux)\r\nDate: Sun, 22 Nov 2026 07:30:02 GMT\r\n\
                    Transfer-Encoding: chunked\r\n\r\n";

/// The answer about what there is not.
const NOT_FOUND: &str = "HTTP/1.1 404 Not Found\r\nApi-Version: 1.41\r\nContent-Type: application/json\r\n\
                         Content-Length: 31\r\n\r\n{\"message\":\"No such container\"}\n";

#[derive(Debug, Serialize, Deserialize)]
enum Order {
    Fill { tasks: u32, containers: u32 },
    Churn { per_second: u32, seconds: u32 },
    Names,
}

#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Done,
    Names(Vec<String>),
    Failed(String),
}

/// The stub, seen from its parent.
#[derive(Debug)]
pub struct Stub {
    worker: Worker,
}

/// The stub's own side.
#[derive(Clone, Debug)]
struct Engine {
    /// What there is, by ID. Plain data, held for a look or a change only.
    containers: Arc<Mutex<BTreeMap<String, Told>>>,
    events: broadcast::Sender<Arc<[u8]>>,
    /// What its answers are made of.
    captured: Arc<Value>,
}

/// What is told of a container.
#[derive(Clone, Debug)]
struct Told {
    name: String,
    /// The whole answer, with its head.
    inspected: Arc<[u8]>,
    listed: Arc<[u8]>,
}

// === impl Stub ===

impl Stub {
    /// Starts a stub that listens at `socket` and has no containers yet.
    pub fn start(lab: &Path, socket: &Path) -> Result<Self> {
        let mut command = Command::new(lab);
        command.arg("stub").arg(socket);
        Ok(Self {
            worker: Worker::start(command)?,
        })
    }

    /// Makes tasks with so many containers each.
    pub fn fill(&mut self, tasks: u32, containers: u32) -> Result<()> {
        self.order(&Order::Fill { tasks, containers })
    }

    /// Has containers come and go for a while, and some of them stay.
    pub fn churn(&mut self, per_second: u32, seconds: u32) -> Result<()> {
        self.order(&Order::Churn { per_second, seconds })
    }

    /// What the containers are called that are no ECS task's.
    pub fn names(&mut self) -> Result<Vec<String>> {
        match self.worker.call(&Order::Names)? {
            Answer::Names(names) => Ok(names),
            answer @ (Answer::Done | Answer::Failed(_)) => bail!("the stub told no names: {answer:?}"),
        }
    }

    fn order(&mut self, order: &Order) -> Result<()> {
        match self.worker.call(order)? {
            Answer::Done => Ok(()),
            answer @ (Answer::Names(_) | Answer::Failed(_)) => bail!("the stub did not {order:?}: {answer:?}"),
        }
    }
}

/// The stub's side: `lab stub`.
pub fn run(socket: &PathBuf) -> Result<()> {
    let runtime = runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the stub")?;
    let _inside = runtime.enter();
    let listener = UnixListener::bind(socket).with_context(|| format!("cannot bind {}", socket.display()))?;
    let engine = Engine {
        containers: Arc::default(),
        events: broadcast::Sender::new(EVENTS),
        captured: Arc::new(captured()?),
    };
    runtime.spawn(accept(listener, engine.clone()));
    worker::serve(|order| {
        let answer = engine.obey(&order, &runtime);
        answer.unwrap_or_else(|error| Answer::Failed(format!("{error:#}")))
    })
}

// === impl Engine ===

impl Engine {
    fn obey(&self, order: &Order, runtime: &Runtime) -> Result<Answer> {
        match *order {
            Order::Fill { tasks, containers } => {
                for task in 0..tasks {
                    (0..containers).try_for_each(|index| self.make(&Container::of_task(task, index)))?;
                }
            }
            Order::Churn { per_second, seconds } => runtime.block_on(self.churn(per_second, seconds))?,
            Order::Names => {
                let containers = self.containers();
                let names = containers.values().map(|told| told.name.clone());
                return Ok(Answer::Names(names.filter(|name| !name.starts_with("ecs-")).collect()));
            }
        }
        Ok(Answer::Done)
    }

    async fn churn(&self, per_second: u32, seconds: u32) -> Result<()> {
        let mut passing = VecDeque::new();
        let mut ticks = interval(Duration::from_secs(1) / per_second);
        // As many as was asked for, also when some come late.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        for number in 0..per_second * seconds {
            ticks.tick().await;
            let container = Container::passing(number);
            self.make(&container)?;
            self.happens(&container, "start");
            passing.push_back(container);
            if passing.len() > PASSING
                && let Some(container) = passing.pop_front()
            {
                self.containers().remove(&container.id);
                self.happens(&container, "destroy");
            }
        }
        Ok(())
    }

    fn make(&self, container: &Container) -> Result<()> {
        let inspected = container.inspected(&self.captured)?.to_string() + "\n";
        let told = Told {
            name: container.name.clone(),
            inspected: whole(&[HEAD.as_bytes(), &chunk(inspected), b"0\r\n\r\n"]),
            listed: container.listed().to_string().into_bytes().into(),
        };
        self.containers().insert(container.id.clone(), told);
        self.happens(container, "create");
        Ok(())
    }

    fn happens(&self, container: &Container, action: &str) {
        // Nobody may listen.
        drop(
            self.events
                .send(chunk(container.event(action).to_string() + "\n").into()),
        );
    }

    fn list(&self) -> Vec<u8> {
        let containers: Vec<_> = self
            .containers()
            .values()
            .map(|told| Arc::clone(&told.listed))
            .collect();
        let mut list = containers.join(&b',');
        list.insert(0, b'[');
        list.extend_from_slice(b"]\n");
        list
    }

    fn containers(&self) -> MutexGuard<'_, BTreeMap<String, Told>> {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers on a connection as long as it lasts; how that ends is the client's affair.
    async fn serve(self, mut stream: UnixStream) -> std::io::Result<()> {
        let mut request = Vec::new();
        loop {
            request.clear();
            while !request.ends_with(b"\r\n\r\n") {
                if stream.read_buf(&mut request).await? == 0 {
                    return Ok(());
                }
            }
            let line = String::from_utf8_lossy(&request);
            let target = line.split(' ').nth(1).unwrap_or_default();
            let path = target.split('?').next().unwrap_or_default();
            if path == "/events" {
                return self.tell(stream).await;
            }
            let answer = match path {
                "/info" => body(r#"{"CgroupDriver":"cgroupfs"}"#.to_owned().into_bytes()),
                "/containers/json" => body(self.list()),
                _ => {
                    let id = path
                        .strip_prefix("/containers/")
                        .and_then(|path| path.strip_suffix("/json"));
                    let told = id.and_then(|id| self.containers().get(id).map(|told| Arc::clone(&told.inspected)));
                    told.unwrap_or_else(|| NOT_FOUND.as_bytes().into())
                }
            };
            stream.write_all(&answer).await?;
        }
    }

    async fn tell(self, mut stream: UnixStream) -> std::io::Result<()> {
        let mut events = self.events.subscribe();
        stream.write_all(HEAD.as_bytes()).await?;
        while let Ok(event) = events.recv().await {
            stream.write_all(&event).await?;
        }
        Ok(())
    }
}

async fn accept(listener: UnixListener, engine: Engine) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(engine.clone().serve(stream));
        while connections.try_join_next().is_some() {}
    }
}

/// The answer with this body.
fn body(text: Vec<u8>) -> Arc<[u8]> {
    whole(&[HEAD.as_bytes(), &chunk(text), b"0\r\n\r\n"])
}

/// An engine writes each thing it tells as one chunk.
fn chunk(text: impl Into<Vec<u8>>) -> Vec<u8> {
    let text = text.into();
    [format!("{:x}\r\n", text.len()).as_bytes(), &text, b"\r\n"].concat()
}

fn whole(parts: &[&[u8]]) -> Arc<[u8]> {
    parts.concat().into()
}
