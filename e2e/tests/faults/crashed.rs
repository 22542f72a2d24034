//! dockerd is stopped and killed, with clusters that stand and one that is being made.

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use jiff::Timestamp;

use super::apart::{Machine, Way, machine};
use crate::{
    harness::{
        Nest, Story,
        kubectl::Kubectl,
        nest::VERSION,
        pick::{self, Scratch},
        proxy::{Fate, Proxy, Request},
        within,
    },
    space::Space,
    tenant::{READY, Tenant},
};

/// How long `k3nest up` may take on a machine that is busy.
const UP: Duration = Duration::from_secs(240);

/// A nested cluster, as somebody on the machine sees it.
struct Nested {
    kubectl: Kubectl,
    nodes: usize,
}

impl Nested {
    /// By the kubeconfig of its Secret, which is base64.
    fn new(secret: &str, nodes: usize) -> Self {
        let text = BASE64_STANDARD.decode(secret.trim()).expect("base64");
        Self { kubectl: Kubectl::new(&String::from_utf8(text).expect("text")), nodes }
    }

    /// Writes what must not be lost.
    #[track_caller]
    fn write(&self, machine: &Machine) {
        machine.kubectl(&self.kubectl, &["create", "configmap", "before", "--from-literal=is=kept"]).ok();
    }

    /// Waits until every Node has spoken since, and what was written is still there.
    #[track_caller]
    fn is_as_before(&self, machine: &Machine, since: Timestamp) {
        within(READY, "the Nodes of a nested cluster to be Ready again", || {
            machine.nodes_have_spoken_since(&self.kubectl, self.nodes, since)
        });
        let kept =
            machine.kubectl(&self.kubectl, &["get", "configmap", "before", "-o", "jsonpath={.data.is}"]);
        assert_eq!(kept.ok(), "kept");
    }
}

/// The operator is a process and its API server is elsewhere: it brings every node back, and goes on
/// with the cluster whose server was just created when dockerd died.
pub fn with_the_operator_outside() {
    let story = Story::new("docker_killed_operator_outside");
    let machine = machine(&story);
    let space = Space::new("outside");
    let way = Way::new(&machine);
    let proxy = Proxy::before(&machine.socket(), |_| Fate::Pass);
    let url = proxy.url();
    let operator = way.operator(&machine, &space.name, proxy, &url);
    operator.listens();
    let (stands, made) = (Tenant::new("stands", &space), Tenant::new("made", &space));
    stands.apply("agents: {replicas: 1}");
    stands.is_ready();
    let nested = Nested::new(&BASE64_STANDARD.encode(stands.secret("kubeconfig")), 2);
    nested.write(&machine);
    let before = machine.made("name=stands");

    let killer = machine.door();
    operator.proxy.set_rule(move |request: &Request| {
        let killer = killer.clone();
        let creates = request.is("POST", "/containers/create") && request.path.contains("made-server-0");
        if creates { Fate::then(move |_| killer.kill9()) } else { Fate::Pass }
    });
    made.apply("");
    within(READY, "dockerd to be killed in the middle", || match machine.running("dockerd") {
        true => Err("it runs".to_owned()),
        false => Ok(()),
    });
    operator.proxy.set_rule(|_| Fate::Pass);
    let since = Timestamp::now();
    stands.becomes("Ready", "Unknown", "EngineUnavailable", READY);
    let starts = machine.start_again();
    story.tell(&format!("dockerd is back after {starts} start"));
    nested.is_as_before(&machine, since);
    story.tell(&format!("its nodes are back {:.1?} after the kill", age(since)));
    for tenant in [&stands, &made] {
        let took = tenant.becomes_ready();
        story.tell(&format!("{} is Ready after {took:.1?}", tenant.name));
    }
    assert_eq!(machine.made("name=stands"), before);
    assert_eq!(machine.made("name=made").len(), 2, "{:?}", machine.made("name=made"));
    machine.others_are_untouched();
    operator.ended_by_kills_only();
}

/// Host cluster, operator and two nested clusters are all on the machine. After an orderly stop all
/// comes back by itself, after a kill by `k3nest up`.
pub fn with_everything_inside() {
    let story = Story::new("docker_killed_operator_inside");
    let machine = machine(&story);
    let scratch = Scratch::new();
    let name = pick::name("inside");
    let file = scratch.file("host.yaml", &host_cluster(&name));
    let nest = Nest::new().env("K3NEST_CACHE", &scratch.path("cache"));
    let up = |only: &str| machine.nest(&nest, &["up", "--host-file", &file, "--only", only], UP).exits(0);
    let took = up("docker,host,operator").took;
    let kubeconfig = std::fs::read_to_string(scratch.path(&format!("cache/{name}.kubeconfig")));
    let host = Kubectl::new(&kubeconfig.expect("up has written it"));
    let ask = |args: &[&str]| machine.kubectl(&host, args);
    story.tell(&format!("host cluster and operator after {took:.1?}"));

    let clusters = [("first", "agents: {replicas: 1}", 2), ("second", "", 1)];
    let all = clusters.map(|(name, spec, _)| cluster(name, spec)).concat();
    ask(&["apply", "-f", &scratch.file("clusters.yaml", &all)]).ok();
    let wait = ["wait", "k3sclusters", "--all", "--for=condition=Ready", "--timeout=150s"];
    ask(&wait).ok();
    let nested = clusters.map(|(name, _, nodes)| {
        let secret = format!("{name}-kubeconfig");
        let text = ask(&["get", "secret", &secret, "-o", "jsonpath={.data.kubeconfig}"]).ok();
        Nested::new(&text, nodes)
    });
    nested.iter().for_each(|nested| nested.write(&machine));
    let before = machine.made("instance");
    assert_eq!(before.len(), 2 + 3 + 2, "{before:#?}");

    let all_is_back = |since: Timestamp| {
        within(READY, "the host cluster to be back", || machine.nodes_have_spoken_since(&host, 1, since));
        nested.iter().for_each(|nested| nested.is_as_before(&machine, since));
        within(READY, "every report to say Ready", || {
            ask(&[&wait[..4], &["--timeout=5s"]].concat()).result()
        });
        story.tell(&format!("all is back {:.1?} later", age(since)));
        assert_eq!(machine.made("instance"), before);
    };
    machine.terminate();
    let since = Timestamp::now();
    machine.start_again();
    all_is_back(since);

    machine.kill9();
    let since = Timestamp::now();
    let up_again = up("docker,host,operator");
    story.tell(&format!("killed, and up again in {:.1?}", up_again.took));
    up_again.complains("stale").complains("starting");
    all_is_back(since);

    ask(&["delete", "k3sclusters", "--all", "--timeout=100s"]).ok();
    machine.nest(&nest, &["down", "--yes", "--host-file", &file], UP).exits(0);
    assert_eq!(machine.made("instance"), Vec::<String>::new());
    machine.others_are_untouched();
}

fn age(since: Timestamp) -> Duration {
    Duration::try_from(Timestamp::now().duration_since(since)).unwrap_or_default()
}

fn cluster(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: k3nest.dev/v1alpha1\nkind: K3sCluster\nmetadata: {{name: {name}}}\nspec:\n  version: {VERSION}\n  {spec}\n---\n"
    )
}

fn host_cluster(name: &str) -> String {
    cluster(
        name,
        "servers: {volumes: [{target: /var/run/docker.sock, hostPath: /var/run/docker.sock}]}\n  k3s: {disable: [traefik, servicelb, local-storage, metrics-server]}",
    )
}
