//! The end-to-end tests: the real binary, a real Docker, the offline images.
//!
//!     cargo test --test e2e                     everything
//!     cargo test --test e2e -- life             scenarios whose name contains "life"
//!     cargo test --test e2e -- --test-threads=1
//!
//! K3NEST_BIN names another binary; K3NEST_NODE_IMAGE and K3NEST_LOAD_BALANCER_IMAGE name other
//! images than the offline ones. Plain `cargo test` leaves these tests out: they need Docker and
//! take minutes. Every scenario makes clusters of its own names and removes them, and touches
//! nothing else, so that others may use the same Docker host meanwhile.

// The other targets use what this one does not.
#[allow(dead_code)]
mod harness;
mod scenarios;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

use harness::recorder::{self, Recorder};

/// Scenarios at once unless told otherwise: a cluster that comes up keeps one core busy.
const THREADS: usize = 2;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or(Some(THREADS));
    let trials = scenarios::ALL.iter().map(|(name, scenario)| {
        Trial::test(*name, || {
            scenario();
            Ok(())
        })
    });
    let trials = trials.collect();
    if arguments.list {
        return libtest_mimic::run(&arguments, trials).exit_code();
    }
    recorder::finds_what_is_not_listed();
    let recorder = Recorder::start();
    let conclusion = libtest_mimic::run(&arguments, trials);
    let forbidden = recorder.end();
    if !forbidden.is_empty() {
        eprintln!(
            "commands were run in nodes that e2e/exec-allowlist does not hold:\n  {}",
            forbidden.join("\n  ")
        );
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
}
