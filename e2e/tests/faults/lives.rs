//! Lives of clusters, several at once.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    harness::{
        Cluster, Finished, Nest,
        command::Started,
        kubectl::Kubectl,
        projection::{self, difference},
        proxy::{Fate, Proxy},
        within,
    },
    host::host,
    process::Operator,
    space::Space,
    tenant::Tenant,
};

/// Lives at once: most of a life is waiting, and a cluster that comes up keeps a processor busy.
pub const AT_ONCE: usize = 3;

/// More calls than any life makes.
const ENDLESS: usize = 400;

/// Lives for n = 1, 2, … with some at once, until one says that its n was beyond the last call.
/// Returns that n.
pub fn for_every_n(life: impl Fn(usize) -> bool + Sync) -> usize {
    let (next, last) = (AtomicUsize::new(1), AtomicUsize::new(ENDLESS));
    let broken = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                let _alarm = Alarm(&broken);
                loop {
                    let n = next.fetch_add(1, Ordering::SeqCst);
                    if n > last.load(Ordering::SeqCst) || broken.load(Ordering::SeqCst) {
                        return;
                    }
                    if life(n) {
                        last.fetch_min(n, Ordering::SeqCst);
                    }
                }
            });
        }
    });
    let last = last.into_inner();
    assert!(last < ENDLESS, "no life was undisturbed");
    last
}

/// The lives of all of `these`, with some at once.
pub fn for_each<T: Sync>(these: &[T], at_once: usize, life: impl Fn(&T) + Sync) {
    let (next, broken) = (AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        for _ in 0..at_once.min(these.len()) {
            scope.spawn(|| {
                let _alarm = Alarm(&broken);
                while let Some(this) = these.get(next.fetch_add(1, Ordering::SeqCst)) {
                    if broken.load(Ordering::SeqCst) {
                        return;
                    }
                    life(this);
                }
            });
        }
    });
}

/// Tells the others that a life has failed.
struct Alarm<'a>(&'a AtomicBool);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.store(true, Ordering::SeqCst);
        }
    }
}

/// The cluster of most lives: one server and one agent.
pub const PAIR: &str = "agents: {replicas: 1}";

/// Labels of Nodes that tests ask for begin with this.
const LABELS: &str = "example.com/";

/// How long a life may take to make or remove its cluster, whatever happens to it.
const PATIENCE: Duration = Duration::from_secs(400);

/// A cluster behind a proxy, and who makes it. Dropped at any moment, it goes.
pub trait Life {
    fn proxy(&self) -> &Proxy;

    fn cluster(&self) -> &Cluster;

    /// kubectl in the cluster.
    fn kubectl(&self) -> Kubectl;

    /// Begins to make it, and does not wait.
    fn begin(&self, spec: &str);

    /// Begins to remove it, and does not wait.
    fn begin_removal(&self);

    /// Whoever makes or removes it dies at this moment.
    fn die(&self);

    /// Makes it until it is Ready, also after it was begun. What was complained of meanwhile.
    fn make(&self, spec: &str) -> Vec<String>;

    /// Removes it until it is gone, also after that was begun. What was complained of meanwhile.
    fn remove(&self) -> Vec<String>;

    /// Waits until nobody has asked Docker for anything for two seconds.
    fn falls_silent(&self) {
        within(Duration::from_secs(60), "silence", || {
            let requests = self.proxy().requests();
            let last = requests.iter().rev().find(|request| !request.is_listening());
            match last {
                Some(last) if last.at.elapsed() < Duration::from_secs(2) => Err(last.to_string()),
                _ => Ok(()),
            }
        });
    }

    /// What the cluster comes to, in Docker and inside: its Nodes, and the labels that tests give to them.
    fn seen(&self) -> String {
        let text = self.kubectl().run(&["get", "nodes", "-o", "json"]).ok();
        let list: Value = serde_json::from_str(&text).expect("kubectl prints JSON");
        let mut nodes: Vec<String> = list["items"].as_array().into_iter().flatten().map(node).collect();
        nodes.sort();
        let nodes = nodes.join("\n").replace(&self.cluster().name, "NAME");
        projection::of(self.cluster()) + "\nnodes:\n" + &nodes
    }

    /// Waits until it comes to what was expected: what a maker who died left behind has its time.
    fn comes_to(&self, expected: &str, look_again: impl Fn()) {
        within(Duration::from_secs(60), "the same as an undisturbed one", || {
            look_again();
            let differences = difference(&self.seen(), expected);
            if differences.is_empty() { Ok(()) } else { Err(format!("{differences:#?}")) }
        });
    }
}

/// A Node in one line: its name, whether it is Ready, and its labels of [`LABELS`].
fn node(node: &Value) -> String {
    let conditions = node["status"]["conditions"].as_array().into_iter().flatten();
    let ready = conditions.filter(|c| c["type"] == "Ready").find_map(|c| c["status"].as_str());
    let all = node["metadata"]["labels"].as_object().into_iter().flatten();
    let mut labels: Vec<String> = all
        .filter(|(key, _)| key.starts_with(LABELS))
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    labels.sort();
    let name = node["metadata"]["name"].as_str().unwrap_or_default();
    format!("{name} {} {}", ready.unwrap_or("Unknown"), labels.join(","))
}

