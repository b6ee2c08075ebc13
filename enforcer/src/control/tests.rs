//! Both ends of the control socket, with a controller that says what the test wants.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    os::{
        fd::OwnedFd,
        unix::{fs::PermissionsExt, net::UnixStream},
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use serde_json::json;
use tokio::{
    sync::mpsc,
    task::{JoinSet, spawn_blocking},
};

use super::{Answer, Command, ControlError, Request, Server, ask, take_over};
use crate::{
    bpf::Mode,
    drain::{self, Trigger},
};

struct Running {
    path: PathBuf,
    trigger: Trigger,
    _tasks: JoinSet<()>,
    _directory: tempfile::TempDir,
}

/// Answers every command with what `answer` says.
fn serve(answer: impl Fn(&Request) -> (Answer, Vec<OwnedFd>) + Send + 'static) -> Running {
    serve_if(|| Ok(()), answer)
}

/// The same for whoever is admitted.
fn serve_if(
    admit: impl Fn() -> Result<(), &'static str> + Send + Sync + 'static,
    answer: impl Fn(&Request) -> (Answer, Vec<OwnedFd>) + Send + 'static,
) -> Running {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run/control.sock");
    let server = Server::bind(&path).unwrap();
    let (trigger, watcher) = drain::channel();
    let (sender, mut requests) = mpsc::channel::<Request>(1);
    let mut tasks = JoinSet::new();
    tasks.spawn(server.run(move |_: &_| admit(), sender, watcher));
    tasks.spawn(async move {
        while let Some(request) = requests.recv().await {
            let answer = answer(&request);
            request.reply.send(answer).unwrap();
        }
    });
    Running {
        path,
        trigger,
        _tasks: tasks,
        _directory: directory,
    }
}

async fn asked(path: &Path, command: Command) -> Result<serde_json::Value, ControlError> {
    let path = path.to_owned();
    spawn_blocking(move || ask(&path, &command)).await.unwrap()
}

/// What the server says to these bytes until it closes the connection.
async fn sent(path: &Path, bytes: &'static [u8]) -> String {
    let path = path.to_owned();
    let exchange = move || {
        let mut stream = UnixStream::connect(path).unwrap();
        // It may close before all of a line that is too long is written.
        if stream.write_all(bytes).is_ok() {
            stream.shutdown(std::net::Shutdown::Write).unwrap();
        }
        let mut text = String::new();
        // A reset is an end too: the server closed with bytes of ours unread.
        drop(stream.read_to_string(&mut text));
        text
    };
    spawn_blocking(exchange).await.unwrap()
}

#[tokio::test]
async fn a_command_reaches_the_controller_with_who_sent_it() {
    let running = serve(|request| {
        let (uid, pid) = (request.by.uid, request.by.pid.unwrap());
        (
            Answer::Ok(json!({ "command": request.command, "uid": uid, "pid": pid })),
            Vec::new(),
        )
    });
    let mode = Command::Mode { mode: Mode::Observe };
    let told = asked(&running.path, mode).await.unwrap();
    assert_eq!(told["command"], json!({ "command": "mode", "mode": "observe" }));
    assert_eq!(told["pid"], std::process::id());
    assert_eq!(told["uid"], rustix::process::geteuid().as_raw());
}

#[tokio::test]
async fn a_refusal_is_an_error_in_the_controllers_words() {
    let running = serve(|_| (Answer::Error("not today".to_owned()), Vec::new()));
    let error = asked(&running.path, Command::Reload).await.unwrap_err();
    assert_eq!(error.to_string(), "not today");
}

