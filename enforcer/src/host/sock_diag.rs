//! `sock_diag(7)`: lists connected sockets of a network namespace, destroys them, and tells whose the other end of a
//! connection is.
//!
//! The messages are those of `linux/inet_diag.h`, written and read byte by byte: a request is `struct inet_diag_req_v2`, an
//! answer `struct inet_diag_msg` with attributes.

use std::{
    io,
    net::{IpAddr, SocketAddr as InternetAddr},
};

use enforcer_common::{address::Address, verdict::TCP};
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG};

/// `SOCK_DIAG_BY_FAMILY`
const LIST: u16 = 20;
/// `SOCK_DESTROY`
const DESTROY: u16 = 21;
/// `NLM_F_REQUEST`
const REQUEST: u16 = 1;
/// `NLM_F_ACK`
const ACKNOWLEDGE: u16 = 4;
/// `NLM_F_DUMP`
const DUMP: u16 = 0x300;
/// `NLMSG_ERROR`
const ERROR: u16 = 2;
/// `NLMSG_DONE`
const DONE: u16 = 3;
/// `INET_DIAG_CGROUP_ID`, an attribute since Linux 5.8.
const CGROUP_ID: u16 = 21;

/// States in which a socket has a peer (bits by the numbers of `net/tcp_states.h`): all but listening, closed, and those
/// the kernel keeps without a socket.
const CONNECTED: u32 = 1 << 1 | 1 << 2 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11;

/// `TCP_SYN_SENT`
const SYN_SENT: u8 = 2;

/// Length of `struct nlmsghdr`.
const HEADER: usize = 16;
/// Length of `struct inet_diag_msg`.
const ANSWER: usize = 72;
/// Length of `struct inet_diag_sockid`.
const ID: usize = 48;
/// How much of it are ports and addresses of both ends.
const ENDS: usize = 36;

/// A connected socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Connected {
    family: u8,
    /// IANA protocol number.
    pub(super) protocol: u8,
    /// `struct inet_diag_sockid`, by which the kernel finds it again.
    id: [u8; ID],
    /// Where it is connected to; IPv4 in v4-mapped form.
    pub(super) peer: Address,
    /// The port there.
    pub(super) port: u16,
    /// Whether it is still on its way: nobody has answered.
    pub(super) is_connecting: bool,
    /// The cgroup it was made in; 0 if the kernel does not tell.
    pub(super) cgroup_id: u64,
}

/// Sockets connected by a protocol (IANA number), over IPv4 (`AF_INET`) or IPv6 (`AF_INET6`), in the calling thread's network
/// namespace.
pub(super) fn list(family: u8, protocol: u8) -> io::Result<Vec<Connected>> {
    let socket = exchange(&request(LIST, REQUEST | DUMP, (family, protocol), &[0; ID]))?;
    let mut found = Vec::new();
    loop {
        let (datagram, _sender) = socket.recv_from_full()?;
        for (kind, body) in messages(&datagram) {
            match kind {
                LIST => found.extend(connected(body, protocol)),
                DONE => return Ok(found),
                ERROR => return Err(error(body).unwrap_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))),
                _ => {}
            }
        }
    }
}

