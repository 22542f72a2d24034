//! What the operator does while there is nothing to do: its requests to Docker, through a proxy that
//! counts them, and its memory.
//!
//! It runs as a process on the Docker host, against a host cluster that k3nest made: the same static
//! binary as in its image, and its memory is that of one process, as in its Pod.

use std::{
    fmt::Write,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use crate::{
    harness::{
        Cluster, Nest, Story,
        command::Started,
        docker::{docker, labelled},
        kubectl::Kubectl,
        pick::{self, Scratch},
        proxy::{Proxy, Request},
        within,
    },
    machine::field,
};

/// How many clusters the operator has.
const CLUSTERS: usize = 5;

/// Memory that it may use.
const MEMORY_GOAL: f64 = 40.0;

/// How long the clusters may take to become Ready.
const PATIENCE: Duration = Duration::from_secs(300);

/// Lets five clusters settle for `settle` after the last is Ready, and watches for `period`. Returns
/// what came of it, as Markdown.
pub fn measure(settle: Duration, period: Duration) -> String {
    let story = Story::new("idle");
    let host = Cluster::named(&pick::name("bench"), "default");
    host.apply("k3s: {disable: [traefik, servicelb, local-storage, metrics-server]}").exits(0);
    let kubectl = host.kubectl();
    let crds = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("crds/k3sclusters.yaml");
    kubectl.run(&["apply", "--server-side", "-f", &crds.to_string_lossy()]).ok();
    kubectl.run(&["wait", "--for=condition=Established", "crd/k3sclusters.k3nest.dev", "--timeout=60s"]).ok();
    let operator = Operator::start(&host, &kubectl);

    let names: Vec<String> = (0..CLUSTERS).map(|_| pick::name("idle")).collect();
    for name in &names {
        kubectl.apply(&Cluster::named(name, "default").document("servers: {replicas: 1}"));
    }
    for name in &names {
        within(PATIENCE, &format!("{name} to be Ready"), || {
            kubectl
                .run(&["wait", "k3scluster", name, "--for=condition=Ready", "--timeout=30s"])
                .result()
                .map_err(|seen| format!("{seen}\n{}", kubectl.run(&["get", "k3c", "-o", "yaml"]).stdout))
        });
    }
    story.tell(&format!("{CLUSTERS} clusters are Ready; nothing is done to them for {settle:.0?}"));
    thread::sleep(settle);
    let (began, before) = (Instant::now(), operator.proxy.requests().len());
    story.tell(&format!("looking for {period:.0?}"));
    thread::sleep(period);
    let mut requests = operator.proxy.requests().split_off(before);
    requests.retain(|request| !request.is_listening());
    let seen = Seen { requests, began, period, memory: operator.memory() };
    operator.delete_clusters(&names);
    seen.table()
}

/// A running operator.
struct Operator {
    process: Option<Started>,
    pid: u32,
    proxy: Proxy,
    /// Its kubeconfig.
    scratch: Scratch,
    kubectl: Kubectl,
    instance: String,
}

impl Operator {
    fn start(host: &Cluster, kubectl: &Kubectl) -> Self {
        let scratch = Scratch::new();
        let text = host.verb(&["kubeconfig", "get"]).ok();
        let kubeconfig = scratch.file("config", &text);
        let proxy = Proxy::new();
        let namespace = kubectl.get("namespace", "kube-system");
        let instance = namespace["metadata"]["uid"].as_str().expect("a uid").to_owned();
        let metrics = format!("127.0.0.1:{}", pick::port());
        let nest = Nest::new().env("KUBECONFIG", &kubeconfig).env("DOCKER_HOST", &proxy.url());
        let process = nest.start(&["operator", "--metrics-address", &metrics]);
        let kubectl = Kubectl::new(&text);
        Self { pid: process.pid(), process: Some(process), proxy, scratch, kubectl, instance }
    }

    /// Its resident memory in MiB.
    fn memory(&self) -> f64 {
        let kilobytes = field(&format!("/proc/{}/status", self.pid), "VmRSS:");
        kilobytes.expect("the operator runs") as f64 / 1024.0
    }

    fn delete_clusters(&self, names: &[String]) {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        self.kubectl.run(&[&["delete", "k3scluster", "--timeout=120s"], names.as_slice()].concat()).ok();
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let Some(process) = self.process.take() else { return };
        process.signal("TERM");
        let ended = process.wait(Duration::from_secs(60));
        if thread::panicking() {
            eprintln!("--- the operator said, in {}:\n{}", self.scratch.0.display(), ended.stderr);
        }
        // After a failure: what its clusters have left.
        let label = [format!("k3nest.dev/instance={}", self.instance)];
        for kind in ["container", "network", "volume"] {
            for name in labelled(kind, &label) {
                let force: &[&str] = if kind == "container" { &["-f", "-v"] } else { &[] };
                docker(&[&[kind, "rm"], force, &[&name]].concat());
            }
        }
    }
}

/// What was seen of the operator.
struct Seen {
    requests: Vec<Request>,
    began: Instant,
    period: Duration,
    /// In MiB.
    memory: f64,
}

impl Seen {
    fn table(&self) -> String {
        let Self { requests, began, period, memory } = self;
        let lists = requests.len();
        // A resync of ten minutes, give or take a tenth, may fall into the period for each cluster.
        let verdict = if requests.iter().all(is_a_look) { "met if each is a resync" } else { "missed" };
        let verdict = if requests.is_empty() { "met" } else { verdict };
        let memory_verdict = if *memory < MEMORY_GOAL { "met" } else { "missed" };
        let mut text = format!(
            "### The operator with {CLUSTERS} clusters and nothing to do\n\n| | seen | goal |\n|---|---|---|\n| requests to Docker in {} s, besides those that keep up the event stream | {lists} | none but a resync's, {verdict} |\n| VmRSS at the end, MiB | {memory:.1} | under {MEMORY_GOAL:.0}, {memory_verdict} |\n",
            period.as_secs()
        );
        for request in requests {
            let at = request.at.saturating_duration_since(*began).as_secs_f64();
            writeln!(text, "\n    {at:.1} s: {request}").expect("a string takes everything");
        }
        text
    }
}

/// Whether a request changes nothing.
fn is_a_look(request: &Request) -> bool {
    !request.changes()
}
