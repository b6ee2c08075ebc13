//! Back-off: how long to wait before trying again what failed. The longer it fails the longer, and never quite the same,
//! so that not everybody comes back to a struggling engine at once.

use std::time::Duration;

use rustix::rand::{GetRandomFlags, getrandom};

/// Waits between tries.
#[derive(Debug)]
pub(super) struct Backoff {
    first: Duration,
    most: Duration,
    next: Duration,
}

// === impl Backoff ===

impl Backoff {
    /// From `first`, doubled each time, to `most`.
    pub(super) const fn new(first: Duration, most: Duration) -> Self {
        Self {
            first,
            most,
            next: first,
        }
    }

    /// It worked: the next wait is the first again.
    pub(super) const fn reset(&mut self) {
        self.next = self.first;
    }

    /// How long to wait this time.
    pub(super) fn next(&mut self) -> Duration {
        let wait = self.next;
        self.next = wait.saturating_mul(2).min(self.most);
        jittered(wait)
    }
}

/// Between a half and three halves of it.
pub(super) fn jittered(duration: Duration) -> Duration {
    let mut random = [0; 4];
    let part = match getrandom(&mut random, GetRandomFlags::empty()) {
        Ok(_) => f64::from(u32::from_ne_bytes(random)) / f64::from(u32::MAX),
        // Always the same wait is no reason to fail.
        Err(_no_randomness) => 0.5,
    };
    duration.mul_f64(0.5 + part)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Backoff;

    const FIRST: Duration = Duration::from_millis(100);

    #[test]
    fn waits_grow_to_a_bound_and_start_over() {
        let mut backoff = Backoff::new(FIRST, FIRST * 4);
        for expected in [1, 2, 4, 4, 4] {
            let wait = backoff.next();
            assert!(
                wait >= FIRST * expected / 2 && wait <= FIRST * expected * 3 / 2,
                "{wait:?}"
            );
        }
        backoff.reset();
        assert!(backoff.next() <= FIRST * 3 / 2);
    }
}
