//! Bounded polls.

use std::{
    thread,
    time::{Duration, Instant},
};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(250);

/// Looks until `look` finds something, for a minute at most.
#[track_caller]
pub fn eventually<T>(what: &str, look: impl FnMut() -> Result<T, String>) -> T {
    within(Duration::from_secs(60), what, look)
}

/// Looks until `look` finds something, or panics after `patience` with `what` was waited for and
/// what was seen last.
#[track_caller]
pub fn within<T>(patience: Duration, what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        match look() {
            Ok(found) => return found,
            Err(seen) if Instant::now() > deadline => {
                panic!("waited {patience:?} for {what}; seen last: {seen}")
            }
            Err(_) => thread::sleep(PAUSE),
        }
    }
}
