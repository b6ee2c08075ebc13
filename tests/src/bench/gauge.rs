//! The gauge: a process in a container's or the host's place that does one thing many times and tells how long it took.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    path::Path,
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
}

#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Took { nanoseconds: u64 },
    Load(Load),
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
}

// === impl Gauge ===

impl Gauge {
    /// Starts a gauge.
    pub fn start(lab: &Path, place: &Place, _address: Ipv4Addr) -> Result<Self> {
        let mut command = place.command(lab, lab);
        command.arg("gauge");
        Ok(Self {
            worker: Worker::start(command)?,
        })
    }

    /// Repeats an action and gives the time one took, in nanoseconds.
    pub fn repeat(&mut self, action: Action, to: SocketAddr, times: u32) -> Result<f64> {
        match self.worker.call(&Command::Repeat { action, to, times })? {
            #[expect(clippy::cast_precision_loss, reason = "nanoseconds of a few seconds")]
            Answer::Took { nanoseconds } => Ok(nanoseconds as f64 / f64::from(times)),
            Answer::Failed(error) => bail!("{action:?} to {to}: {error}"),
            answer @ Answer::Load(_) => bail!("unexpected answer {answer:?}"),
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
            answer @ Answer::Took { .. } => bail!("unexpected answer {answer:?}"),
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
    }
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
