//! Drain: telling everybody to stop, and knowing when they have.
//!
//! The [`Trigger`] belongs to the one who stops, a [`Watcher`] to everyone who must stop. A watcher is also a token:
//! the drain is over when all of them are dropped.

use std::time::Duration;

use tokio::{sync::watch, time::timeout};

/// Starts the drain.
#[derive(Debug)]
pub struct Trigger(watch::Sender<bool>);

/// Learns of the drain, and holds it up as long as it lives.
#[derive(Clone, Debug)]
pub struct Watcher(watch::Receiver<bool>);

/// The deadline passed with watchers still alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("work was still under way at the deadline")]
pub struct StillBusy;

/// A new drain that nobody has started.
#[must_use]
pub fn channel() -> (Trigger, Watcher) {
    let (sender, receiver) = watch::channel(false);
    (Trigger(sender), Watcher(receiver))
}

// === impl Trigger ===

impl Trigger {
    /// Signals every watcher and waits for none.
    pub fn begin(&self) {
        self.0.send_replace(true);
    }

    /// Signals every watcher and waits until all are dropped, at most for `deadline`. May be asked again.
    pub async fn drain(&self, deadline: Duration) -> Result<(), StillBusy> {
        self.0.send_replace(true);
        timeout(deadline, self.0.closed()).await.map_err(|_elapsed| StillBusy)
    }
}

// === impl Watcher ===

impl Watcher {
    /// Returns when the drain begins, or when its trigger is gone.
    pub async fn signaled(&mut self) {
        // An error means that the trigger was dropped without a drain: nobody is left to work for.
        drop(self.0.wait_for(|draining| *draining).await);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{StillBusy, channel};

    #[tokio::test(start_paused = true)]
    async fn the_drain_ends_when_the_last_watcher_is_dropped() {
        let (trigger, mut watcher) = channel();
        let copy = watcher.clone();
        let work = async {
            watcher.signaled().await;
            drop((watcher, copy));
        };
        let (drained, ()) = tokio::join!(trigger.drain(Duration::from_secs(1)), work);
        assert_eq!(drained, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_watcher_that_stays_makes_the_drain_fail_at_the_deadline() {
        let (trigger, watcher) = channel();
        assert_eq!(trigger.drain(Duration::from_secs(1)).await, Err(StillBusy));
        drop(watcher);
        assert_eq!(trigger.drain(Duration::ZERO).await, Ok(()));
    }
}
