//! The engine's API over its socket: four questions and the stream of events, with a bound on time and size of each.
//!
//! Not the `bollard` crate (0.21): it takes answers of any size as a whole, makes a connection for each question, decodes
//! all there is, and writes every answer, with the environment in it, to the debug log.

use std::{
    convert::Infallible,
    error::Error,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use http::StatusCode;
use hyper::body::Incoming;
use jiff::Timestamp;
use serde::Deserialize;
use tokio::task::JoinError;

use super::{
    connection::{Connection, PATIENCE, What, require_ok},
    container::{Container, Image, Labels},
    objects::Objects,
};
use crate::{attribution::ContainerId, telemetry::causes};

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
    #[error("cannot ask the Docker engine for {what}: {}", causes(.source.as_ref()))]
    Ask {
        /// What was asked for.
        what: String,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
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
    /// Asking came to no end.
    #[error("asking the Docker engine about containers broke off: {0}")]
    BrokenOff(#[from] JoinError),
    /// Who made a container does not know it yet.
    #[error("the ECS agent does not know yet whose container {container:?} is; ask again in a moment")]
    Undecided {
        /// Which container.
        container: ContainerId,
    },
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

/// The engine.
#[derive(Debug)]
pub(super) struct Engine {
    socket: PathBuf,
}

/// Asks about one container after the other, on one connection as long as that works.
#[derive(Debug)]
pub(super) struct Asker<'a> {
    engine: &'a Engine,
    connection: Option<Connection>,
}

/// The engine's events.
#[derive(Debug)]
pub(super) struct Events {
    connection: Connection,
    body: Incoming,
}

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
            | Self::BrokenOff(_)
            | Self::Undecided { .. }
            | Self::Nested { .. }
            | Self::EventsEnded
            | Self::Agent { .. } => false,
        }
    }

    /// Whether the engine itself fails. What it says of one container may be that container's doing.
    pub(super) const fn is_of_engine(&self) -> bool {
        matches!(
            self,
            Self::Connect { .. } | Self::NotRoot { .. } | Self::Ask { .. } | Self::Timeout { .. }
        )
    }

    pub(super) fn ask(what: What<'_>, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Ask {
            what: what.to_string(),
            source: source.into(),
        }
    }

    pub(super) fn late(what: What<'_>) -> Self {
        Self::Timeout { what: what.to_string() }
    }

    pub(super) fn body(what: What<'_>, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Body {
            what: what.to_string(),
            source: source.into(),
        }
    }

    fn garbage(what: What<'_>, error: &serde_json::Error) -> Self {
        Self::Garbage {
            what: what.to_string(),
            line: error.line(),
            column: error.column(),
        }
    }
}

// === impl Engine ===

impl Engine {
    pub(super) fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
        }
    }

    /// The name of its cgroup driver.
    pub(super) async fn cgroup_driver(&self) -> Result<String, DockerError> {
        let what = What::Itself;
        let mut connection = Connection::open(&self.socket).await?;
        let response = connection.get(what, "/info").await?;
        if response.headers().contains_key(PODMAN) {
            return Err(DockerError::Podman {
                socket: self.socket.clone(),
            });
        }
        let body = connection.body(what, require_ok(what, response)?).await?;
        let info: Info = serde_json::from_slice(&body).map_err(|error| DockerError::garbage(what, &error))?;
        Ok(info.cgroup_driver)
    }

    /// Somebody to ask about containers.
    pub(super) const fn asker(&self) -> Asker<'_> {
        Asker {
            engine: self,
            connection: None,
        }
    }

    /// All containers, also those that do not run.
    pub(super) async fn list(&self) -> Result<Vec<ContainerId>, DockerError> {
        let what = What::AllContainers;
        let mut connection = Connection::open(&self.socket).await?;
        let response = connection.get(what, "/containers/json?all=true").await?;
        let mut body = require_ok(what, response)?;
        let (mut objects, mut ids) = (Objects::default(), Vec::new());
        while let Some(part) = connection.part(what, &mut body, Some(PATIENCE)).await? {
            let keep = |object: &[u8]| {
                let Listed { id } =
                    serde_json::from_slice(object).map_err(|error| DockerError::garbage(what, &error))?;
                ids.push(ContainerId::parse(id).map_err(|error| DockerError::body(what, error))?);
                Ok(())
            };
            objects.take(&part, |error| DockerError::body(what, error), keep)?;
        }
        if objects.is_whole_list() {
            Ok(ids)
        } else {
            Err(DockerError::body(what, "it broke off"))
        }
    }

    /// What happens to containers from a time on.
    pub(super) async fn events(&self, since: Timestamp) -> Result<Events, DockerError> {
        let mut connection = Connection::open(&self.socket).await?;
        let path = format!("/events?since={}&filters={EVENTS}", since.as_second());
        let response = connection.get(What::Events, &path).await?;
        let body = require_ok(What::Events, response)?;
        Ok(Events { connection, body })
    }
}

