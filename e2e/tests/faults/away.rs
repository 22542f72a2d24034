//! Docker is stopped and started while the operator works: its API server goes on.

use std::time::Duration;

use serde_json::Value;

use super::apart::{Machine, NOTICED, Way, machine, runs};
use crate::{
    harness::{
        Nest, Story,
        command::{PATIENCE, send_signal},
        docker::TOOLS,
        proxy::Proxy,
        within,
    },
    process::Operator,
    space::Space,
    tenant::{Condition, READY, Tenant},
};

/// How long Docker stays away while nothing must be done.
const AWAY: Duration = Duration::from_secs(10);

/// Processor time that the operator may use meanwhile. A loop without pause takes all of it.
const IDLE: Duration = Duration::from_millis(1000);

/// During creation, while a healing is due, before a deletion and during one.
pub fn docker_is_stopped_and_started() {
    let story = Story::new("docker_away");
    let machine = machine(&story);
    let space = Space::new("away");
    let way = Way::new(&machine);
    let operator = way.operator(&machine, &space.name, Proxy::new(), "unix:///run/docker.sock");
    let (steady, born) = (Tenant::new("steady", &space), Tenant::new("born", &space));
    steady.apply("");
    story.tell(&format!("a first cluster is Ready after {:.1?}", steady.is_ready()));
    let (lasting, made) = (lasting_status(&steady), machine.made("name=steady"));
    let secret = steady.get("secret", "steady-kubeconfig");

    born.apply("");
    within(READY, "creation to begin", || match machine.made("name=born").len() {
        0 => Err("no container yet".to_owned()),
        _ => Ok(()),
    });
    machine.terminate();
    assert_eq!(waits(&born).reason, "EngineUnavailable");
    waits(&steady);
    assert_eq!(born.object()["status"]["phase"], "Provisioning");
    assert_eq!(steady.object()["status"]["phase"], "Updating");
    assert_eq!(lasting_status(&steady), lasting, "what was known of the cluster that was Ready");
    assert_eq!(steady.get("secret", "steady-kubeconfig"), secret);
    is_idle(&story, &operator);
    command_line_says_so(&machine);
    // The next one has never met a Docker, and hears of it all the same.
    operator.victim.kill();
    come_back(&story, &machine);
    for tenant in [&born, &steady] {
        story.tell(&format!("{} is Ready after {:.1?}", tenant.name, tenant.becomes_ready()));
    }
    assert_eq!(machine.made("name=steady"), made);
    assert_eq!(lasting_status(&steady), lasting);

    // Nothing is healed before Docker goes.
    send_signal(operator.pid(), "STOP");
    machine.docker(&["rm", "-f", "-v", &balancer(&steady)]).ok();
    machine.terminate();
    send_signal(operator.pid(), "CONT");
    waits(&steady);
    story.tell("Docker is away while a load balancer is to be made anew");
    born.run(&["delete", "k3scluster", "born", "--wait=false"]).ok();
    let condition = born.becomes("Ready", "False", "EngineUnavailable", NOTICED);
    assert!(condition.message.starts_with("deletion waits for Docker: "), "{condition:?}");
    says_what_is_next(&condition);
    assert!(condition.message.contains("k3nest.dev/abandon=true"), "{condition:?}");
    assert_eq!(born.object()["status"]["phase"], "Deleting");
    come_back(&story, &machine);
    is_gone(&machine, &born);
    story.tell(&format!("steady is Ready after {:.1?}, and born is gone", steady.becomes_ready()));
    assert_eq!(machine.made("name=steady"), made);

    let network = network(&machine, &steady);
    machine.docker(&["run", "-d", "--name", "guest", "--network", &network, TOOLS, "tcp-echo", ":7000"]).ok();
    steady.run(&["delete", "k3scluster", "steady", "--wait=false"]).ok();
    runs(&machine, "name=steady", 0, NOTICED);
    machine.terminate();
    let condition = steady.becomes("Ready", "False", "EngineUnavailable", NOTICED);
    says_what_is_next(&condition);
    assert_eq!(steady.object()["status"]["phase"], "Deleting");
    come_back(&story, &machine);
    // It does not start again by itself, and one that stands still keeps no network.
    is_gone(&machine, &steady);
    machine.docker(&["rm", "-v", "guest"]).ok();
    story.tell("a deletion that was half done is done");
    machine.others_are_untouched();
    operator.ended_by_kills_only();
}

