//! Limits: how many connections one sender may have open, so that none takes the places of all others.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tracing::warn;

use crate::attribution::TaskName;

/// Connections one task may have open, all its containers together.
const MAX_PER_TASK: usize = 1024;

/// Connections all that are no task may have open together: they get nothing, so they need little.
const MAX_OF_NOBODY: usize = 64;

/// How often refused connections are logged.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Counts connections by task; what belongs to no task is counted together.
#[derive(Debug, Default)]
pub(super) struct Limits {
    /// Plain data, held for a count only.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Who has none has no entry.
    open: HashMap<Option<TaskName>, usize>,
    /// Connections refused since the last log line.
    refused: u64,
    logged: Option<Instant>,
}

/// One open connection; dropping it makes room for another.
#[derive(Debug)]
pub(super) struct Place<'a> {
    limits: &'a Limits,
    task: Option<TaskName>,
}

// === impl Limits ===

impl Limits {
    /// A place for one more connection of this task, or of nobody; none if it has its share.
    pub(super) fn admit(&self, task: Option<&TaskName>) -> Option<Place<'_>> {
        let mut state = self.state();
        let share = task.map_or(MAX_OF_NOBODY, |_| MAX_PER_TASK);
        let open = state.open.entry(task.cloned()).or_default();
        if *open >= share {
            state.refuse(task, share);
            return None;
        }
        *open += 1;
        Some(Place {
            limits: self,
            task: task.cloned(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl State ===

impl State {
    /// Counts a refused connection, and logs all of them together now and then.
    fn refuse(&mut self, task: Option<&TaskName>, share: usize) {
        self.refused += 1;
        if self.logged.is_some_and(|logged| logged.elapsed() < LOG_INTERVAL) {
            return;
        }
        let task = task.map(TaskName::as_str);
        warn!(
            task,
            share,
            refused = self.refused,
            "too many connections; refusing more"
        );
        self.refused = 0;
        self.logged = Some(Instant::now());
    }
}

// === impl Place ===

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.limits.state();
        if let Some(open) = state.open.get_mut(&self.task) {
            *open -= 1;
            if *open == 0 {
                state.open.remove(&self.task);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::advance;

    use super::{LOG_INTERVAL, Limits, MAX_OF_NOBODY, MAX_PER_TASK};
    use crate::attribution::TaskName;

    #[test]
    fn one_that_has_its_share_takes_nothing_from_others() {
        let limits = Limits::default();
        let (web, batch) = (TaskName::new("web"), TaskName::new("batch"));
        for (task, share) in [(Some(&web), MAX_PER_TASK), (None, MAX_OF_NOBODY)] {
            let mut places: Vec<_> = (0..share).map(|_| limits.admit(task).unwrap()).collect();
            assert!(limits.admit(task).is_none());
            assert!(limits.admit(Some(&batch)).is_some());
            drop(places.pop());
            assert!(limits.admit(task).is_some());
        }
        assert!(limits.state().open.is_empty(), "nothing is kept of who has gone");
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_are_logged_now_and_then_and_all_counted() {
        let limits = Limits::default();
        let _places: Vec<_> = (0..MAX_OF_NOBODY).map(|_| limits.admit(None).unwrap()).collect();
        let refuse = |times: u64| {
            for _ in 0..times {
                assert!(limits.admit(None).is_none());
            }
            limits.state().refused
        };
        assert_eq!(refuse(1), 0, "the first is logged at once");
        assert_eq!(refuse(5), 5);
        advance(LOG_INTERVAL + Duration::from_millis(1)).await;
        assert_eq!(refuse(1), 0);
    }
}
