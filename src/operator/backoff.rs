//! How long to wait before a cluster that is in trouble is looked at again.
//!
//! Kept for each cluster by its uid, so that one sick cluster never slows another, and one that is
//! created again under the same name starts afresh.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// First wait.
const FIRST: Duration = Duration::from_secs(1);

/// An entry this long past its time belongs to an object that is gone.
const FORGOTTEN: Duration = Duration::from_secs(3600);

/// Waits of all clusters.
#[derive(Debug)]
pub struct BackOff {
    entries: Mutex<HashMap<String, Entry>>,
    longest: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    failures: u32,
    until: Instant,
}

impl BackOff {
    /// Waits that grow to `longest`.
    pub fn up_to(longest: Duration) -> Self {
        Self { entries: Mutex::default(), longest }
    }

    /// Counts a failure of `uid` and returns how long to wait: 1 s, doubled with each failure in a
    /// row up to the longest, give or take a fifth so that clusters that failed together part.
    pub fn failed(&self, uid: &str) -> Duration {
        let now = Instant::now();
        let mut entries = self.lock();
        entries.retain(|_, entry| now.saturating_duration_since(entry.until) < FORGOTTEN);
        let failures = entries.get(uid).map_or(0, |entry| entry.failures);
        let wait = FIRST.saturating_mul(2_u32.saturating_pow(failures.min(16))).min(self.longest);
        let wait = wait.mul_f64(rand::random_range(0.8..=1.2)).min(self.longest);
        entries.insert(uid.to_owned(), Entry { failures: failures.saturating_add(1), until: now + wait });
        wait
    }

    /// Forgets the failures of `uid`: it went well, or is gone.
    pub fn reset(&self, uid: &str) {
        self.lock().remove(uid);
    }

    /// Whether `uid` waits for its next try.
    pub fn waits(&self, uid: &str) -> bool {
        self.lock().get(uid).is_some_and(|entry| entry.until > Instant::now())
    }

    // A panic elsewhere leaves a map that is still whole.
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_secs(60);

    #[test]
    fn waits_grow_up_to_a_minute_and_fall_back_on_success() {
        let backoff = BackOff::up_to(LONGEST);
        let waits: Vec<_> = (0..12).map(|_| backoff.failed("a")).collect();
        assert!(waits[0] <= Duration::from_millis(1200), "{waits:?}");
        assert!(waits[3] > waits[0] && waits[11] >= Duration::from_secs(48), "{waits:?}");
        assert!(waits.iter().all(|wait| *wait <= LONGEST), "{waits:?}");

        backoff.reset("a");
        assert!(!backoff.waits("a"));
        assert!(backoff.failed("a") <= Duration::from_millis(1200));
    }

    #[test]
    fn the_longest_wait_can_be_shorter() {
        let backoff = BackOff::up_to(Duration::from_secs(5));
        let waits: Vec<_> = (0..12).map(|_| backoff.failed("a")).collect();
        assert!(waits.iter().all(|wait| *wait <= Duration::from_secs(5)), "{waits:?}");
        assert!(waits[11] >= Duration::from_secs(4), "{waits:?}");
    }

    #[test]
    fn one_sick_cluster_does_not_slow_another() {
        let backoff = BackOff::up_to(LONGEST);
        for _ in 0..10 {
            backoff.failed("sick");
        }
        assert!(backoff.waits("sick") && !backoff.waits("well"));
        assert!(backoff.failed("well") <= Duration::from_millis(1200));
    }
}
