//! The gauge: a process in a container's or the host's place that does one thing many times and tells how long it took.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::Path,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    runtime,
    task::JoinSet,
    time::Instant,
};

use crate::{
    enter::Place,
    worker::{self, Worker},
};

/// What one call writes.
const CHUNK: usize = 128 << 10;

/// What to do over and over.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Action {
    /// Make a UDP socket, connect and close it.
    ConnectUdp,
    /// Make a TCP socket, connect and close it; being refused is fine.
    ConnectTcp,
    /// Send a datagram from an unconnected socket.
    SendUdp,
    /// Set an option of a socket.
    SetOption,
}

#[derive(Debug, Serialize, Deserialize)]
enum Command {
    Repeat {
        action: Action,
        to: SocketAddr,
        times: u32,
    },
    Load {
        to: SocketAddr,
        target: String,
        connections: u32,
        seconds: u32,
    },
    Receive,
    Send {
        to: SocketAddr,
        bytes: u64,
    },
}

#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Took { nanoseconds: u64 },
    Load(Load),
    Receives { port: u16 },
    Failed(String),
}

/// What a load of requests gave. Latencies in microseconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Load {
    pub(super) requests_per_second: f64,
    pub(super) p50: u64,
    pub(super) p99: u64,
}

/// A gauge, seen from the bench.
#[derive(Debug)]
pub struct Gauge {
    worker: Worker,
    address: Ipv4Addr,
}

// === impl Gauge ===

impl Gauge {
    /// Starts a gauge.
    pub fn start(lab: &Path, place: &Place, address: Ipv4Addr) -> Result<Self> {
        let mut command = place.command(lab, lab);
        command.arg("gauge");
        Ok(Self {
            worker: Worker::start(command)?,
            address,
        })
    }

    /// Repeats an action and gives the time one took, in nanoseconds.
    pub fn repeat(&mut self, action: Action, to: SocketAddr, times: u32) -> Result<f64> {
        match self.worker.call(&Command::Repeat { action, to, times })? {
            #[expect(clippy::cast_precision_loss, reason = "nanoseconds of a few seconds")]
            Answer::Took { nanoseconds } => Ok(nanoseconds as f64 / f64::from(times)),
            Answer::Failed(error) => bail!("{action:?} to {to}: {error}"),
            answer @ (Answer::Load(_) | Answer::Receives { .. }) => bail!("unexpected answer {answer:?}"),
        }
    }

    /// Takes what others send from now on, and tells where.
    pub(super) fn receive(&mut self) -> Result<SocketAddr> {
        match self.worker.call(&Command::Receive)? {
            Answer::Receives { port } => Ok((self.address, port).into()),
            Answer::Failed(error) => bail!("cannot receive: {error}"),
            answer @ (Answer::Load(_) | Answer::Took { .. }) => bail!("unexpected answer {answer:?}"),
        }
    }

    /// Sends so many bytes on one connection and gives the time it took, in nanoseconds.
    pub(super) fn send(&mut self, to: SocketAddr, bytes: u64) -> Result<f64> {
        match self.worker.call(&Command::Send { to, bytes })? {
            #[expect(clippy::cast_precision_loss, reason = "nanoseconds of a few seconds")]
            Answer::Took { nanoseconds } => Ok(nanoseconds as f64),
            Answer::Failed(error) => bail!("cannot send to {to}: {error}"),
            answer @ (Answer::Load(_) | Answer::Receives { .. }) => bail!("unexpected answer {answer:?}"),
        }
    }

    /// Asks for `target` on so many keep-alive connections, each one request at a time.
    pub(super) fn load(&mut self, to: SocketAddr, target: &str, connections: u32, seconds: u32) -> Result<Load> {
        let target = target.to_owned();
        match self.worker.call(&Command::Load {
            to,
            target,
            connections,
            seconds,
        })? {
            Answer::Load(load) => Ok(load),
            Answer::Failed(error) => bail!("load on {to}: {error}"),
            answer @ (Answer::Took { .. } | Answer::Receives { .. }) => bail!("unexpected answer {answer:?}"),
        }
    }
}

/// The gauge's side: `lab gauge`.
pub fn run() -> Result<()> {
    worker::serve(|command| obey(command).unwrap_or_else(|error| Answer::Failed(format!("{error:#}"))))
}

