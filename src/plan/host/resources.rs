//! CPU, memory and disk against what is asked for.

use super::{Finding, View, counted, size};
use crate::api::{Quantity, Role};

/// Memory that a server and an agent need at least, where the specification sets no limit: what
/// k3nest lets one set. k3s's own figures are higher.
const LEAST_SERVER: u64 = 512 << 20;
const LEAST_AGENT: u64 = 256 << 20;

/// Memory that k3s asks for on a machine with a server
/// (https://docs.k3s.io/installation/requirements: 2 GB, of which a kernel keeps some for itself).
const MACHINE_WITH_SERVER: u64 = 1700 << 20;

/// Free disk below which no node gets up, and what each should have.
const LEAST_DISK: u64 = 512 << 20;
const DISK: u64 = 2 << 30;

/// Docker refuses a CPU limit above the number of CPUs it has.
pub(super) fn cpu(view: &View<'_>) -> Vec<Finding> {
    let Some(cpus) = view.engine.cpus else { return Vec::new() };
    let asked = view.ask.groups.iter().filter_map(|group| group.resource("cpu", |r| r.cpu.as_ref()));
    let mut findings: Vec<Finding> = asked
        .filter(|(_, cpu)| cpu.millis().is_none_or(|millis| millis > cpus.saturating_mul(1000)))
        .map(|(field, cpu)| {
            Finding::Block(format!(
                "{field}: {cpu} is more than the Docker host has, which is {}: write {cpus} at most, or leave it out for no limit",
                counted(cpus, "CPU")
            ))
        })
        .collect();
    findings.dedup();
    findings
}

/// Memory: a node's limit above all there is cannot be meant, since Kubernetes would see it as the
/// node's capacity; more than is available in all may still work.
pub(super) fn memory(view: &View<'_>) -> Vec<Finding> {
    let Some(total) = view.machine.memory.or(view.engine.memory) else { return Vec::new() };
    let limit = |memory: &Quantity| memory.units().unwrap_or(u64::MAX);
    let mut findings = Vec::new();
    let mut sum: u64 = 0;
    for group in &view.ask.groups {
        let asked = group.resource("memory", |r| r.memory.as_ref());
        if let Some((field, memory)) = asked.as_ref().filter(|(_, memory)| limit(memory) > total) {
            findings.push(Finding::Block(format!(
                "{field}: {memory} is more than the Docker host has, which is {}: write less, leave it out for no limit, or give the Docker host more{}",
                size(total),
                where_memory_is_set(view)
            )));
        }
        let least = if group.role == Role::Server { LEAST_SERVER } else { LEAST_AGENT };
        sum = sum.saturating_add(group.new.saturating_mul(asked.map_or(least, |(_, memory)| limit(memory))));
    }
    findings.dedup();
    if !findings.is_empty() || view.ask.new_nodes() == 0 {
        return findings;
    }
    if let Some(available) = view.machine.memory_available.filter(|available| sum > *available) {
        findings.push(Finding::Note(format!(
            "{} may take {} of memory, and the Docker host has {} left: processes may be killed; write fewer nodes or smaller limits, or give the Docker host more{}",
            counted(view.ask.new_nodes(), "new node"),
            size(sum),
            size(available),
            where_memory_is_set(view)
        )));
    }
    let server = view.ask.groups.iter().any(|group| group.role == Role::Server && group.new > 0);
    if server && total < MACHINE_WITH_SERVER {
        findings.push(Finding::Note(format!(
            "the Docker host has {} of memory, and k3s asks for 2 GB where a server runs: give it more{}, or leave out what is not needed with spec.k3s.disable",
            size(total),
            where_memory_is_set(view)
        )));
    }
    findings
}

/// Where a person who runs Docker in a virtual machine sets its memory.
fn where_memory_is_set(view: &View<'_>) -> &'static str {
    let engine = view.engine;
    if engine.system.contains("Docker Desktop") {
        // https://docs.docker.com/desktop/settings-and-maintenance/settings/
        " (Docker Desktop: Settings, Resources)"
    } else if engine.kernel.contains("microsoft") {
        // https://learn.microsoft.com/windows/wsl/wsl-config
        " (WSL 2: memory= under [wsl2] in %UserProfile%\\.wslconfig, then wsl --shutdown)"
    } else {
        ""
    }
}

/// Disk: what is free where Docker keeps its data, and what the kubelet thinks of that. k3s has it
/// evict Pods, and take no new ones, below 5 % of free space
/// (https://github.com/k3s-io/k3s, pkg/daemons/agent/agent.go: nodefs.available, imagefs.available).
pub(super) fn disk(view: &View<'_>) -> Vec<Finding> {
    let new = view.ask.new_nodes();
    let Some(free) = view.machine.disk_free.filter(|_| new > 0) else { return Vec::new() };
    let root = if view.engine.root.is_empty() { "Docker's data" } else { &view.engine.root };
    let mend = "remove what is not needed (docker system df shows it, docker system prune removes it), or give it more";
    if free < LEAST_DISK {
        return vec![Finding::Block(format!(
            "{root} on the Docker host has {} free, and no node starts with less than {}: {mend}",
            size(free),
            size(LEAST_DISK)
        ))];
    }
    let mut findings = Vec::new();
    if free < DISK.saturating_mul(new) {
        findings.push(Finding::Note(format!(
            "{root} on the Docker host has {} free, and {} should have {} for images and data: {mend}",
            size(free),
            counted(new, "new node"),
            size(DISK.saturating_mul(new))
        )));
    }
    let pressed = view.machine.disk.is_some_and(|disk| free < disk / 20);
    if pressed && !view.ask.args_have("eviction-hard") {
        findings.push(Finding::Note(format!(
            "less than 5 % of {root} is free, at which k3s taints nodes with disk-pressure and starts no Pods: {mend}, or write spec.nodeDefaults.args: [--kubelet-arg=eviction-hard=nodefs.available<1%,imagefs.available<1%]"
        )));
    }
    findings
}
