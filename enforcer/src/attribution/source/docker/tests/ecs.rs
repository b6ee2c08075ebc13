//! Containers of an ECS agent that knows them a moment after the engine does.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{DEADLINE, DockerError, Stub, World, id, is_ready};
use crate::{
    attribution::{Holder, SourceKind, task::Fact},
    policy::CredentialId,
};

const TASK: &str = "arn:aws:ecs:us-west-2:111122223333:task/shop/0123456789abcdef0123456789abcdef";

/// An agent that does not know the container it has made until it was asked so often.
struct Agent {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    _serving: JoinSet<()>,
}

// === impl Agent ===

impl Agent {
    async fn start(knows_after: usize) -> Self {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let mut serving = JoinSet::new();
        let count = Arc::clone(&asked);
        serving.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0);
                let is_known = count.fetch_add(1, Ordering::Relaxed) >= knows_after;
                let (status, arn) = if is_known { (200, TASK) } else { (404, "") };
                let body = json!({"Arn": arn}).to_string();
                let head = format!(
                    "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
                    body.len()
                );
                stream.write_all((head + &body).as_bytes()).await.unwrap();
            }
        });
        Self {
            address,
            asked,
            _serving: serving,
        }
    }
}

/// Has the agent make a container, with credentials for its log driver, and does not start it.
fn make(engine: &Stub) {
    let container = json!({
        "Id": id('a').as_str(),
        "Created": "2026-11-22T06:00:00Z",
        "Name": "/ecs-shop-web",
        "State": {"Status": "created"},
        "Config": {"Labels": {"com.amazonaws.ecs.task-arn": TASK}, "Env": null},
        "HostConfig": {
            "CgroupParent": "/ecs/0123456789abcdef0123456789abcdef",
            "LogConfig": {"Config": {"awslogs-credentials-endpoint": "/v2/credentials/execution"}},
        },
    });
    engine.inspected(&id('a'), &container);
}

#[tokio::test]
async fn the_log_drivers_credential_id_is_known_before_the_start_of_a_container_the_agent_knows_late() {
    let agent = Agent::start(5).await;
    let world = World::with(Some(agent.address));
    let engine = Stub::start(&world.directory);
    world.until(&[], is_ready).await;
    make(&engine);
    let execution = CredentialId::granted("execution").unwrap();
    let known = async {
        while world.registry.read().claims().holder(&execution) != Holder::Execution {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(DEADLINE, known).await.unwrap();
    world.until(&[TASK], is_ready).await;
}

#[tokio::test]
async fn a_container_the_agent_never_knows_is_asked_about_a_while_and_then_forged() {
    let agent = Agent::start(usize::MAX).await;
    let world = World::with(Some(agent.address));
    let engine = Stub::start(&world.directory);
    world.until(&[], is_ready).await;
    make(&engine);
    world.until(&["docker/ecs-shop-web"], is_ready).await;
    let tasks = world.registry.read();
    let entry = tasks.entry(SourceKind::Docker, id('a').as_str()).unwrap();
    assert!(entry.facts.iter().any(|(fact, _)| *fact == Fact::Forged));
    assert_eq!(agent.asked.load(Ordering::Relaxed), 41);
}

#[tokio::test]
async fn nobody_is_told_that_a_container_the_agent_does_not_know_yet_is_nobodys() {
    let agent = Agent::start(usize::MAX).await;
    let world = World::with(Some(agent.address));
    let engine = Stub::start(&world.directory);
    make(&engine);
    let cgroup = format!("/ecs/0123456789abcdef0123456789abcdef/{}", id('a').as_str());
    let cgroup = Path::new(&cgroup);
    let error = world.docker.container(&id('a')).await.unwrap_err();
    assert!(matches!(error, DockerError::Undecided { .. }), "{error}");
    let error = world.docker.find(cgroup, &world.registry).await.unwrap_err();
    assert!(matches!(error, DockerError::Undecided { .. }), "{error}");
}
