//! The embedded agent: the enforcer itself holds the tasks' credentials.

mod file;

use std::{collections::HashMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::{
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};

use self::file::CredentialsFile;
pub use self::file::unusable;
use super::Answer;
use crate::{attribution::TaskName, config::Role, drain::Watcher, policy::Permit};

/// How often the files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Credentials by whom they are for.
#[derive(Clone, Debug)]
pub struct Embedded {
    files: Arc<HashMap<For, Arc<CredentialsFile>>>,
}

/// For whom credentials are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum For {
    /// For one task alone.
    Task(TaskName),
    /// For every task that has the role of this ARN.
    Role(Arc<str>),
}

// === impl For ===

impl For {
    fn of(role: &Role) -> Self {
        role.task
            .as_ref()
            .map_or_else(|| Self::Role(role.arn.as_str().into()), |task| Self::Task(task.clone()))
    }
}

// === impl Embedded ===

impl Embedded {
    /// Reads the files of these roles. What an earlier one has in memory of the same file for the same role is kept.
    pub(super) fn build(roles: &[Role], earlier: Option<&Self>) -> Self {
        let file = |role: &Role| {
            let known = earlier.and_then(|earlier| earlier.files.get(&For::of(role)));
            match known {
                Some(known) if known.is_of(role) => Arc::clone(known),
                Some(_) | None => Arc::new(CredentialsFile::load(role)),
            }
        };
        let files = roles.iter().map(|role| (For::of(role), file(role)));
        Self {
            files: Arc::new(files.collect()),
        }
    }

    /// The task's credentials, as they are in memory.
    pub(super) fn credentials(&self, permit: &Permit) -> Answer {
        match self.file(permit.task(), permit.role_arn()) {
            Some(file) => file
                .current(Timestamp::now())
                .map_or(Answer::NotReady, Answer::Credentials),
            None => Answer::Unknown,
        }
    }

    /// Whether there is a file for a task that has a role, be it the task's or the role's. What is in it is another question.
    #[must_use]
    pub fn has(&self, task: Option<&TaskName>, role_arn: Option<&Arc<str>>) -> bool {
        self.file(task, role_arn).is_some()
    }

    fn file(&self, task: Option<&TaskName>, role_arn: Option<&Arc<str>>) -> Option<&Arc<CredentialsFile>> {
        let for_task = task.map(|task| For::Task(task.clone()));
        let for_role = role_arn.map(|arn| For::Role(Arc::clone(arn)));
        let mut whose = for_task.into_iter().chain(for_role);
        whose.find_map(|whose| self.files.get(&whose))
    }

    /// Takes over files that have changed.
    async fn look(self) {
        let looked = spawn_blocking(move || self.files.values().for_each(|file| file.reload_if_changed())).await;
        if let Err(error) = looked {
            tracing::error!(%error, "looking at the credentials files failed");
        }
    }
}

/// Looks at the files of whatever embedded agent there is now and then, until the drain.
pub async fn refresh(current: impl Fn() -> Option<Embedded>, mut drain: Watcher) {
    let mut ticks = interval(LOOK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased; // Nothing is worth a look after the end.
            () = drain.signaled() => return,
            _ = ticks.tick() => {}
        }
        if let Some(embedded) = current() {
            embedded.look().await;
        }
    }
}
