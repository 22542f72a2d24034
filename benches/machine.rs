//! What was measured on, and whether it is calm.

use std::{
    process::Command,
    thread,
    time::{Duration, Instant},
};

use crate::harness::{docker::docker, nest::Nest, run};

/// Below this share of its processors a machine counts as calm.
const CALM: f64 = 0.08;

/// How long a look at the load takes; two calm ones in a row make a calm machine.
const LOOK: Duration = Duration::from_millis(400);

/// Waits until the machine is calm, for `patience` at most. Returns whether it became so in time.
pub fn calm(patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    let mut quiet = 0;
    while Instant::now() < deadline {
        quiet = if busy_share() < CALM { quiet + 1 } else { 0 };
        if quiet == 2 {
            return true;
        }
    }
    false
}

/// The share of processor time that was not idle during one look.
fn busy_share() -> f64 {
    let before = ticks();
    thread::sleep(LOOK);
    let after = ticks();
    let all = after.0.saturating_sub(before.0).max(1);
    1.0 - after.1.saturating_sub(before.1) as f64 / all as f64
}

/// All ticks of all processors and the idle ones (proc(5), /proc/stat).
fn ticks() -> (u64, u64) {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let numbers: Vec<u64> = text
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .filter_map(|number| number.parse().ok())
        .collect();
    (numbers.iter().take(8).sum(), numbers.iter().skip(3).take(2).sum())
}

/// The machine and the versions, as a table.
pub fn facts() -> String {
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let memory = field("/proc/meminfo", "MemTotal:").unwrap_or(0) / 1024 / 1024;
    let server = "{{.Server.Version}}, API {{.Server.APIVersion}}";
    let driver = "{{.Driver}}, cgroup v{{.CgroupVersion}}";
    let docker_version = docker(&["version", "--format", server]).stdout;
    let docker_driver = docker(&["info", "--format", driver]).stdout;
    let kernel = run(Command::new("uname").arg("-r")).stdout;
    let k3nest = Nest::new().run(&["version"]).stdout;
    let (node, balancer) = images();
    let row = |name: &str, value: &str| format!("| {name} | {} |\n", value.trim());
    [
        "| | |\n|---|---|\n".to_owned(),
        row("processors", &cores.to_string()),
        row("memory", &format!("{memory} GiB")),
        row("kernel", &kernel),
        row("Docker", &format!("{}, {}", docker_version.trim(), docker_driver.trim())),
        row("k3nest", &k3nest),
        row("node image", &node),
        row("load balancer image", &balancer),
    ]
    .concat()
}

/// Repository of nodes and image of load balancers, as k3nest is told.
fn images() -> (String, String) {
    let command = Nest::new().command(&[]);
    let set = |name: &str| {
        let given = command.get_envs().find(|(key, _)| *key == name).and_then(|(_, value)| value);
        let own = std::env::var_os(name);
        given.map(ToOwned::to_owned).or(own).unwrap_or_default().to_string_lossy().into_owned()
    };
    (set("K3NEST_NODE_IMAGE"), set("K3NEST_LOAD_BALANCER_IMAGE"))
}

/// A number behind `name` in one of /proc's files, in kB where the file says so.
pub fn field(path: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}
