//! The registry: the one place where sources say what they know, and everybody else looks it up.
//!
//! A lock around plain data ([`Tasks`]) is held for a look-up or a change, never while anything is waited for. Each change
//! has a number, so that who remembers an answer knows whether it may be another one now.

use std::{
    collections::HashSet,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use tracing::error;

use super::{
    claims::Conflict,
    task::{Cgroup, Entry, SourceKind},
    tasks::{Taken, Tasks},
};

/// What all sources say.
#[derive(Debug, Default)]
pub struct Registry {
    tasks: RwLock<Tasks>,
    changes: AtomicU64,
}

// === impl Registry ===

impl Registry {
    /// Looks something up.
    pub fn read(&self) -> RwLockReadGuard<'_, Tasks> {
        self.tasks.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many changes there have been.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Takes in what a source says of a container.
    pub fn put(&self, source: SourceKind, entry: Entry) -> Result<(), Taken> {
        let outcome = self.change(|tasks| tasks.put(source, entry));
        outcome.map(|conflicts| conflicts.iter().for_each(alarm))
    }

    /// Takes back what a source said of a container; false if it said nothing.
    pub fn remove(&self, source: SourceKind, id: &str) -> bool {
        self.change(|tasks| tasks.remove(source, id))
    }

    /// Takes in what a source says of several containers at once: nobody sees a part of it.
    pub fn put_all(&self, source: SourceKind, entries: Vec<Entry>) {
        let outcomes = self.change(|tasks| entries.into_iter().map(|entry| tasks.put(source, entry)).collect());
        report(source, outcomes);
    }

    /// Takes back what a source said of all containers but these.
    pub fn retain(&self, source: SourceKind, keep: impl Fn(&str) -> bool) {
        self.change(|tasks| tasks.retain(source, keep));
    }

    /// Takes in all a source knows, in place of everything it said before. What belongs to another already is left out, and
    /// that is logged.
    pub fn replace(&self, source: SourceKind, entries: Vec<Entry>) {
        let outcomes = self.change(|tasks| {
            let ids: HashSet<Arc<str>> = entries.iter().map(|entry| Arc::clone(&entry.id)).collect();
            tasks.retain(source, |id| ids.contains(id));
            entries.into_iter().map(|entry| tasks.put(source, entry)).collect()
        });
        report(source, outcomes);
    }

    /// Forgets what was taken back and whose cgroups are gone.
    pub fn sweep(&self, is_gone: impl Fn(&Cgroup) -> bool) {
        self.change(|tasks| tasks.sweep(is_gone));
    }

    fn change<T>(&self, change: impl FnOnce(&mut Tasks) -> T) -> T {
        let mut tasks: RwLockWriteGuard<'_, Tasks> = self.tasks.write().unwrap_or_else(PoisonError::into_inner);
        let outcome = change(&mut tasks);
        // Within the lock: who sees the number sees the change.
        self.changes.fetch_add(1, Ordering::Release);
        outcome
    }
}

/// Tells what came of several statements.
fn report(source: SourceKind, outcomes: Vec<Result<Vec<Conflict>, Taken>>) {
    for outcome in outcomes {
        match outcome {
            Ok(conflicts) => conflicts.iter().for_each(alarm),
            Err(taken) => error!(%source, error = %taken, "a task is left out"),
        }
    }
}

/// Two claim one credential ID: somebody was told another's, or tries to pass for it.
fn alarm(conflict: &Conflict) {
    let holder = conflict.holder.as_ref().map(super::TaskName::as_str);
    error!(
        task = conflict.refused.as_str(),
        holder = holder.unwrap_or("an execution role"),
        "a task claims a credential ID that is another's; it does not get it"
    );
}