fn obey(command: Command) -> Result<Answer> {
    match command {
        Command::Repeat { action, to, times } => {
            let nanoseconds = u64::try_from(repeat(action, to, times)?.as_nanos())?;
            Ok(Answer::Took { nanoseconds })
        }
        Command::Load {
            to,
            target,
            connections,
            seconds,
        } => {
            let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
            let duration = Duration::from_secs(seconds.into());
            Ok(Answer::Load(runtime.block_on(load(
                to,
                &target,
                connections,
                duration,
            ))?))
        }
        Command::Receive => Ok(Answer::Receives { port: receive()? }),
        Command::Send { to, bytes } => {
            let nanoseconds = u64::try_from(send(to, bytes)?.as_nanos())?;
            Ok(Answer::Took { nanoseconds })
        }
    }
}

/// Every connection is read to its end, then closed.
fn receive() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).context("cannot listen")?;
    let port = listener.local_addr()?.port();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            // A sender that breaks off is noticed by the sender.
            thread::spawn(move || io::copy(&mut &stream, &mut io::sink()).ok());
        }
    });
    Ok(port)
}

/// The receiver closes when it has everything, and only then it is over.
fn send(to: SocketAddr, bytes: u64) -> Result<Duration> {
    let start = Instant::now();
    let mut stream = TcpStream::connect(to).context("cannot connect")?;
    let chunk = vec![0; CHUNK];
    for _ in 0..bytes / CHUNK as u64 {
        stream.write_all(&chunk)?;
    }
    stream.shutdown(Shutdown::Write)?;
    stream.read_to_end(&mut Vec::new())?;
    Ok(start.elapsed())
}

fn repeat(action: Action, to: SocketAddr, times: u32) -> Result<Duration> {
    let any: SocketAddr = match to {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => "[::]:0".parse()?,
    };
    let unconnected = UdpSocket::bind(any)?;
    let start = Instant::now();
    for _ in 0..times {
        match action {
            Action::ConnectUdp => UdpSocket::bind(any)?.connect(to)?,
            // Refused or not, the hooks have run.
            Action::ConnectTcp => drop(TcpStream::connect(to)),
            Action::SendUdp => drop(unconnected.send_to(b"bench", to)),
            Action::SetOption => unconnected.set_broadcast(true)?,
        }
    }
    Ok(start.elapsed())
}

async fn load(to: SocketAddr, target: &str, connections: u32, duration: Duration) -> Result<Load> {
    let request = format!("GET {target} HTTP/1.1\r\nHost: 169.254.170.2\r\nUser-Agent: lab\r\n\r\n");
    let mut clients = JoinSet::new();
    let deadline = Instant::now() + duration;
    for _ in 0..connections {
        clients.spawn(client(to, request.clone().into_bytes(), deadline));
    }
    let mut latencies = Histogram::<u64>::new(3)?;
    while let Some(client) = clients.join_next().await {
        latencies.add(client.context("a client ended")??)?;
    }
    #[expect(clippy::cast_precision_loss, reason = "a count of requests in a few seconds")]
    let requests_per_second = latencies.len() as f64 / duration.as_secs_f64();
    Ok(Load {
        requests_per_second,
        p50: latencies.value_at_quantile(0.5) / 1000,
        p99: latencies.value_at_quantile(0.99) / 1000,
    })
}

/// One client: its first answer tells how long all of them are.
async fn client(to: SocketAddr, request: Vec<u8>, deadline: Instant) -> Result<Histogram<u64>> {
    let mut stream = tokio::net::TcpStream::connect(to).await.context("cannot connect")?;
    stream.set_nodelay(true)?;
    let mut answer = vec![0; 16 * 1024];
    stream.write_all(&request).await?;
    let length = stream.read(&mut answer).await?;
    let mut latencies = Histogram::new(3)?;
    while Instant::now() < deadline {
        let start = Instant::now();
        stream.write_all(&request).await?;
        let answer = answer.get_mut(..length).context("the answer is too long")?;
        stream.read_exact(answer).await.context("the answer was cut short")?;
        ensure!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"), "not every answer was 200");
        latencies.record(u64::try_from(start.elapsed().as_nanos())?)?;
    }
    Ok(latencies)
}
