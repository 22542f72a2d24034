//! The measurements behind the numbers in the README; `make bench` runs them.
//!
//!     cargo bench --bench measure                          everything
//!     cargo bench --bench measure -- --only create --pairs 2 --sizes 1+0
//!     cargo bench --bench measure -- --help
//!
//! Needs Docker on this host, root (to read what k3s writes in its container without asking Docker
//! for it), and the images that `make up` makes or pulls. Measures the binary that K3NEST_BIN names,
//! else the one that cargo has built. Whatever it makes has random names and is gone at the end.

// The end-to-end tests use what this does not.
#[allow(dead_code)]
#[path = "../e2e/tests/harness/mod.rs"]
mod harness;

mod at_once;
mod create;
mod idle;
mod machine;
mod plain;
mod stats;
mod watcher;

use std::time::Duration;

use clap::{Parser, ValueEnum};

use create::Size;

/// Measures k3nest.
#[derive(Parser)]
struct Arguments {
    /// What to measure
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Part::ALL)]
    only: Vec<Part>,

    /// Pairs of runs of each size
    #[arg(long, default_value_t = 10)]
    pairs: usize,

    /// Sizes, as SERVERS+AGENTS
    #[arg(long, value_delimiter = ',', default_value = "1+0,1+2,3+2")]
    sizes: Vec<Size>,

    /// Rounds of five clusters at once and one after another
    #[arg(long, default_value_t = 3)]
    rounds: usize,

    /// Seconds that the operator's clusters are left alone before its idleness is looked at
    #[arg(long, default_value_t = 60)]
    settle: u64,

    /// Seconds for which its idleness is looked at
    #[arg(long, default_value_t = 300)]
    idle: u64,

    /// Seconds that are waited at most, before each run, for the machine to be calm
    #[arg(long, default_value_t = 30)]
    calm: u64,

    /// What cargo bench tells every benchmark; cargo test does not, and so runs nothing here
    #[arg(long, hide = true)]
    bench: bool,
}

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// From nothing to Ready, against plain docker run
    Create,
    /// Five clusters at once, against one after another
    AtOnce,
    /// What the operator does while there is nothing to do
    Idle,
}

impl Part {
    const ALL: [Self; 3] = [Self::Create, Self::AtOnce, Self::Idle];
}

fn main() {
    let arguments = Arguments::parse();
    if !arguments.bench {
        println!("measures only when asked to: cargo bench --bench measure");
        return;
    }
    let calm = Duration::from_secs(arguments.calm);
    let mut parts = vec![machine::facts()];
    for part in &arguments.only {
        parts.push(match part {
            Part::Create => create::measure(&arguments.sizes, arguments.pairs.max(1), calm),
            Part::AtOnce => at_once::measure(arguments.rounds.max(1), calm),
            Part::Idle => {
                idle::measure(Duration::from_secs(arguments.settle), Duration::from_secs(arguments.idle))
            }
        });
    }
    println!("\n{}", parts.join("\n"));
}
