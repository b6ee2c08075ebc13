//! The processes that records are about, remembered for a while.
//!
//! A thread of its own looks at them: some of what `procfs` tells is read from the process itself, which can keep whoever
//! asks waiting. Nobody waits for it for long, or for a long time in all; a record that is due goes without. A thread that
//! is kept for longer is left to it, and another one looks at the others, as long as there are not too many.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use jiff::Timestamp;
use tokio::time::Instant;

use super::process::Process;

/// How many processes are remembered. When there are more, remembering starts over.
const REMEMBERED: usize = 512;

/// How long after it was looked at a process number stands for the same process. No number comes around in so short a time.
const FRESH: Duration = Duration::from_millis(100);

/// How long records wait for looks.
const LIMITS: Limits = Limits {
    patience: Duration::from_millis(20),
    allowance: Duration::from_millis(100),
    lateness: Duration::from_secs(1),
};
/// How many threads look at most; all but one are kept by the process they look at.
const MOST_READERS: usize = 4;
const SECOND: Duration = Duration::from_secs(1);

/// Looks at a process.
type Read = dyn Fn(u32) -> Option<Process> + Send + Sync;

/// Tells what processes are.
pub(super) struct Processes {
    /// Each thread holds it too.
    read: Arc<Read>,
    reader: Reader,
    /// Since when an answer is to come that was not waited for.
    waiting: Option<Instant>,
    known: HashMap<u32, Looked>,
    /// Since when there is the allowance of this second, and how much of it is spent.
    second: Instant,
    spent: Duration,
    limits: Limits,
}

/// A thread that looks, until nobody asks it any more.
struct Reader {
    questions: SyncSender<u32>,
    answers: Receiver<(u32, Looked)>,
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    /// How long one look may take.
    patience: Duration,
    /// How long all looks may take in a second.
    allowance: Duration,
    /// How long a look may take until another thread takes over.
    lateness: Duration,
}

/// What was seen.
#[derive(Debug)]
struct Looked {
    /// When the look began.
    at: Timestamp,
    process: Option<Process>,
}

// === impl Processes ===

impl Processes {
    /// Starts the thread that looks.
    pub(super) fn start() -> Result<Self, io::Error> {
        Self::by(Process::read, LIMITS)
    }

    fn by(read: impl Fn(u32) -> Option<Process> + Send + Sync + 'static, limits: Limits) -> Result<Self, io::Error> {
        let read: Arc<Read> = Arc::new(read);
        Ok(Self {
            reader: Reader::start(Arc::clone(&read))?,
            read,
            waiting: None,
            known: HashMap::new(),
            second: Instant::now(),
            spent: Duration::ZERO,
            limits,
        })
    }

    /// The process that had a number at a time, as far as it can be told: it may be gone, or somebody else may have its
    /// number now.
    pub(super) fn of(&mut self, pid: u32, time: Timestamp) -> Option<&Process> {
        if pid == 0 {
            return None;
        }
        if !self.known.get(&pid).is_some_and(|looked| looked.covers(time)) {
            self.look(pid);
        }
        let looked = self.known.get(&pid)?;
        let process = looked.process.as_ref()?;
        (looked.covers(time) && process.started <= time).then_some(process)
    }

    fn look(&mut self, pid: u32) {
        let began = Instant::now();
        if began.duration_since(self.second) >= SECOND {
            (self.second, self.spent) = (began, Duration::ZERO);
        }
        if self.spent >= self.limits.allowance || self.is_stuck() || self.reader.questions.try_send(pid).is_err() {
            return;
        }
        match self.reader.answers.recv_timeout(self.limits.patience) {
            Ok(answer) => self.remember(answer),
            Err(_late) => self.waiting = Some(began),
        }
        self.spent += began.elapsed();
    }

    /// Whether the last look has not ended yet. If it has meanwhile, what was seen is remembered; if it takes too long,
    /// another thread takes over.
    fn is_stuck(&mut self) -> bool {
        let Some(since) = self.waiting else {
            return false;
        };
        match self.reader.answers.try_recv() {
            Ok(answer) => self.remember(answer),
            Err(_none) if since.elapsed() >= self.limits.lateness && self.take_over() => {}
            Err(_none) => return true,
        }
        self.waiting = None;
        false
    }

    /// Starts another thread, if there may be one more. The one before ends with its look.
    fn take_over(&mut self) -> bool {
        let readers = Arc::strong_count(&self.read) - 1;
        let other = (readers < MOST_READERS).then(|| Reader::start(Arc::clone(&self.read)));
        let Some(Ok(other)) = other else {
            return false;
        };
        self.reader = other;
        true
    }

    fn remember(&mut self, (pid, looked): (u32, Looked)) {
        if self.known.len() >= REMEMBERED {
            self.known.clear();
        }
        self.known.insert(pid, looked);
    }
}

// === impl Reader ===

