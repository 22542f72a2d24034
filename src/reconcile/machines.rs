//! What was read of Docker hosts lately, so that the next cluster need not ask again.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use jiff::{SignedDuration, Timestamp};

use crate::plan::Machine;

/// How long what was read counts. Routes, free memory and free disk change.
const FRESH: SignedDuration = SignedDuration::from_secs(60);

/// Machines by the id of their engine, with when they were read.
#[derive(Default)]
pub struct Machines(Mutex<BTreeMap<String, (Timestamp, Machine)>>);

impl Machines {
    /// What was read of the host of `engine`, if that is recent at `now`.
    pub fn recent(&self, engine: &str, now: Timestamp) -> Option<Machine> {
        let known = self.lock();
        let (read, machine) = known.get(engine)?;
        // A clock that was set back makes nothing younger.
        (SignedDuration::ZERO..FRESH).contains(&now.duration_since(*read)).then(|| machine.clone())
    }

    /// Keeps what was read of the host of `engine` at `now`, and nothing that is old.
    pub fn note(&self, engine: &str, now: Timestamp, machine: Machine) {
        let mut known = self.lock();
        known.retain(|_, (read, _)| now.duration_since(*read) < FRESH);
        known.insert(engine.to_owned(), (now, machine));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, (Timestamp, Machine)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_counts_for_a_minute_and_for_its_engine() {
        let (machines, read) = (Machines::default(), Timestamp::UNIX_EPOCH);
        let machine = Machine { memory: Some(1), ..Machine::default() };
        machines.note("a", read, machine.clone());
        let after = |seconds| read + SignedDuration::from_secs(seconds);
        assert_eq!(machines.recent("a", after(59)), Some(machine));
        assert_eq!(machines.recent("a", after(60)), None);
        assert_eq!(machines.recent("a", after(-1)), None, "the clock was set back");
        assert_eq!(machines.recent("b", after(1)), None);

        machines.note("b", after(61), Machine::default());
        assert_eq!(machines.recent("a", after(59)), None, "it is forgotten");
    }
}
