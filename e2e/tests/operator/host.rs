//! The host cluster of this run, and the operator in it.

use std::{
    path::PathBuf,
    process::Command,
    sync::{Arc, RwLock},
    time::Duration,
};

use serde_json::Value;

use crate::harness::{
    Cluster, Finished, Nest, Story,
    command::Started,
    docker::{TOOLS, docker},
    kubectl::Kubectl,
};

/// Where the operator lives, as config/ says.
pub const NAMESPACE: &str = "k3nest-system";
pub const OPERATOR: &str = "k3nest-operator";

/// Where the host cluster's API server writes who asked for what.
const AUDIT_LOG: &str = "/var/log/e2e-audit.log";

/// How long making or removing everything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(240);

static HOST: RwLock<Option<Arc<Host>>> = RwLock::new(None);

/// The host cluster; it is there before the first scenario begins.
pub fn host() -> Arc<Host> {
    let host = HOST.read().expect("no panic while it is held");
    host.clone().expect("the guard makes it first")
}

/// The host cluster.
pub struct Host {
    cluster: Cluster,
    file: String,
    /// kubectl as its administrator.
    pub kubectl: Kubectl,
    /// Which k3nest the operator's clusters belong to: the uid of namespace kube-system.
    pub instance: String,
}

impl Host {
    /// kubectl in one namespace.
    pub fn run(&self, namespace: &str, args: &[&str]) -> Finished {
        self.kubectl.run(&[&["-n", namespace], args].concat())
    }

    /// What the operator has logged so far.
    pub fn operator_log(&self) -> String {
        let finished = self.run(NAMESPACE, &["logs", &format!("deployment/{OPERATOR}"), "--tail=-1"]);
        finished.stdout + &finished.stderr
    }

    /// Name of the operator's Pod.
    #[track_caller]
    pub fn operator_pod(&self) -> String {
        let list =
            self.run(NAMESPACE, &["get", "pods", "-l", "app.kubernetes.io/name=k3nest", "-o", "name"]).ok();
        list.trim().trim_start_matches("pod/").to_owned()
    }

    /// The container of its server.
    pub fn server(&self) -> String {
        self.cluster.server()
    }

    /// How often the operator's container was started again.
    #[track_caller]
    pub fn operator_restarts(&self) -> u32 {
        let path = "-o=jsonpath={.status.containerStatuses[0].restartCount}";
        let pod = self.operator_pod();
        self.run(NAMESPACE, &["get", "pod", &pod, path]).ok().trim().parse().expect("a number")
    }

    /// Every request of the operator that the API server has noted, as audit events.
    pub fn audit(&self) -> Vec<Value> {
        let copy = self.cluster.scratch.path("audit.log");
        docker(&["cp", &format!("{}:{AUDIT_LOG}", self.cluster.server()), &copy]).ok();
        let text = std::fs::read_to_string(&copy).expect("docker has written it");
        // The last line may be half written.
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

/// Removes the host cluster at the end, whatever happens.
pub struct Guard(bool);

impl Guard {
    /// Makes the host cluster with the operator in it.
    pub fn up() -> Self {
        let story = Story::new("host");
        let cluster = Cluster::new("host");
        let file = cluster.write(&spec());
        let up = k3nest(&cluster, &["up", "--host-file", &file, "--only", "host,operator"]).exits(0);
        story.tell(&format!("host cluster {} and operator in {:.1?}", cluster.name, up.took));
        cluster.import(TOOLS);
        let kubectl = cluster.kubectl();
        let system = kubectl.get("namespace", "kube-system");
        let instance = system["metadata"]["uid"].as_str().expect("a uid").to_owned();
        let host = Host { cluster, file, kubectl, instance };
        *HOST.write().expect("no panic while it is held") = Some(Arc::new(host));
        Self(true)
    }

    /// Removes it; what went wrong.
    pub fn down(mut self) -> Vec<String> {
        self.0 = false;
        let down = down();
        let left = host().cluster.all_objects();
        // Its kubeconfig and other files go with it.
        HOST.write().expect("no panic while it is held").take();
        if down.code != 0 || !left.is_empty() {
            return vec![format!("the host cluster was not removed; left {left:?} after {down}")];
        }
        Story::new("host").tell(&format!("gone in {:.1?}", down.took));
        Vec::new()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.0 {
            eprintln!("{}", down());
        }
    }
}

fn down() -> Finished {
    let host = host();
    k3nest(&host.cluster, &["down", "--host-file", &host.file, "--yes"])
}

/// The host cluster's spec: the Docker socket for the operator, and an audit log of what the operator
/// asks for.
fn spec() -> String {
    format!(
        "k3s: {{disable: [traefik, servicelb, local-storage, metrics-server]}}
servers:
  args:
  - --kube-apiserver-arg=audit-policy-file=/etc/rancher/k3s/audit.yaml
  - --kube-apiserver-arg=audit-log-path={AUDIT_LOG}
  volumes: [{{target: /var/run/docker.sock, hostPath: /var/run/docker.sock}}]
  files:
  - path: /etc/rancher/k3s/audit.yaml
    content: |
      apiVersion: audit.k8s.io/v1
      kind: Policy
      omitStages: [RequestReceived]
      rules:
      - {{level: Metadata, users: ['system:serviceaccount:{NAMESPACE}:{OPERATOR}']}}
      - {{level: None}}
"
    )
}

/// Runs the static k3nest: `up` packs the very binary that runs it into the operator's image.
fn k3nest(cluster: &Cluster, args: &[&str]) -> Finished {
    let with_images = Nest::new().command(&[]);
    let mut command = Command::new(static_binary());
    command.envs(with_images.get_envs().filter_map(|(name, value)| Some((name, value?)))).args(args);
    // What up keeps for its user has no place in the user's cache here.
    command.env("K3NEST_CACHE", cluster.scratch.path("cache"));
    Started::new(&mut command).wait(PATIENCE)
}

fn static_binary() -> PathBuf {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let cache = variable("K3NEST_CACHE")
        .or_else(|| Some(variable("HOME")?.join(".cache/k3nest")))
        .unwrap_or_else(|| root.join("target"));
    let built = cache.join("target/x86_64-unknown-linux-gnu/release/k3nest");
    let places = [variable("K3NEST_BIN"), Some(root.join("bin/k3nest")), Some(built)];
    let found = places.into_iter().flatten().find(|file| file.is_file());
    found.expect("a static k3nest: run make build, or name one by K3NEST_BIN")
}
