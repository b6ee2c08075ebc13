//! A connection to the engine. Whoever waits for an answer drives it, so no other task or thread has to be woken for one:
//! with tens of thousands of questions, that would take longer than all the rest.

use std::{fmt, path::Path, pin::pin, time::Duration};

use bytes::Bytes;
use futures_util::future::{Fuse, FutureExt, ready};
use http::{Request, Response, StatusCode, header::HOST};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::{net::UnixStream, time::timeout};

use super::client::DockerError;
use crate::attribution::ContainerId;

/// How long the engine may take for an answer, and between two parts of a long one.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// The largest answer about one thing taken; the engine's are about 6 KiB.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// What makes requests out of questions and answers out of what comes.
type Driver = http1::Connection<TokioIo<UnixStream>, Empty<Bytes>>;

/// A connection.
pub(super) struct Connection {
    requests: SendRequest<Empty<Bytes>>,
    driver: Fuse<Driver>,
}

/// What is asked for, for who reads of an error.
#[derive(Clone, Copy)]
pub(super) enum What<'a> {
    Itself,
    AllContainers,
    Container(&'a ContainerId),
    ImageOf(&'a ContainerId),
    Events,
}

// === impl Connection ===

impl Connection {
    /// Connects to an engine that is to be believed.
    pub(super) async fn open(socket: &Path) -> Result<Self, DockerError> {
        let failed = |source| DockerError::Connect {
            socket: socket.to_owned(),
            source,
        };
        let connecting = timeout(PATIENCE, UnixStream::connect(socket)).await;
        let stream = connecting.map_err(|late| failed(late.into()))?.map_err(failed)?;
        let uid = stream.peer_cred().map_err(failed)?.uid();
        // Who runs the enforcer is who tests it, if not root.
        if uid != 0 && uid != rustix::process::geteuid().as_raw() {
            return Err(DockerError::NotRoot {
                socket: socket.to_owned(),
                uid,
            });
        }
        let shaken = http1::handshake(TokioIo::new(stream)).await;
        let (requests, driver) = shaken.map_err(|error| DockerError::ask(What::Itself, error))?;
        Ok(Self {
            requests,
            driver: driver.fuse(),
        })
    }

    /// Whether something else can be asked on it.
    pub(super) async fn is_open(&mut self) -> bool {
        driven(&mut self.driver, ready(())).await;
        !self.requests.is_closed()
    }

    /// Asks for something. No body is read yet.
    pub(super) async fn get(&mut self, what: What<'_>, path: &str) -> Result<Response<Incoming>, DockerError> {
        let request = Request::get(path).header(HOST, "docker").body(Empty::new());
        let request = request.map_err(|error| DockerError::ask(what, error))?;
        let answer = self.requests.send_request(request);
        match timeout(PATIENCE, driven(&mut self.driver, answer)).await {
            Ok(answer) => answer.map_err(|error| DockerError::ask(what, error)),
            Err(_late) => Err(DockerError::late(what)),
        }
    }

    /// A whole body.
    pub(super) async fn body(&mut self, what: What<'_>, body: Incoming) -> Result<Bytes, DockerError> {
        let limited = Limited::new(body, MAX_ANSWER_BYTES);
        #[expect(clippy::disallowed_methods, reason = "the body is limited")]
        match timeout(PATIENCE, driven(&mut self.driver, limited.collect())).await {
            Ok(body) => Ok(body.map_err(|error| DockerError::body(what, error))?.to_bytes()),
            Err(_late) => Err(DockerError::late(what)),
        }
    }

    /// The next part of a long body; `None` at its end.
    pub(super) async fn part(
        &mut self,
        what: What<'_>,
        body: &mut Incoming,
        patience: Option<Duration>,
    ) -> Result<Option<Bytes>, DockerError> {
        loop {
            let frame = driven(&mut self.driver, body.frame());
            let frame = match patience {
                None => frame.await,
                Some(patience) => timeout(patience, frame)
                    .await
                    .map_err(|_late| DockerError::late(what))?,
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
}

impl fmt::Debug for Connection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Connection")
    }
}

// === impl What ===

impl fmt::Display for What<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Itself => formatter.write_str("itself"),
            Self::AllContainers => formatter.write_str("all containers"),
            Self::Container(id) => write!(formatter, "container {}", id.as_str()),
            Self::ImageOf(id) => write!(formatter, "the image of container {}", id.as_str()),
            Self::Events => formatter.write_str("events"),
        }
    }
}

/// The answer, if it is one.
pub(super) fn require_ok(what: What<'_>, response: Response<Incoming>) -> Result<Incoming, DockerError> {
    match response.status() {
        StatusCode::OK => Ok(response.into_body()),
        status => Err(DockerError::Status {
            what: what.to_string(),
            status,
        }),
    }
}

/// Waits for something that comes over a connection. How that ends, what is waited for tells.
async fn driven<T>(driver: &mut Fuse<Driver>, wanted: impl Future<Output = T>) -> T {
    let mut wanted = pin!(wanted);
    tokio::select! {
        biased; // What the driver has brought is there for who waits at once.
        _ended = driver => wanted.await,
        wanted = &mut wanted => wanted,
    }
}
