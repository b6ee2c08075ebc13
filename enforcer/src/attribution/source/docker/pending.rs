//! Containers that the ECS agent has just made and does not know yet: it learns a container's ID a moment after the engine
//! tells everybody. The engine's log driver asks for credentials before the container starts, so to wait for the start to
//! ask again would be too late.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

use crate::attribution::ContainerId;

/// How long the agent is not asked again.
const REST: Duration = Duration::from_millis(50);

/// How often the agent is asked about one container.
const MOST: u32 = 40;

/// Containers to be asked about again.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// How often each was asked about again.
    asked: HashMap<ContainerId, u32>,
    /// When that is next, if there are any.
    next: Option<Instant>,
}

// === impl Pending ===

impl Pending {
    /// Notes that the agent does not know a container; whether it is to be asked again.
    pub(super) fn is_undecided(&mut self, id: &ContainerId) -> bool {
        self.next.get_or_insert_with(|| Instant::now() + REST);
        *self.asked.entry(id.clone()).or_default() < MOST
    }

    /// Notes that nothing more is to be asked about a container.
    pub(super) fn is_decided(&mut self, id: &ContainerId) {
        self.asked.remove(id);
    }

    /// Waits until it is time to ask again; forever if there is nobody to ask about.
    pub(super) async fn wait(&self) {
        match self.next {
            Some(next) => sleep_until(next).await,
            None => std::future::pending().await,
        }
    }

    /// Those to be asked about now.
    pub(super) fn due(&mut self) -> HashSet<ContainerId> {
        if self.next.is_none_or(|next| Instant::now() < next) {
            return HashSet::new();
        }
        // Also of an agent that only failed to answer, more is not asked.
        self.asked.retain(|_, asked| {
            *asked += 1;
            *asked <= MOST
        });
        self.next = (!self.asked.is_empty()).then(|| Instant::now() + REST);
        self.asked.keys().cloned().collect()
    }
}
