//! The life of one cluster, with everything in its specification that can be told apart from
//! outside. The chapters share it, since making one takes longer than all they do.

use crate::harness::{
    Cluster, Nest, Story,
    docker::{Foreign, labelled},
    nest::nest,
    pick,
    proxy::Proxy,
};

use super::{edits, looks, node, secrets, workload};

/// What the cluster is to be; chapters change it and apply it again.
pub struct Wish {
    pub cluster: Cluster,
    pub token: String,
    pub in_env: String,
    pub in_file: String,
    pub ports: Vec<(u16, u16, &'static str)>,
    pub args: Vec<&'static str>,
    pub labels: &'static str,
    pub taints: &'static str,
    /// Further lines.
    pub more: String,
}

impl Wish {
    fn new() -> Self {
        let secret = |what: &str| format!("{what}-{:032x}", rand::random::<u128>());
        Self {
            cluster: Cluster::new("life"),
            token: secret("token"),
            in_env: secret("env"),
            in_file: secret("file"),
            ports: vec![
                (pick::port(), workload::TCP_NODE_PORT, "TCP"),
                (pick::port(), workload::UDP_NODE_PORT, "UDP"),
            ],
            args: Vec::new(),
            labels: "example.com/tier: one, node-role.kubernetes.io/e2e: 'true'",
            taints: "{key: example.com/quiet, value: a, effect: PreferNoSchedule}",
            more: String::new(),
        }
    }

    /// Writes the file and returns its path.
    pub fn file(&self) -> String {
        let ports: Vec<String> = self
            .ports
            .iter()
            .map(|(host, node, protocol)| {
                format!("{{hostIP: 127.0.0.1, hostPort: {host}, port: {node}, protocol: {protocol}}}")
            })
            .collect();
        let spec = format!(
            "tokenSecretRef: {{name: life, key: token}}
servers:
  args: {:?}
  labels: {{{}}}
  taints: [{}]
  env: [{{name: E2E_SECRET, valueFrom: {{secretKeyRef: {{name: life, key: env}}}}}}]
  files: [{{path: /etc/e2e/secret, mode: '0600', contentFrom: {{secretKeyRef: {{name: life, key: file}}}}}}]
loadBalancer: {{ports: [{}]}}
{}",
            self.args,
            self.labels,
            self.taints,
            ports.join(", "),
            self.more,
        );
        let data = [("token", &*self.token), ("env", &*self.in_env), ("file", &*self.in_file)];
        self.cluster.write_with(&spec, &self.cluster.secret("life", &data))
    }

    /// Applies the file and returns what that said.
    #[track_caller]
    pub fn apply(&self) -> String {
        nest(&["apply", "-f", &self.file()]).exits(0).complains("Ready at https://127.0.0.1:").stderr
    }
}

/// A cluster from before its birth to after its end.
pub fn life() {
    let story = Story::new("life");
    let mut wish = Wish::new();

    diff_before_birth(&story, &wish);
    let said = wish.apply();
    story.tell(&format!("born: {}", said.lines().last().unwrap_or_default()));
    a_second_apply_only_looks(&story, &wish);
    workload::answers_and_resolves(&story, &wish);
    looks::every_format(&story, &wish.cluster);
    looks::kubeconfig_files(&story, &wish.cluster);
    secrets::are_nowhere(&story, &wish, &said);
    node::labels_and_taints(&story, &mut wish);
    edits::load_balancer_alone(&story, &mut wish);
    edits::server_alone(&story, &mut wish);
    edits::paused(&story, &mut wish);
    edits::refused(&story, &mut wish);
    a_guest_in_the_network_is_named(&story, &wish.cluster);
    wish.cluster.delete(&story);
    nest(&["delete", &wish.cluster.name]).exits(4).complains("not found");
    looks::kubeconfig_of_the_dead(&wish.cluster);
}

fn diff_before_birth(story: &Story, wish: &Wish) {
    story.tell("diff lists what apply would make, and makes nothing");
    let proxy = Proxy::new();
    let diff = Nest::new().env("DOCKER_HOST", &proxy.url()).run(&["diff", "-f", &wish.file()]).exits(1);
    for text in ["to do", "create network k3nest-", "create volume k3nest-", "run container k3nest-"] {
        assert!(diff.stdout.contains(text), "expected {text:?} in {diff}");
    }
    assert!(proxy.changes().is_empty(), "diff asked for {:#?}", proxy.changes());
    wish.cluster.is_gone();
}

fn a_second_apply_only_looks(story: &Story, wish: &Wish) {
    let proxy = Proxy::new();
    let through = Nest::new().env("DOCKER_HOST", &proxy.url());
    let again = through.run(&["apply", "-f", &wish.file()]);
    again.exits(0).complains("(unchanged)");
    through.run(&["diff", "-f", &wish.file()]).exits(0).prints("no changes");
    assert!(proxy.changes().is_empty(), "asked for {:#?}", proxy.changes());
    story.tell(&format!(
        "a second apply and a diff change nothing: {} requests, all GET",
        proxy.requests().len()
    ));
}

fn a_guest_in_the_network_is_named(story: &Story, cluster: &Cluster) {
    story.tell("delete waits for a container of somebody else's in its network, and names it");
    let network = labelled("network", &cluster.labels()).remove(0);
    let guest = Foreign::container(&pick::name("guest"), &["--network", &network], &["sleep"]);
    nest(&["delete", &cluster.name, "--timeout", "3s"])
        .exits(3)
        .complains(&format!("network {network} is used by {}", guest.name))
        .complains("docker network disconnect");
}
