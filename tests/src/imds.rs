//! A fake instance metadata service that counts everything that reaches it.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use anyhow::{Context, Result};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, socket};
use serde::{Deserialize, Serialize};

use crate::{
    actor::Actor,
    enter::Place,
    http::{Request, Response},
    topology::{IMDS_V4, IMDS_V6},
    worker::{self, Worker},
};

/// Port of the metadata service, here also for datagrams: an echo.
pub const PORT: u16 = 80;
/// Port of an echo whose packets are not counted: an answer from it means that what was sent before has arrived.
pub const MARKER_PORT: u16 = 7;
const TOKEN_PATH: &str = "/latest/api/token";
const ROLE_PATH: &str = "/latest/meta-data/iam/security-credentials/";
/// The instance role's name.
pub const ROLE: &str = "lab-instance-role";

const TOKEN: &str = "bGFiLXRva2Vu";

/// What reached the metadata service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hits {
    /// Packets of any protocol to one of its addresses, whether or not anything answered.
    pub packets: u64,
    /// TCP connections.
    pub connections: u64,
    /// Datagrams.
    pub datagrams: u64,
}

#[derive(Debug, Default)]
struct Counts {
    packets: AtomicU64,
    connections: AtomicU64,
    datagrams: AtomicU64,
}

/// The running service.
#[derive(Debug)]
pub struct Imds {
    worker: Worker,
}

// === impl Imds ===

impl Imds {
    /// Starts the service.
    pub fn start(lab: &Path, place: &Place) -> Result<Self> {
        let mut command = place.command(lab, lab);
        command.arg("imds");
        Ok(Self {
            worker: Worker::start(command)?,
        })
    }

    /// What has reached the service so far.
    pub fn hits(&mut self) -> Result<Hits> {
        self.worker.call(&())
    }
}

/// Has an actor ask for the instance role's name as the AWS SDKs do: a session token first.
pub fn instance_role(actor: &mut Actor, address: SocketAddr) -> Result<String> {
    let ask_token = Request {
        method: "PUT".into(),
        ..Request::get(TOKEN_PATH).with("X-aws-ec2-metadata-token-ttl-seconds", "60")
    };
    let token = actor.ask(address, &ask_token)?.body_text();
    let ask_role = Request::get(ROLE_PATH).with("X-aws-ec2-metadata-token", &token);
    Ok(actor.ask(address, &ask_role)?.body_text())
}

// === impl Counts ===

impl Counts {
    fn hits(&self) -> Hits {
        Hits {
            packets: self.packets.load(Ordering::SeqCst),
            connections: self.connections.load(Ordering::SeqCst),
            datagrams: self.datagrams.load(Ordering::SeqCst),
        }
    }
}

/// The service's side: `lab imds`.
pub fn run() -> Result<()> {
    let counts = Arc::new(Counts::default());
    let sniffer = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::EthAll,
    )
    .context("cannot open a packet socket")?;
    let shared = Arc::clone(&counts);
    background(move || {
        let mut frame = [0; 2048];
        loop {
            let length = recv(sniffer.as_raw_fd(), &mut frame, MsgFlags::empty())?;
            if frame.get(..length).is_some_and(is_counted) {
                shared.packets.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    for address in [IpAddr::V4(IMDS_V4), IpAddr::V6(IMDS_V6)] {
        let listener = TcpListener::bind((address, PORT)).with_context(|| format!("cannot listen on {address}"))?;
        let shared = Arc::clone(&counts);
        background(move || accept(&listener, &shared));
        for port in [PORT, MARKER_PORT] {
            let socket = UdpSocket::bind((address, port)).with_context(|| format!("cannot bind {address}:{port}"))?;
            let shared = Arc::clone(&counts);
            background(move || echo(&socket, &shared));
        }
    }
    worker::serve(|()| counts.hits())
}

/// A service thread; it ends with the process, and says why if it ends earlier.
fn background(service: impl FnOnce() -> io::Result<()> + Send + 'static) {
    thread::spawn(move || {
        if let Err(error) = service() {
            eprintln!("lab imds: {error}");
        }
    });
}

/// Whether an Ethernet frame carries a packet to one of the service's addresses (but not to the marker port).
fn is_counted(frame: &[u8]) -> bool {
    let Some((ethernet, packet)) = frame.split_at_checked(14) else {
        return false;
    };
    let bytes = |range: std::ops::Range<usize>| packet.get(range).unwrap_or_default();
    let (destination_matches, protocol, port) = match ethernet.get(12..) {
        Some([0x08, 0x00]) => (bytes(16..20) == IMDS_V4.octets(), bytes(9..10), bytes(22..24)),
        Some([0x86, 0xdd]) => (bytes(24..40) == IMDS_V6.octets(), bytes(6..7), bytes(42..44)),
        _ => return false,
    };
    let is_marker = protocol == [enforcer_common::verdict::UDP] && port == MARKER_PORT.to_be_bytes();
    destination_matches && !is_marker
}

fn accept(listener: &TcpListener, counts: &Arc<Counts>) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept()?;
        counts.connections.fetch_add(1, Ordering::SeqCst);
        // A client that breaks off is no concern of the service.
        thread::spawn(move || converse(stream).ok());
    }
}

fn converse(mut stream: TcpStream) -> io::Result<()> {
    while let Some(request) = Request::receive(&mut stream)? {
        answer(&request).send(&mut stream)?;
    }
    Ok(())
}

/// Version 2 only: a token by `PUT`, then everything else with the token.
fn answer(request: &Request) -> Response {
    match (request.method.as_str(), request.target.as_str()) {
        ("PUT", TOKEN_PATH) if request.header("x-aws-ec2-metadata-token-ttl-seconds").is_some() => {
            Response::text(200, TOKEN)
        }
        ("PUT", _) => Response::text(400, ""),
        _ if request.header("x-aws-ec2-metadata-token") != Some(TOKEN) => Response::text(401, ""),
        ("GET", ROLE_PATH) => Response::text(200, ROLE),
        _ => Response::text(404, ""),
    }
}

fn echo(socket: &UdpSocket, counts: &Counts) -> io::Result<()> {
    let mut datagram = [0; 2048];
    loop {
        let (length, sender): (usize, SocketAddr) = socket.recv_from(&mut datagram)?;
        if socket.local_addr()?.port() != MARKER_PORT {
            counts.datagrams.fetch_add(1, Ordering::SeqCst);
        }
        socket.send_to(datagram.get(..length).unwrap_or_default(), sender)?;
    }
}