impl Tenant {
    /// Waits until it is Ready by a report that was written since Docker was away.
    #[track_caller]
    pub fn becomes_ready(&self) -> Duration {
        let since = std::time::Instant::now();
        self.becomes("Ready", "True", "Ready", READY);
        since.elapsed()
    }
}

/// Says that it waits for Docker, and what is tried next.
#[track_caller]
fn waits(tenant: &Tenant) -> Condition {
    let condition = tenant.becomes("Ready", "Unknown", "EngineUnavailable", NOTICED);
    says_what_is_next(&condition);
    condition
}

#[track_caller]
fn says_what_is_next(condition: &Condition) {
    let next = "tried again within a minute, and as soon as Docker is back";
    assert!(condition.message.contains(next), "{condition:?}");
    assert!(condition.message.contains("Docker does not answer"), "{condition:?}");
}

/// What a report says of the cluster itself.
fn lasting_status(tenant: &Tenant) -> Value {
    let status = tenant.object()["status"].clone();
    let fields = [
        "endpoint",
        "internalEndpoint",
        "kubeconfigSecretRef",
        "network",
        "nodes",
        "version",
        "engineID",
        "servers",
    ];
    let host = status["conditions"].as_array().and_then(|all| {
        let found = all.iter().find(|condition| condition["type"] == "HostCompatible")?;
        Some(serde_json::json!([found["status"], found["message"]]))
    });
    let known: serde_json::Map<_, _> =
        fields.into_iter().map(|field| (field.to_owned(), status[field].clone())).collect();
    serde_json::json!([known, host])
}

/// Tries again and again, but not all the time.
fn is_idle(story: &Story, operator: &Operator) {
    let (log, used) = (operator.log().len(), processor_time(operator.pid()));
    // What does not happen can only be waited for.
    std::thread::sleep(AWAY);
    let used = processor_time(operator.pid()) - used;
    let log = operator.log().split_off(log);
    let tries = log.lines().filter(|line| line.contains("Docker does not answer, will be retried")).count();
    story.tell(&format!("{tries} tries and {used:.1?} of processor time in {AWAY:?} without Docker"));
    assert!((1..=10).contains(&tries), "{tries} tries in {AWAY:?}:\n{log}");
    assert!(used < IDLE, "{used:?} of processor time in {AWAY:?}");
}

fn processor_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the operator runs");
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    // utime and stime, fields 14 and 15 of proc(5), of which two are before the parenthesis; in
    // hundredths of a second on every Linux.
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

/// The command line does not wait for a Docker that is away when it begins.
fn command_line_says_so(machine: &Machine) {
    let scratch = crate::harness::pick::Scratch::new();
    let file = scratch.file(
        "cluster.yaml",
        "apiVersion: k3nest.dev/v1alpha1\nkind: K3sCluster\nmetadata: {name: x}\nspec: {version: v1.36.1+k3s1}\n",
    );
    for args in [&["get", "clusters"][..], &["apply", "-f", &file], &["delete", "x"]] {
        let finished =
            machine.nest(&Nest::new(), args, PATIENCE).exits(5).complains("Docker does not answer");
        finished.complains("is Docker running there? Start it, or say where it is with DOCKER_HOST");
    }
}

fn come_back(story: &Story, machine: &Machine) {
    let starts = machine.start_again();
    story.tell(&format!("Docker is back after {starts} start"));
}

/// Nothing of it is left, here and in Docker.
#[track_caller]
fn is_gone(machine: &Machine, tenant: &Tenant) {
    let name = &tenant.name;
    within(READY, &format!("{name} to be gone"), || {
        let found = tenant.run(&["get", "k3scluster", name]);
        if found.stderr.contains("not found") { Ok(()) } else { Err(found.stdout + &found.stderr) }
    });
    let filter = format!("label=k3nest.dev/name={name}");
    for kind in ["container", "network", "volume"] {
        let all = if kind == "container" { "-aq" } else { "-q" };
        let left = machine.docker(&[kind, "ls", all, "--filter", &filter]).ok();
        assert!(left.is_empty(), "{kind}s of {name} are left: {left}");
    }
}

fn balancer(tenant: &Tenant) -> String {
    let uid = tenant.uid();
    format!("k3nest-{}-{}-lb-{}", tenant.namespace, tenant.name, &uid[..8])
}

fn network(machine: &Machine, tenant: &Tenant) -> String {
    let filter = format!("label=k3nest.dev/name={}", tenant.name);
    let names = machine.docker(&["network", "ls", "--filter", &filter, "--format", "{{.Name}}"]).ok();
    names.trim().to_owned()
}
