//! Limits: how many connections one sender may have open, so that none takes the places of all others.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tracing::warn;

use crate::{attribution::TaskName, telemetry::Seldom};

/// Connections one task may have open, all its containers together.
const MAX_PER_TASK: usize = 1024;

/// Connections all that are no task may have open together: they get nothing, so they need little.
const MAX_OF_NOBODY: usize = 64;

/// Counts connections by task; what belongs to no task is counted together.
#[derive(Debug, Default)]
pub(super) struct Limits {
    /// Plain data, held for a count only. Who has none has no entry.
    open: Mutex<HashMap<Option<TaskName>, usize>>,
    refused: Seldom,
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
        let share = task.map_or(MAX_OF_NOBODY, |_| MAX_PER_TASK);
        if !self.take(task, share) {
            if let Some(refused) = self.refused.happened() {
                let task = task.map(TaskName::as_str);
                warn!(task, share, refused, "too many connections; refusing more");
            }
            return None;
        }
        Some(Place {
            limits: self,
            task: task.cloned(),
        })
    }

    /// Counts one more, if that is within the share.
    fn take(&self, task: Option<&TaskName>, share: usize) -> bool {
        let mut all = self.open();
        let open = all.entry(task.cloned()).or_default();
        let has_room = *open < share;
        *open += usize::from(has_room);
        has_room
    }

    fn open(&self) -> MutexGuard<'_, HashMap<Option<TaskName>, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Place ===

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut all = self.limits.open();
        if let Some(open) = all.get_mut(&self.task) {
            *open -= 1;
            if *open == 0 {
                all.remove(&self.task);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Limits, MAX_OF_NOBODY, MAX_PER_TASK};
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
        assert!(limits.open().is_empty(), "nothing is kept of who has gone");
    }
}
