//! The ECS agent's introspection: its own view of which containers a task has, and independent of what labels say.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use serde::Deserialize;
use tokio::time::timeout;

use super::client::DockerError;
use crate::{
    attribution::{ContainerId, TaskName},
    telemetry::causes,
};

/// How long the agent may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long an idle connection is kept: less than the agent's 5 s, so that it is never used while the agent closes it.
const IDLE: Duration = Duration::from_secs(3);

/// The largest answer taken; one about a task has a few KiB.
const MAX_ANSWER_BYTES: usize = 256 * 1024;

/// Asks the agent.
#[derive(Debug)]
pub(super) struct Agent {
    address: SocketAddr,
    client: Client<HttpConnector, Empty<Bytes>>,
}

/// `GET /v1/tasks?dockerid=<id>`
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Task {
    arn: String,
    containers: Option<Vec<Listed>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    docker_id: String,
}

// === impl Agent ===

impl Agent {
    pub(super) fn new(address: SocketAddr) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(PATIENCE));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .build(connector);
        Self { address, client }
    }

    /// Whether the agent has a container in a task.
    pub(super) async fn lists(&self, container: &ContainerId, task: &TaskName) -> Result<bool, DockerError> {
        let answer = match timeout(PATIENCE, self.task_of(container)).await {
            Ok(answer) => answer,
            Err(_late) => Err(format!("no answer within {PATIENCE:?}")),
        };
        let found = answer.map_err(|problem| DockerError::Agent {
            container: container.clone(),
            problem,
        })?;
        Ok(found.is_some_and(|found| {
            let mut containers = found.containers.iter().flatten();
            found.arn == task.as_str() && containers.any(|listed| listed.docker_id == container.as_str())
        }))
    }

    async fn task_of(&self, container: &ContainerId) -> Result<Option<Task>, String> {
        let uri = format!("http://{}/v1/tasks?dockerid={}", self.address, container.as_str());
        let uri = uri.parse().map_err(|error| format!("{error}"))?;
        let response = self.client.get(uri).await.map_err(|error| causes(&error))?;
        match response.status() {
            StatusCode::OK => {
                #[expect(clippy::disallowed_methods, reason = "the body is limited")]
                let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
                let body = body.map_err(|error| error.to_string())?.to_bytes();
                let task = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
                Ok(Some(task))
            }
            StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST => Ok(None),
            status => Err(format!("it answered with status {status}")),
        }
    }
}
