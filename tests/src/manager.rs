//! What a service manager does with listening sockets: keeps those that are left with it, and gives them to the next start.

use std::{
    ffi::OsString,
    io::{IoSlice, IoSliceMut},
    mem::{MaybeUninit, forget},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::{net::UnixStream, process::CommandExt},
    },
    process::{self, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result, anyhow, ensure};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};

/// More sockets than an enforcer has.
const MOST: usize = 8;

/// The number of the first descriptor a service manager gives.
const FIRST: i32 = 3;

/// Sockets that were left with the service manager.
#[derive(Clone, Debug, Default)]
pub(crate) struct Store(Arc<Mutex<Vec<OwnedFd>>>);

// === impl Store ===

impl Store {
    /// Keeps these.
    pub(crate) fn keep(&self, sockets: Vec<OwnedFd>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(sockets);
    }

    /// The input of a program that begins as [`run`]: it has the sockets in it.
    pub(crate) fn give(&self) -> Result<Stdio> {
        let (ours, theirs) = UnixStream::pair().context("cannot make a pair of sockets")?;
        let sockets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sockets: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !sockets.is_empty() {
            ensure!(
                ancillary.push(SendAncillaryMessage::ScmRights(&sockets)),
                "too many sockets"
            );
        }
        sendmsg(&ours, &[IoSlice::new(b"+")], &mut ancillary, SendFlags::NOSIGNAL)
            .context("cannot give the sockets")?;
        Ok(OwnedFd::from(theirs).into())
    }
}

/// Receives a message with the descriptors in it.
pub(crate) fn receive(socket: impl AsFd, bytes: &mut [u8], flags: RecvFlags) -> Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(socket, &mut [IoSliceMut::new(bytes)], &mut ancillary, flags)?;
    let mut sockets = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            sockets.extend(received);
        }
    }
    Ok((received.bytes, sockets))
}

/// `lab activate`: takes the sockets out of standard input and becomes the program, which has them as a service manager
/// gives them. They have the right numbers because nothing else is open.
pub fn run(command_line: &[OsString]) -> Result<()> {
    let (program, arguments) = command_line.split_first().context("there is no program to run")?;
    let (_, sockets) = receive(std::io::stdin(), &mut [0], RecvFlags::empty())?;
    let count = sockets.len();
    for (socket, number) in sockets.into_iter().zip(FIRST..) {
        ensure!(socket.as_raw_fd() == number, "descriptor {number} is open already");
        // It is the program's.
        forget(socket);
    }
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .env("LISTEN_FDS", count.to_string())
        .env("LISTEN_PID", process::id().to_string());
    Err(anyhow!(command.exec()).context("cannot run the program"))
}
