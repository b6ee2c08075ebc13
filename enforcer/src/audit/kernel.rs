//! From the kernel's ring buffer to the audit trail.

use std::{sync::Arc, time::Duration};

use enforcer_common::{
    counter::Counter,
    event::{Event, Outcome},
};
use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, sleep},
};

use super::{KernelDecision, Recorder, Unattended};
use crate::{
    attribution::Attributor,
    bpf::{BpfError, Counters, EventRing},
    drain::Watcher,
};

/// How often the kernel is asked for events it had no room for.
const LOSS_INTERVAL: Duration = Duration::from_secs(1);

/// How old the difference between the monotonic and the wall clock may get.
const CLOCK_AGE: Duration = Duration::from_secs(1);

/// How many events that waited for a reader are recorded at once; then the writer gets time for them.
const CATCH_UP: usize = 4096;

/// How long the writer may take for them, in looks at the queue a millisecond apart. One that is stuck must not keep the
/// ring from being read: what finds no room is counted.
const CATCH_UP_LOOKS: u32 = 1000;

/// Turns kernel events into audit records.
#[derive(Debug)]
pub struct Feed {
    /// The ring's one reader.
    pub ring: EventRing,
    /// The kernel's counters, for what the ring lost.
    pub counters: Counters,
    /// Finds the task of a cgroup.
    pub attributor: watch::Receiver<Arc<Attributor>>,
    /// Takes the records.
    pub recorder: Recorder,
}

/// What waited in the ring buffer for a reader.
#[derive(Debug)]
pub struct Backlog {
    events: Vec<Event>,
    /// Events the ring has lost since it was made.
    lost: u64,
    /// How many of them an earlier reader has told.
    told: u64,
}

/// Converts the kernel's event times.
#[derive(Debug)]
struct Clock {
    /// Wall clock minus monotonic clock, in nanoseconds.
    offset: i128,
    /// Monotonic time of the last look at both, in nanoseconds.
    looked: u64,
}

// === impl Feed ===

impl Feed {
    /// Takes out what has happened since the last reader.
    pub fn backlog(&mut self) -> Result<Backlog, BpfError> {
        let lost = self.counters.read(Counter::EventsDropped)?;
        // Not zero where an earlier enforcer has told of some; what was lost since then is ours to tell.
        let told = self.counters.read(Counter::EventsDroppedTold)?;
        let mut events = Vec::new();
        self.ring.drain(|event| events.push(*event));
        Ok(Backlog { events, lost, told })
    }

    /// Records what waited, then events until `stop`, then what the ring still holds.
    pub async fn run(mut self, backlog: Backlog, mut stop: Watcher) -> Result<(), BpfError> {
        let mut clock = Clock::now();
        let mut lost = backlog.lost;
        self.catch_up(&mut clock, backlog).await?;
        let mut ticks = interval(LOSS_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let record = |event: &_| record(event, &mut clock, &self.attributor.borrow(), &self.recorder);
            tokio::select! {
                biased; // The end first, then the losses: a ring that is never empty must not hide either.
                () = stop.signaled() => break,
                _ = ticks.tick() => self.record_losses(&mut lost)?,
                read = self.ring.read(record) => read?,
            }
        }
        let record = |event: &_| record(event, &mut clock, &self.attributor.borrow(), &self.recorder);
        self.ring.drain(record);
        self.record_losses(&mut lost)
    }

    /// Records what happened since the last reader: first how much, then each event there was room for.
    async fn catch_up(&mut self, clock: &mut Clock, backlog: Backlog) -> Result<(), BpfError> {
        let Backlog { events, lost, told } = backlog;
        let unattended = unattended(&events, lost.saturating_sub(told));
        if unattended == Unattended::default() {
            return Ok(());
        }
        self.recorder.unattended(unattended);
        self.counters.note_told(lost)?;
        let mut looks = CATCH_UP_LOOKS;
        for events in events.chunks(CATCH_UP) {
            for event in events {
                record(event, clock, &self.attributor.borrow(), &self.recorder);
            }
            while looks > 0 && self.recorder.kernel_events_waiting() > CATCH_UP {
                looks -= 1;
                sleep(Duration::from_millis(1)).await;
            }
        }
        Ok(())
    }

    /// Tells what the ring has lost since the last look. Also where that is nothing: losses of the queue that were not
    /// told yet, because it was full and nothing came after, are told with it.
    fn record_losses(&mut self, known: &mut u64) -> Result<(), BpfError> {
        let lost = self.counters.read(Counter::EventsDropped)?;
        self.recorder.ring_lost(lost.saturating_sub(*known));
        if lost > *known {
            self.counters.note_told(lost)?;
            *known = lost;
        }
        Ok(())
    }
}

fn unattended(events: &[Event], lost: u64) -> Unattended {
    let count = |outcome: Outcome| {
        let of_it = events.iter().filter(|event| event.outcome == outcome.to_raw());
        u64::try_from(of_it.count()).unwrap_or(u64::MAX)
    };
    Unattended {
        events: u64::try_from(events.len()).unwrap_or(u64::MAX),
        denied: count(Outcome::Denied),
        dropped: count(Outcome::Dropped),
        lost,
    }
}

fn record(event: &Event, clock: &mut Clock, attributor: &Attributor, recorder: &Recorder) {
    let decision = KernelDecision {
        event: *event,
        located: attributor.locate(event.identity.sender_cgroup()),
    };
    recorder.kernel(clock.wall(event.time_ns), decision);
}

// === impl Clock ===

impl Clock {
    fn now() -> Self {
        let (monotonic, wall) = (nanoseconds(ClockId::Monotonic), nanoseconds(ClockId::Realtime));
        Self {
            offset: wall - monotonic,
            looked: u64::try_from(monotonic).unwrap_or(0),
        }
    }

    /// Wall-clock time of a monotonic time.
    fn wall(&mut self, monotonic: u64) -> Timestamp {
        if u128::from(monotonic.saturating_sub(self.looked)) > CLOCK_AGE.as_nanos() {
            *self = Self::now();
        }
        Timestamp::from_nanosecond(i128::from(monotonic) + self.offset).unwrap_or(Timestamp::MAX)
    }
}

fn nanoseconds(clock: ClockId) -> i128 {
    let time = clock_gettime(clock);
    i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
}

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, Timestamp};
    use rustix::time::ClockId;

    use super::{Clock, nanoseconds};

    #[test]
    fn an_event_of_now_gets_the_time_of_now() {
        let mut clock = Clock::now();
        let monotonic = u64::try_from(nanoseconds(ClockId::Monotonic)).unwrap();
        let difference = Timestamp::now().duration_since(clock.wall(monotonic)).abs();
        assert!(difference < SignedDuration::from_secs(1), "{difference:?}");
    }

    #[test]
    fn an_old_offset_is_looked_up_again() {
        let mut clock = Clock { offset: 0, looked: 0 };
        let monotonic = u64::try_from(nanoseconds(ClockId::Monotonic)).unwrap();
        assert!(clock.wall(monotonic).as_second() > 1_600_000_000);
    }
}