impl Reader {
    fn start(read: Arc<Read>) -> Result<Self, io::Error> {
        let (questions, asked) = sync_channel(1);
        // One question at a time, so one answer.
        let (answer, answers) = sync_channel(1);
        thread::Builder::new().name("processes".to_owned()).spawn(move || {
            while let Ok(pid) = asked.recv() {
                let at = Timestamp::now();
                let process = read(pid);
                if answer.send((pid, Looked { at, process })).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { questions, answers })
    }
}

// === impl Looked ===

impl Looked {
    fn covers(&self, time: Timestamp) -> bool {
        time.duration_since(self.at) <= FRESH.try_into().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        process,
        sync::{
            Arc, Mutex,
            atomic::{AtomicU32, Ordering},
            mpsc::sync_channel,
        },
        thread,
        time::Duration,
    };

    use jiff::{SignedDuration, Timestamp};
    use tokio::time::Instant;

    use super::{LIMITS, Limits, MOST_READERS, Processes};
    use crate::audit::process::Process;

    /// Enough for a busy machine.
    const PATIENT: Limits = Limits {
        patience: Duration::from_mins(1),
        allowance: Duration::from_hours(1),
        lateness: Duration::from_hours(1),
    };

    #[test]
    fn the_process_is_told_that_there_is_now() {
        let mut processes = Processes::by(Process::read, PATIENT).unwrap();
        assert!(processes.of(process::id(), Timestamp::now()).is_some());
        assert!(processes.of(0, Timestamp::now()).is_none());
        assert!(processes.of(u32::MAX, Timestamp::now()).is_none());
    }

    #[test]
    fn who_is_younger_than_what_is_recorded_is_somebody_else() {
        let mut processes = Processes::by(Process::read, PATIENT).unwrap();
        let long_ago = Timestamp::now() - SignedDuration::from_hours(24 * 365);
        assert!(processes.of(process::id(), long_ago).is_none());
    }

    #[test]
    fn a_process_is_looked_at_once_for_many_records() {
        let looks = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&looks);
        let read = move |pid| {
            counted.fetch_add(1, Ordering::Relaxed);
            Process::read(pid)
        };
        let mut processes = Processes::by(read, PATIENT).unwrap();
        let recorded = Timestamp::now();
        for _ in 0..1000 {
            assert!(processes.of(process::id(), recorded).is_some());
        }
        assert_eq!(looks.load(Ordering::Relaxed), 1);
        let later = Timestamp::now() + SignedDuration::from_hours(1);
        assert!(processes.of(process::id(), later).is_none(), "that is not known yet");
        assert_eq!(looks.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn who_keeps_waiting_is_not_waited_for_and_told_when_it_is_known() {
        let (release, gate) = sync_channel(1);
        let gate = Mutex::new(gate);
        let read = move |pid| {
            gate.lock().unwrap().recv().unwrap();
            Process::read(pid)
        };
        let limits = Limits {
            lateness: PATIENT.lateness,
            ..LIMITS
        };
        let mut processes = Processes::by(read, limits).unwrap();
        let (began, recorded) = (Instant::now(), Timestamp::now());
        for _ in 0..1000 {
            assert!(processes.of(process::id(), recorded).is_none());
        }
        assert!(began.elapsed() < 500 * LIMITS.patience, "{:?}", began.elapsed());
        release.send(()).unwrap();
        while processes.of(process::id(), recorded).is_none() {
            thread::yield_now();
        }
    }

    #[test]
    fn who_keeps_its_reader_waiting_keeps_nobody_else_from_being_looked_at() {
        let own = process::id();
        let (release, gate) = sync_channel::<()>(0);
        let gate = Mutex::new(gate);
        let read = move |pid| {
            if pid != own {
                gate.lock().unwrap().recv().unwrap_err();
            }
            Process::read(pid)
        };
        let limits = Limits {
            patience: 5 * LIMITS.patience,
            lateness: Duration::ZERO,
            ..PATIENT
        };
        let mut processes = Processes::by(read, limits).unwrap();
        let look = |processes: &mut Processes| {
            processes.known.clear();
            processes.of(own, Timestamp::now()).is_some()
        };
        for others in 1..=MOST_READERS {
            while !look(&mut processes) {
                thread::yield_now();
            }
            let hanging = own + u32::try_from(others).unwrap();
            assert!(processes.of(hanging, Timestamp::now()).is_none());
        }
        assert!(!look(&mut processes), "there are no more readers than that");
        drop(release);
        while !look(&mut processes) {
            thread::yield_now();
        }
    }

    #[test]
    fn all_looks_together_take_a_share_of_the_time() {
        let looks = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&looks);
        let read = move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
            thread::sleep(Duration::from_millis(10));
            None
        };
        let mut processes = Processes::by(read, LIMITS).unwrap();
        let began = Instant::now();
        for pid in 1..=1000 {
            assert!(processes.of(pid, Timestamp::now()).is_none());
        }
        let seconds = u32::try_from(began.elapsed().as_secs()).unwrap() + 1;
        assert!(looks.load(Ordering::Relaxed) <= 10 * seconds + 1);
    }
}
