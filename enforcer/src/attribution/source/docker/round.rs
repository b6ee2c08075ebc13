//! Several containers asked about at once. One that the engine does not tell of stays as it was; many mean that the engine
//! fails.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    vec,
};

use tokio::task::JoinSet;
use tracing::warn;

use super::{
    Docker,
    client::DockerError,
    statement::{Rules, Said},
};
use crate::attribution::ContainerId;

/// How many containers are asked about at once.
const AT_ONCE: usize = 16;

/// Containers that are asked about by several at once.
struct Round {
    rules: Rules,
    /// Those nobody has asked about yet.
    ids: Mutex<vec::IntoIter<ContainerId>>,
    /// How often the engine has failed.
    failures: AtomicUsize,
}

/// What is to be said of these containers, but of those that it is not known of.
pub(super) async fn ask(
    docker: &Arc<Docker>,
    rules: &Rules,
    ids: Vec<ContainerId>,
) -> Result<Vec<(ContainerId, Said)>, DockerError> {
    let askers = ids.len().min(AT_ONCE);
    let round = Arc::new(Round {
        rules: rules.clone(),
        ids: Mutex::new(ids.into_iter()),
        failures: AtomicUsize::new(0),
    });
    // Dropped, and so ended, with this round.
    let mut asking = JoinSet::new();
    for _ in 0..askers {
        let (docker, round) = (Arc::clone(docker), Arc::clone(&round));
        asking.spawn(async move { round.ask(&docker).await });
    }
    let mut all = Vec::new();
    while let Some(answers) = asking.join_next().await {
        all.append(&mut answers??);
    }
    Ok(all)
}

// === impl Round ===

impl Round {
    /// Asks about one container after the other, until there are no more.
    async fn ask(&self, docker: &Docker) -> Result<Vec<(ContainerId, Said)>, DockerError> {
        let (mut asker, mut answers) = (docker.engine.asker(), Vec::new());
        while let Some(id) = self.next() {
            match docker.ask(&mut asker, &self.rules, &id).await {
                Ok(said) => answers.push((id, said)),
                Err(error) if error.is_of_engine() && self.fails() => return Err(error),
                Err(error) => warn!(%error, "what is known of a container stays as it was"),
            }
        }
        Ok(answers)
    }

    fn next(&self) -> Option<ContainerId> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).next()
    }

    /// Notes that the engine has failed; whether that is once too often.
    fn fails(&self) -> bool {
        self.failures.fetch_add(1, Ordering::Relaxed) + 1 >= AT_ONCE
    }
}
