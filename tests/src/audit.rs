//! The enforcer's audit feed, as a test reads it.

use std::{
    io::{BufRead, BufReader, Read},
    net::IpAddr,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use enforcer_common::{event::Hook, verdict::Reason};
use serde::Deserialize;

use crate::programs::slowness;

/// How long an expected record, a start or an end may take. Whoever cannot read how slow the machine is says so elsewhere.
fn deadline() -> Duration {
    Duration::from_mins(1) * slowness().unwrap_or(1)
}

/// One line of the feed. The schema is strict where a test relies on it: an unknown field fails.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the audit schema documents its fields")]
pub struct Record {
    pub seq: u64,
    pub time: String,
    pub source: String,
    #[serde(default)]
    pub hook: Option<String>,
    #[serde(default)]
    pub verdict: Option<String>,
    #[serde(default)]
    pub reason: Option<String>,
    #[serde(default)]
    pub target: Option<String>,
    #[serde(default)]
    pub task: Option<String>,
    #[serde(default)]
    pub sender: Option<Sender>,
    #[serde(default)]
    pub destination: Option<Destination>,
    #[serde(default)]
    pub kernel: Option<serde_json::Value>,
    #[serde(default)]
    pub packet: Option<serde_json::Value>,
    #[serde(default)]
    pub request: Option<RequestRecord>,
    #[serde(default)]
    pub lost: Option<Lost>,
    #[serde(default)]
    pub unattended: Option<Unattended>,
    #[serde(default)]
    pub command: Option<String>,
    #[serde(default)]
    pub by: Option<serde_json::Value>,
    #[serde(default)]
    pub mode: Option<String>,
    #[serde(default)]
    pub error: Option<String>,
    #[serde(default)]
    pub holder: Option<String>,
    #[serde(default)]
    pub credential: Option<String>,
    #[serde(default)]
    pub why: Option<String>,
    #[serde(default)]
    pub consumer: Option<String>,
}

/// What happened while no enforcer ran.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[expect(missing_docs, reason = "the audit schema documents its fields")]
pub struct Unattended {
    pub events: u64,
    pub denied: u64,
    pub dropped: u64,
    pub lost: u64,
}

/// Who sent it.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the audit schema documents its fields")]
pub struct Sender {
    pub cgroup_id: u64,
    #[serde(default)]
    pub cgroup: Option<String>,
    pub pid: u32,
    pub comm: String,
    #[serde(default)]
    pub process: Option<Process>,
}

/// What its process is.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the audit schema documents its fields")]
pub struct Process {
    pub executable: Option<String>,
    pub command: Vec<String>,
    pub started: String,
    pub ancestors: Vec<Ancestor>,
}

/// What it descends from.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the audit schema documents its fields")]
pub struct Ancestor {
    pub pid: u32,
    pub comm: String,
}

/// Where to.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the audit schema documents its fields")]
pub struct Destination {
    pub address: IpAddr,
    pub port: u16,
    #[serde(default)]
    pub protocol: Option<String>,
}

/// What was asked.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the audit schema documents its fields")]
pub struct RequestRecord {
    #[serde(default)]
    pub method: Option<String>,
    #[serde(default)]
    pub path: Option<String>,
    #[serde(default)]
    pub status: Option<u16>,
    #[serde(default)]
    pub credential: Option<String>,
}

/// What got lost.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the audit schema documents its fields")]
pub struct Lost {
    #[serde(default)]
    pub ring: u64,
    #[serde(default)]
    pub queue: u64,
}

/// The records of one run of the enforcer, collected by a thread that reads until the run ends.
#[derive(Clone, Debug, Default)]
pub struct AuditFeed {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    log: Mutex<Log>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Log {
    lines: Vec<String>,
    records: Vec<Record>,
    problems: Vec<String>,
    is_ready: bool,
    has_ended: bool,
}

// === impl Record ===

impl Record {
    /// Whether this is a decision of `hook` for `reason`.
    #[must_use]
    pub fn is_kernel(&self, hook: Hook, reason: Reason) -> bool {
        self.source == "kernel"
            && self.hook.as_deref() == Some(hook.name())
            && self.reason.as_deref() == Some(reason.name())
    }

    /// Whether this is a decision of the endpoint for `reason`.
    #[must_use]
    pub fn is_endpoint(&self, verdict: &str, reason: &str) -> bool {
        self.source == "endpoint" && self.verdict.as_deref() == Some(verdict) && self.reason.as_deref() == Some(reason)
    }

    /// Whether this tells of a change that was wanted.
    #[must_use]
    pub fn is_control(&self, command: &str) -> bool {
        self.source == "control" && self.command.as_deref() == Some(command)
    }

    /// Whether the destination is this address, however it was spelled.
    #[must_use]
    pub fn is_to(&self, address: impl Into<IpAddr>) -> bool {
        let address = address.into().to_canonical();
        self.destination
            .as_ref()
            .is_some_and(|to| to.address.to_canonical() == address)
    }

    /// Whether this is what was done.
    #[must_use]
    pub fn is_verdict(&self, verdict: &str) -> bool {
        self.verdict.as_deref() == Some(verdict)
    }

    /// Whether this is about a task's processes.
    #[must_use]
    pub fn is_of(&self, task: &str) -> bool {
        self.task.as_deref() == Some(task)
    }
}

// === impl AuditFeed ===

impl AuditFeed {
    /// Collects the lines of a stream until it ends.
    pub fn collect(stream: impl Read + Send + 'static) -> Self {
        let feed = Self::default();
        let writer = feed.clone();
        thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                writer.update(|log| log.push(line));
            }
            writer.update(|log| log.has_ended = true);
        });
        feed
    }

    /// Waits for a record.
    pub fn wait_for(&self, wanted: impl Fn(&Record) -> bool) -> Result<Record> {
        let found = self.wait(|log| log.records.iter().find(|record| wanted(record)).cloned());
        found.with_context(|| format!("the record did not come; the feed has:\n{}", self.text()))
    }

    /// Waits for the record after the first `seen` ones.
    pub fn next_after(&self, seen: usize) -> Result<Record> {
        let found = self.wait(|log| log.records.get(seen).cloned());
        found.with_context(|| format!("there is no further record; the feed has:\n{}", self.text()))
    }

    /// The records so far. Fails if a line was none.
    pub fn records(&self) -> Result<Vec<Record>> {
        let log = self.lock();
        match log.problems.first() {
            Some(problem) => bail!("{problem}"),
            None => Ok(log.records.clone()),
        }
    }

    /// The lines so far, as they were written.
    #[must_use]
    pub fn text(&self) -> String {
        self.lock().lines.join("\n")
    }

    /// Waits, as long as it takes, for what comes after the first `seen` records. Nothing means that the run has ended.
    #[must_use]
    pub fn follow(&self, seen: usize) -> Vec<Record> {
        let log = self.lock();
        let waiting = |log: &mut Log| log.records.len() <= seen && !log.has_ended;
        let log = self
            .shared
            .changed
            .wait_while(log, waiting)
            .unwrap_or_else(PoisonError::into_inner);
        log.records.get(seen..).unwrap_or_default().to_vec()
    }

    /// Waits until the enforcer has said that it is ready.
    pub(crate) fn await_ready(&self) -> Result<()> {
        let ready = self.wait(|log| (log.is_ready || log.has_ended).then_some(log.is_ready));
        match ready {
            Some(true) => Ok(()),
            Some(false) => bail!("the enforcer ended before it was ready"),
            None => bail!("the enforcer is not ready after {:?}", deadline()),
        }
    }

    /// Waits until the enforcer has closed its output.
    pub(crate) fn await_end(&self) -> Result<()> {
        let ended = self.wait(|log| log.has_ended.then_some(()));
        ended.with_context(|| format!("the enforcer has not ended after {:?}", deadline()))
    }

    pub(crate) fn set_ready(&self) {
        self.update(|log| log.is_ready = true);
    }

    fn wait<T>(&self, mut look: impl FnMut(&Log) -> Option<T>) -> Option<T> {
        let mut found = None;
        let waiting = |log: &mut Log| {
            found = look(log);
            found.is_none()
        };
        let waited = self.shared.changed.wait_timeout_while(self.lock(), deadline(), waiting);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        found
    }

    fn update(&self, change: impl FnOnce(&mut Log)) {
        change(&mut self.lock());
        self.shared.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        self.shared.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Log ===

impl Log {
    fn push(&mut self, line: String) {
        match serde_json::from_str(&line) {
            Ok(record) => self.records.push(record),
            Err(error) => self.problems.push(format!("not an audit record: {error}: {line}")),
        }
        self.lines.push(line);
    }
}
