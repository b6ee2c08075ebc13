//! The endpoint over real sockets, with a kernel that says what the test wants.

mod ends;
mod holds;
mod lacks;

use std::{
    fs,
    net::SocketAddr,
    os::fd::BorrowedFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use enforcer_common::{
    handshake::{Handshake, state},
    identity::Identity,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

use super::{Access, Attest, Endpoint, Gate, Listener};
use crate::{
    attribution::{Attributor, CgroupPaths, Places, Registry, Resolver, SourceKind, TaskName, tests::entry},
    audit::{Audit, Totals},
    bpf::{BpfError, Mode},
    config::{self, AuditOutput, Role},
    drain::{self, Trigger},
    host::cgroupfs::CgroupError,
    upstream::{Upstream, Vouch},
};

const WEB: u64 = 10;
const BATCH: u64 = 20;
const STRANGER: u64 = 30;
const GONE: u64 = 99;

/// How long sources may take.
const BOUND: Duration = Duration::from_secs(2);

const UNKNOWN_V2: &str =
    r#"{"code":"InvalidIdInRequest","message":"CredentialsV2Request: Credentials not found","HTTPErrorCode":400}"#;
const WEB_BODY: &str = r#"{"RoleArn":"arn:web","AccessKeyId":"KEY-web","SecretAccessKey":"SECRET-web","Token":"TOKEN-web","Expiration":"2130-01-02T03:04:05Z"}"#;

#[derive(Debug)]
struct Announced(Option<Handshake>);

impl Attest for Announced {
    fn handshake(&self, _socket: BorrowedFd<'_>) -> Result<Option<Handshake>, BpfError> {
        Ok(self.0)
    }
}

/// Vouches for everybody.
#[derive(Debug)]
struct Everybody;

impl Vouch for Everybody {
    fn vouches_for(&self, _cgroup_id: u64) -> bool {
        true
    }
}

#[derive(Debug)]
struct Tree;

impl CgroupPaths for Tree {
    fn path_of(&self, id: u64) -> Result<Option<PathBuf>, CgroupError> {
        Ok(match id {
            WEB => Some("/ecs/web/app".into()),
            BATCH => Some("/ecs/batch".into()),
            STRANGER => Some("/else".into()),
            _ => None,
        })
    }

    fn id_of(&self, _path: &Path) -> Result<Option<u64>, CgroupError> {
        Ok(None)
    }
}

/// A running endpoint whose every caller is the same.
struct Served {
    address: SocketAddr,
    trigger: Trigger,
    tasks: JoinSet<()>,
    audit: Audit,
    access: watch::Sender<Arc<Access>>,
    endpoint: Arc<Endpoint>,
    directory: tempfile::TempDir,
}

fn announced(caller: u64, socket: u64, state: u32) -> Handshake {
    let identity = Identity {
        cgroup_id: caller,
        socket_cgroup_id: socket,
        ..Identity::default()
    };
    Handshake {
        identity,
        state,
        reserved: 0,
    }
}

async fn serve_task(cgroup: u64) -> Served {
    Served::start(Some(announced(cgroup, cgroup, state::CONFIRMED))).await
}

/// Writes a file with credentials for each task.
fn roles(directory: &Path) -> Vec<Role> {
    let role = |task| {
        let file = directory.join(task);
        let text = format!(
            r#"{{"Version":1,"AccessKeyId":"KEY-{task}","SecretAccessKey":"SECRET-{task}","SessionToken":"TOKEN-{task}","Expiration":"2130-01-02T03:04:05Z"}}"#
        );
        fs::write(&file, text).unwrap();
        Role {
            task: Some(TaskName::new(task)),
            arn: format!("arn:{task}"),
            credentials_file: file,
        }
    };
    ["web", "batch"].map(role).into()
}

impl Served {
    async fn start(handshake: Option<Handshake>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let upstream = config::Upstream::Embedded(roles(directory.path()));
        Self::build(handshake, upstream, directory, Places::default(), true).await
    }

    /// Serves one of whom nobody ever says anything.
    async fn start_beside_silence() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let upstream = config::Upstream::Embedded(Vec::new());
        let stranger = announced(STRANGER, STRANGER, state::CONFIRMED);
        Self::build(Some(stranger), upstream, directory, Places::default(), false).await
    }

    async fn start_observing(handshake: Option<Handshake>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let upstream = config::Upstream::Embedded(roles(directory.path()));
        let places = Places {
            mode: Mode::Observe,
            ..Places::default()
        };
        Self::build(handshake, upstream, directory, places, true).await
    }

    /// Serves task web, and asks an agent for its credentials.
    async fn start_before(agent: &TcpListener) -> Self {
        let upstream = config::Upstream::EcsAgent {
            address: agent.local_addr().unwrap(),
            introspection_blocked: true,
        };
        let handshake = announced(WEB, WEB, state::CONFIRMED);
        let directory = tempfile::tempdir().unwrap();
        Self::build(Some(handshake), upstream, directory, Places::default(), true).await
    }

    async fn build(
        handshake: Option<Handshake>,
        upstream: config::Upstream,
        directory: tempfile::TempDir,
        places: Places,
        sources_answer: bool,
    ) -> Self {
        let audit = Audit::start(&config::Audit {
            output: AuditOutput::File(directory.path().join("audit")),
            key_file: directory.path().join("key"),
        })
        .unwrap();
        let registry = Arc::new(Registry::default());
        registry.replace(
            SourceKind::Config,
            vec![
                entry("/ecs/web", "web", "id-of-web"),
                entry("/ecs/batch", "batch", "id-of-batch"),
            ],
        );
        let (resolver, lookups) = Resolver::new(Arc::new([]), Arc::clone(&registry), BOUND);
        let access = Access {
            attributor: Arc::new(Attributor::new(Tree, registry, places)),
            upstream: Upstream::build(&upstream, None, Arc::new(Everybody)),
        };
        let (access, receiver) = watch::channel(Arc::new(access));
        let gate = Gate::new(Announced(handshake), receiver, resolver);
        let endpoint = Arc::new(Endpoint::new(gate, audit.recorder()));
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.listener.local_addr().unwrap();
        let (trigger, watcher) = drain::channel();
        let mut tasks = JoinSet::new();
        let mut end = watcher.clone();
        tasks.spawn(async move {
            if sources_answer {
                lookups.run(end).await;
            } else {
                end.signaled().await;
                drop(lookups);
            }
        });
        tasks.spawn(listener.run(Arc::clone(&endpoint), watcher));
        Self {
            address,
            trigger,
            tasks,
            audit,
            access,
            endpoint,
            directory,
        }
    }

    /// Sends bytes and reads until the server closes.
    async fn send(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        // A reset is an end too: the server closed with bytes of ours unread.
        drop(stream.read_to_end(&mut answer).await);
        String::from_utf8(answer).unwrap()
    }

    async fn request(&self, method: &str, target: &str) -> Answer {
        let request = format!("{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        Answer::new(&self.send(request.as_bytes()).await)
    }

    async fn get(&self, target: &str) -> Answer {
        self.request("GET", target).await
    }

    /// Stops, and returns the audit trail.
    async fn stop(self) -> String {
        drop(self.endpoint);
        self.trigger.drain(Duration::from_secs(5)).await.unwrap();
        let Totals {
            emitted,
            delivered,
            dropped,
            ring: _,
        } = self.audit.close(Duration::from_secs(5)).await;
        assert_eq!((emitted, dropped), (delivered, 0));
        fs::read_to_string(self.directory.path().join("audit")).unwrap()
    }

    /// Stops, and returns the reason of each decision.
    async fn reasons(self) -> Vec<String> {
        let decisions = self.decisions().await;
        decisions.into_iter().map(|(_, reason)| reason).collect()
    }

    /// Stops, and returns verdict and reason of each decision.
    async fn decisions(self) -> Vec<(String, String)> {
        let text = self.stop().await;
        let decision = |line: &str| {
            let record: serde_json::Value = serde_json::from_str(line).unwrap();
            let text = |field: &str| record[field].as_str().unwrap().to_owned();
            (text("verdict"), text("reason"))
        };
        text.lines().map(decision).collect()
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    /// Without the date.
    headers: Vec<String>,
    body: String,
}

impl Answer {
    fn new(text: &str) -> Self {
        let (head, body) = text
            .split_once("\r\n\r\n")
            .unwrap_or_else(|| panic!("no answer in {text:?}"));
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        Self {
            status,
            headers: lines
                .filter(|line| !line.starts_with("date:"))
                .map(str::to_owned)
                .collect(),
            body: body.to_owned(),
        }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

#[tokio::test]
async fn a_task_gets_its_own_credentials_in_both_forms() {
    let served = serve_task(WEB).await;
    for target in [
        "/v2/credentials/id-of-web",
        "/v2/credentials/id%2dof-web?x",
        "/v1/credentials?id=id-of-web",
    ] {
        let answer = served.get(target).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, WEB_BODY), "{target}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(
            answer.header("content-length"),
            Some(WEB_BODY.len().to_string().as_str())
        );
    }
    assert_eq!(served.reasons().await, ["owner"; 3]);
}

#[tokio::test]
async fn anothers_id_and_an_unknown_one_get_the_same_bytes() {
    let served = serve_task(WEB).await;
    let others = served.get("/v2/credentials/id-of-batch").await;
    assert_eq!((others.status, others.body.as_str()), (400, UNKNOWN_V2));
    for target in [
        "/v2/credentials/nobodys",
        "/v2/credentials/id-of-batch/x",
        "/v2/credentials/ID-OF-WEB",
    ] {
        assert_eq!(served.get(target).await, others, "{target}");
    }
    assert_eq!(
        served.reasons().await,
        ["not_owner", "unknown_id", "unknown_id", "unknown_id"]
    );
}

#[tokio::test]
async fn a_caller_nobody_vouches_for_gets_the_same_bytes_for_every_id() {
    let claimed = state::CLAIMED;
    for (handshake, reason) in [
        (None, "unknown_sender"),
        (Some(announced(WEB, WEB, state::AMBIGUOUS)), "ambiguous_sender"),
        (Some(announced(GONE, WEB, claimed)), "sender_gone"),
        (Some(announced(WEB, BATCH, claimed)), "socket_from_elsewhere"),
        (Some(announced(STRANGER, STRANGER, claimed)), "no_task"),
    ] {
        let served = Served::start(handshake).await;
        for id in ["id-of-web", "id-of-batch", "nobodys"] {
            let answer = served.get(&format!("/v2/credentials/{id}")).await;
            assert_eq!((answer.status, answer.body.as_str()), (400, UNKNOWN_V2), "{reason}");
        }
        assert_eq!(served.reasons().await, [reason; 3]);
    }
}

#[tokio::test]
async fn each_request_of_a_connection_is_decided_by_itself() {
    let served = serve_task(BATCH).await;
    let ids = ["id-of-batch", "id-of-web", "id-of-batch", "nobodys"];
    // All at once: pipelined.
    let mut requests = ids
        .map(|id| format!("GET /v2/credentials/{id} HTTP/1.1\r\nHost: x\r\n\r\n"))
        .concat();
    requests.push_str("HEAD /v2/credentials/id-of-batch HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let text = served.send(requests.as_bytes()).await;
    let statuses: Vec<_> = text
        .match_indices("HTTP/1.1 ")
        .map(|(at, found)| &text[at + found.len()..][..3])
        .collect();
    assert_eq!(statuses, ["200", "400", "200", "400", "200"]);
    assert_eq!(text.matches("KEY-batch").count(), 2);
    assert!(!text.contains("KEY-web"));
    assert_eq!(
        served.reasons().await,
        ["owner", "not_owner", "owner", "unknown_id", "owner"]
    );
}

#[tokio::test]
async fn head_has_the_length_and_no_body() {
    let answer = serve_task(WEB).await.request("HEAD", "/v2/credentials/id-of-web").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, ""));
    assert_eq!(
        answer.header("content-length"),
        Some(WEB_BODY.len().to_string().as_str())
    );
}

#[tokio::test]
async fn what_is_not_a_request_for_credentials_is_answered_as_the_agent_does() {
    let served = serve_task(WEB).await;
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "FOO"] {
        let answer = served.request(method, "/v2/credentials/id-of-web").await;
        assert_eq!((answer.status, answer.body.as_str()), (405, ""), "{method}");
        assert_eq!(answer.header("allow"), None);
    }
    let answer = served.get("/v2/credentials/").await;
    assert_eq!(answer.status, 400);
    assert_eq!(
        answer.body,
        r#"{"code":"NoIdInRequest","message":"CredentialsV2Request: No Credential ID in the request","HTTPErrorCode":400}"#
    );
    let answer = served.get("/v4/x/task").await;
    assert_eq!((answer.status, answer.body.as_str()), (404, "404 page not found\n"));
    assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    let answer = served.get("//v2/credentials/id-of-web?a=b").await;
    assert_eq!((answer.status, answer.body.as_str()), (301, ""));
    assert_eq!(answer.header("location"), Some("/v2/credentials/id-of-web?a=b"));
}

#[tokio::test]
async fn garbage_and_oversized_heads_get_nothing() {
    let served = serve_task(WEB).await;
    let long = format!(
        "GET /v2/credentials/id-of-web HTTP/1.1\r\nX: {}\r\n\r\n",
        "a".repeat(32 * 1024)
    );
    let many = format!(
        "GET /v2/credentials/id-of-web HTTP/1.1\r\n{}\r\n",
        "X: y\r\n".repeat(1000)
    );
    for bytes in [
        &b"\0\x01\x02 garbage\r\n\r\n"[..],
        b"GET\r\n\r\n",
        long.as_bytes(),
        many.as_bytes(),
    ] {
        let text = served.send(bytes).await;
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 4"), "{text}");
    }
    assert_eq!(served.get("/v2/credentials/id-of-web").await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_head_that_never_ends_is_not_waited_for() {
    let served = serve_task(WEB).await;
    // The clock is paused and jumps to the next timer, so this takes no time; without a timer it would never end.
    let text = served.send(b"GET /v2/credentials/id-of-web HTTP/1.1\r\nHo").await;
    assert!(!text.contains("KEY"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed() {
    let served = serve_task(WEB).await;
    let text = served
        .send(b"GET /v2/credentials/id-of-web HTTP/1.1\r\nHost: x\r\n\r\n")
        .await;
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
}

#[tokio::test]
async fn connections_beyond_a_senders_share_are_closed_and_recorded() {
    const SHARE: usize = 64;
    let served = serve_task(STRANGER).await;
    let mut held = Vec::new();
    for _ in 0..SHARE {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        // An answer tells that the connection has its place.
        let mut first = [0; 12];
        stream.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 404");
        held.push(stream);
    }
    assert_eq!(served.send(b"").await, "");
    drop(held);
    let reasons = served.reasons().await;
    assert_eq!(reasons.len(), SHARE + 1);
    assert_eq!(reasons.last().unwrap(), "too_many_connections");
}

#[tokio::test]
async fn the_trail_holds_no_id_no_key_and_no_path_of_the_callers() {
    let served = serve_task(WEB).await;
    for target in [
        "/v2/credentials/id-of-web",
        "/v2/credentials/id-of-batch",
        "/v2/credentials/guessed-by-caller",
        "/v1/credentials?id=id-of-web",
        "//v2/credentials/id-of-web",
        "/elsewhere/id-of-web",
        "/v2/credentials/%zzguessed",
    ] {
        drop(served.get(target).await);
    }
    drop(served.request("id-of-web", "/v2/credentials/id-of-web").await);
    let trail = served.stop().await;
    assert_eq!(trail.lines().count(), 8);
    for secret in ["id-of", "guessed", "elsewhere", "KEY", "SECRET", "TOKEN"] {
        assert!(!trail.contains(secret), "{secret} is in {trail}");
    }
}
