//! The writer: renders queued records and hands them to the output, on a thread of its own.
//!
//! A failing output (disk full) stops the writer from taking records out of the queue, so that losses are counted in
//! one place only. It tries again until the output works; a line is never torn.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::TryRecvError,
    },
    thread::{self, Thread},
    time::Duration,
};

use tokio::{sync::oneshot, time::timeout};
use tracing::{error, info, warn};

use super::{
    AuditError,
    processes::Processes,
    queue::{Queue, Records},
    record::Record,
};

/// How much is collected before it is written although more records wait.
const BATCH_BYTES: usize = 64 * 1024;

/// How long records are let queue up once some are written: who records needs not wake the writer for each. The first
/// after a while are taken at once, while the process that they are about is still there to be looked at.
const PAUSE: Duration = Duration::from_millis(1);

/// How long to wait before a failed output is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// The running thread, seen from outside.
#[derive(Debug)]
pub(super) struct Writer {
    thread: Thread,
    last_try: Arc<AtomicBool>,
    /// Closes when the thread ends.
    ended: oneshot::Receiver<()>,
}

/// What the thread owns.
struct Loop {
    queue: Arc<Queue>,
    output: Box<dyn Write + Send>,
    processes: Processes,
    /// Rendered lines the output has not taken yet.
    batch: Vec<u8>,
    failing: bool,
    /// Set when the process is about to end: a failing output is not waited for any more.
    last_try: Arc<AtomicBool>,
}

// === impl Writer ===

impl Writer {
    pub(super) fn start(
        queue: Arc<Queue>,
        records: Records,
        output: Box<dyn Write + Send>,
    ) -> Result<Self, AuditError> {
        let last_try = Arc::new(AtomicBool::new(false));
        let (alive, ended) = oneshot::channel::<()>();
        let mut writer = Loop {
            queue,
            output,
            processes: Processes::start().map_err(|source| AuditError::Thread { source })?,
            batch: Vec::with_capacity(2 * BATCH_BYTES),
            failing: false,
            last_try: Arc::clone(&last_try),
        };
        let handle = thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || {
                writer.run(&records);
                drop(alive);
            })
            .map_err(|source| AuditError::Thread { source })?;
        Ok(Self {
            thread: handle.thread().clone(),
            last_try,
            ended,
        })
    }

    /// Waits until everything is written, at most for `deadline`, and tells whether the thread ended; the queue must
    /// have been closed.
    pub(super) async fn finish(self, deadline: Duration) -> bool {
        self.last_try.store(true, Ordering::Release);
        self.thread.unpark();
        let ended = timeout(deadline, self.ended).await.is_ok();
        if !ended {
            warn!("the audit output is stuck; records that wait for it are lost");
        }
        ended
    }
}

// === impl Loop ===

impl Loop {
    fn run(&mut self, records: &Records) {
        loop {
            match records.try_recv() {
                Ok(record) => self.take(&record),
                Err(TryRecvError::Empty) => {
                    if !self.batch.is_empty() {
                        self.flush();
                        thread::park_timeout(PAUSE);
                        continue;
                    }
                    match records.recv() {
                        Ok(record) => self.take(&record),
                        Err(_closed) => break,
                    }
                }
                Err(TryRecvError::Disconnected) => break,
            }
        }
        if let Some(record) = self.queue.last_words() {
            self.take(&record);
        }
        self.flush();
        self.queue.count_dropped(lines(&self.batch));
    }

    fn take(&mut self, record: &Record) {
        let before = self.batch.len();
        let process = self.processes.of(record.body.pid(), record.time);
        if let Err(error) = record.render(process, &mut self.batch) {
            self.batch.truncate(before);
            self.queue.count_dropped(1);
            error!(%error, seq = record.seq, "cannot render an audit record");
        }
        if self.batch.len() >= BATCH_BYTES {
            self.flush();
        }
    }

    /// Hands the batch to the output. Returns when the output has it, or when there is no more time to wait.
    fn flush(&mut self) {
        while let Err(error) = self.write_batch() {
            if !self.failing {
                self.failing = true;
                error!(%error, "cannot write audit records; trying until it works, records queue up and then are lost");
            }
            if self.last_try.load(Ordering::Acquire) {
                return;
            }
            thread::park_timeout(RETRY);
        }
        if self.failing {
            self.failing = false;
            info!("audit records are written again");
        }
    }

    /// Takes out of the batch exactly the bytes the output took, so that a later try goes on in the middle of a line.
    fn write_batch(&mut self) -> io::Result<()> {
        while !self.batch.is_empty() {
            let written = match self.output.write(&self.batch) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let taken = self.batch.get(..written).map_or(0, lines);
            self.queue.count_delivered(taken);
            self.batch.drain(..written);
        }
        self.output.flush()
    }
}

/// Complete lines in rendered output: a line break is written only at the end of a record.
fn lines(rendered: &[u8]) -> u64 {
    rendered.iter().map(|byte| u64::from(*byte == b'\n')).sum()
}
