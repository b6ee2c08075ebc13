//! Connections: everything that has a `connect`.

use std::{io, os::fd::AsFd as _};

use rustix::{
    fs::{OFlags, fcntl_setfl},
    net::{AddressFamily, SendFlags, SocketType, sendto},
};

use crate::{
    selftest::{
        ground::{Ground, Spelling},
        socket::{self, await_connection, inet, open, start},
    },
    sys::uring::{self, Worker},
};

const SCTP: u32 = 132;
const DCCP: u32 = 33;
const MPTCP: u32 = 262;
const SOCK_DCCP: u32 = 6;
/// `MSG_FASTOPEN` of linux/socket.h.
const MSG_FASTOPEN: u32 = 0x2000_0000;

pub(super) fn tcp(ground: &Ground) -> io::Result<()> {
    start(&socket::tcp(AddressFamily::INET)?, &ground.service())
}

pub(super) fn tcp_v6(ground: &Ground) -> io::Result<()> {
    start(&socket::tcp(AddressFamily::INET6)?, &ground.service_v6())
}

pub(super) fn embedded(ground: &Ground, spelling: Spelling) -> io::Result<()> {
    start(&socket::tcp(AddressFamily::INET6)?, &ground.embedded(spelling))
}

pub(super) fn fast_open(ground: &Ground) -> io::Result<()> {
    let socket = socket::tcp(AddressFamily::INET)?;
    let flags = SendFlags::from_bits_retain(MSG_FASTOPEN) | SendFlags::DONTWAIT;
    match sendto(&socket, b"GET / HTTP/1.0\r\n\r\n", flags, &ground.service()) {
        Err(rustix::io::Errno::INPROGRESS) => await_connection(&socket),
        outcome => Ok(outcome.map(drop)?),
    }
}

pub(super) fn mptcp(ground: &Ground) -> io::Result<()> {
    start(
        &open(AddressFamily::INET, SocketType::STREAM, MPTCP)?,
        &ground.service(),
    )
}

pub(super) fn sctp(ground: &Ground) -> io::Result<()> {
    start(&open(AddressFamily::INET, SocketType::STREAM, SCTP)?, &ground.service())
}

pub(super) fn dccp(ground: &Ground) -> io::Result<()> {
    let kind = SocketType::from_raw(SOCK_DCCP);
    start(&open(AddressFamily::INET, kind, DCCP)?, &ground.service())
}

pub(super) fn uring_inline(ground: &Ground) -> io::Result<()> {
    uring(ground, Worker::Inline)
}

pub(super) fn uring_worker(ground: &Ground) -> io::Result<()> {
    uring(ground, Worker::Pool)
}

pub(super) fn uring_poller(ground: &Ground) -> io::Result<()> {
    uring(ground, Worker::Poller)
}

fn uring(ground: &Ground, worker: Worker) -> io::Result<()> {
    let socket = socket::tcp(AddressFamily::INET)?;
    fcntl_setfl(&socket, OFlags::NONBLOCK)?;
    match uring::connect(socket.as_fd(), &inet(ground.service()), worker) {
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => await_connection(&socket),
        outcome => outcome,
    }
}
