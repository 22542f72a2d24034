//! The end-to-end tests of accidents: processes that are killed, calls that fail, a Docker that goes
//! away, on real parts. They take minutes each, mostly of waiting.
//!
//!     cargo test --test e2e_faults                   everything
//!     cargo test --test e2e_faults -- killed         scenarios whose name contains "killed"
//!
//! The operator runs as a process here ([`process`]), behind the proxy, against the API server of a
//! small cluster that holds the definitions and nothing else ([`host`]): no operator is in it. Both are
//! made when a scenario first asks for them. Add a scenario as a module of its own and a line in
//! [`ALL`].

// The other targets use what this one does not.
#[allow(dead_code)]
#[path = "../harness/mod.rs"]
mod harness;
#[allow(dead_code)]
#[path = "../operator/space.rs"]
mod space;
#[allow(dead_code)]
#[path = "../operator/tenant.rs"]
mod tenant;

mod apart;
mod away;
mod crashed;
mod failing;
mod host;
mod killed;
mod late;
mod lives;
mod lost;
mod patient;
mod process;
mod stream;
mod wounds;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

use harness::recorder::{self, Recorder};

/// Scenarios at once unless told otherwise: each has several clusters at once already.
const THREADS: usize = 1;

/// Every scenario by name.
const ALL: &[(&str, fn())] = &[
    ("faults::killed_at_every_call_cli", killed::cli),
    ("faults::docker_away", away::docker_is_stopped_and_started),
    ("faults::docker_killed_operator_outside", crashed::with_the_operator_outside),
    ("faults::docker_killed_operator_inside", crashed::with_everything_inside),
];

/// Scenarios that were not run since what they are about has changed; `-- --include-ignored` runs them,
/// `make test` not yet.
const LATER: &[(&str, fn())] = &[
    ("faults::killed_at_every_call_operator", killed::operator),
    ("faults::wounds", wounds::everything_that_can_be_mended),
    ("faults::lost_data", lost::volumes_are_wiped),
    ("faults::every_call_fails_once_cli", failing::cli),
    ("faults::every_call_fails_once_operator", failing::operator),
    ("faults::verbs_go_on", failing::verbs_go_on),
    ("faults::late_by_a_minute", late::by_a_minute),
    ("faults::stale_calls_cli", late::stale_cli),
    ("faults::stale_calls_operator", late::stale_operator),
    ("faults::events_lost", stream::lost),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or(Some(THREADS));
    let trial = |(name, scenario): &'static (&'static str, fn())| {
        Trial::test(*name, || {
            scenario();
            Ok(())
        })
    };
    let later = LATER.iter().map(trial).map(|trial| trial.with_ignored_flag(true));
    let trials = ALL.iter().map(trial).chain(later).collect();
    if arguments.list {
        return libtest_mimic::run(&arguments, trials).exit_code();
    }
    recorder::finds_what_is_not_listed();
    let recorder = Recorder::start();
    let conclusion = libtest_mimic::run(&arguments, trials);
    apart::remove();
    let mut wrong = host::remove();
    let exec = |command: String| format!("a command that e2e/exec-allowlist does not hold: {command}");
    wrong.extend(recorder.end().into_iter().map(exec));
    if !wrong.is_empty() {
        eprintln!("over the whole run:\n  {}", wrong.join("\n  "));
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
}
