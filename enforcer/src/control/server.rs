//! The control socket's owner: takes commands from root, one line each, and passes them on.

use std::{
    fmt::Display,
    fs, io,
    io::IoSlice,
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{DirBuilderExt, PermissionsExt},
    },
    path::Path,
    sync::Arc,
    time::Duration,
};

use rustix::{
    net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg},
    process::geteuid,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::timeout,
};
use tracing::{debug, warn};

use super::{Answer, Command, ControlError, Peer, Process, Request};
use crate::{drain::Watcher, telemetry::Seldom};

/// How many may talk to the enforcer at once; others wait.
const MAX_CONNECTIONS: usize = 16;

/// How long a line may take to come, or to be taken.
const PATIENCE: Duration = Duration::from_secs(10);

/// The longest command, with the end of its line: some thousand tasks to be registered.
pub const MAX_COMMAND: usize = 1024 * 1024;

/// How long to wait after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The socket, bound and listening.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
}

/// Who is let in. Anyone refused can come again as often as it likes, so that is logged now and then.
struct Door<A> {
    admit: A,
    refused: Seldom,
}

// === impl Server ===

impl Server {
    /// Makes the socket, in place of one that an earlier enforcer left: the new one has the path at once.
    pub fn bind(path: &Path) -> Result<Self, ControlError> {
        let failed = |operation| {
            move |source| ControlError::Bind {
                operation,
                path: path.to_owned(),
                source,
            }
        };
        if let Some(directory) = path.parent() {
            let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(directory);
            made.map_err(failed("make the directory of"))?;
        }
        let unfinished = path.with_extension("new");
        match fs::remove_file(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("clean up")(error)),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(&unfinished).map_err(failed("bind"))?;
        fs::set_permissions(&unfinished, fs::Permissions::from_mode(0o600)).map_err(failed("restrict"))?;
        fs::rename(&unfinished, path).map_err(failed("place"))?;
        Ok(Self { listener })
    }

    /// Passes commands of whoever `admit` does not refuse on until the drain. Whoever waits for an answer then still gets it.
    pub async fn run<E: Display + 'static>(
        self,
        admit: impl Fn(&Process) -> Result<(), E> + Send + Sync + 'static,
        requests: mpsc::Sender<Request>,
        mut drain: Watcher,
    ) {
        let door = Arc::new(Door {
            admit,
            refused: Seldom::default(),
        });
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                biased; // The end comes first, then room for others.
                () = drain.signaled() => break,
                Some(ended) = connections.join_next() => log_end(ended),
                accepted = self.listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                    Ok((stream, _)) => {
                        let door = Arc::clone(&door);
                        connections.spawn(serve(stream, door, requests.clone(), drain.clone()));
                    }
                    Err(error) => {
                        warn!(%error, "cannot accept a control connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        // Nobody waits in vain for one that no longer accepts.
        drop(self.listener);
        while let Some(ended) = connections.join_next().await {
            log_end(ended);
        }
    }
}

fn log_end(ended: Result<io::Result<()>, tokio::task::JoinError>) {
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "a control connection ended early"),
        Err(error) => warn!(%error, "serving a control connection failed"),
    }
}

async fn serve<E: Display>(
    stream: UnixStream,
    door: Arc<Door<impl Fn(&Process) -> Result<(), E>>>,
    requests: mpsc::Sender<Request>,
    mut drain: Watcher,
) -> io::Result<()> {
    let peer = stream.peer_cred()?;
    let by = Peer {
        uid: peer.uid(),
        pid: peer.pid(),
    };
    // The mode of the socket file keeps others out already; one that somebody has changed does not. The enforcer is root,
    // and so must be whoever commands it.
    if by.uid != geteuid().as_raw() {
        if let Some(times) = door.refused.happened() {
            warn!(
                uid = by.uid,
                pid = by.pid,
                times,
                "refused a control connection of another user"
            );
        }
        return Ok(());
    }
    let process = Process::of(&stream)
        .inspect_err(|error| debug!(pid = by.pid, %error, "refused a control connection of a process that is gone"))?;
    let mut stream = BufReader::new(stream);
    // At once, so that who is refused keeps nobody out, and again at each command: the process may have ended or moved.
    if let Some(refusal) = refuse(&door, &process, by) {
        return answer(&mut stream, &refusal, &[]).await;
    }
    loop {
        let line = tokio::select! {
            line = timeout(PATIENCE, read_line(&mut stream)) => line??,
            () = drain.signaled() => return Ok(()),
        };
        if line.is_empty() {
            return Ok(());
        }
        if let Some(refusal) = refuse(&door, &process, by) {
            return answer(&mut stream, &refusal, &[]).await;
        }
        let (told, descriptors) = match serde_json::from_str::<Command>(&line) {
            Ok(command) => ask(&requests, command, by).await,
            Err(error) => (Answer::Error(format!("not a command: {error}")), Vec::new()),
        };
        answer(&mut stream, &told, &descriptors).await?;
    }
}

/// What one hears that may not command.
fn refuse<E: Display>(door: &Door<impl Fn(&Process) -> Result<(), E>>, process: &Process, by: Peer) -> Option<Answer> {
    let refused = (door.admit)(process).err()?;
    if let Some(times) = door.refused.happened() {
        warn!(pid = by.pid, %refused, times, "refused a command");
    }
    Some(Answer::Error(refused.to_string()))
}

async fn answer(stream: &mut BufReader<UnixStream>, answer: &Answer, descriptors: &[OwnedFd]) -> io::Result<()> {
    let mut bytes = serde_json::to_vec(answer)?;
    bytes.push(b'\n');
    timeout(PATIENCE, write(stream.get_mut(), &bytes, descriptors)).await?
}

/// One line; empty at the end. A longer one than any command ends the connection.
async fn read_line(stream: &mut BufReader<UnixStream>) -> io::Result<String> {
    let mut line = String::new();
    let mut limited = stream.take(MAX_COMMAND as u64);
    limited.read_line(&mut line).await?;
    if !line.is_empty() && !line.ends_with('\n') {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(line)
}

async fn ask(requests: &mpsc::Sender<Request>, command: Command, by: Peer) -> (Answer, Vec<OwnedFd>) {
    let (reply, answer) = oneshot::channel();
    let request = Request { command, by, reply };
    let answered = match requests.send(request).await {
        Ok(()) => answer.await.ok(),
        Err(_stopped) => None,
    };
    answered.unwrap_or_else(|| (Answer::Error("the enforcer is stopping".to_owned()), Vec::new()))
}

/// Descriptors go with the first bytes.
async fn write(stream: &mut UnixStream, bytes: &[u8], descriptors: &[OwnedFd]) -> io::Result<()> {
    let mut sent = 0;
    if !descriptors.is_empty() {
        let fds: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        stream.writable().await?;
        sent = stream.try_io(tokio::io::Interest::WRITABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            if !ancillary.push(SendAncillaryMessage::ScmRights(&fds)) {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            Ok(sendmsg(
                &*stream,
                &[IoSlice::new(bytes)],
                &mut ancillary,
                SendFlags::NOSIGNAL,
            )?)
        })?;
    }
    stream.write_all(bytes.get(sent..).unwrap_or_default()).await
}
