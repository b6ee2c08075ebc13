//! The engine's API over its socket: three questions and the stream of events, with a bound on time and size of each.
//!
//! Not the `bollard` crate: it takes answers of any size as a whole and decodes all of each, which costs more time and
//! memory than 30,000 containers may.

use std::{
    convert::Infallible,
    error::Error,
    io::ErrorKind,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{self, Client},
    rt::{TokioExecutor, TokioTimer},
};
use hyperlocal::{UnixConnector, Uri};
use jiff::Timestamp;
use serde::Deserialize;
use tokio::{net::UnixStream, time::timeout};

use super::{
    container::Container,
    objects::{NoObjects, Objects},
};
use crate::{attribution::ContainerId, telemetry::causes};

/// How long the engine may take for an answer, and between two parts of a long one.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long an idle connection is kept.
const IDLE: Duration = Duration::from_secs(30);

/// How many idle connections are kept.
const MAX_IDLE: usize = 16;

/// The largest answer about one container taken; the engine's are about 6 KiB.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// Which events are asked for: others, as of each health check or of an end, change nothing here.
const EVENTS: &str = "%7B%22type%22%3A%5B%22container%22%5D%2C%22event%22%3A%5B%22create%22%2C%22start%22%2C%22destroy%22%2C%22rename%22%5D%7D";

/// What Podman adds to its answers, where it stands in for Docker.
const PODMAN: &str = "libpod-api-version";

/// The engine could not be asked, or what it says makes no sense. Says nothing of what containers hold.
#[derive(Debug, thiserror::Error)]
pub enum DockerError {
    /// There is nobody.
    #[error("cannot reach the Docker engine at {}: {source}; is it running?", .socket.display())]
    Connect {
        /// Its socket.
        socket: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not root's.
    #[error("the Docker engine at {} runs as user {uid}; only one that runs as root is believed", .socket.display())]
    NotRoot {
        /// Its socket.
        socket: PathBuf,
        /// Who runs it.
        uid: u32,
    },
    /// It is another engine, which puts containers elsewhere.
    #[error("who listens at {} is Podman, not the Docker engine", .socket.display())]
    Podman {
        /// The socket.
        socket: PathBuf,
    },
    /// No answer.
    #[error("cannot ask the Docker engine for {what}: {}", causes(.source))]
    Ask {
        /// What was asked for.
        what: String,
        /// Why.
        source: legacy::Error,
    },
    /// No answer in time.
    #[error("the Docker engine did not tell {what} within {PATIENCE:?}")]
    Timeout {
        /// What was asked for.
        what: String,
    },
    /// It refuses to answer.
    #[error("the Docker engine answered with status {status} when asked for {what}")]
    Status {
        /// What was asked for.
        what: String,
        /// What it said.
        status: StatusCode,
    },
    /// The answer broke off, or is too long.
    #[error("cannot read what the Docker engine says of {what}: {source}")]
    Body {
        /// What was asked for.
        what: String,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The answer makes no sense. Where, and not what: it may be a secret.
    #[error("cannot understand what the Docker engine says of {what}, from line {line}, column {column} on")]
    Garbage {
        /// What was asked for.
        what: String,
        /// Where.
        line: usize,
        /// Where in this line.
        column: usize,
    },
    /// It makes cgroups in a way nobody knows.
    #[error(
        "the Docker engine's cgroup driver is {driver:?}; only systemd and cgroupfs say where a container's cgroup is"
    )]
    Driver {
        /// Its name.
        driver: String,
    },
    /// More happens than can be followed.
    #[error("the Docker engine tells of more events than can be followed")]
    Flood,
    /// What it has told of is not known yet.
    #[error("what the Docker engine has told of could not be learned in time")]
    Behind,
    /// A cgroup's path names more containers than can be nested.
    #[error("a cgroup's path names more than {most} containers; it is nobody's")]
    Nested {
        /// How many there can be.
        most: usize,
    },
    /// The stream of events ended.
    #[error("the Docker engine does not tell of events any more; is it being restarted?")]
    EventsEnded,
    /// Somebody who can tell whose a container is could not be asked.
    #[error("cannot ask the ECS agent whose container {container:?} is: {problem}")]
    Agent {
        /// Which container.
        container: ContainerId,
        /// Why.
        problem: String,
    },
}

