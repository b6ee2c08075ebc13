//! Somebody else's credentials. An attempt here succeeds only if it got an answer it must not get.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream},
    os::fd::OwnedFd,
    thread,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{OFlags, fcntl_setfl},
    net::{AddressFamily, RecvFlags, SendFlags, SocketType, bind, connect, recv, sendto, sockopt},
};

use crate::{
    selftest::{
        ground::{Endpoint, Ground, unavailable},
        network::{Namespace, configure},
        packet::{TCP, syn},
        socket::{open, start, tcp},
    },
    sys::namespace::unshare_network,
};

/// Source ports of connections that are made more than once.
const PORT: u16 = 41_017;
const PATIENCE: Duration = Duration::from_secs(5);
/// How long an answer to a forged packet is awaited.
const MOMENT: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

/// What an attempt reports that was answered, but not with what it was after.
pub(super) fn refused() -> io::Error {
    io::Error::from_raw_os_error(libc::EACCES)
}

pub(super) fn foreign(ground: &Ground) -> io::Result<()> {
    ask(ground, tcp(AddressFamily::INET)?)
}

pub(super) fn steer_ports(ground: &Ground) -> io::Result<()> {
    let endpoint = ground.endpoint()?;
    any(endpoint.steer_ports.map(|port| {
        let to = SocketAddrV4::new(*endpoint.address.ip(), port);
        start(&tcp(AddressFamily::INET)?, &to)
    }))
}

/// The kernel would answer a forged first packet, were it to reach the listener.
pub(super) fn forged(ground: &Ground) -> io::Result<()> {
    let endpoint = ground.endpoint()?;
    any(endpoint.steer_ports.map(|port| {
        let socket = open(AddressFamily::INET, SocketType::RAW, TCP.into())?;
        let address = *endpoint.address.ip();
        sendto(
            &socket,
            &syn((ground.own, PORT), (address, port)),
            SendFlags::empty(),
            &SocketAddrV4::new(address, 0),
        )?;
        await_answer(&socket, port)
    }))
}

pub(super) fn agent(ground: &Ground) -> io::Result<()> {
    if !ground.in_host_network {
        return Err(unavailable("the agent's ports are the host's"));
    }
    let ports = &ground.endpoint()?.agent_ports;
    if ports.is_empty() {
        return Err(unavailable("there is no agent behind the endpoint"));
    }
    any(ports.iter().map(|port| {
        let to = SocketAddrV4::new(Ipv4Addr::LOCALHOST, *port);
        // Where no agent runs, something else has to be what is not reached.
        let stand_in = TcpListener::bind(to);
        let outcome = start(&tcp(AddressFamily::INET)?, &to);
        drop(stand_in);
        outcome
    }))
}

/// A connection from the same address and port begins in a network that looks the same, but leads nowhere; then the
/// real one comes, and must not inherit anything.
pub(super) fn copied_address(ground: &Ground) -> io::Result<()> {
    let Endpoint { address, source, .. } = *ground.endpoint()?;
    let source = SocketAddrV4::new(source, PORT);
    let thread = thread::spawn(move || poison(source, address));
    let poisoned = thread
        .join()
        .map_err(|_panic| io::Error::other("the thread panicked"))?;
    let outcome = ask(ground, from(source)?);
    poisoned.map(drop).and(outcome)
}

pub(super) fn replayed(ground: &Ground) -> io::Result<()> {
    let source = SocketAddrV4::new(ground.endpoint()?.source, PORT);
    let attempts = [(); 3].map(|()| ask(ground, from(source)?));
    any(attempts)
}

/// Whether one of the attempts got what it was after.
fn any(attempts: impl IntoIterator<Item = io::Result<()>>) -> io::Result<()> {
    let best = attempts.into_iter().reduce(Result::or);
    best.unwrap_or_else(|| Err(refused()))
}

/// Asks for another's credentials.
fn ask(ground: &Ground, socket: OwnedFd) -> io::Result<()> {
    let endpoint = ground.endpoint()?;
    start(&socket, &endpoint.address)?;
    let mut stream = TcpStream::from(socket);
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "GET {} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        endpoint.foreign
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if answer.starts_with("HTTP/1.1 200") {
        Ok(())
    } else {
        Err(refused())
    }
}

/// A socket that connects from this address, and closes with a reset, so that the same can be done again at once.
fn from(source: SocketAddrV4) -> io::Result<OwnedFd> {
    let socket = tcp(AddressFamily::INET)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
    bind(&socket, &source)?;
    Ok(socket)
}

/// Begins a connection in a network of its own, and keeps it.
fn poison(source: SocketAddrV4, endpoint: SocketAddrV4) -> io::Result<OwnedFd> {
    unshare_network()?;
    let here = Namespace::from(File::open("/proc/thread-self/ns/net")?);
    configure(&here, async |net| {
        net.up("lo").await?;
        net.add_address("lo", *source.ip(), 32).await?;
        net.route_v4((Ipv4Addr::UNSPECIFIED, 0), None, "lo").await
    })
    .map_err(io::Error::other)?;
    let socket = from(source)?;
    fcntl_setfl(&socket, OFlags::NONBLOCK)?;
    match connect(&socket, &SocketAddr::from(endpoint)) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error.into()),
    }
}

/// Waits a moment for any segment from this port.
fn await_answer(socket: &OwnedFd, port: u16) -> io::Result<()> {
    let mut packet = [0; 128];
    let mut watched = [PollFd::new(socket, PollFlags::IN)];
    while poll(&mut watched, Some(&MOMENT))? > 0 {
        recv(socket, packet.as_mut_slice(), RecvFlags::empty())?;
        if packet.get(20..22) == Some(&port.to_be_bytes()) {
            return Ok(());
        }
    }
    Err(refused())
}
