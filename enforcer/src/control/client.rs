//! The other end of the control socket: asks the running enforcer. Blocking, for the command line.

use std::{
    io::{self, BufRead, BufReader, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::Path,
    time::Duration,
};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::Value;

use super::{Answer, Command, ControlError};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The longest answer; that of `status` grows with the tasks.
const MAX_ANSWER: u64 = 64 * 1024 * 1024;

/// How many sockets can be handed over: more than there are.
const MAX_SOCKETS: usize = 8;

/// Has a command done, and returns what there is to tell.
pub fn ask(path: &Path, command: &Command) -> Result<Value, ControlError> {
    exchange(path, command, |stream| {
        let mut line = String::new();
        BufReader::new(stream.take(MAX_ANSWER)).read_line(&mut line)?;
        Ok((line, ()))
    })
    .map(|(told, ())| told)
}

/// Has the running enforcer end, and returns its listening sockets.
pub fn take_over(path: &Path) -> Result<Vec<OwnedFd>, ControlError> {
    exchange(path, &Command::Handover, |stream| receive(&stream)).map(|(_, sockets)| sockets)
}

fn exchange<T>(
    path: &Path,
    command: &Command,
    answer: impl FnOnce(UnixStream) -> io::Result<(String, T)>,
) -> Result<(Value, T), ControlError> {
    let failed = |source| ControlError::Exchange {
        path: path.to_owned(),
        source,
    };
    let mut stream = UnixStream::connect(path).map_err(|source| ControlError::Connect {
        path: path.to_owned(),
        source,
    })?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
    let mut line = serde_json::to_vec(command).map_err(|error| failed(error.into()))?;
    line.push(b'\n');
    match stream.write_all(&line) {
        // It has closed already, and said why.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        written => written.map_err(failed)?,
    }
    let (line, rest) = answer(stream).map_err(failed)?;
    match serde_json::from_str(&line).map_err(|error| failed(error.into()))? {
        Answer::Ok(told) => Ok((told, rest)),
        Answer::Error(reason) => Err(ControlError::Refused { reason }),
    }
}

/// One line, and the descriptors that come with its first byte.
fn receive(stream: &UnixStream) -> io::Result<(String, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SOCKETS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = [0; 4096];
    let received = recvmsg(
        stream,
        &mut [IoSliceMut::new(&mut bytes)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let mut sockets = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            sockets.extend(received);
        }
    }
    let start = bytes.get(..received.bytes).unwrap_or_default();
    let mut line = String::from_utf8_lossy(start).into_owned();
    if !line.ends_with('\n') {
        BufReader::new(stream.take(MAX_ANSWER)).read_line(&mut line)?;
    }
    Ok((line, sockets))
}
