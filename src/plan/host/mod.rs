//! Whether the Docker host can run the nodes that are to be made: facts in, findings out.
//!
//! Every check is a function over a [`View`]. What certainly cannot work blocks, with the field or
//! setting, what is wrong and what mends it; what may work is a note; what cannot be decided from
//! the facts at hand is not mentioned, and never blocks.

mod ask;
mod cgroups;
mod docker;
mod kernel;
mod limits;
mod machine;
mod resources;

#[cfg(test)]
mod tests;

pub use ask::Ask;
pub use machine::{Machine, PROBE};

use super::EngineInfo;
use crate::api::{Blocked, Reason};

/// Everything that a check may look at.
pub(crate) struct View<'a> {
    /// What `docker info` says.
    pub engine: &'a EngineInfo,
    /// What a probe has read.
    pub machine: &'a Machine,
    /// What is to be made.
    pub ask: &'a Ask<'a>,
}

/// What a check has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    /// It may work, and a person should know.
    Note(String),
    /// It cannot work.
    Block(String),
}

type Check = fn(&View<'_>) -> Vec<Finding>;

/// Every check, those first whose answer is the likeliest to be acted upon.
const CHECKS: [Check; 15] = [
    resources::cpu,
    resources::memory,
    docker::runtime,
    docker::gpus,
    docker::rootless,
    docker::user_namespaces,
    docker::storage,
    cgroups::controllers,
    cgroups::leaked_driver,
    limits::inotify,
    limits::processes_and_files,
    kernel::network,
    kernel::overlay,
    kernel::selinux,
    resources::disk,
];

/// What is said of a Docker host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostVerdict {
    summary: String,
    notes: Vec<String>,
    blocks: Vec<String>,
}

impl HostVerdict {
    /// The verdict on what `ask` asks of `engine` on `machine`.
    pub fn of(engine: &EngineInfo, machine: &Machine, ask: &Ask<'_>) -> Self {
        let view = View { engine, machine, ask };
        let mut verdict = Self { summary: summary(&view), ..Self::default() };
        for finding in CHECKS.iter().flat_map(|check| check(&view)) {
            match finding {
                Finding::Note(text) => verdict.notes.push(text),
                Finding::Block(text) => verdict.blocks.push(text),
            }
        }
        verdict
    }

    /// What holds the cluster up, if anything does.
    pub fn blocked(&self) -> Option<Blocked> {
        (!self.blocks.is_empty()).then(|| Blocked::new(Reason::HostIncompatible, self.message()))
    }

    /// All of it, for the condition.
    pub fn message(&self) -> String {
        if !self.blocks.is_empty() {
            return self.blocks.join("; and ");
        }
        let notes: String = self.notes.iter().map(|note| format!("; note: {note}")).collect();
        format!("{}{notes}", self.summary)
    }
}

/// What kind of host it is, and what is done about that by itself.
fn summary(view: &View<'_>) -> String {
    let EngineInfo { system, cpus, memory, .. } = view.engine;
    let mut facts = vec![cgroups::version(view)];
    facts.extend(cpus.map(|cpus| format!("{cpus} CPUs")));
    facts.extend(memory.map(|memory| format!("{} of memory", size(memory))));
    let on = if system.is_empty() { String::new() } else { format!(" runs {system} and") };
    format!("the Docker host{on} has {}", facts.join(", "))
}

/// An amount of bytes for people.
fn size(bytes: u64) -> String {
    const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let (unit, shift) =
        UNITS.into_iter().find(|(_, shift)| bytes >= 1 << shift).unwrap_or(UNITS[UNITS.len() - 1]);
    let tenths = bytes / ((1 << shift) / 10).max(1);
    if tenths.is_multiple_of(10) || tenths >= 1000 {
        format!("{} {unit}", tenths / 10)
    } else {
        format!("{}.{} {unit}", tenths / 10, tenths % 10)
    }
}

/// A number and what it counts.
fn counted(number: u64, what: &str) -> String {
    if number == 1 { format!("{number} {what}") } else { format!("{number} {what}s") }
}
