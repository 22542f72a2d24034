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

use std::time::Instant;

/// Tells what a scenario is about, as it goes: on a failure the last line says where.
pub struct Story {
    name: &'static str,
    since: Instant,
}

impl Story {
    /// Begins the story of the scenario `name`.
    pub fn new(name: &'static str) -> Self {
        Self { name, since: Instant::now() }
    }

    /// Says what holds, is done or is checked next.
    pub fn tell(&self, sentence: &str) {
        eprintln!("[{:>6.1}s] {}: {sentence}", self.since.elapsed().as_secs_f64(), self.name);
    }
}
