//! The queue between those who record and the one who writes, and its bookkeeping.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, AtomicUsize, Ordering},
    mpsc::{Receiver, RecvError, SyncSender, TryRecvError, sync_channel},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    record::{Body, Change, Endpoint, KernelDecision, Lost, Record, Unattended},
    redact::Redactor,
};
use crate::{
    attribution::{Alarm, Listener},
    policy::CredentialId,
};

/// Records decisions. Cheap to copy; never blocks, never fails: what does not fit is counted.
#[derive(Clone, Debug)]
pub struct Recorder {
    queue: Arc<Queue>,
    redactor: Arc<Redactor>,
}

/// What became of the records. At the end, `emitted == delivered + dropped`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Records that got a number.
    pub emitted: u64,
    /// Records the output took.
    pub delivered: u64,
    /// Records that found no room, or that the output had not taken when time was up.
    pub dropped: u64,
    /// Kernel events that never became a record, because the ring buffer had no room for them.
    pub ring: u64,
}

/// The share of the queue that kernel events may not take, as a divisor: containers can make as many of them as they
/// like, and what the endpoint and the controller have to say must not get lost among them.
const RESERVED_SHARE: usize = 8;

#[derive(Debug)]
pub(super) struct Queue {
    /// Numbers and sends under one lock, so that the numbers in the output ascend.
    state: Mutex<State>,
    /// How many kernel events may wait at a time.
    kernel_share: usize,
    kernel_waiting: Arc<AtomicUsize>,
    delivered: AtomicU64,
    dropped: AtomicU64,
}

#[derive(Debug)]
struct State {
    emitted: u64,
    /// Losses no record has told yet.
    untold: Lost,
    ring: u64,
    /// None once closed.
    sender: Option<SyncSender<Record>>,
}

/// The writer's end of the queue.
#[derive(Debug)]
pub(super) struct Records {
    receiver: Receiver<Record>,
    kernel_waiting: Arc<AtomicUsize>,
}

// === impl Recorder ===

impl Recorder {
    pub(super) fn new(queue: Queue, redactor: Redactor) -> Self {
        Self {
            queue: Arc::new(queue),
            redactor: Arc::new(redactor),
        }
    }

    pub(super) fn queue(&self) -> Arc<Queue> {
        Arc::clone(&self.queue)
    }

    /// Records a hook's decision, made at `time`.
    pub fn kernel(&self, time: Timestamp, decision: KernelDecision) {
        self.queue.push(time, Body::Kernel(decision));
    }

    /// Records a decision of the endpoint, made now. The ID asked for is hashed here and goes no further.
    pub fn endpoint(&self, decision: Endpoint, credential: Option<&CredentialId>) {
        let credential = credential.map(|credential| self.redactor.hash(credential));
        self.queue.push(Timestamp::now(), Body::Endpoint(decision, credential));
    }

    /// Records that somebody changed how the enforcer works, or tried to.
    pub fn control(&self, change: Change) {
        self.queue.push(Timestamp::now(), Body::Control(change));
    }

    /// A credential ID as it appears in the trail.
    #[must_use]
    pub fn hash(&self, credential: &CredentialId) -> String {
        self.redactor.hash(credential).to_string()
    }

    /// Records what happened while no enforcer ran.
    pub fn unattended(&self, unattended: Unattended) {
        self.queue.push(Timestamp::now(), Body::Unattended(unattended));
    }

    /// How many kernel events wait for the writer.
    pub(super) fn kernel_events_waiting(&self) -> usize {
        self.queue.kernel_waiting.load(Ordering::Relaxed)
    }

    /// What became of the records so far.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.queue.totals()
    }

    /// Records that the kernel had no room for this many events, and every other loss no record has told yet.
    pub fn ring_lost(&self, events: u64) {
        self.queue.lost_in_ring(events);
    }
}

impl Listener for Recorder {
    /// Records what no honest container does.
    fn hear(&self, alarm: Alarm) {
        let credential = match &alarm {
            Alarm::Claim(conflict) => Some(self.redactor.hash(&conflict.credential)),
            Alarm::Forged { .. } => None,
        };
        self.queue.push(Timestamp::now(), Body::Attribution(alarm, credential));
    }
}

