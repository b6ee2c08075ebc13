//! Control: how the running enforcer is told what to do, by root on the same host.
//!
//! A Unix socket takes one JSON object per line and answers each with one:
//! `{"command":"reload"}` with `{"ok":{…}}` or `{"error":"…"}`.

mod client;
pub mod explain;
mod process;
pub mod report;
mod server;
pub mod task;

use std::{io, os::fd::OwnedFd, path::PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::oneshot;

pub use self::{
    client::{ask, take_over},
    process::Process,
    server::{MAX_COMMAND, Server},
};
use crate::bpf::Mode;

/// What the enforcer can be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// Say how it goes.
    Status,
    /// Read the configuration again.
    Reload,
    /// Block, or only record, until the next reload or start.
    Mode {
        /// Which.
        mode: Mode,
    },
    /// Hand the listening sockets to the caller and end.
    Handover,
    /// Register tasks.
    TaskAdd {
        /// Each by itself: one that is refused holds up no other.
        tasks: Vec<task::NewTask>,
    },
    /// Take the registration of a task back.
    TaskRemove {
        /// Its name.
        task: String,
    },
    /// List all tasks there are.
    TaskList,
    /// Tell everything about a task.
    TaskShow {
        /// Its name.
        task: String,
    },
    /// Tell what would be decided, and why.
    Explain {
        /// About what.
        question: explain::Question,
    },
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// It is done; with what there is to tell.
    Ok(Value),
    /// It is not done; why, and what to do.
    Error(String),
}

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its user ID.
    pub uid: u32,
    /// Its process ID; none if it cannot be told from here.
    pub pid: Option<i32>,
}

/// A command that waits for its answer.
#[derive(Debug)]
pub struct Request {
    /// What is to be done.
    pub command: Command,
    /// Who wants it.
    pub by: Peer,
    /// Takes the answer, and the descriptors that go with it.
    pub reply: oneshot::Sender<(Answer, Vec<OwnedFd>)>,
}

/// What goes wrong with the control socket.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The socket cannot be made.
    #[error("cannot {operation} the control socket {path}: {source}; check control.socket and its directory")]
    Bind {
        /// What was tried.
        operation: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Nobody listens.
    #[error("no enforcer answers at {path}: {source}; start one with `enforcer run`")]
    Connect {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The enforcer does not answer as it should.
    #[error("the enforcer at {path} gave no answer: {source}; see its log")]
    Exchange {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The enforcer refused.
    #[error("{reason}")]
    Refused {
        /// Why, in its words.
        reason: String,
    },
}

#[cfg(test)]
mod tests;