/// Made by the command line.
pub struct ByHand {
    proxy: Proxy,
    cluster: Cluster,
    begun: Mutex<Option<Started>>,
}

impl ByHand {
    pub fn new(what: &str) -> Self {
        Self { proxy: Proxy::new(), cluster: Cluster::new(what), begun: Mutex::new(None) }
    }

    fn nest(&self) -> Nest {
        Nest::new().env("DOCKER_HOST", &self.proxy.url())
    }

    fn start(&self, args: &[&str]) {
        *self.begun.lock().expect("no panic while it is held") = Some(self.nest().start(args));
    }

    /// Runs it again and again until `done` says so, as a person would who reads what it says.
    fn run_until(&self, args: &[&str], done: impl Fn(&Finished) -> bool) -> Vec<String> {
        let (mut complaints, deadline) = (Vec::new(), Instant::now() + PATIENCE);
        loop {
            let finished = Started::new(&mut self.nest().command(args)).wait(PATIENCE);
            if done(&finished) {
                return complaints;
            }
            assert!([4, 5].contains(&finished.code), "an exit code that says try again: {finished}");
            let last = finished.stderr.lines().last().unwrap_or_default().to_owned();
            assert!(last.len() > 20, "it says what is wrong: {finished}");
            assert!(Instant::now() < deadline, "not done after {PATIENCE:?}: {finished}");
            complaints.push(last);
        }
    }
}

impl Life for ByHand {
    fn proxy(&self) -> &Proxy {
        &self.proxy
    }

    fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    fn kubectl(&self) -> Kubectl {
        self.cluster.kubectl()
    }

    fn begin(&self, spec: &str) {
        self.start(&["apply", "-f", &self.cluster.write(spec)]);
    }

    fn begin_removal(&self) {
        self.start(&["delete", &self.cluster.name]);
    }

    fn die(&self) {
        let begun = self.begun.lock().expect("no panic while it is held").take().expect("begun");
        begun.signal("KILL");
        begun.wait(PATIENCE);
    }

    fn make(&self, spec: &str) -> Vec<String> {
        self.run_until(&["apply", "-f", &self.cluster.write(spec)], |finished| finished.code == 0)
    }

    /// The last try may find nothing any more, and say so.
    fn remove(&self) -> Vec<String> {
        let done = |_: &Finished| self.cluster.all_objects().is_empty();
        if self.cluster.all_objects().is_empty() {
            return Vec::new();
        }
        self.run_until(&["delete", &self.cluster.name], done)
    }
}

/// Kept by an operator of its own.
pub struct Kept {
    // Dropped in this order: the cluster needs its operator to go.
    pub tenant: Tenant,
    pub operator: Operator,
    _space: Space,
}

impl Kept {
    /// A namespace with an operator that hears of Docker's events; the cluster is not there yet.
    pub fn new(what: &str) -> Self {
        Self::with(what, &[])
    }

    /// The same, with more in the operator's environment.
    pub fn with(what: &str, env: &[(&str, &str)]) -> Self {
        let space = Space::new(what);
        let tenant = Tenant::new(what, &space);
        let address = host().node_address.clone();
        let env = [&[("HOST_IP", address.as_str())], env].concat();
        let operator = Operator::start_with(&space.name, Proxy::new(), &env);
        operator.listens();
        Self { tenant, operator, _space: space }
    }
}

impl Life for Kept {
    fn proxy(&self) -> &Proxy {
        &self.operator.proxy
    }

    fn cluster(&self) -> &Cluster {
        &self.tenant
    }

    fn kubectl(&self) -> Kubectl {
        self.tenant.kubectl()
    }

    fn begin(&self, spec: &str) {
        self.tenant.apply(spec);
    }

    fn begin_removal(&self) {
        self.tenant.run(&["delete", "k3scluster", &self.tenant.name, "--wait=false"]).ok();
    }

    fn die(&self) {
        self.operator.victim.kill();
    }

    fn make(&self, spec: &str) -> Vec<String> {
        self.begin(spec);
        self.waits_for(&["wait", "--for=condition=Ready", &format!("k3scluster/{}", self.tenant.name)]);
        self.complaints()
    }

    fn remove(&self) -> Vec<String> {
        self.waits_for(&["delete", "k3scluster", &self.tenant.name, "--ignore-not-found"]);
        self.tenant.is_gone();
        self.complaints()
    }
}

impl Kept {
    /// kubectl until it has what it waits for, within [`PATIENCE`] in pieces that a command may take.
    fn waits_for(&self, args: &[&str]) {
        let args = [args, &["--timeout=100s"]].concat();
        within(PATIENCE, &args.join(" "), || self.tenant.run(&args).result());
    }

    /// What it has logged as trouble so far.
    fn complaints(&self) -> Vec<String> {
        let log = self.operator.log();
        log.lines()
            .filter(|line| line.contains("WARN") || line.contains("ERROR"))
            .map(str::to_owned)
            .collect()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.operator.proxy.set_rule(|_| Fate::Pass);
    }
}
