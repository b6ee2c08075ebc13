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

/// Credentials by task.
#[derive(Clone, Debug)]
pub struct Embedded {
    files: Arc<HashMap<TaskName, CredentialsFile>>,
}

// === impl Embedded ===

impl Embedded {
    pub(super) fn build(roles: &[Role]) -> Self {
        let files = roles
            .iter()
            .map(|role| (role.task.clone(), CredentialsFile::load(role)));
        Self {
            files: Arc::new(files.collect()),
        }
    }

    /// The task's credentials, as they are in memory.
    pub(super) fn credentials(&self, permit: &Permit) -> Answer {
        match self.files.get(permit.task()) {
            Some(file) => file
                .current(Timestamp::now())
                .map_or(Answer::NotReady, Answer::Credentials),
            None => Answer::Unknown,
        }
    }

    /// Takes over files that change, until the drain.
    pub async fn refresh(self, mut drain: Watcher) {
        let mut ticks = interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased; // Nothing is worth a look after the end.
                () = drain.signaled() => return,
                _ = ticks.tick() => {}
            }
            let files = Arc::clone(&self.files);
            let looked = spawn_blocking(move || files.values().for_each(CredentialsFile::reload_if_changed)).await;
            if let Err(error) = looked {
                tracing::error!(%error, "looking at the credentials files failed");
            }
        }
    }
}
