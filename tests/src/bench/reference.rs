//! The reference: a bare hyper server that answers every request with the same bytes.

use std::{convert::Infallible, future::ready, net::SocketAddr, path::Path};

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Response,
    header::{CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime,
    task::JoinSet,
};

use crate::{
    enter::Place,
    worker::{self, Worker},
};

/// Starts serving a body.
#[derive(Debug, Serialize, Deserialize)]
struct Serve {
    body: String,
}

/// The running server.
#[derive(Debug)]
pub(super) struct Reference {
    /// It serves as long as this lives.
    _worker: Worker,
    address: SocketAddr,
}

// === impl Reference ===

impl Reference {
    pub(super) fn start(lab: &Path, place: &Place, body: &str) -> Result<Self> {
        let mut command = place.command(lab, lab);
        command.arg("reference");
        let mut worker = Worker::start(command)?;
        let address = worker.call(&Serve { body: body.to_owned() })?;
        Ok(Self {
            _worker: worker,
            address,
        })
    }

    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }
}

/// The server's side: `lab reference`.
pub fn run() -> Result<()> {
    let runtime = runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the server")?;
    let listener = runtime
        .block_on(TcpListener::bind("127.0.0.1:0"))
        .context("cannot listen")?;
    let address = listener.local_addr().context("the listener has no address")?;
    let mut listener = Some(listener);
    worker::serve(|Serve { body }| {
        if let Some(listener) = listener.take() {
            runtime.spawn(serve(listener, Bytes::from(body)));
        }
        address
    })
}

async fn serve(listener: TcpListener, body: Bytes) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Ok((stream, _)) = listener.accept() => {
                connections.spawn(answer(stream, body.clone()));
            }
            Some(Ok(())) = connections.join_next() => {}
        }
    }
}

/// Serves one connection; how it ends is the client's affair.
async fn answer(stream: TcpStream, body: Bytes) {
    let service = service_fn(move |_request| {
        let mut response = Response::new(Full::new(body.clone()));
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(CONTENT_TYPE, json);
        ready(Ok::<_, Infallible>(response))
    });
    drop(
        http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service)
            .await,
    );
}
