//! An API server for operators that run as processes: a cluster of the command line's, with the
//! definitions applied and no operator in it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex},
};

use crate::harness::{Cluster, Finished, Story, docker::inspected, kubectl::Kubectl, nest::nest};

/// Its spec: what no operator needs is left out.
const SPEC: &str = "k3s: {disable: [traefik, servicelb, local-storage, metrics-server]}";

static HOST: Mutex<Option<Arc<Host>>> = Mutex::new(None);

/// The API server. The first who asks makes it; [`remove`] ends it.
pub fn host() -> Arc<Host> {
    let mut host = HOST.lock().expect("nobody panics while it is held");
    if host.is_none() {
        // One scenario fails, and the next tries again.
        match catch_unwind(AssertUnwindSafe(Host::make)) {
            Ok(made) => *host = Some(Arc::new(made)),
            Err(cause) => {
                drop(host);
                std::panic::resume_unwind(cause);
            }
        }
    }
    host.clone().expect("just made")
}

/// Removes it, if it was made; what went wrong.
pub fn remove() -> Vec<String> {
    let Some(host) = HOST.lock().expect("nobody panics while it is held").take() else { return Vec::new() };
    let deleted = host.cluster.verb(&["delete"]);
    let left = host.cluster.all_objects();
    if deleted.code != 0 || !left.is_empty() {
        return vec![format!("the API server was not removed; left {left:?} after {deleted}")];
    }
    Vec::new()
}

/// An API server with k3nest's definitions.
pub struct Host {
    cluster: Cluster,
    /// kubectl as its administrator.
    pub kubectl: Kubectl,
    /// Which k3nest its operators' clusters belong to: the uid of namespace kube-system.
    pub instance: String,
    /// For KUBECONFIG.
    pub kubeconfig: String,
    /// Address of its Node, which is a container: with it an operator joins load balancers to the
    /// Node's network, as it does in a Pod there.
    pub node_address: String,
}

impl Host {
    fn make() -> Self {
        let story = Story::new("host");
        let cluster = Cluster::new("faults");
        let made = cluster.apply(SPEC).exits(0);
        let config = cluster.verb(&["kubeconfig", "get"]).ok();
        let kubectl = Kubectl::new(&config);
        kubectl.apply(&nest(&["crds"]).ok());
        let established =
            ["wait", "crd/k3sclusters.k3nest.dev", "--for=condition=Established", "--timeout=30s"];
        kubectl.run(&established).ok();
        let system = kubectl.get("namespace", "kube-system");
        let instance = system["metadata"]["uid"].as_str().expect("a uid").to_owned();
        let networks = &inspected("container", &cluster.server())["NetworkSettings"]["Networks"];
        let place = networks.as_object().and_then(|all| all.values().next()).expect("a network");
        let node_address = place["IPAddress"].as_str().expect("an address").to_owned();
        let kubeconfig = cluster.scratch.file("kubeconfig", &config);
        story.tell(&format!("API server {} in {:.1?}", cluster.name, made.took));
        Self { cluster, kubectl, instance, kubeconfig, node_address }
    }

    /// kubectl in one namespace.
    pub fn run(&self, namespace: &str, args: &[&str]) -> Finished {
        self.kubectl.run(&[&["-n", namespace], args].concat())
    }

    /// There is no operator in it; those that run as processes show their logs themselves.
    pub fn operator_log(&self) -> String {
        "(in a file of its process)".into()
    }
}
