//! The actor's side: `lab actor`.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::OsString,
    io::{self, ErrorKind},
    net::{SocketAddr, TcpStream, UdpSocket},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::ffi::OsStringExt,
    },
    panic, thread,
    time::Duration,
};

use anyhow::Result;
use nix::{
    errno::Errno,
    libc,
    sched::{CloneFlags, unshare},
    sys::{
        socket::{
            AddressFamily, MsgFlags, SockFlag, SockType, SockaddrStorage, bind, connect, send, setsockopt, socket,
            sockopt,
        },
        time::{TimeVal, TimeValLike},
    },
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    actor::{
        forge::{PACKET_VNET_HDR, overhear, packet_socket, send_frame, send_raw, take_over},
        protocol::{Answer, Command, DatagramStyle, Family, Patience, SocketOption},
    },
    cgroup,
    http::{Request, Response},
    programs::slowness,
    worker,
};

/// How long a connect or an answer may take.
pub(super) fn patience() -> io::Result<Duration> {
    let slowness = slowness().map_err(io::Error::other)?;
    Ok(Duration::from_secs(8) * slowness)
}

/// More than a page.
const LONG_VALUE: usize = 5_000;

/// Answers commands until the test ends. On a thread that is not the process's first one, which stays as it was, whatever
/// this one does to itself.
pub fn run() -> Result<()> {
    let mut sockets = HashMap::new();
    let mut answer =
        |command| obey(&mut sockets, command).unwrap_or_else(|error| Answer::Failed(as_errno(&error) as i32));
    match thread::scope(|scope| scope.spawn(|| worker::serve(&mut answer)).join()) {
        Ok(outcome) => outcome,
        Err(payload) => panic::resume_unwind(payload),
    }
}

type Sockets = HashMap<u32, OwnedFd>;

fn obey(sockets: &mut Sockets, command: Command) -> io::Result<Answer> {
    match command {
        Command::Open { socket, family } => {
            sockets.insert(socket, tcp_socket(family)?);
        }
        Command::Limit { socket, milliseconds } => {
            limit(held(sockets, socket)?, Duration::from_millis(milliseconds.into()))?;
        }
        Command::Connect {
            socket,
            source,
            to,
            patience,
        } => {
            start_connection(held(sockets, socket)?, source, to, patience)?;
        }
        Command::Exchange { socket, request } => {
            let mut stream = TcpStream::from(held(sockets, socket)?.try_clone()?);
            return exchange(&mut stream, &request).map(Answer::Response);
        }
        Command::Close { socket } => {
            sockets.remove(&socket).ok_or(Errno::EBADF)?;
        }
        Command::Abort { socket } => {
            let now = libc::linger {
                l_onoff: 1,
                l_linger: 0,
            };
            setsockopt(&sockets.remove(&socket).ok_or(Errno::EBADF)?, sockopt::Linger, &now)?;
        }
        Command::Datagram { to, style } => {
            send_datagram(to, style)?;
        }
        Command::Echo { to } => {
            let socket = send_datagram(to, DatagramStyle::Connected)?;
            socket.recv(&mut [0; 16])?;
        }
        Command::Raw { to, header, bytes } => send_raw(to, header, &bytes)?,
        Command::Frame {
            interface,
            hardware,
            carried,
            checksum,
        } => send_frame(&interface, hardware, &carried, checksum)?,
        Command::Overhear { socket, interface } => {
            sockets.insert(socket, overhear(&interface)?);
        }
        Command::TakeOver {
            overheard,
            socket,
            client,
            server,
        } => {
            let taken = take_over(held(sockets, overheard)?, client, server)?;
            sockets.insert(socket, taken);
        }
        Command::Create { raw, protocol } => {
            let kind = if raw { Type::RAW } else { Type::DGRAM };
            Socket::new(Domain::IPV4, kind, Some(Protocol::from(protocol)))?;
        }
        Command::SetOption { option } => set_option(option)?,
        Command::Isolate => unshare(CloneFlags::CLONE_NEWNET)?,
        Command::OpenDatagram { socket, to } => {
            sockets.insert(socket, send_datagram(to, DatagramStyle::Connected)?.into());
        }
        Command::Send { socket } => {
            send(held(sockets, socket)?.as_raw_fd(), b"lab", MsgFlags::empty())?;
        }
        Command::Join { cgroup } => cgroup::join(&cgroup).map_err(io::Error::other)?,
        Command::Crowd {
            to,
            connections,
            targets,
        } => return crowd(to, connections, &targets),
    }
    Ok(Answer::Done)
}

fn held(sockets: &Sockets, socket: u32) -> io::Result<&OwnedFd> {
    Ok(sockets.get(&socket).ok_or(Errno::EBADF)?)
}

