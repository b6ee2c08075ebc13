//! Connects to the ECS agent, and to nobody who only took its port.
//!
//! The agent's port is open to every process of the host's network namespace while the agent is not there, containers in host
//! mode included. Whoever listens then would be handed credential IDs, and could answer. So the kernel is asked for each new
//! connection whose the socket at its other end is, before anything is sent.

use std::{
    error::Error,
    fmt, io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioIo};
use tokio::{net::TcpStream, time::sleep};
use tower_service::Service;

use crate::host::sock_diag;

/// How often the other end is looked for: it is there a moment after this one.
const LOOKS: u32 = 50;
/// How long to wait before looking again.
const PAUSE: Duration = Duration::from_millis(2);

/// Tells who may hold credentials.
pub trait Vouch: fmt::Debug + Send + Sync + 'static {
    /// Whether the processes of the cgroup with this ID may.
    fn vouches_for(&self, cgroup_id: u64) -> bool;
}

/// Makes connections to whom somebody vouches for.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    pub(super) tcp: HttpConnector,
    pub(super) vouch: Arc<dyn Vouch>,
}

/// Somebody else may be at the other end.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotVouchedFor {
    /// It is known who.
    #[error(
        "whoever listens at {address} is not trusted (its cgroup has the ID {cgroup_id}); list the ECS agent's cgroup under cgroups.host"
    )]
    Guarded {
        /// Where.
        address: SocketAddr,
        /// Whose.
        cgroup_id: u64,
    },
    /// The kernel does not tell.
    #[error("the kernel does not tell who listens at {address}; load tcp_diag, or the connection has ended")]
    Untold {
        /// Where.
        address: SocketAddr,
    },
    /// The kernel cannot be asked.
    #[error("cannot ask the kernel who listens at {address}: {source}")]
    Ask {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

type BoxError = Box<dyn Error + Send + Sync>;

// === impl Connector ===

impl Service<Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.tcp.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.tcp.call(uri);
        let vouch = Arc::clone(&self.vouch);
        Box::pin(async move {
            let connection = connecting.await?;
            let stream = connection.inner();
            require(&*vouch, stream.peer_addr()?, stream.local_addr()?).await?;
            Ok(connection)
        })
    }
}

/// Fails unless somebody vouches for the socket at `there` that is connected to `here`. One on another host has no cgroup
/// here: it was configured, so it is believed.
async fn require(vouch: &dyn Vouch, there: SocketAddr, here: SocketAddr) -> Result<(), NotVouchedFor> {
    if !there.ip().is_loopback() && there.ip() != here.ip() {
        return Ok(());
    }
    for _ in 0..LOOKS {
        let cgroup = sock_diag::cgroup_of(there, here);
        let cgroup = cgroup.map_err(|source| NotVouchedFor::Ask { address: there, source })?;
        match cgroup.filter(|id| *id != 0) {
            Some(id) if vouch.vouches_for(id) => return Ok(()),
            Some(cgroup_id) => {
                return Err(NotVouchedFor::Guarded {
                    address: there,
                    cgroup_id,
                });
            }
            None => sleep(PAUSE).await,
        }
    }
    Err(NotVouchedFor::Untold { address: there })
}
