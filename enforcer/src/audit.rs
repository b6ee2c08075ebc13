//! Audit: one schema for what the kernel decided, what the endpoint decided and who changed what, as JSON lines.
//!
//! ```text
//! bpf ring ──> kernel ──┐
//! endpoint, control ────┴─> Recorder ──bounded queue──> writer thread ──> file or stdout
//!                                                         asks procfs what the sender is
//! ```
//!
//! Recording never blocks a decision. A record gets its number before the queue; when the queue has no room the
//! record is lost, counted, and the loss itself becomes a record as soon as there is room: the numbers have a gap
//! exactly where something is missing, and emitted = delivered + dropped.

mod arguments;
pub mod kernel;
mod process;
mod processes;
mod queue;
mod record;
mod redact;
mod render;
mod sink;
mod writer;

use std::{io, path::PathBuf, time::Duration};

use self::{queue::Queue, redact::Redactor, writer::Writer};
pub use self::{
    queue::{Recorder, Totals},
    record::{By, Change, Endpoint, Ground, KernelDecision, Request, Unattended, Verdict},
    redact::check_key,
    sink::check_output,
};
use crate::config;

/// How many records may wait for the writer: about 50 ms at 300,000 records a second, 4 MiB of memory.
const QUEUED_RECORDS: usize = 16_384;

/// What goes wrong with the audit trail at start.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The output cannot be opened.
    #[error("cannot open the audit file {path} for appending: {source}; check audit.output and its directory")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The output is a pipe that nobody reads.
    #[error("nobody reads the audit output {path}; start its reader first, or set audit.output")]
    NoReader {
        /// The pipe.
        path: PathBuf,
    },
    /// The key that hides credential IDs cannot be read or made.
    #[error("cannot {operation} the audit key {path}: {source}; check audit.key-file and its directory")]
    Key {
        /// What was tried.
        operation: &'static str,
        /// The key file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The key file holds something else.
    #[error("the audit key {path} has {found} bytes instead of 32; remove the file to have a new key made")]
    KeyLength {
        /// The key file.
        path: PathBuf,
        /// Its length.
        found: usize,
    },
    /// A thread of the writer cannot be started.
    #[error("cannot start a thread of the audit writer: {source}")]
    Thread {
        /// Why.
        source: io::Error,
    },
}

/// The running audit trail.
#[derive(Debug)]
pub struct Audit {
    recorder: Recorder,
    writer: Writer,
}

// === impl Audit ===

impl Audit {
    /// Opens the output, reads or makes the key, and starts the writer.
    pub fn start(config: &config::Audit) -> Result<Self, AuditError> {
        let redactor = Redactor::load_or_create(&config.key_file)?;
        let (queue, records) = Queue::bounded(QUEUED_RECORDS);
        let recorder = Recorder::new(queue, redactor);
        let writer = Writer::start(recorder.queue(), records, sink::open(&config.output)?)?;
        Ok(Self { recorder, writer })
    }

    /// A handle that records.
    #[must_use]
    pub fn recorder(&self) -> Recorder {
        self.recorder.clone()
    }

    /// Takes no more records, writes those that wait, and says what became of all of them. What the output does not
    /// take within `deadline` is dropped.
    pub async fn close(self, deadline: Duration) -> Totals {
        self.recorder.queue().close();
        let finished = self.writer.finish(deadline).await;
        let mut totals = self.recorder.queue().totals();
        if !finished {
            totals.dropped = totals.emitted - totals.delivered;
        }
        totals
    }
}

#[cfg(test)]
mod tests;