fn as_errno(error: &io::Error) -> Errno {
    match error.raw_os_error() {
        Some(raw) => Errno::from_raw(raw),
        None if error.kind() == ErrorKind::UnexpectedEof => Errno::ECONNRESET,
        None => Errno::EPROTO,
    }
}

pub(super) fn tcp_socket(family: Family) -> io::Result<OwnedFd> {
    let family = match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    limit(&socket, patience()?)?;
    Ok(socket)
}

/// The send timeout is also that of connect.
pub(super) fn limit(socket: &OwnedFd, patience: Duration) -> io::Result<()> {
    let patience = TimeVal::milliseconds(i64::try_from(patience.as_millis()).unwrap_or(i64::MAX));
    setsockopt(socket, sockopt::SendTimeout, &patience)?;
    setsockopt(socket, sockopt::ReceiveTimeout, &patience)?;
    Ok(())
}

fn start_connection(
    socket: &OwnedFd,
    source: Option<SocketAddr>,
    to: SocketAddr,
    patience: Patience,
) -> io::Result<()> {
    if let Some(source) = source {
        setsockopt(socket, sockopt::ReuseAddr, &true)?;
        bind(socket.as_raw_fd(), &SockaddrStorage::from(source))?;
    }
    if matches!(patience, Patience::Leave) {
        TcpStream::from(socket.try_clone()?).set_nonblocking(true)?;
    }
    match (connect(socket.as_raw_fd(), &SockaddrStorage::from(to)), patience) {
        (Err(Errno::EINPROGRESS), Patience::Leave) => Ok(()),
        (outcome, _) => Ok(outcome?),
    }
}

fn exchange(stream: &mut TcpStream, request: &Request) -> io::Result<Response> {
    request.send(stream)?;
    Response::receive(stream)
}

fn send_datagram(to: SocketAddr, style: DatagramStyle) -> io::Result<UdpSocket> {
    let any = match to {
        SocketAddr::V4(_) => "0.0.0.0:0",
        SocketAddr::V6(_) => "[::]:0",
    };
    let socket = UdpSocket::bind(any)?;
    socket.set_read_timeout(Some(patience()?))?;
    match style {
        DatagramStyle::Connected => socket.connect(to).and_then(|()| socket.send(b"lab"))?,
        DatagramStyle::Unconnected => socket.send_to(b"lab", to)?,
    };
    Ok(socket)
}

fn set_option(option: SocketOption) -> io::Result<()> {
    let datagram = UdpSocket::bind("127.0.0.1:0")?.into();
    match option {
        SocketOption::QdiscBypass => set_value(&packet_socket(0)?, libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, 1_i32),
        SocketOption::VnetHeader => set_value(&packet_socket(0)?, libc::SOL_PACKET, PACKET_VNET_HDR, 1_i32),
        SocketOption::XdpMemory => set_value(&datagram, libc::SOL_XDP, libc::XDP_UMEM_REG, 1_i32),
        SocketOption::Long => {
            let mut name = b"lo".to_vec();
            name.resize(LONG_VALUE, 0);
            Ok(setsockopt(&datagram, sockopt::BindToDevice, &OsString::from_vec(name))?)
        }
    }
}

/// Sets an option that nix does not know, or not so.
pub(super) fn set_value<T: Copy>(socket: &OwnedFd, level: i32, option: i32, value: T) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)?;
    #[expect(unsafe_code, reason = "setsockopt(2) for any option has no safe wrapper")]
    // SAFETY: the value is readable for the length given, and outlives the call.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), length) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// All connections first, then request by request on all of them before the first answer is read, so that the server
/// has as many clients at once as it can ever have. Sending waits until a connection is there.
fn crowd(to: SocketAddr, connections: u32, targets: &[String]) -> io::Result<Answer> {
    let mut clients = Vec::new();
    for _ in 0..connections {
        // All at once: on a busy machine, who asks one after the other is idle for so long that the server closes the
        // connection.
        let socket = tcp_socket(Family::of(to))?;
        start_connection(&socket, None, to, Patience::Leave)?;
        let mut client = TcpStream::from(socket);
        client.set_nonblocking(false)?;
        client.set_read_timeout(Some(4 * patience()?))?;
        for target in targets {
            Request::get(target).send(&mut client)?;
        }
        clients.push(client);
    }
    let mut counts = BTreeMap::new();
    for client in &mut clients {
        for _ in targets {
            let response = Response {
                headers: Vec::new(),
                ..Response::receive(client)?
            };
            *counts.entry(response).or_default() += 1;
        }
    }
    Ok(Answer::Counted(counts.into_iter().collect()))
}
