//! The process at the other end of a connection, held on to: its ID alone may come to be that of another one.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};
use tokio::net::UnixStream;

use crate::sys;

/// A process that connected.
#[derive(Debug)]
pub struct Process {
    id: Pid,
    handle: OwnedFd,
}

// === impl Process ===

impl Process {
    /// The process that made a connection. Before Linux 6.5 it is the one that has its ID now, so this is to be asked as soon
    /// as there is a connection.
    pub(super) fn of(stream: &UnixStream) -> io::Result<Self> {
        // Of a process in a namespace that is not below ours, there is no ID.
        let id = stream.peer_cred()?.pid().and_then(Pid::from_raw);
        let id = id.ok_or(io::ErrorKind::NotFound)?;
        let handle = match sys::socket::peer_process(stream.as_fd()) {
            Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => pidfd_open(id, PidfdFlags::empty())?,
            handle => handle?,
        };
        Ok(Self { id, handle })
    }

    /// What `look` finds by the process's ID. Fails if the process has ended by then: it may be another's already.
    pub fn look<T>(&self, look: impl FnOnce(i32) -> T) -> io::Result<T> {
        let found = look(self.id.as_raw_nonzero().get());
        let mut handle = [PollFd::new(&self.handle, PollFlags::IN)];
        match poll(&mut handle, Some(&Timespec::default()))? {
            0 => Ok(found),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        process::{Command, Stdio},
    };

    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    use super::Process;

    #[test]
    fn nothing_is_found_of_a_process_that_has_ended() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let id = Pid::from_child(&child);
        let handle = pidfd_open(id, PidfdFlags::empty()).unwrap();
        let process = Process { id, handle };
        assert_eq!(process.look(|id| id).unwrap(), id.as_raw_nonzero().get());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(process.look(|id| id).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
