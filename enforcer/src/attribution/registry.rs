//! The registry: the one place where sources say what they know, and everybody else looks it up.
//!
//! A lock around plain data ([`Tasks`]) is held for a look-up or a change, never while anything is waited for. Each change
//! has a number, so that who remembers an answer knows whether it may be another one now.

use std::{
    collections::HashSet,
    fmt,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use tracing::error;

use super::{
    claims::Conflict,
    task::{Cgroup, Entry, Fact, SourceKind, TaskName},
    tasks::{Refused, Taken, Tasks},
};

/// What all sources say.
#[derive(Debug, Default)]
pub struct Registry {
    tasks: RwLock<Tasks>,
    /// Those of the tasks, for who does not need to read them.
    changes: AtomicU64,
    listener: Option<Box<dyn Listener>>,
}

/// Hears of what no honest container does.
pub trait Listener: fmt::Debug + Send + Sync + 'static {
    /// Takes note of it; not for long, because the source waits.
    fn hear(&self, alarm: Alarm);
}

/// What no honest container does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Alarm {
    /// It claims a credential ID that is another's: it was told of it, or tries to pass for the other.
    Claim(Conflict),
    /// Its labels name a task that it does not belong to.
    Forged {
        /// The task it is taken for.
        task: TaskName,
        /// Why it is not the one it says.
        why: Box<str>,
    },
}

// === impl Registry ===

impl Registry {
    /// A registry that tells somebody of what no honest container does.
    #[must_use]
    pub fn with_listener(listener: impl Listener) -> Self {
        Self {
            listener: Some(Box::new(listener)),
            ..Self::default()
        }
    }

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
        let alarms = self.change(|tasks| put(tasks, source, entry))?;
        self.tell(alarms);
        Ok(())
    }

    /// Takes in what somebody registers, unless that is stated to be another task's.
    pub fn register(&self, entry: Entry) -> Result<(), Refused> {
        let conflicts = self.change(|tasks| tasks.register(entry))?;
        self.tell(conflicts.into_iter().map(Alarm::Claim).collect());
        Ok(())
    }

    /// Takes back what a source said of a container; false if it said nothing.
    pub fn remove(&self, source: SourceKind, id: &str) -> bool {
        self.change(|tasks| tasks.remove(source, id))
    }

    /// Has a registration say what it said before its last change, and whether it was taken back, as if it had never said
    /// anything else. Nothing of it is free in between.
    pub fn undo(&self, id: &str, before: Option<(Entry, bool)>) -> Result<(), Refused> {
        let conflicts = self.change(|tasks| -> Result<_, Refused> {
            let Some((before, is_over)) = before else {
                tasks.forget(SourceKind::Registration, id);
                return Ok(Vec::new());
            };
            let conflicts = tasks.register(before)?;
            if is_over {
                tasks.remove(SourceKind::Registration, id);
            }
            Ok(conflicts)
        })?;
        self.tell(conflicts.into_iter().map(Alarm::Claim).collect());
        Ok(())
    }

    /// Takes in what a source says of several containers at once: nobody sees a part of it.
    pub fn put_all(&self, source: SourceKind, entries: Vec<Entry>) {
        let outcomes = self.change(|tasks| entries.into_iter().map(|entry| put(tasks, source, entry)).collect());
        self.report(source, outcomes);
    }

    /// Takes back what a source said of all containers but these.
    pub fn retain(&self, source: SourceKind, keep: impl Fn(&str) -> bool) {
        self.change(|tasks| tasks.retain(source, keep));
    }

    /// Takes in all a source knows, in place of everything it said before. What belongs to another already is left out, and
    /// that is logged.
    pub fn replace(&self, source: SourceKind, entries: Vec<Entry>) {
        let outcomes = self.change(|tasks| {
            let known = |entry: &Entry| tasks.entry(source, &entry.id).is_some_and(|known| **known == *entry);
            let stay = entries.iter().filter(|entry| known(entry));
            let stay: HashSet<Arc<str>> = stay.map(|entry| Arc::clone(&entry.id)).collect();
            // What changes is taken back first: it may have what another has from now on, and may be left out itself.
            tasks.retain(source, |id| stay.contains(id));
            entries.into_iter().map(|entry| put(tasks, source, entry)).collect()
        });
        self.report(source, outcomes);
    }

    /// Forgets what was taken back and whose cgroups are gone. Nothing is held while that is looked at.
    pub fn sweep(&self, is_gone: impl Fn(&Cgroup) -> bool) {
        let leaving = self.read().leaving();
        let gone: HashSet<Cgroup> = leaving.into_iter().filter(is_gone).collect();
        if !gone.is_empty() {
            self.change(|tasks| tasks.sweep(|cgroup| gone.contains(cgroup)));
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut Tasks) -> T) -> T {
        let mut tasks: RwLockWriteGuard<'_, Tasks> = self.tasks.write().unwrap_or_else(PoisonError::into_inner);
        let outcome = change(&mut tasks);
        // Within the lock: who sees the number sees the change.
        self.changes.store(tasks.changes(), Ordering::Release);
        outcome
    }

    /// Tells what came of several statements.
    fn report(&self, source: SourceKind, outcomes: Vec<Result<Vec<Alarm>, Taken>>) {
        for outcome in outcomes {
            match outcome {
                Ok(alarms) => self.tell(alarms),
                Err(taken) => error!(%source, error = %taken, "a task is left out"),
            }
        }
    }

    fn tell(&self, alarms: Vec<Alarm>) {
        for alarm in alarms {
            log(&alarm);
            if let Some(listener) = &self.listener {
                listener.hear(alarm);
            }
        }
    }
}

/// What there is to tell of it, if it is news.
fn put(tasks: &mut Tasks, source: SourceKind, entry: Entry) -> Result<Vec<Alarm>, Taken> {
    let forged = |entry: &Entry| entry.facts.iter().find(|(fact, _)| *fact == Fact::Forged).cloned();
    let known = tasks.entry(source, &entry.id).and_then(|known| forged(known));
    let forged = forged(&entry).filter(|forged| Some(forged) != known.as_ref());
    let task = entry.task.clone();
    let conflicts = tasks.put(source, entry)?;
    let forged = forged.map(|(_, why)| Alarm::Forged { task, why });
    Ok(conflicts.into_iter().map(Alarm::Claim).chain(forged).collect())
}

fn log(alarm: &Alarm) {
    match alarm {
        Alarm::Claim(conflict) => {
            let holder = conflict.holder.as_ref().map(TaskName::as_str);
            error!(
                task = conflict.refused.as_str(),
                holder = holder.unwrap_or("an execution role"),
                "a task claims a credential ID that is another's; it does not get it"
            );
        }
        Alarm::Forged { task, why } => {
            error!(
                task = task.as_str(),
                why, "the labels of a container name a task that it is not of"
            );
        }
    }
}
