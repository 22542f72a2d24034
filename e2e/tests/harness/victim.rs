//! A process that is killed at a moment.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::{command::send_signal, within};

/// The process that a rule of the proxy is to kill. It is known only once it runs, and the rule is
/// there first. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Victim {
    pid: Arc<AtomicU32>,
    killed: Arc<AtomicUsize>,
}

impl Victim {
    /// It is the process `pid`, a child of ours.
    pub fn is(&self, pid: u32) {
        self.pid.store(pid, Ordering::SeqCst);
    }

    /// Kills it, and returns once it runs no longer.
    pub fn kill(&self) {
        let pid =
            within(Duration::from_secs(10), "the process id", || match self.pid.load(Ordering::SeqCst) {
                0 => Err("not yet".to_owned()),
                pid => Ok(pid),
            });
        // Counted first: whoever waits for its end may ask at once.
        self.killed.fetch_add(1, Ordering::SeqCst);
        send_signal(pid, "KILL");
        let deadline = Instant::now() + Duration::from_secs(10);
        while runs(pid) {
            assert!(Instant::now() < deadline, "process {pid} outlives its kill");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// How often it was killed.
    pub fn kills(&self) -> usize {
        self.killed.load(Ordering::SeqCst)
    }
}

/// Whether a process can still do something: one that was killed stays listed until its parent
/// looks.
fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(')').next().and_then(|rest| rest.trim_start().chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}
