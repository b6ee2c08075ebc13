//! The endpoint's listening sockets: given by the service manager, handed over by the enforcer before this one, or bound
//! here. Whoever waits in the backlog of one that is given or handed over waits for whoever listens next.

use std::{
    io,
    net::SocketAddrV4,
    os::fd::{AsFd, OwnedFd},
};

use rustix::net::{getsockname, sockopt};
use sd_notify::NotifyState;
use tracing::{info, warn};

use crate::{
    config,
    endpoint::{ListenError, Listener},
    sys,
};

/// The name of the sockets in the service manager's store.
const STORED_AS: &str = "endpoint";

/// Sockets that this process did not make, and who else keeps them open.
#[derive(Debug)]
pub enum Offered {
    /// The service manager.
    ByManager(Vec<OwnedFd>),
    /// The enforcer before this one.
    ByPredecessor(Vec<OwnedFd>),
}

/// The listeners, and a second handle on their sockets, for whoever listens next.
pub(super) struct Sockets {
    pub(super) listeners: Vec<Listener>,
    pub(super) handles: Vec<OwnedFd>,
}

/// What the service manager left for this process; nothing, if there is none.
#[must_use]
pub fn inherited() -> Vec<OwnedFd> {
    sys::inherited::take().unwrap_or_else(|error| {
        warn!(%error, "cannot take the sockets of the service manager");
        Vec::new()
    })
}

// === impl Sockets ===

impl Sockets {
    /// Takes what is offered and fits, binds what is missing, and leaves all with the service manager.
    pub(super) async fn open(endpoint: &config::Endpoint, offered: Offered) -> Result<Self, ListenError> {
        let (mut offered, is_kept) = match offered {
            Offered::ByManager(sockets) => (sockets, true),
            Offered::ByPredecessor(sockets) => (sockets, false),
        };
        let (mut listeners, mut handles) = (Vec::new(), Vec::new());
        for port in [endpoint.steer_port, endpoint.packet_steer_port] {
            let address = SocketAddrV4::new(endpoint.address, port);
            let fitting = offered.iter().position(|socket| listens_at(socket, address));
            let (listener, is_kept) = match fitting {
                Some(fitting) => (Listener::adopt(offered.swap_remove(fitting), address)?, is_kept),
                None => (Listener::bind(address).await?, false),
            };
            let handle = listener.handle(address)?;
            info!(%address, given = fitting.is_some(), "listening");
            if !is_kept {
                store(&handle);
            }
            listeners.push(listener);
            handles.push(handle);
        }
        if !offered.is_empty() {
            warn!(
                sockets = offered.len(),
                "closing sockets that listen at none of the endpoint's addresses"
            );
        }
        Ok(Self { listeners, handles })
    }
}

fn listens_at(socket: &OwnedFd, address: SocketAddrV4) -> bool {
    let is_listening = sockopt::socket_acceptconn(socket).unwrap_or(false);
    let local = getsockname(socket)
        .ok()
        .and_then(|name| SocketAddrV4::try_from(name).ok());
    is_listening && local == Some(address)
}

/// Leaves a socket with the service manager, if there is one that takes it: it outlives even a killed process.
fn store(socket: &OwnedFd) {
    let stored: io::Result<()> = sd_notify::notify_with_fds(
        &[NotifyState::FdStore, NotifyState::FdName(STORED_AS)],
        &[socket.as_fd()],
    );
    if let Err(error) = stored {
        warn!(%error, "cannot leave a socket with the service manager");
    }
}
