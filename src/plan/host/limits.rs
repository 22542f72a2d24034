//! Limits of the Docker host's kernel that all nodes on it share.

use super::{Finding, View, counted};

/// What a node holds at least, a server and an agent on which no Pod runs (tried on 1.36: 12 to 22
/// and 9 inotify instances, 49 and 28 watches, 290 and 107 files, 66 and 34 threads). Pods hold more.
type Each = [u64; 2];

const INSTANCES: Each = [12, 9];
const WATCHES: Each = [45, 25];
const FILES: Each = [280, 100];
const THREADS: Each = [60, 30];

/// The limits of inotify, and what `k3nest up` raises them to.
const INOTIFY: [(&str, &str, Each, u64); 2] = [
    ("fs/inotify/max_user_instances", "inotify instances", INSTANCES, 8192),
    ("fs/inotify/max_user_watches", "inotify watches", WATCHES, 524_288),
];

/// What so many servers and agents hold.
fn held(nodes: [u64; 2], each: Each) -> u64 {
    nodes[0] * each[0] + nodes[1] * each[1]
}

/// inotify instances and watches: both are counted by user, and all nodes are root's. What runs out
/// shows as crash loops that name something else. What others than nodes hold cannot be seen, so
/// what blocks is only what is too much without them.
pub(super) fn inotify(view: &View<'_>) -> Vec<Finding> {
    let (new, running) = (view.ask.new_of_each(), view.ask.running);
    if new == [0, 0] {
        return Vec::new();
    }
    let nodes = [new[0] + running[0], new[1] + running[1]];
    let judge = |(path, what, each, roomy): (&str, &str, Each, u64)| {
        let limit = view.machine.sysctl(path)?;
        let need = held(nodes, each);
        let value = roomy.max(need.next_power_of_two() * 2);
        let name = path.replace('/', ".");
        let mend = format!("run on the Docker host: sudo sysctl -w {name}={value} (k3nest up does it there)");
        let total = counted(nodes[0] + nodes[1], "node");
        if need > limit {
            return Some(Finding::Block(format!(
                "{name} is {limit}, too low for {total} on this Docker host, which hold {need} {what} at least, and nodes would crash again and again: {mend}, or write fewer nodes"
            )));
        }
        (need > limit / 4 * 3).then(|| {
            Finding::Note(format!("{name} is {limit}, and {total} on this Docker host hold {need} {what} before any Pod runs: {mend}"))
        })
    };
    INOTIFY.into_iter().filter_map(judge).collect()
}

/// Open files, processes and threads: of these it is known how many there are.
pub(super) fn processes_and_files(view: &View<'_>) -> Vec<Finding> {
    let machine = view.machine;
    let new = view.ask.new_of_each();
    if new == [0, 0] {
        return Vec::new();
    }
    let limits = [
        ("fs.file-max", "open files", machine.open_files, machine.sysctl("fs/file-max"), FILES),
        ("kernel.pid_max", "processes and threads", machine.tasks, machine.sysctl("kernel/pid_max"), THREADS),
        (
            "kernel.threads-max",
            "processes and threads",
            machine.tasks,
            machine.sysctl("kernel/threads-max"),
            THREADS,
        ),
    ];
    let judge = |(name, what, used, limit, each): (&str, &str, Option<u64>, Option<u64>, Each)| {
        let (used, limit) = (used?, limit?);
        let more = held(new, each);
        let need = used.saturating_add(more);
        let mend = || {
            format!(
                "run on the Docker host: sudo sysctl -w {name}={}",
                need.next_power_of_two().saturating_mul(2)
            )
        };
        if need > limit {
            return Some(Finding::Block(format!(
                "{name} is {limit}: the Docker host has {used} {what} now, and {} more would need {} more: {}, or write fewer nodes",
                counted(new[0] + new[1], "node"),
                more,
                mend()
            )));
        }
        (need > limit / 4 * 3).then(|| {
            Finding::Note(format!(
                "{name} is {limit}, and with the new nodes there are {need} {what}: {}",
                mend()
            ))
        })
    };
    limits.into_iter().filter_map(judge).collect()
}
