//! Networks and ports that others have, too.

use std::net::TcpListener;

use crate::harness::{
    Cluster, Story,
    docker::{Foreign, inspected},
    nest::nest,
    pick,
};

/// A cluster joins a network that exists, and leaves it as it was.
pub fn joined_network() {
    let story = Story::new("joined_network");
    let loose = Foreign::network(&pick::name("loose"), None);
    let lost = Cluster::new("lost");
    lost.apply("network: {name: no-such-network}")
        .exits(4)
        .complains("Docker has no network no-such-network");
    lost.is_gone();
    let cluster = Cluster::new("join");
    let refused = cluster.apply(&format!("network: {{name: {}}}", loose.name)).exits(4);
    refused.complains("spec.network.name").complains("docker network create --subnet");
    nest(&["delete", &cluster.name]).exits(0);
    cluster.is_gone();
    story.tell("networks that are missing or without a range are refused");

    let prefix = pick::subnet();
    let network = Foreign::network(&pick::name("shared"), Some(&prefix));
    let neighbour = Foreign::container(&pick::name("inside"), &["--network", &network.name], &["sleep"]);
    let before = (network_facts(&network), neighbour.facts());
    cluster.apply(&format!("network: {{name: {}}}", network.name)).exits(0).complains("Ready at");
    assert!(cluster.objects("network").is_empty(), "it has no network of its own");
    let facts = inspected("container", &cluster.server());
    let address =
        facts["NetworkSettings"]["Networks"][&network.name]["IPAddress"].as_str().unwrap_or_default();
    assert!(address.starts_with(&format!("{prefix}.")), "{address} is not in {prefix}.0/24");
    let nodes = cluster.kubectl().run(&["get", "nodes", "-o", "wide"]).ok();
    assert!(nodes.contains(address), "{address} is not in\n{nodes}");
    cluster.delete(&story);
    assert_eq!((network_facts(&network), neighbour.facts()), before, "the network or its guest was touched");
    story.tell("the shared network and its other guest are as they were");
}

/// Without the list of its containers, which is not the network's own.
fn network_facts(network: &Foreign) -> String {
    let mut facts = inspected("network", &network.name);
    facts["Containers"] = serde_json::Value::Null;
    facts.to_string()
}

/// A port that is taken is named if it was asked for, and passed over if it was picked.
pub fn ports() {
    let story = Story::new("ports");
    let cluster = Cluster::new("ports");
    let taken = pick::port();
    let _process = TcpListener::bind(("127.0.0.1", taken)).expect("a free port");
    let apply = |spec: &str| nest(&["apply", "-f", &cluster.write(spec), "--timeout", "60s"]);
    let refused = apply(&format!("api: {{hostPort: {taken}}}")).exits(4).complains(&taken.to_string());
    refused.complains("hostPort");
    nest(&["delete", &cluster.name]);
    cluster.is_gone();

    let holder = pick::port();
    let publish = format!("127.0.0.1:{holder}:7000");
    let container = Foreign::container(&pick::name("holder"), &["-p", &publish], &["tcp-echo", ":7000"]);
    let spec = format!("api: {{hostPort: {holder}}}");
    apply(&spec).exits(4).complains("spec.api.hostPort").complains(&format!("container {}", container.name));
    let ports = format!("loadBalancer: {{ports: [{{hostIP: 127.0.0.1, hostPort: {holder}, port: 30080}}]}}");
    apply(&ports).exits(4).complains(&holder.to_string()).complains("hostPort");
    nest(&["delete", &cluster.name]);
    cluster.is_gone();
    story.tell("ports that are taken are refused, with who has them");

    let picked = picked_port(&cluster);
    let _other = TcpListener::bind(("127.0.0.1", picked)).expect("a free port");
    let applied = apply("").exits(0).complains("Ready at");
    assert!(!applied.stderr.contains(&format!("Ready at https://127.0.0.1:{picked} ")), "{applied}");
    story.tell(&format!(
        "{picked}, which it would have picked, is in use: {}",
        applied.stderr.lines().last().unwrap_or_default()
    ));
    cluster.kubectl().run(&["get", "--raw", "/readyz"]).exits(0).prints("ok");
    cluster.delete(&story);
}

/// The port that the cluster gets while nothing is in its way.
fn picked_port(cluster: &Cluster) -> u16 {
    nest(&["apply", "-f", &cluster.write(""), "--no-wait"]).exits(0);
    let list = nest(&["get", "clusters", &cluster.name, "-o", "json"]).ok();
    let list: serde_json::Value = serde_json::from_str(&list).expect("JSON");
    let endpoint = list["items"][0]["status"]["endpoint"].as_str().expect("an endpoint").to_owned();
    nest(&["delete", &cluster.name]).exits(0);
    endpoint.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port")
}
