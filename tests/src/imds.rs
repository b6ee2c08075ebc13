//! A fake instance metadata service that counts everything that reaches it.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    ops::Range,
    os::fd::AsRawFd,
    path::Path,
    thread,
};

use anyhow::{Context, Result};
use enforcer_common::verdict::{TCP, UDP};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket, sockopt};
use serde::{Deserialize, Serialize};

use crate::{
    actor::Actor,
    enter::Place,
    http::{Request, Response},
    topology::{IMDS_EMBEDDED, IMDS_V4, IMDS_V6},
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

const ETHERNET_HEADER: usize = 14;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
/// The next header of an IPv6 packet that names its stations.
const IPV6_ROUTING: u8 = 43;
/// The TCP flags of a connection's first packet.
const SYN: u8 = 0x02;
/// Room for the frames between two questions, in bytes.
const SNIFFER_BUFFER: usize = 4 << 20;

/// What the datagrams of techniques hold.
const TECHNIQUES_DATAGRAM: &[u8] = b"selftest";

const TOKEN: &str = "bGFiLXRva2Vu";

/// What reached the metadata service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hits {
    /// Packets of any protocol to one of its addresses, whether or not anything answered.
    pub packets: u64,
    /// Openings of TCP connections.
    pub connections: u64,
    /// Datagrams.
    pub datagrams: u64,
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

// === impl Hits ===

impl Hits {
    /// Counts an Ethernet frame, if it carries a packet to one of the service's addresses and not to the marker port.
    fn count(&mut self, frame: &[u8]) {
        let Some((ethernet, packet)) = frame.split_at_checked(ETHERNET_HEADER) else {
            return;
        };
        let bytes = |range: Range<usize>| packet.get(range).unwrap_or_default();
        let (destination_matches, protocol, transport) = match ethernet.get(12..) {
            // The destination, and whatever stations the options name.
            Some([0x08, 0x00]) => (
                bytes(16..4 * usize::from(packet.first().unwrap_or(&0) & 0xf))
                    .windows(4)
                    .any(|address| address == IMDS_V4.octets()),
                bytes(9..10),
                IPV4_HEADER,
            ),
            Some([0x86, 0xdd]) => (
                is_protected(bytes(24..40)) || names_station(packet),
                bytes(6..7),
                IPV6_HEADER,
            ),
            _ => return,
        };
        let port = bytes(transport + 2..transport + 4);
        if !destination_matches || (protocol == [UDP] && port == MARKER_PORT.to_be_bytes()) {
            return;
        }
        self.packets += 1;
        match (protocol, bytes(transport + 13..transport + 14)) {
            (&[UDP], _) => self.datagrams += 1,
            (&[TCP], &[SYN]) => self.connections += 1,
            _ => {}
        }
    }
}

/// Whether a routing header names the service as one of its two stations.
fn names_station(packet: &[u8]) -> bool {
    let stations = packet.get(IPV6_HEADER + 8..IPV6_HEADER + 40).unwrap_or_default();
    packet.get(6) == Some(&IPV6_ROUTING) && stations.chunks(16).any(is_protected)
}

fn is_protected(destination: &[u8]) -> bool {
    let mut protected = IMDS_EMBEDDED.iter().chain([&IMDS_V6]);
    protected.any(|address| destination == address.octets())
}

/// The service's side: `lab imds`.
pub fn run() -> Result<()> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let sniffer = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll)
        .context("cannot open a packet socket")?;
    setsockopt(&sniffer, sockopt::RcvBufForce, &SNIFFER_BUFFER).context("cannot enlarge the packet socket's buffer")?;
    for address in [IpAddr::V4(IMDS_V4), IpAddr::V6(IMDS_V6)] {
        let listener = TcpListener::bind((address, PORT)).with_context(|| format!("cannot listen on {address}"))?;
        background(move || accept(&listener));
        for port in [PORT, MARKER_PORT] {
            let socket = UdpSocket::bind((address, port)).with_context(|| format!("cannot bind {address}:{port}"))?;
            background(move || echo(&socket));
        }
    }
    let mut hits = Hits::default();
    worker::serve(|()| {
        // Frames wait in the socket's queue until somebody asks, so that an answer covers all that has arrived.
        let mut frame = [0; 2048];
        while let Ok(length) = recv(sniffer.as_raw_fd(), &mut frame, MsgFlags::empty()) {
            hits.count(frame.get(..length).unwrap_or_default());
        }
        hits
    })
}

/// A service thread; it ends with the process, and says why if it ends earlier.
fn background(service: impl FnOnce() -> io::Result<()> + Send + 'static) {
    thread::spawn(move || {
        if let Err(error) = service() {
            eprintln!("lab imds: {error}");
        }
    });
}

fn accept(listener: &TcpListener) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept()?;
        // Closed with a reset, which nobody answers: packets of a connection that has ended would be taken for another's.
        setsockopt(
            &stream,
            sockopt::Linger,
            &libc::linger {
                l_onoff: 1,
                l_linger: 0,
            },
        )?;
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

fn echo(socket: &UdpSocket) -> io::Result<()> {
    let mut datagram = [0; 2048];
    loop {
        let (length, sender) = socket.recv_from(&mut datagram)?;
        let datagram = datagram.get(..length).unwrap_or_default();
        // Techniques do not wait for an answer, and then their kernel says so, which would be counted with what comes later.
        if datagram != TECHNIQUES_DATAGRAM {
            socket.send_to(datagram, sender)?;
        }
    }
}
