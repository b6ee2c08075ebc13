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

/// `GET /v1/tasks?dockerid=<id>`: the task that the agent made the container for. Its list of containers leaves out those
/// that only the agent needs, as the one that keeps a task's network.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Task {
    arn: String,
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

    /// Whether the agent has made a container for a task.
    pub(super) async fn made(&self, container: &ContainerId, task: &TaskName) -> Result<bool, DockerError> {
        let answer = match timeout(PATIENCE, self.task_of(container)).await {
            Ok(answer) => answer,
            Err(_late) => Err(format!("no answer within {PATIENCE:?}")),
        };
        let found = answer.map_err(|problem| DockerError::Agent {
            container: container.clone(),
            problem,
        })?;
        Ok(found.is_some_and(|found| found.arn == task.as_str()))
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
            StatusCode::NOT_FOUND => Ok(None),
            status => Err(format!("it answered with status {status}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use serde_json::json;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
        task::JoinSet,
    };

    use super::{Agent, MAX_ANSWER_BYTES};
    use crate::attribution::{ContainerId, TaskName};

    const ARN: &str = "arn:aws:ecs:us-west-2:111122223333:task/bench/00000000000000000000000000000000";

    /// An agent that gives everybody one answer.
    async fn agent(status: u16, body: String) -> (Agent, JoinSet<()>) {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let agent = Agent::new(listener.local_addr().unwrap());
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 1024];
                let length = stream.read(&mut request).await.unwrap();
                assert!(request[..length].starts_with(b"GET /v1/tasks?dockerid=abab"));
                let head = format!(
                    "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
                    body.len()
                );
                stream.write_all((head + &body).as_bytes()).await.unwrap();
            }
        });
        (agent, serving)
    }

    fn container() -> ContainerId {
        ContainerId::parse(&"ab".repeat(32)).unwrap()
    }

    /// Whether an agent that answers this made the container for the task.
    async fn made(status: u16, body: String) -> Option<bool> {
        let (agent, _serving) = agent(status, body).await;
        agent.made(&container(), &TaskName::new(ARN)).await.ok()
    }

    fn task(arn: &str, ids: &[&str]) -> String {
        let containers: Vec<_> = ids.iter().map(|id| json!({"DockerId": id, "Name": "app"})).collect();
        json!({"Arn": arn, "DesiredStatus": "RUNNING", "Containers": containers}).to_string()
    }

    #[tokio::test]
    async fn only_the_very_task_is_the_containers() {
        let (container, other) = (container(), "cd".repeat(32));
        let id = container.as_str();
        assert_eq!(made(200, task(ARN, &[&other, id])).await, Some(true));
        // One that keeps the task's network is not listed.
        assert_eq!(made(200, task(ARN, &[&other])).await, Some(true));
        for arn in ["arn:other", ""] {
            assert_eq!(made(200, task(arn, &[id])).await, Some(false), "{arn}");
        }
        let nothing = r#"{"Arn":"","KnownStatus":"","Family":"","Version":"","Containers":null}"#;
        assert_eq!(made(200, nothing.to_owned()).await, Some(false));
        assert_eq!(made(404, nothing.to_owned()).await, Some(false));
        assert_eq!(made(404, task(ARN, &[id])).await, Some(false));
    }

    #[tokio::test]
    async fn an_agent_that_cannot_be_understood_says_nothing() {
        for status in [400, 403, 500] {
            assert_eq!(made(status, task("", &[])).await, None, "{status}");
        }
        assert_eq!(made(200, "<html>".to_owned()).await, None);
        assert_eq!(made(200, "x".repeat(MAX_ANSWER_BYTES + 1)).await, None);
        let gone = Agent::new(([127, 0, 0, 1], 9).into());
        gone.made(&container(), &TaskName::new(ARN)).await.unwrap_err();
    }
}