// === impl Asker ===

impl Asker<'_> {
    /// What the engine knows of a container, given to `read`; `None` if there is no such container.
    pub(super) async fn inspect<T>(
        &mut self,
        id: &ContainerId,
        read: impl FnOnce(&Container<'_>) -> T,
    ) -> Result<Option<T>, DockerError> {
        let what = What::Container(id);
        let Some(body) = self.get(what, &format!("/containers/{}/json", id.as_str())).await? else {
            return Ok(None);
        };
        let container: Container<'_> =
            serde_json::from_slice(&body).map_err(|error| DockerError::garbage(what, &error))?;
        if container.id != *id {
            return Err(DockerError::Garbage {
                what: what.to_string(),
                line: 0,
                column: 0,
            });
        }
        Ok(Some(read(&container)))
    }

    /// What `read` makes of the labels of a container's image; of none if there is no such image.
    pub(super) async fn image_labels<T>(
        &mut self,
        image: &str,
        container: &ContainerId,
        read: impl FnOnce(Option<&Labels<'_>>) -> T,
    ) -> Result<T, DockerError> {
        let what = What::ImageOf(container);
        if !is_digest(image) {
            return Ok(read(None));
        }
        let Some(body) = self.get(what, &format!("/images/{image}/json")).await? else {
            return Ok(read(None));
        };
        let image: Image<'_> = serde_json::from_slice(&body).map_err(|error| DockerError::garbage(what, &error))?;
        Ok(read(Some(&image.labels())))
    }

    /// What the engine answers; `None` if there is no such thing.
    async fn get(&mut self, what: What<'_>, path: &str) -> Result<Option<Bytes>, DockerError> {
        let mut connection = self.connection().await?;
        let response = connection.get(what, path).await?;
        let is_there = response.status() != StatusCode::NOT_FOUND;
        let body = if is_there {
            require_ok(what, response)?
        } else {
            response.into_body()
        };
        let body = connection.body(what, body).await?;
        // Only now that nothing of the answer is left: it could be taken for the next one.
        self.connection = Some(connection);
        Ok(is_there.then_some(body))
    }

    async fn connection(&mut self) -> Result<Connection, DockerError> {
        if let Some(mut connection) = self.connection.take()
            && connection.is_open().await
        {
            return Ok(connection);
        }
        Connection::open(&self.engine.socket).await
    }
}

/// Whether an image's ID is one: it becomes a part of a path.
fn is_digest(id: &str) -> bool {
    let hex = id.strip_prefix("sha256:");
    hex.is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

// === impl Events ===

impl Events {
    /// Gives the container that each event is about to `each`, until there will be no more or `each` fails.
    pub(super) async fn follow(
        mut self,
        mut each: impl FnMut(ContainerId) -> Result<(), DockerError>,
    ) -> Result<Infallible, DockerError> {
        let what = What::Events;
        let mut objects = Objects::default();
        while let Some(part) = self.connection.part(what, &mut self.body, None).await? {
            let pass_on = |object: &[u8]| {
                let event: Event<'_> =
                    serde_json::from_slice(object).map_err(|error| DockerError::garbage(what, &error))?;
                each(ContainerId::parse(event.actor.id).map_err(|error| DockerError::body(what, error))?)
            };
            objects.take(&part, |error| DockerError::body(what, error), pass_on)?;
        }
        Err(DockerError::EventsEnded)
    }
}
