//! What others can cause as often as they like is logged now and then, all together.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// How often it is logged.
const INTERVAL: Duration = Duration::from_secs(10);

/// Counts what happens between two log lines.
#[derive(Debug, Default)]
pub(crate) struct Seldom {
    /// Plain data, held for a count only.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    times: u64,
    logged: Option<Instant>,
}

// === impl Seldom ===

impl Seldom {
    /// It happened. Tells how often it has since it was logged last, if it is to be logged now.
    pub(crate) fn happened(&self) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.times += 1;
        if state.logged.is_some_and(|logged| logged.elapsed() < INTERVAL) {
            return None;
        }
        state.logged = Some(Instant::now());
        Some(std::mem::take(&mut state.times))
    }
}

#[cfg(test)]
mod tests {
    use super::{INTERVAL, Seldom};

    #[tokio::test(start_paused = true)]
    async fn the_first_is_logged_at_once_and_the_others_together() {
        let seldom = Seldom::default();
        assert_eq!(seldom.happened(), Some(1));
        assert_eq!(seldom.happened(), None);
        tokio::time::advance(INTERVAL).await;
        assert_eq!(seldom.happened(), Some(2));
    }
}
