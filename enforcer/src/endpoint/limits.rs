//! Limits: how many connections one sender may have open, so that none takes the places of all others.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tracing::warn;

use crate::{attribution::TaskName, host::treatment::Consumer, telemetry::Seldom};

/// Connections one task may have open, all its containers together.
const MAX_PER_TASK: usize = 1024;

/// Connections all may have open together of whom the sources could not be asked: they are told to come again, and while an
/// engine is slow they are many.
const MAX_UNRESOLVED: usize = 1024;

/// Connections all that are no task may have open together: they get nothing, so they need little.
const MAX_OF_NOBODY: usize = 64;

/// Whose a connection is, as far as shares go.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Whose {
    /// A task's.
    Task(TaskName),
    /// A trusted host service's.
    Consumer(Arc<Consumer>),
    /// Not known in time.
    Unresolved,
    /// Nobody's.
    Nobody,
}

/// Counts connections by whose they are; what belongs to nobody is counted together.
#[derive(Debug, Default)]
pub(super) struct Limits {
    /// Plain data, held for a count only. Who has none has no entry.
    open: Mutex<HashMap<Whose, usize>>,
    refused: Seldom,
}

/// One open connection; dropping it makes room for another.
#[derive(Debug)]
pub(super) struct Place<'a> {
    limits: &'a Limits,
    whose: Whose,
}

// === impl Limits ===

impl Limits {
    /// A place for one more connection of somebody; none if they have their share.
    pub(super) fn admit(&self, whose: Whose) -> Option<Place<'_>> {
        let share = whose.share();
        if !self.take(&whose, share) {
            if let Some(refused) = self.refused.happened() {
                warn!(?whose, share, refused, "too many connections; refusing more");
            }
            return None;
        }
        Some(Place { limits: self, whose })
    }

    /// Counts one more, if that is within the share.
    fn take(&self, whose: &Whose, share: usize) -> bool {
        let mut all = self.open();
        let open = all.entry(whose.clone()).or_default();
        let has_room = *open < share;
        *open += usize::from(has_room);
        has_room
    }

    fn open(&self) -> MutexGuard<'_, HashMap<Whose, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Whose ===

impl Whose {
    const fn share(&self) -> usize {
        match self {
            Self::Task(_) | Self::Consumer(_) => MAX_PER_TASK,
            Self::Unresolved => MAX_UNRESOLVED,
            Self::Nobody => MAX_OF_NOBODY,
        }
    }
}

// === impl Place ===

impl Place<'_> {
    /// Whether it is that of one who was not known in time.
    pub(super) const fn is_of_unresolved(&self) -> bool {
        matches!(self.whose, Whose::Unresolved)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut all = self.limits.open();
        if let Some(open) = all.get_mut(&self.whose) {
            *open -= 1;
            if *open == 0 {
                all.remove(&self.whose);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Limits, MAX_OF_NOBODY, MAX_PER_TASK, MAX_UNRESOLVED, Whose};
    use crate::attribution::TaskName;

    #[test]
    fn one_that_has_its_share_takes_nothing_from_others() {
        let limits = Limits::default();
        let task = |name| Whose::Task(TaskName::new(name));
        for (whose, share) in [
            (task("web"), MAX_PER_TASK),
            (Whose::Unresolved, MAX_UNRESOLVED),
            (Whose::Nobody, MAX_OF_NOBODY),
        ] {
            let admit = || limits.admit(whose.clone());
            let mut places: Vec<_> = (0..share).map(|_| admit().unwrap()).collect();
            assert!(admit().is_none());
            assert!(limits.admit(task("batch")).is_some());
            drop(places.pop());
            assert!(admit().is_some());
        }
        assert!(limits.open().is_empty(), "nothing is kept of who has gone");
    }
}
