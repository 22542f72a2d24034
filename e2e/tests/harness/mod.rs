//! What scenarios are written with: the binary, Docker, kubectl, clusters that clean up behind
//! themselves, and bounded waits.

pub mod cluster;
pub mod command;
pub mod daemon;
pub mod docker;
pub mod host_api;
pub mod image;
pub mod kubectl;
pub mod mesh;
pub mod nest;
pub mod pick;
pub mod projection;
pub mod proxy;
pub mod recorder;
pub mod victim;
pub mod wait;

pub use cluster::Cluster;
pub use command::{Finished, run, run_with_input};
pub use nest::Nest;
pub use wait::{eventually, within};

use std::{
    sync::{Mutex, PoisonError},
    time::Instant,
};

/// How often a scenario may take longer than it should on a machine that does nothing else.
const SLOW: usize = 2;

/// Tells what a scenario is about, as it goes: on a failure the last line says where. When it ends, it
/// fails if too much was slow.
pub struct Story {
    name: &'static str,
    since: Instant,
    slow: Mutex<Vec<String>>,
}

impl Story {
    /// Begins the story of the scenario `name`.
    pub fn new(name: &'static str) -> Self {
        Self { name, since: Instant::now(), slow: Mutex::default() }
    }

    /// Says what holds, is done or is checked next.
    pub fn tell(&self, sentence: &str) {
        eprintln!("[{:>6.1}s] {}: {sentence}", self.since.elapsed().as_secs_f64(), self.name);
    }

    /// Notes what took longer than it should.
    pub fn is_slow(&self, what: String) {
        self.slow.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }
}

impl Drop for Story {
    fn drop(&mut self) {
        let slow = std::mem::take(self.slow.get_mut().unwrap_or_else(PoisonError::into_inner));
        if !std::thread::panicking() {
            assert!(slow.len() <= SLOW, "{}: {} were slow: {slow:#?}", self.name, slow.len());
        }
    }
}
