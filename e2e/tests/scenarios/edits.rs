//! Changes of a living cluster replace what they must, and nothing else.

use crate::harness::{Story, docker::inspected, eventually, kubectl::Kubectl, nest::nest, pick};

use super::{
    life::Wish,
    workload::{TCP_NODE_PORT, ask_tcp},
};

/// What stays for life.
fn lasting(wish: &Wish) -> (String, String) {
    let network = wish.cluster.objects("network").remove(0);
    let facts = inspected("network", &network);
    let kubeconfig = wish.cluster.verb(&["kubeconfig", "get"]).ok();
    let server = kubeconfig.lines().find(|line| line.trim().starts_with("server:")).unwrap_or_default();
    (server.trim().to_owned(), facts["IPAM"]["Config"][0]["Subnet"].to_string())
}

/// A further port replaces the load balancer.
pub fn load_balancer_alone(story: &Story, wish: &mut Wish) {
    let (server, balancer, lasts) =
        (wish.cluster.id("server"), wish.cluster.id("loadbalancer"), lasting(wish));
    let port = pick::port();
    wish.ports.push((port, TCP_NODE_PORT, "TCP"));
    wish.apply();
    assert_eq!(wish.cluster.id("server"), server, "the server must not be replaced");
    assert_ne!(wish.cluster.id("loadbalancer"), balancer, "ports can be added to a new container only");
    assert_eq!(lasting(wish), lasts);
    eventually("the new port to answer", || ask_tcp(port, "hello"));
    story.tell("a further port replaced the load balancer alone, and answers");
}

/// Another argument replaces the server, which keeps its data.
pub fn server_alone(story: &Story, wish: &mut Wish) {
    let kubectl = wish.cluster.kubectl();
    kubectl.run(&["create", "configmap", "kept", "--from-literal=a=b"]).ok();
    let (server, balancer, lasts) =
        (wish.cluster.id("server"), wish.cluster.id("loadbalancer"), lasting(wish));
    wish.args = vec!["--kubelet-arg=max-pods=50"];

    let diff = nest(&["diff", "-f", &wish.file()]).exits(1);
    let name = wish.cluster.server();
    diff.prints(&format!("remove container {name}")).prints(&format!("run container {name}"));
    wish.apply();
    assert_ne!(wish.cluster.id("server"), server);
    assert_eq!(wish.cluster.id("loadbalancer"), balancer, "the load balancer must not be replaced");
    assert_eq!(lasting(wish), lasts, "address and range are kept for life");
    has_kept_its_data(&kubectl, wish);
    eventually("the workload to answer again", || ask_tcp(wish.ports[0].0, "hello"));
    story.tell("another argument replaced the server alone; its data, port and range are the same");
}

fn has_kept_its_data(kubectl: &Kubectl, wish: &Wish) {
    assert_eq!(kubectl.get("configmap", "kept")["data"]["a"], "b");
    let node = kubectl.get("node", &wish.cluster.node());
    assert_eq!(node["status"]["capacity"]["pods"], "50", "the argument has arrived");
}

/// A paused cluster is left alone, whatever else its file says.
pub fn paused(story: &Story, wish: &mut Wish) {
    let ids = (wish.cluster.id("server"), wish.cluster.id("loadbalancer"));
    let args = std::mem::take(&mut wish.args);
    wish.more = "paused: true".into();
    nest(&["diff", "-f", &wish.file()]).exits(0).prints("left alone");
    nest(&["apply", "-f", &wish.file()]).exits(0).complains("set it to false to go on");
    assert_eq!(ids, (wish.cluster.id("server"), wish.cluster.id("loadbalancer")));
    wish.args = args;
    wish.more.clear();
    story.tell("paused, it is left alone");
}

/// Changes that cannot be are refused before anything is touched.
pub fn refused(story: &Story, wish: &mut Wish) {
    let ids = (wish.cluster.id("server"), wish.cluster.id("loadbalancer"));
    let apply = |wish: &Wish| nest(&["apply", "-f", &wish.file(), "--timeout", "20s"]);

    let token = std::mem::replace(&mut wish.token, "another-token".into());
    let answer = apply(wish).exits(4).complains("spec.tokenSecretRef").complains("put the former one back");
    assert!(!answer.stderr.contains("another-token"), "{answer}");
    nest(&["diff", "-f", &wish.file()]).exits(4).complains("spec.tokenSecretRef");
    wish.token = token;

    wish.more = "network: {subnet: 10.97.1.0/24}".into();
    apply(wish).exits(2).complains("spec.network: cannot be changed after creation");
    nest(&["diff", "-f", &wish.file()]).exits(2).complains("spec.network: cannot be changed");
    wish.more = "k3s: {clusterDomain: other.local}".into();
    apply(wish).exits(2).complains("spec.k3s.clusterDomain: cannot be changed after creation");
    wish.more.clear();

    let older = std::fs::read_to_string(wish.file()).expect("it was written").replace("v1.36.1+", "v1.35.1+");
    let older = wish.cluster.scratch.file("older.yaml", &older);
    nest(&["apply", "-f", &older]).exits(4).complains("spec.version").complains("is older than v1.36.1");

    assert_eq!(ids, (wish.cluster.id("server"), wish.cluster.id("loadbalancer")));
    nest(&["diff", "-f", &wish.file()]).exits(0).prints("no changes");
    story.tell("another token, network, domain and an older version are refused; nothing was touched");
}
