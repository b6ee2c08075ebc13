//! Actors: processes in a container's or the host's place that try things, and tell how it went.

use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    path::Path,
    process,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;

use crate::{
    actor::protocol::{Answer, Command},
    enter::Place,
    http::{Request, Response},
    namespace::NetNs,
    topology::ENDPOINT,
    worker::Worker,
};

mod forge;
pub mod packet;
pub mod protocol;
mod serve;

pub use protocol::{Checksum, DatagramStyle, Family, HeaderFrom, Patience, SocketOption};
pub use serve::run;

/// How an attempt went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// The system call succeeded.
    Done,
    /// It failed.
    Refused(Errno),
}

/// A TCP socket an actor holds.
#[derive(Clone, Copy, Debug)]
pub struct SocketId(u32);

/// A process that acts on command.
#[derive(Debug)]
pub struct Actor {
    worker: Worker,
    next_socket: u32,
    address: Ipv4Addr,
}

// === impl Actor ===

impl Actor {
    /// Starts an actor whose packets come from `address`.
    pub fn start(lab: &Path, place: &Place, address: Ipv4Addr) -> Result<Self> {
        let mut command = place.command(lab, lab);
        command.arg("actor");
        Ok(Self::from_command(command)?.at(address))
    }

    /// Starts an actor by any command that becomes `lab actor`; where its packets come from is not known yet.
    pub(crate) fn from_command(command: process::Command) -> Result<Self> {
        Ok(Self {
            worker: Worker::start(command)?,
            next_socket: 0,
            address: Ipv4Addr::UNSPECIFIED,
        })
    }

    /// The same, with packets that come from `address`.
    pub(crate) fn at(self, address: Ipv4Addr) -> Self {
        Self { address, ..self }
    }