/// `GET /info`
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Info {
    cgroup_driver: String,
}

/// An entry of `GET /containers/json`.
#[derive(Deserialize)]
struct Listed<'a> {
    #[serde(rename = "Id")]
    id: &'a str,
}

/// One of `GET /events`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Event<'a> {
    #[serde(borrow)]
    actor: Actor<'a>,
}

#[derive(Deserialize)]
struct Actor<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
}

/// Asks the engine.
#[derive(Debug)]
pub(super) struct Engine {
    socket: PathBuf,
    client: Client<UnixConnector, Empty<Bytes>>,
}

/// The engine's events.
#[derive(Debug)]
pub(super) struct Events(Incoming);

// === impl DockerError ===

impl DockerError {
    /// Whether there is no Docker engine at all.
    pub(super) fn is_absence(&self) -> bool {
        match self {
            Self::Connect { source, .. } => source.kind() == ErrorKind::NotFound,
            Self::Podman { .. } => true,
            Self::NotRoot { .. }
            | Self::Ask { .. }
            | Self::Timeout { .. }
            | Self::Status { .. }
            | Self::Body { .. }
            | Self::Garbage { .. }
            | Self::Driver { .. }
            | Self::Flood
            | Self::Behind
            | Self::Nested { .. }
            | Self::EventsEnded
            | Self::Agent { .. } => false,
        }
    }

    /// Whether the engine itself fails. What it says of one container may be that container's doing.
    pub(super) const fn is_of_engine(&self) -> bool {
        matches!(self, Self::Ask { .. } | Self::Timeout { .. })
    }

    fn garbage(what: &str, error: &serde_json::Error) -> Self {
        Self::Garbage {
            what: what.to_owned(),
            line: error.line(),
            column: error.column(),
        }
    }

    fn body(what: &str, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Body {
            what: what.to_owned(),
            source: source.into(),
        }
    }
}

// === impl Engine ===

impl Engine {
    pub(super) fn new(socket: &Path) -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(MAX_IDLE)
            .build(UnixConnector);
        Self {
            socket: socket.to_owned(),
            client,
        }
    }

    /// Looks whether there is an engine to be believed.
    pub(super) async fn knock(&self) -> Result<(), DockerError> {
        let connect = |source| DockerError::Connect {
            socket: self.socket.clone(),
            source,
        };
        let connecting = timeout(PATIENCE, UnixStream::connect(&self.socket)).await;
        let stream = connecting.map_err(|late| connect(late.into()))?.map_err(connect)?;
        let uid = stream.peer_cred().map_err(connect)?.uid();
        // Who runs the enforcer is who tests it, if not root.
        if uid == 0 || uid == rustix::process::geteuid().as_raw() {
            return Ok(());
        }
        Err(DockerError::NotRoot {
            socket: self.socket.clone(),
            uid,
        })
    }

    /// The name of its cgroup driver.
    pub(super) async fn cgroup_driver(&self) -> Result<String, DockerError> {
        const WHAT: &str = "itself";
        let response = self.get(WHAT, "/info").await?;
        if response.headers().contains_key(PODMAN) {
            return Err(DockerError::Podman {
                socket: self.socket.clone(),
            });
        }
        let body = body(WHAT, response).await?;
        let info: Info = serde_json::from_slice(&body).map_err(|error| DockerError::garbage(WHAT, &error))?;
        Ok(info.cgroup_driver)
    }

    /// What it knows of a container, given to `read`; `None` if there is no such container.
    pub(super) async fn inspect<T>(
        &self,
        id: &ContainerId,
        read: impl FnOnce(&Container<'_>) -> T,
    ) -> Result<Option<T>, DockerError> {
        let what = format!("container {id:?}");
        let response = self.get(&what, &format!("/containers/{}/json", id.as_str())).await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let body = body(&what, response).await?;
        let container: Container<'_> =
            serde_json::from_slice(&body).map_err(|error| DockerError::garbage(&what, &error))?;
        if container.id != *id {
            return Err(DockerError::Garbage {
                what,
                line: 0,
                column: 0,
            });
        }
        Ok(Some(read(&container)))
    }

    /// All containers, also those that do not run.
    pub(super) async fn list(&self) -> Result<Vec<ContainerId>, DockerError> {
        const WHAT: &str = "all containers";
        let mut body = require_ok(WHAT, self.get(WHAT, "/containers/json?all=true").await?)?.into_body();
        let (mut objects, mut ids) = (Objects::default(), Vec::new());
        while let Some(part) = next_part(WHAT, &mut body, Some(PATIENCE)).await? {
            objects.take(&part, |object| {
                let Listed { id } =
                    serde_json::from_slice(object).map_err(|error| DockerError::garbage(WHAT, &error))?;
                ids.push(ContainerId::parse(id).map_err(|error| DockerError::body(WHAT, error))?);
                Ok::<_, DockerError>(())
            })?;
        }
        if objects.is_whole_list() {
            Ok(ids)
        } else {
            Err(DockerError::body(WHAT, "it broke off"))
        }
    }

    /// What happens to containers from a time on.
    pub(super) async fn events(&self, since: Timestamp) -> Result<Events, DockerError> {
        const WHAT: &str = "events";
        let path = format!("/events?since={}&filters={EVENTS}", since.as_second());
        let response = require_ok(WHAT, self.get(WHAT, &path).await?)?;
        Ok(Events(response.into_body()))
    }

    async fn get(&self, what: &str, path: &str) -> Result<Response<Incoming>, DockerError> {
        let asking = self.client.get(Uri::new(&self.socket, path).into());
        match timeout(PATIENCE, asking).await {
            Ok(answer) => answer.map_err(|source| DockerError::Ask {
                what: what.to_owned(),
                source,
            }),
            Err(_late) => Err(DockerError::Timeout { what: what.to_owned() }),
        }
    }
}

