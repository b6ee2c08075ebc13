//! The ECS agent as upstream. The request is made anew from the permit; nothing the caller sent goes there.
//!
//! Of the agent's answers only the credentials are passed on. Its refusals are told in our own words, which are those
//! of the newest agent: with an older one the two would differ, and the difference would tell who owns an ID.

mod connector;

use std::{error::Error, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header::USER_AGENT};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use tokio::time::timeout;

use self::connector::Connector;
pub use self::connector::Vouch;
use super::Answer;
use crate::{
    policy::{CredentialId, Permit},
    telemetry::causes,
};

/// How long the agent may take for a whole answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How long an idle connection is kept: less than the agent's 5 s, so that it is never used while the agent closes it.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3);

/// Idle connections kept.
const MAX_IDLE: usize = 16;

/// The largest answer taken; the agent's are about 1.5 KiB.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// How we introduce ourselves; shows up in the agent's own audit log.
const AGENT_NAME: &str = concat!("enforcer/", env!("CARGO_PKG_VERSION"));

/// Asks the ECS agent.
#[derive(Debug)]
pub struct EcsAgent {
    address: SocketAddr,
    client: Client<Connector, Empty<Bytes>>,
}

/// The agent could not be asked, or gave an answer nobody expects. Says nothing of what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum EcsAgentError {
    /// No request could be made of the permit.
    #[error("cannot write a request to the ECS agent: {source}")]
    Request {
        /// Why.
        source: http::Error,
    },
    /// No answer.
    #[error("cannot ask the ECS agent at {address}: {}; is it running, and is endpoint.agent its address?", causes(.source))]
    Ask {
        /// Where it should be.
        address: SocketAddr,
        /// Why.
        source: hyper_util::client::legacy::Error,
    },
    /// No answer in time.
    #[error("the ECS agent at {address} did not answer within {TIMEOUT:?}")]
    Timeout {
        /// Where it is.
        address: SocketAddr,
    },
    /// The answer broke off, or is too long.
    #[error("cannot read the answer of the ECS agent at {address}: {source}")]
    Body {
        /// Where it is.
        address: SocketAddr,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// An answer that means nothing to us.
    #[error("the ECS agent at {address} answered with status {status}")]
    Status {
        /// Where it is.
        address: SocketAddr,
        /// What it said.
        status: StatusCode,
    },
}

// === impl EcsAgent ===

impl EcsAgent {
    pub(super) fn build(address: SocketAddr, vouch: Arc<dyn Vouch>) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(TIMEOUT));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(MAX_IDLE)
            .build(Connector { tcp, vouch });
        Self { address, client }
    }

    pub(super) async fn credentials(&self, permit: &Permit) -> Result<Answer, EcsAgentError> {
        let address = self.address;
        match timeout(TIMEOUT, self.ask(permit)).await {
            Ok(answer) => answer,
            Err(_elapsed) => Err(EcsAgentError::Timeout { address }),
        }
    }

    async fn ask(&self, permit: &Permit) -> Result<Answer, EcsAgentError> {
        let address = self.address;
        // The agent knows roles by IDs only.
        let Some(credential) = permit.credential() else {
            return Ok(Answer::Unknown);
        };
        let request = self
            .request(credential)
            .map_err(|source| EcsAgentError::Request { source })?;
        let asked = self.client.request(request).await;
        let answer = asked.map_err(|source| EcsAgentError::Ask { address, source })?;
        match answer.status() {
            StatusCode::OK => {
                #[expect(clippy::disallowed_methods, reason = "the body is limited")]
                let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect().await;
                let body = body.map_err(|source| EcsAgentError::Body { address, source })?;
                Ok(Answer::Credentials(body.to_bytes()))
            }
            StatusCode::BAD_REQUEST => Ok(Answer::Unknown),
            StatusCode::SERVICE_UNAVAILABLE => Ok(Answer::NotReady),
            status => Err(EcsAgentError::Status { address, status }),
        }
    }

    /// The one request there is. The ID needs no encoding: only such IDs can be granted.
    fn request(&self, credential: &CredentialId) -> Result<Request<Empty<Bytes>>, http::Error> {
        let uri = Uri::builder()
            .scheme("http")
            .authority(self.address.to_string())
            .path_and_query(format!("/v2/credentials/{}", credential.expose()))
            .build()?;
        Request::get(uri).header(USER_AGENT, AGENT_NAME).body(Empty::new())
    }
}

#[cfg(test)]
mod tests;
