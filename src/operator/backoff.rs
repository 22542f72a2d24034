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
    /// Whether a try is under way, and something happened since it began.
    trying: bool,
    happened: bool,
}

impl BackOff {
    /// Waits that grow to `longest`.
    pub fn up_to(longest: Duration) -> Self {
        Self { entries: Mutex::default(), longest }
    }

    /// A try of `uid` begins, maybe before its time.
    pub fn begin(&self, uid: &str) {
        let mut entries = self.lock();
        let failures = entries.get(uid).map_or(0, |entry| entry.failures);
        let entry = Entry { failures, until: Instant::now(), trying: true, happened: false };
        entries.insert(uid.to_owned(), entry);
    }

    /// Whether something that happens to the objects of `uid` is to wake it now. What happens during a
    /// try is often its own doing: it is kept until that ends, and forgotten if that fails, since the next
    /// try sees it, as it sees what happens while it is waited for.
    pub fn wakes(&self, uid: &str) -> bool {
        match self.lock().get_mut(uid) {
            None => true,
            Some(entry) => {
                entry.happened |= entry.trying;
                !entry.trying && entry.until <= Instant::now()
            }
        }
    }

    /// Counts a failure of `uid` and returns how long to wait: 1 s, doubled with each failure in a
    /// row up to the longest, up to a fifth less so that clusters that failed together part.
    pub fn failed(&self, uid: &str) -> Duration {
        let now = Instant::now();
        let mut entries = self.lock();
        entries.retain(|_, entry| now.saturating_duration_since(entry.until) < FORGOTTEN);
        let failures = entries.get(uid).map_or(0, |entry| entry.failures);
        let wait = FIRST.saturating_mul(2_u32.saturating_pow(failures.min(16))).min(self.longest);
        let wait = wait.mul_f64(rand::random_range(0.8..=1.0));
        let failures = failures.saturating_add(1);
        entries.insert(uid.to_owned(), Entry { failures, until: now + wait, trying: false, happened: false });
        wait
    }

    /// Forgets the failures of `uid`: it went well, or is gone. Returns whether something happened to it
    /// while it was tried.
    pub fn reset(&self, uid: &str) -> bool {
        self.lock().remove(uid).is_some_and(|entry| entry.happened)
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
        assert!(waits[0] <= Duration::from_secs(1), "{waits:?}");
        assert!(waits[3] > waits[0] && waits[11] >= Duration::from_secs(48), "{waits:?}");
        assert!(waits.iter().all(|wait| *wait <= LONGEST), "{waits:?}");

        backoff.reset("a");
        assert!(!backoff.waits("a"));
        assert!(backoff.failed("a") <= Duration::from_secs(1));
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
        assert!(backoff.failed("well") <= Duration::from_secs(1));
    }

    #[test]
    fn what_happens_during_a_try_wakes_after_it_unless_it_fails() {
        let backoff = BackOff::up_to(LONGEST);
        assert!(backoff.wakes("a"), "nothing is known of it");
        backoff.begin("a");
        assert!(!backoff.wakes("a"));
        assert!(backoff.reset("a"), "it is told of at the end");
        backoff.begin("a");
        assert!(!backoff.reset("a"), "once");

        backoff.begin("a");
        assert!(!backoff.wakes("a"));
        backoff.failed("a");
        assert!(backoff.waits("a") && !backoff.wakes("a"), "its own failing try wakes nobody");
        // A try before its time is one like any other, and no failure is forgotten for it
        backoff.begin("a");
        assert!(!backoff.waits("a") && !backoff.wakes("a"));
        assert!(backoff.failed("a") > Duration::from_secs(1));
        backoff.begin("a");
        assert!(!backoff.wakes("a"));
        assert!(backoff.reset("a"));
    }
}
