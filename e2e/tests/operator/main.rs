//! The end-to-end tests of the operator: installed by `k3nest up` into a host cluster of this run's
//! own, under its own ServiceAccount, and told by kubectl what to do.
//!
//!     cargo test --test e2e_operator                everything
//!     cargo test --test e2e_operator -- deletion    scenarios whose name contains "deletion"
//!
//! Needs the static binary that `make build` makes (or the one that K3NEST_BIN names), since the
//! operator's image is that binary. Every scenario has namespaces of its own; the host cluster and
//! all that is in it are gone at the end, also after a failure.

// The other target uses what this one does not.
#[allow(dead_code)]
#[path = "../harness/mod.rs"]
mod harness;

// The rows are shared, the way they are told is not.
#[allow(dead_code)]
#[path = "../scenarios/bad_input.rs"]
mod table;

mod adoption;
mod audit;
mod bad_input;
mod deletion;
mod echo;
mod edits;
mod host;
mod images;
mod killed;
mod life;
mod neighbours;
mod secrets;
mod served;
mod space;
mod taken;
mod tenant;
mod whole;

use std::{
    process::ExitCode,
    sync::{PoisonError, RwLock},
};

use libtest_mimic::{Arguments, Trial};

use harness::recorder::{self, Recorder};
use host::Guard;

/// Scenarios at once unless told otherwise: a cluster that comes up keeps one core busy.
const THREADS: usize = 2;

/// Every scenario by name; long ones first, so that the last to end is a short one.
const ALL: &[(&str, fn())] = &[
    ("operator::life", life::from_apply_to_delete),
    ("operator::whole", whole::three_and_two),
    ("operator::images", images::are_kept),
    ("operator::adoption", adoption::of_a_lost_resource),
    ("operator::edits", edits::of_a_living_cluster),
    ("operator::neighbours", neighbours::of_one_name),
    ("operator::bad_input", bad_input::table),
    ("operator::deletion_half_done", deletion::while_creation_is_half_done),
    ("operator::deletion_crash_loop", deletion::of_a_node_that_crash_loops),
    ("operator::taken_in_docker", taken::in_docker),
    ("operator::taken_in_namespace", taken::in_the_namespace),
    (KILLED, killed::in_its_pod),
];

/// The scenario that no other may be told beside: it kills the operator of them all.
const KILLED: &str = "operator::killed_in_its_pod";

/// Held by every scenario, and by one that kills the operator alone.
static OPERATOR: RwLock<()> = RwLock::new(());

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or(Some(THREADS));
    let whole_run = arguments.filter.is_none() && arguments.skip.is_empty();
    let trials = ALL.iter().map(|(name, scenario)| {
        Trial::test(*name, || {
            // A scenario that failed says so itself.
            let _alone = (*name == KILLED).then(|| OPERATOR.write().unwrap_or_else(PoisonError::into_inner));
            let _beside = (*name != KILLED).then(|| OPERATOR.read().unwrap_or_else(PoisonError::into_inner));
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
    let guard = Guard::up();
    let conclusion = libtest_mimic::run(&arguments, trials);
    let mut wrong = audit::judge(whole_run && !conclusion.has_failed());
    wrong.extend(guard.down());
    let exec = |command: String| format!("a command that e2e/exec-allowlist does not hold: {command}");
    wrong.extend(recorder.end().into_iter().map(exec));
    if !wrong.is_empty() {
        eprintln!("over the whole run:\n  {}", wrong.join("\n  "));
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
}