// === impl Queue ===

impl Queue {
    pub(super) fn bounded(records: usize) -> (Self, Records) {
        let (sender, receiver) = sync_channel(records);
        let state = State {
            emitted: 0,
            untold: Lost::default(),
            ring: 0,
            sender: Some(sender),
        };
        let kernel_waiting = Arc::default();
        let queue = Self {
            state: Mutex::new(state),
            kernel_share: records - records / RESERVED_SHARE,
            kernel_waiting: Arc::clone(&kernel_waiting),
            delivered: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        };
        let records = Records {
            receiver,
            kernel_waiting,
        };
        (queue, records)
    }

    fn push(&self, time: Timestamp, body: Body) {
        let mut state = self.state();
        let is_kernel = body.is_kernel();
        let has_share = !is_kernel || self.kernel_waiting.load(Ordering::Relaxed) < self.kernel_share;
        if has_share {
            state.tell_losses(time);
        }
        let record = Record {
            seq: state.next_number(),
            time,
            body,
        };
        // Counted before the writer can take it out.
        self.kernel_waiting.fetch_add(is_kernel.into(), Ordering::Relaxed);
        if !has_share || !state.send(record) {
            self.kernel_waiting.fetch_sub(is_kernel.into(), Ordering::Relaxed);
            state.untold.queue += 1;
            self.count_dropped(1);
        }
    }

    fn lost_in_ring(&self, events: u64) {
        let mut state = self.state();
        state.ring += events;
        state.untold.ring += events;
        state.tell_losses(Timestamp::now());
    }

    /// Takes no more records. The receiver ends when it has received the rest.
    pub(super) fn close(&self) {
        self.state().sender = None;
    }

    /// The record that tells losses no other one could tell, for the end of the output.
    pub(super) fn last_words(&self) -> Option<Record> {
        let mut state = self.state();
        let untold = std::mem::take(&mut state.untold);
        (untold != Lost::default()).then(|| Record {
            seq: state.next_number(),
            time: Timestamp::now(),
            body: Body::Lost(untold),
        })
    }

    pub(super) fn count_delivered(&self, records: u64) {
        self.delivered.fetch_add(records, Ordering::Relaxed);
    }

    pub(super) fn count_dropped(&self, records: u64) {
        self.dropped.fetch_add(records, Ordering::Relaxed);
    }

    pub(super) fn totals(&self) -> Totals {
        let state = self.state();
        Totals {
            emitted: state.emitted,
            delivered: self.delivered.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
            ring: state.ring,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Records ===

impl Records {
    /// The next record; waits for one.
    pub(super) fn recv(&self) -> Result<Record, RecvError> {
        self.receiver.recv().inspect(|record| self.taken(record))
    }

    /// The next record, if there is one now.
    pub(super) fn try_recv(&self) -> Result<Record, TryRecvError> {
        self.receiver.try_recv().inspect(|record| self.taken(record))
    }

    fn taken(&self, record: &Record) {
        let is_kernel = record.body.is_kernel();
        self.kernel_waiting.fetch_sub(is_kernel.into(), Ordering::Relaxed);
    }
}

// === impl State ===

impl State {
    /// The first record has number 1.
    const fn next_number(&mut self) -> u64 {
        self.emitted += 1;
        self.emitted
    }

    fn send(&self, record: Record) -> bool {
        self.sender
            .as_ref()
            .is_some_and(|sender| sender.try_send(record).is_ok())
    }

    /// Turns untold losses into a record, if there is room for it. Only then does it take a number.
    fn tell_losses(&mut self, time: Timestamp) {
        if self.untold == Lost::default() {
            return;
        }
        let record = Record {
            seq: self.emitted + 1,
            time,
            body: Body::Lost(self.untold),
        };
        if self.send(record) {
            self.emitted += 1;
            self.untold = Lost::default();
        }
    }
}