// === impl Events ===

impl Events {
    /// Gives the container that each event is about to `each`, until there will be no more or `each` fails.
    pub(super) async fn follow(
        mut self,
        mut each: impl FnMut(ContainerId) -> Result<(), DockerError>,
    ) -> Result<Infallible, DockerError> {
        const WHAT: &str = "events";
        let mut objects = Objects::default();
        while let Some(part) = next_part(WHAT, &mut self.0, None).await? {
            objects.take(&part, |object| {
                let event: Event<'_> =
                    serde_json::from_slice(object).map_err(|error| DockerError::garbage(WHAT, &error))?;
                each(ContainerId::parse(event.actor.id).map_err(|error| DockerError::body(WHAT, error))?)
            })?;
        }
        Err(DockerError::EventsEnded)
    }
}

impl From<NoObjects> for DockerError {
    fn from(error: NoObjects) -> Self {
        Self::body("containers", error)
    }
}

fn require_ok(what: &str, response: Response<Incoming>) -> Result<Response<Incoming>, DockerError> {
    match response.status() {
        StatusCode::OK => Ok(response),
        status => Err(DockerError::Status {
            what: what.to_owned(),
            status,
        }),
    }
}

/// The next part of a long answer; `None` at its end.
async fn next_part(what: &str, body: &mut Incoming, patience: Option<Duration>) -> Result<Option<Bytes>, DockerError> {
    loop {
        let frame = match patience {
            None => body.frame().await,
            Some(patience) => timeout(patience, body.frame())
                .await
                .map_err(|_late| DockerError::Timeout { what: what.to_owned() })?,
        };
        match frame {
            None => return Ok(None),
            Some(Err(error)) => return Err(DockerError::body(what, error)),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

/// A whole answer.
async fn body(what: &str, response: Response<Incoming>) -> Result<Bytes, DockerError> {
    let limited = Limited::new(require_ok(what, response)?.into_body(), MAX_ANSWER_BYTES);
    #[expect(clippy::disallowed_methods, reason = "the body is limited")]
    match timeout(PATIENCE, limited.collect()).await {
        Ok(body) => Ok(body.map_err(|error| DockerError::body(what, error))?.to_bytes()),
        Err(_late) => Err(DockerError::Timeout { what: what.to_owned() }),
    }
}