    /// The process ID.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.worker.pid()
    }

    /// The address its packets come from.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Asks the credential endpoint on a connection of its own.
    pub fn get(&mut self, target: &str) -> Result<Response> {
        self.ask(ENDPOINT, &Request::get(target))
    }

    /// Asks any server on a connection of its own.
    pub fn ask(&mut self, to: SocketAddr, request: &Request) -> Result<Response> {
        let socket = self.connected(to)?;
        let response = self.request(socket, request);
        self.close(socket)?;
        response
    }

    /// Tries to connect, and closes.
    pub fn connect(&mut self, to: SocketAddr) -> Result<Attempt> {
        let socket = self.open(Family::of(to))?;
        let attempt = self.connect_socket(socket, to);
        self.close(socket)?;
        attempt
    }

    /// Makes a socket.
    pub fn open(&mut self, family: Family) -> Result<SocketId> {
        let socket = self.next();
        self.done(&Command::Open { socket, family })?;
        Ok(SocketId(socket))
    }

    /// Limits how long connecting, sending and receiving may take.
    pub fn limit(&mut self, socket: SocketId, patience: Duration) -> Result<()> {
        let milliseconds = u32::try_from(patience.as_millis()).context("nobody waits that long")?;
        self.done(&Command::Limit {
            socket: socket.0,
            milliseconds,
        })
    }

    /// Makes a socket and connects it; failing to connect is an error.
    pub fn connected(&mut self, to: SocketAddr) -> Result<SocketId> {
        let socket = self.open(Family::of(to))?;
        match self.connect_socket(socket, to)? {
            Attempt::Done => Ok(socket),
            Attempt::Refused(errno) => {
                self.close(socket)?;
                bail!("cannot connect to {to}: {errno}")
            }
        }
    }

    /// Connects a socket.
    pub fn connect_socket(&mut self, socket: SocketId, to: SocketAddr) -> Result<Attempt> {
        self.attempt(&Command::Connect {
            socket: socket.0,
            source: None,
            to,
            patience: Patience::Wait,
        })
    }

    /// Binds a socket to a source address and port and connects it.
    pub fn connect_from(
        &mut self,
        socket: SocketId,
        source: SocketAddr,
        to: SocketAddr,
        patience: Patience,
    ) -> Result<Attempt> {
        self.attempt(&Command::Connect {
            socket: socket.0,
            source: Some(source),
            to,
            patience,
        })
    }

    /// Sends a request on a connected socket and reads the response.
    pub fn request(&mut self, socket: SocketId, request: &Request) -> Result<Response> {
        let command = Command::Exchange {
            socket: socket.0,
            request: request.clone(),
        };
        match self.worker.call(&command)? {
            Answer::Response(response) => Ok(response),
            Answer::Failed(errno) => bail!("no response to {}: {}", request.target, Errno::from_raw(errno)),
            answer @ (Answer::Done | Answer::Counted(_)) => bail!("unexpected answer {answer:?}"),
        }
    }

    /// Closes a socket.
    pub fn close(&mut self, socket: SocketId) -> Result<()> {
        self.done(&Command::Close { socket: socket.0 })
    }

    /// Closes a socket with a reset.
    pub fn abort(&mut self, socket: SocketId) -> Result<()> {
        self.done(&Command::Abort { socket: socket.0 })
    }

    /// Sends a datagram.
    pub fn datagram(&mut self, to: SocketAddr, style: DatagramStyle) -> Result<Attempt> {
        self.attempt(&Command::Datagram { to, style })
    }

    /// Sends a datagram and waits for the echo.
    pub fn echo(&mut self, to: SocketAddr) -> Result<Attempt> {
        self.attempt(&Command::Echo { to })
    }

    /// Sends an IPv4 packet through a raw socket.
    pub fn raw(&mut self, to: Ipv4Addr, header: HeaderFrom, bytes: Vec<u8>) -> Result<Attempt> {
        self.attempt(&Command::Raw { to, header, bytes })
    }

    /// Makes an IPv4 datagram socket of a protocol, and closes it.
    pub fn create(&mut self, protocol: i32) -> Result<Attempt> {
        self.attempt(&Command::Create { raw: false, protocol })
    }

    /// Makes a raw IPv4 socket of a protocol, and closes it.
    pub fn create_raw(&mut self, protocol: i32) -> Result<Attempt> {
        self.attempt(&Command::Create { raw: true, protocol })
    }

    /// Sets an option of a new socket.
    pub fn set_option(&mut self, option: SocketOption) -> Result<Attempt> {
        self.attempt(&Command::SetOption { option })
    }

    /// Sends an Ethernet frame from a packet socket, which tells the kernel that it is ARP; what the frame carries begins
    /// with its `EtherType`.
    pub fn frame(&mut self, interface: &str, hardware: [u8; 6], carried: Vec<u8>) -> Result<Attempt> {
        self.attempt(&Command::Frame {
            interface: interface.into(),
            hardware,
            carried,
            checksum: None,
        })
    }

    /// The same, with a checksum that the kernel writes.
    pub fn frame_to_complete(
        &mut self,
        interface: &str,
        hardware: [u8; 6],
        carried: Vec<u8>,
        checksum: Checksum,
    ) -> Result<Attempt> {
        self.attempt(&Command::Frame {
            interface: interface.into(),
            hardware,
            carried,
            checksum: Some(checksum),
        })
    }

    /// Makes a socket that receives what an interface does.
    pub fn overhear(&mut self, interface: &str) -> Result<SocketId> {
        let socket = self.next();
        self.done(&Command::Overhear {
            socket,
            interface: interface.into(),
        })?;
        Ok(SocketId(socket))
    }

    /// Makes a socket that goes on with somebody else's connection from where it is by what was overheard (`TCP_REPAIR`).
    pub fn take_over(&mut self, overheard: SocketId, client: SocketAddrV4, server: SocketAddrV4) -> Result<SocketId> {
        let socket = self.next();
        self.done(&Command::TakeOver {
            overheard: overheard.0,
            socket,
            client,
            server,
        })?;
        Ok(SocketId(socket))
    }

    /// Moves the actor's process to another cgroup.
    pub fn join(&mut self, cgroup: &Path) -> Result<()> {
        self.done(&Command::Join { cgroup: cgroup.into() })
    }

    /// Takes the thread that acts, but not its process, to a network namespace of its own, and returns that.
    pub fn isolate(&mut self) -> Result<NetNs> {
        self.done(&Command::Isolate)?;
        NetNs::of_other_thread(self.pid())
    }

    /// Makes a datagram socket, connects it and sends something.
    pub fn connected_datagram(&mut self, to: SocketAddr) -> Result<SocketId> {
        let socket = self.next();
        self.done(&Command::OpenDatagram { socket, to })?;
        Ok(SocketId(socket))
    }

    /// Sends something on a connected socket.
    pub fn send(&mut self, socket: SocketId) -> Result<Attempt> {
        self.attempt(&Command::Send { socket: socket.0 })
    }

    /// Opens many connections to the credential endpoint at once, asks for every target on each of them, and counts the
    /// answers. Headers are left out of them.
    pub fn crowd(&mut self, connections: u32, targets: &[&str]) -> Result<Vec<(Response, usize)>> {
        let targets = targets.iter().copied().map(str::to_owned).collect();
        match self.worker.call(&Command::Crowd {
            to: ENDPOINT,
            connections,
            targets,
        })? {
            Answer::Counted(responses) => Ok(responses),
            Answer::Failed(errno) => bail!("a client of the crowd failed: {}", Errno::from_raw(errno)),
            answer @ (Answer::Done | Answer::Response(_)) => bail!("unexpected answer {answer:?}"),
        }
    }

    fn next(&mut self) -> u32 {
        self.next_socket += 1;
        self.next_socket
    }

    fn attempt(&mut self, command: &Command) -> Result<Attempt> {
        match self.worker.call(command)? {
            Answer::Done => Ok(Attempt::Done),
            Answer::Failed(errno) => Ok(Attempt::Refused(Errno::from_raw(errno))),
            answer @ (Answer::Response(_) | Answer::Counted(_)) => bail!("unexpected answer {answer:?}"),
        }
    }

    fn done(&mut self, command: &Command) -> Result<()> {
        match self.attempt(command)? {
            Attempt::Done => Ok(()),
            Attempt::Refused(errno) => bail!("{command:?} failed: {errno}"),
        }
    }
}