/// The cgroup of the socket at `address` that is connected over TCP to `peer`, both in the calling thread's network
/// namespace: for an accepted socket that of the one it was accepted from. `None` if there is no such socket, or the kernel
/// lacks `tcp_diag`.
pub(crate) fn cgroup_of(address: InternetAddr, peer: InternetAddr) -> io::Result<Option<u64>> {
    let id = id(address, peer);
    let socket = exchange(&request(LIST, REQUEST, (family(address), TCP), &id))?;
    let (datagram, _sender) = socket.recv_from_full()?;
    // Where no socket is connected so, the kernel tells of one that listens.
    let is_it = |socket: &Connected| socket.id.get(..ENDS) == id.get(..ENDS);
    match messages(&datagram).next() {
        Some((LIST, body)) => Ok(connected(body, TCP).filter(is_it).map(|socket| socket.cgroup_id)),
        Some((ERROR, body)) => match error(body) {
            Some(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Some(_) | None => Ok(None),
        },
        Some(_) | None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// `AF_INET` or `AF_INET6`.
const fn family(address: InternetAddr) -> u8 {
    if address.is_ipv4() { 2 } else { 10 }
}

/// The `struct inet_diag_sockid` of a connected socket, whatever its cookie.
fn id(address: InternetAddr, peer: InternetAddr) -> [u8; ID] {
    let mut id = [0; ID];
    let octets = |ip| match ip {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let ports = [address.port().to_be_bytes(), peer.port().to_be_bytes()].concat();
    for (at, bytes) in [
        (0, ports),
        (4, octets(address.ip())),
        (20, octets(peer.ip())),
        // INET_DIAG_NOCOOKIE, after the interface.
        (40, vec![0xff; 8]),
    ] {
        id.iter_mut().skip(at).zip(bytes).for_each(|(to, byte)| *to = byte);
    }
    id
}

/// Destroys a socket: its owner gets ECONNABORTED. One that is gone meanwhile gives ENOENT, a kernel without
/// `CONFIG_INET_DIAG_DESTROY` EOPNOTSUPP.
pub(super) fn destroy(socket: &Connected) -> io::Result<()> {
    let message = request(
        DESTROY,
        REQUEST | ACKNOWLEDGE,
        (socket.family, socket.protocol),
        &socket.id,
    );
    let (datagram, _sender) = exchange(&message)?.recv_from_full()?;
    let answer = messages(&datagram).next();
    match answer.and_then(|(_, body)| error(body)) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

fn exchange(message: &[u8]) -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.send_to(message, &SocketAddr::new(0, 0), 0)?;
    Ok(socket)
}

/// A netlink message with a `struct inet_diag_req_v2`.
fn request(kind: u16, flags: u16, (family, protocol): (u8, u8), id: &[u8; ID]) -> Vec<u8> {
    let body = [&[family, protocol, 0, 0][..], &CONNECTED.to_ne_bytes(), id].concat();
    let length = u32::try_from(HEADER + body.len()).unwrap_or(0);
    [
        &length.to_ne_bytes()[..],
        &kind.to_ne_bytes(),
        &flags.to_ne_bytes(),
        // Sequence and port number: one request per socket needs neither.
        &[0; 8],
        &body,
    ]
    .concat()
}

/// Type and body of each message of a datagram.
fn messages(mut datagram: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32::from_ne_bytes(*datagram.first_chunk()?)).ok()?;
        let kind = u16::from_ne_bytes(*datagram.get(4..)?.first_chunk()?);
        let body = datagram.get(HEADER..length)?;
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    })
}

/// The error in the body of an `NLMSG_ERROR`, none in an acknowledgement.
fn error(body: &[u8]) -> Option<io::Error> {
    let code = i32::from_ne_bytes(*body.first_chunk()?);
    (code != 0).then(|| io::Error::from_raw_os_error(-code))
}

/// A socket out of a `struct inet_diag_msg` with its attributes.
fn connected(body: &[u8], protocol: u8) -> Option<Connected> {
    let family = *body.first()?;
    let id: &[u8; ID] = body.get(4..)?.first_chunk()?;
    // Source port, destination port, source address, destination address.
    let port = u16::from_be_bytes(*id.get(2..)?.first_chunk()?);
    let peer: &[u8; 16] = id.get(20..)?.first_chunk()?;
    let peer = if i32::from(family) == libc::AF_INET {
        Address::from_v4(u32::from_ne_bytes(*peer.first_chunk()?))
    } else {
        Address::from_octets(*peer)
    };
    let cgroup_id = attributes(body.get(ANSWER..)?)
        .find(|(kind, _)| *kind == CGROUP_ID)
        .and_then(|(_, value)| value.first_chunk())
        .map_or(0, |id| u64::from_ne_bytes(*id));
    Some(Connected {
        family,
        protocol,
        id: *id,
        peer,
        port,
        is_connecting: *body.get(1)? == SYN_SENT,
        cgroup_id,
    })
}

/// Type and value of each attribute.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let kind = u16::from_ne_bytes(*bytes.get(2..)?.first_chunk()?);
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use enforcer_common::{address::Address, verdict::TCP};

    use super::{attributes, cgroup_of, list, messages};

    #[test]
    fn the_other_end_of_a_connection_is_found_as_long_as_it_is_there() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (server, _) = listener.accept().unwrap();
            let (there, here) = (client.peer_addr().unwrap(), client.local_addr().unwrap());
            let cgroup = cgroup_of(there, here).unwrap().unwrap();
            assert_eq!(cgroup_of(here, there).unwrap(), Some(cgroup));
            assert_ne!(cgroup, 0);
            drop((server, client));
            // One that only listens is nobody's other end.
            assert_eq!(cgroup_of(there, (there.ip(), 1).into()).unwrap(), None);
        }
    }

    #[test]
    fn a_connection_of_this_process_is_listed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let family = u8::try_from(libc::AF_INET).unwrap();
        let found = list(family, TCP).unwrap();
        let loopback = Address::from_v4(u32::from_ne_bytes([127, 0, 0, 1]));
        let ours: Vec<_> = found.iter().filter(|socket| socket.port == port).collect();
        assert!(ours.iter().all(|socket| socket.peer == loopback), "{ours:?}");
        assert_eq!(ours.len(), 1);
        drop(client);
    }

    #[test]
    fn lengths_that_lie_end_the_reading() {
        for bytes in [&[][..], &[0; 4], &[255; 20], &[16, 0, 0, 0], &[3, 0, 0, 0, 0, 0, 0, 0]] {
            assert_eq!(messages(bytes).count(), 0, "{bytes:?}");
            assert_eq!(attributes(bytes).take(10).count(), 0, "{bytes:?}");
        }
    }
}
