//! Sockets that arrive over a Unix socket (`SCM_RIGHTS`).

use std::{
    fs::File,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use super::cgroup::made_in;
use crate::{
    selftest::{
        ground::{Ground, unavailable},
        socket::{start, tcp},
    },
    sys::namespace::run_in,
};

pub(super) fn from_sibling(ground: &Ground) -> io::Result<()> {
    start(&passed(made_in(ground, &ground.sibling)?)?, &ground.service())
}

/// The socket keeps the host's network namespace, wherever it is used.
pub(super) fn from_host(ground: &Ground) -> io::Result<()> {
    let host = ground.host_network.as_deref();
    let host = host.ok_or_else(|| unavailable("the host's network is not for attempts here"))?;
    let made = made_there(host)?;
    start(&passed(made)?, &ground.service())
}

fn made_there(network: &Path) -> io::Result<OwnedFd> {
    run_in(File::open(network)?.as_fd(), || tcp(AddressFamily::INET))?
}

/// Sends a descriptor to ourselves: what comes out is what a receiver in any cgroup gets.
fn passed(socket: OwnedFd) -> io::Result<OwnedFd> {
    let (here, there) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let sent = [socket.as_fd()];
    control.push(SendAncillaryMessage::ScmRights(&sent));
    sendmsg(&here, &[IoSlice::new(b"+")], &mut control, SendFlags::empty())?;
    drop(socket);

    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    recvmsg(
        &there,
        &mut [IoSliceMut::new(&mut [0])],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let received = control.drain().find_map(|message| {
        if let RecvAncillaryMessage::ScmRights(mut descriptors) = message {
            descriptors.next()
        } else {
            None
        }
    });
    received.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}
