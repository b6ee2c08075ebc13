//! The listener: accepts connections, bounds what each may take, and lets them finish when the service stops.

use std::{
    convert::Infallible,
    io,
    net::{SocketAddr, SocketAddrV4},
    os::fd::{AsFd, OwnedFd},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::Request;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::net::sockopt;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use super::Endpoint;
use crate::drain::Watcher;

/// Connections of all senders served at once; further ones wait in the kernel's backlog.
const MAX_CONNECTIONS: usize = 16_384;

/// How long a request's head may take, and how long a connection may be idle (the agent's value).
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// How long whoever has connected may take for its first request once the service stops: long enough for one that is on
/// its way.
const LAST_CALL: Duration = Duration::from_secs(1);

/// How long a client may leave an answer unread before the kernel ends the connection, in milliseconds.
const UNREAD_TIMEOUT_MS: u32 = 5000;

/// The largest request head; clients send well under 1 KiB.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// The most headers in a request.
const MAX_HEADERS: usize = 64;

/// How long to wait after a failed accept. Out of descriptors is the usual cause, and that takes time to pass.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A port of the endpoint, bound and listening.
#[derive(Debug)]
pub struct Listener {
    pub(super) listener: TcpListener,
}

/// A port of the endpoint is not to be had.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {address}: {source}; see who does with `ss -ltnp`, or set endpoint.steer-port and endpoint.packet-steer-port"
)]
pub struct ListenError {
    /// The address wanted.
    pub address: SocketAddrV4,
    /// Why not.
    pub source: io::Error,
}

// === impl Listener ===

impl Listener {
    /// Binds the address and listens. Connections wait until [`Listener::run`].
    pub async fn bind(address: SocketAddrV4) -> Result<Self, ListenError> {
        let failed = |source| ListenError { address, source };
        let listener = TcpListener::bind(SocketAddr::V4(address)).await.map_err(failed)?;
        Ok(Self { listener })
    }

    /// Takes over a socket that listens at `address` already, with whoever waits in its backlog.
    pub fn adopt(socket: OwnedFd, address: SocketAddrV4) -> Result<Self, ListenError> {
        let listener = std::net::TcpListener::from(socket);
        let adopted = listener
            .set_nonblocking(true)
            .and_then(|()| TcpListener::from_std(listener));
        let listener = adopted.map_err(|source| ListenError { address, source })?;
        Ok(Self { listener })
    }

    /// A second handle on the socket: while it is open, clients that come wait in the backlog instead of being refused.
    pub fn handle(&self, address: SocketAddrV4) -> Result<OwnedFd, ListenError> {
        let handle = self.listener.as_fd().try_clone_to_owned();
        handle.map_err(|source| ListenError { address, source })
    }

    /// Serves connections until the drain, then lets those that are open finish their request.
    pub async fn run(self, endpoint: Arc<Endpoint>, mut drain: Watcher) {
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                biased; // Stopping comes first, or a busy listener would never stop.
                () = drain.signaled() => break,
                Some(ended) = connections.join_next() => log_panic(ended),
                (stream, slot) = self.accept(&slots) => {
                    connections.spawn(serve(stream, Arc::clone(&endpoint), drain.clone(), slot));
                }
            }
        }
        // Closed here, so that a client that comes now is refused at once instead of waiting; unless the socket has another
        // handle, and somebody will listen again.
        drop(self.listener);
        while let Some(ended) = connections.join_next().await {
            log_panic(ended);
        }
    }

    /// The next connection, and a slot for it.
    async fn accept(&self, slots: &Arc<Semaphore>) -> (TcpStream, Option<OwnedSemaphorePermit>) {
        // The semaphore is never closed, so there always is a permit; without one nothing would be served.
        let slot = Arc::clone(slots).acquire_owned().await.ok();
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => return (stream, slot),
                Err(error) => {
                    warn!(%error, "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// Serves one connection. Its errors are the client's, so they are only of interest when debugging.
async fn serve(stream: TcpStream, endpoint: Arc<Endpoint>, mut drain: Watcher, slot: Option<OwnedSemaphorePermit>) {
    if let Err(error) = configure(&stream) {
        debug!(%error, "cannot configure a connection");
        return;
    }
    let sender = endpoint.gate.sender(&stream);
    let admitted_until = endpoint.gate.deadline();
    let Some(place) = endpoint.admit(&sender, admitted_until).await else {
        return;
    };
    let (endpoint, sender, asked) = (&*endpoint, &sender, &Notify::new());
    let waited_in_vain = &AtomicBool::new(place.is_of_unresolved());
    let service = service_fn(|request: Request<Incoming>| async move {
        asked.notify_one();
        // The first request has waited with its connection already.
        let until = if waited_in_vain.swap(false, Ordering::Relaxed) {
            admitted_until
        } else {
            endpoint.gate.deadline()
        };
        let (head, _body) = request.into_parts();
        Ok::<_, Infallible>(endpoint.answer(sender, &head.method, &head.uri, until).await)
    });
    let mut connection = pin!(server().serve_connection(TokioIo::new(stream), service));
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = last_call(&mut drain, asked) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        debug!(%error, "a connection ended early");
    }
    drop(slot);
}

/// Returns when the service stops and this connection has had a request, or has had time for one. To shut down earlier
/// would close a connection whose request is on its way.
async fn last_call(drain: &mut Watcher, asked: &Notify) {
    drain.signaled().await;
    drop(timeout(LAST_CALL, asked.notified()).await);
}

fn server() -> http1::Builder {
    let mut server = http1::Builder::new();
    server
        .timer(TokioTimer::new())
        // A client that has said all it has to say still waits for the answer.
        .half_close(true)
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS);
    server
}

fn configure(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_tcp_user_timeout(stream, UNREAD_TIMEOUT_MS)?;
    Ok(())
}

fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        warn!(%error, "serving a connection failed");
    }
}
