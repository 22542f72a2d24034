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
mod draft;
mod failing;
mod host;
mod killed;
mod late;
mod lives;
mod lost;
mod patient;
mod process;
mod stream;
mod walk;
mod wounds;

use std::{collections::BTreeSet, process::ExitCode, thread, time::Duration};

use libtest_mimic::{Arguments, Trial};

use harness::{
    docker::{docker, nameless_volumes},
    recorder::{self, Recorder},
};

/// Scenarios at once unless told otherwise: each has several clusters, and still waits for most of its
/// time.
const THREADS: usize = 2;

/// How often what seems to be left is looked at again, after a second each: somebody else's goes.
const LOOKS: usize = 10;

/// Every scenario by name: the long ones first, so that none of them is alone at the
/// end, and those that stop a dockerd, of which there is one, apart.
const ALL: &[(&str, fn())] = &[
    ("faults::every_call_fails_once_operator", failing::operator),
    ("faults::killed_at_every_call_operator", killed::operator),
    ("faults::every_call_fails_once_cli", failing::cli),
    ("faults::killed_at_every_call_cli", killed::cli),
    ("faults::docker_away", away::docker_is_stopped_and_started),
    ("faults::lost_data", lost::volumes_are_wiped),
    ("faults::random_walk", walk::at_random),
    ("faults::docker_killed_operator_outside", crashed::with_the_operator_outside),
    ("faults::late_by_a_minute_cli", late::cli),
    ("faults::late_by_a_minute_operator", late::operator),
    ("faults::wounds", wounds::everything_that_can_be_mended),
    ("faults::docker_killed_operator_inside", crashed::with_everything_inside),
    ("faults::stale_calls_cli", late::stale_cli),
    ("faults::stale_calls_operator", late::stale_operator),
    ("faults::events_lost", stream::lost),
    ("faults::verbs_go_on", failing::verbs_go_on),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or(Some(THREADS));
    let trials = ALL.iter().map(|(name, scenario)| {
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
    let nameless = nameless_volumes();
    let recorder = Recorder::start();
    let conclusion = libtest_mimic::run(&arguments, trials);
    apart::remove();
    let mut wrong = host::remove();
    let exec = |command: String| format!("a command that e2e/exec-allowlist does not hold: {command}");
    wrong.extend(recorder.end().into_iter().map(exec));
    wrong.extend(left_behind(&nameless));
    if !wrong.is_empty() {
        eprintln!("over the whole run:\n  {}", wrong.join("\n  "));
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
}

/// Volumes without a name that were not there `before`: of containers that were removed without them.
fn left_behind(before: &BTreeSet<String>) -> Vec<String> {
    let mut left: BTreeSet<String> = nameless_volumes().difference(before).cloned().collect();
    for _ in 0..LOOKS {
        if left.is_empty() {
            break;
        }
        thread::sleep(Duration::from_secs(1));
        let now = nameless_volumes();
        left.retain(|name| now.contains(name));
    }
    let made = |name: &String| docker(&["volume", "inspect", "--format", "{{.CreatedAt}}", name]).stdout;
    left.iter().map(|name| format!("volume {name} was left, made at {}", made(name).trim())).collect()
}
