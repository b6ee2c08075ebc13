//! What the agent is asked, and what its answers become; the agent is a hyper server.

use std::{convert::Infallible, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, sync::Mutex, task::JoinSet};

use super::{Answer, EcsAgent, EcsAgentError, Vouch};
use crate::{
    attribution::{Attributed, Owner, TaskName, tests::tasks},
    policy::{AccessRequest, ApiVersion, CredentialId, Decision, Permit, Wanted, decide},
};

fn permit() -> Permit {
    let id = CredentialId::granted("d8f91d60-f0c6").unwrap();
    let tasks = tasks(&[("/web", "web", "d8f91d60-f0c6")]);
    let request = AccessRequest {
        version: ApiVersion::V1,
        wanted: Wanted::Id(id),
    };
    match decide(
        tasks.claims(),
        &Attributed::Task(Owner::of(&TaskName::new("web"))),
        &request,
    ) {
        Decision::Permit(permit) => permit,
        Decision::Denial(reason) => panic!("{reason:?}"),
    }
}

/// Vouches for the cgroups it is said to, or for everybody.
#[derive(Debug)]
struct Vouching(fn(u64) -> bool);

impl Vouch for Vouching {
    fn vouches_for(&self, cgroup_id: u64) -> bool {
        (self.0)(cgroup_id)
    }
}

fn upstream(address: SocketAddr) -> EcsAgent {
    EcsAgent::build(address, Arc::new(Vouching(|_| true)))
}

type Heads = Arc<Mutex<Vec<String>>>;

/// An agent that gives the same answer to everything and remembers what it was asked.
async fn agent(status: u16, body: String) -> (SocketAddr, Heads, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let heads = Heads::default();
    let asked = Arc::clone(&heads);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = service_fn(|request: Request<Incoming>| {
                let (asked, body) = (Arc::clone(&asked), body.clone());
                async move {
                    let mut headers: Vec<_> = request.headers().keys().map(ToString::to_string).collect();
                    headers.sort();
                    asked
                        .lock()
                        .await
                        .push(format!("{} {} {headers:?}", request.method(), request.uri()));
                    let mut response = Response::new(Full::new(Bytes::from(body)));
                    *response.status_mut() = StatusCode::from_u16(status).unwrap();
                    Ok::<_, Infallible>(response)
                }
            });
            drop(
                http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await,
            );
        }
    });
    (address, heads, tasks)
}

async fn answer(status: u16, body: &str) -> Result<Answer, EcsAgentError> {
    let (address, _, _tasks) = agent(status, body.to_owned()).await;
    upstream(address).credentials(&permit()).await
}

#[tokio::test]
async fn the_agent_is_asked_in_one_form_only() {
    let (address, heads, _tasks) = agent(200, "{}".to_owned()).await;
    let upstream = upstream(address);
    for _ in 0..2 {
        assert_eq!(
            upstream.credentials(&permit()).await.unwrap(),
            Answer::Credentials("{}".into())
        );
    }
    assert_eq!(
        *heads.lock().await,
        [r#"GET /v2/credentials/d8f91d60-f0c6 ["host", "user-agent"]"#; 2]
    );
}

#[tokio::test]
async fn its_refusals_become_ours() {
    assert_eq!(answer(400, "ID not found").await.unwrap(), Answer::Unknown);
    assert_eq!(answer(503, "later").await.unwrap(), Answer::NotReady);
}

#[tokio::test]
async fn anything_unexpected_is_an_error_that_tells_no_id() {
    let too_long = "x".repeat(super::MAX_ANSWER_BYTES + 1);
    let errors = [
        answer(429, "slow down").await.unwrap_err(),
        answer(301, "").await.unwrap_err(),
        answer(200, &too_long).await.unwrap_err(),
    ];
    assert!(matches!(&errors[0], EcsAgentError::Status { status, .. } if status.as_u16() == 429));
    assert!(matches!(&errors[2], EcsAgentError::Body { .. }));
    for error in errors {
        assert!(!error.to_string().contains("d8f91d60"), "{error}");
    }
}

#[tokio::test]
async fn an_agent_that_is_not_there_is_an_error_that_says_where() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = nobody.local_addr().unwrap();
    drop(nobody);
    let error = upstream(address).credentials(&permit()).await.unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("cannot ask the ECS agent at {address}: ")),
        "{error}"
    );
    assert!(
        error.contains("Connection refused") && !error.contains("d8f91d60"),
        "{error}"
    );
}

#[tokio::test]
async fn whoever_only_took_the_agents_port_is_told_nothing() {
    let (address, heads, _tasks) = agent(200, "{}".to_owned()).await;
    let upstream = EcsAgent::build(address, Arc::new(Vouching(|cgroup_id| cgroup_id == 0)));
    let error = upstream.credentials(&permit()).await.unwrap_err().to_string();
    assert!(
        error.contains("is not trusted") && error.contains("cgroups.host"),
        "{error}"
    );
    assert!(heads.lock().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_does_not_answer_is_not_waited_for_long() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = upstream(silent.local_addr().unwrap());
    assert!(upstream.credentials(&permit()).await.is_err());
}