#[tokio::test]
async fn who_is_not_admitted_hears_why_at_once_and_keeps_nobody_out() {
    let is_admitted = Arc::new(AtomicBool::new(false));
    let admitted = Arc::clone(&is_admitted);
    let running = serve_if(
        move || admitted.load(Ordering::Relaxed).then_some(()).ok_or("not you"),
        |_| (Answer::Ok(json!({})), Vec::new()),
    );
    let error = asked(&running.path, Command::Status).await.unwrap_err();
    assert_eq!(error.to_string(), "not you");
    let path = running.path.clone();
    let told = move || {
        // More than are served at once, all of them open and silent.
        let refused: Vec<_> = (0..100).map(|_| UnixStream::connect(&path).unwrap()).collect();
        let mut last = String::new();
        refused.last().unwrap().read_to_string(&mut last).unwrap();
        is_admitted.store(true, Ordering::Relaxed);
        (last, ask(&path, &Command::Status))
    };
    let (last, admitted) = spawn_blocking(told).await.unwrap();
    assert_eq!(last, "{\"error\":\"not you\"}\n");
    assert_eq!(admitted.unwrap(), json!({}));
}

#[tokio::test]
async fn who_is_not_admitted_any_more_commands_no_more() {
    let times = AtomicU32::new(0);
    let admit = move || {
        (times.fetch_add(1, Ordering::Relaxed) < 2)
            .then_some(())
            .ok_or("not you any more")
    };
    let running = serve_if(admit, |_| (Answer::Ok(json!({})), Vec::new()));
    let both = sent(&running.path, b"{\"command\":\"status\"}\n{\"command\":\"reload\"}\n").await;
    assert_eq!(both, "{\"ok\":{}}\n{\"error\":\"not you any more\"}\n");
}

#[tokio::test]
async fn what_is_no_command_is_answered_and_what_is_too_long_is_not() {
    static LONG: [u8; 2_000_000] = [b'x'; 2_000_000];
    let running = serve(|_| (Answer::Ok(json!({})), Vec::new()));
    for bytes in [
        &b"hello\n"[..],
        b"{\"command\":\"fly\"}\n",
        b"{\"command\":\"mode\"}\n",
        b"[]\n",
    ] {
        let text = sent(&running.path, bytes).await;
        assert!(text.starts_with("{\"error\":\"not a command: "), "{text}");
    }
    assert_eq!(sent(&running.path, &LONG).await, "");
    let both = sent(&running.path, b"{\"command\":\"status\"}\n{\"command\":\"reload\"}\n").await;
    assert_eq!(both, "{\"ok\":{}}\n{\"ok\":{}}\n");
}

#[tokio::test]
async fn sockets_are_handed_over_open() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let handles = move || vec![OwnedFd::from(listener.try_clone().unwrap())];
    let running = serve(move |_| (Answer::Ok(json!({})), handles()));
    let path = running.path.clone();
    let mut sockets = spawn_blocking(move || take_over(&path)).await.unwrap().unwrap();
    let taken = TcpListener::from(sockets.pop().unwrap());
    assert_eq!((taken.local_addr().unwrap(), sockets.len()), (address, 0));
    let client = std::net::TcpStream::connect(address).unwrap();
    assert_eq!(taken.accept().unwrap().1, client.local_addr().unwrap());
}

#[tokio::test]
async fn the_socket_is_for_its_owner_and_takes_the_place_of_an_earlier_one() {
    let running = serve(|_| (Answer::Ok(json!("first")), Vec::new()));
    let mode = std::fs::metadata(&running.path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let _second = Server::bind(&running.path).unwrap();
    assert_eq!(std::fs::read_dir(running.path.parent().unwrap()).unwrap().count(), 1);
    let error = asked(&running.path.with_file_name("other"), Command::Status)
        .await
        .unwrap_err();
    assert!(matches!(error, ControlError::Connect { .. }), "{error}");
}

#[tokio::test]
async fn an_idle_connection_does_not_hold_up_the_end() {
    let running = serve(|_| (Answer::Ok(json!({})), Vec::new()));
    let path = running.path.clone();
    let connect = move || {
        let mut stream = UnixStream::connect(path).unwrap();
        stream.write_all(b"{\"command\":\"status\"}\n").unwrap();
        let mut reader = BufReader::new(stream);
        reader.read_line(&mut String::new()).unwrap();
        reader
    };
    let _idle = spawn_blocking(connect).await.unwrap();
    assert_eq!(running.trigger.drain(Duration::from_secs(5)).await, Ok(()));
}
