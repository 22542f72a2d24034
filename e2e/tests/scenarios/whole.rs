//! Clusters of several servers and agents.

use std::{thread, time::Instant};

use serde_json::Value;

use crate::harness::{
    Cluster, Story,
    docker::{Foreign, TOOLS, inspected, labelled},
    eventually, mesh,
    nest::nest,
    pick,
};

use super::workload::ask_tcp;

/// Three servers and two agents with a workload, then a third agent.
pub fn three_and_two() {
    let story = Story::new("three_and_two");
    let cluster = Cluster::new("whole");
    let forwarded = pick::port();
    let spec = |agents: u32| {
        format!(
            "servers: {{replicas: 3}}
agents: {{replicas: {agents}, labels: {{tier: work}}}}
images: [{TOOLS}]
loadBalancer: {{ports: [{{hostIP: 127.0.0.1, hostPort: {forwarded}, port: 30070, to: Agents}}]}}"
        )
    };
    let born = cluster.apply(&spec(2)).exits(0).complains("Ready at");
    story.tell(&format!("born: {}", born.stderr.lines().last().unwrap_or_default()));
    let kubectl = cluster.kubectl();
    mesh::is_whole(&kubectl, 3, 2);
    story.tell("3 servers vote, 2 agents work");
    mesh::works(&story, &kubectl);

    kubectl.apply(
        "apiVersion: v1
kind: Service
metadata: {name: outside}
spec:
  type: NodePort
  externalTrafficPolicy: Cluster
  selector: {app: mesh}
  ports: [{port: 7000, nodePort: 30070}]
",
    );
    eventually("an answer through the load balancer", || ask_tcp(forwarded, "hello"));

    let before = ids(&cluster);
    cluster.apply(&spec(3)).exits(0).complains("Ready at");
    let after = ids(&cluster);
    assert!(before.iter().all(|id| after.contains(id)), "growing replaced a container: {before:?} {after:?}");
    assert_eq!(after.len(), before.len() + 1);
    mesh::is_whole(&kubectl, 3, 3);
    let newest = address(&format!("{}-agent-2", cluster.name), &cluster);
    let conf = crate::harness::docker::docker(&[
        "cp",
        &format!("{}:/etc/nginx/k3nest.conf", cluster.container("loadbalancer")),
        "-",
    ]);
    assert!(conf.stdout.contains(&newest), "the load balancer does not lead to {newest}");
    eventually("an answer through the load balancer", || ask_tcp(forwarded, "hello"));
    story.tell("a third agent joined, and nothing was replaced; the load balancer leads to it, too");

    nest(&["apply", "-f", &cluster.write(&spec(1))])
        .exits(2)
        .complains("spec.agents.replicas")
        .complains("put the former number back");
    nest(&["apply", "-f", &cluster.write("servers: {replicas: 1}\nagents: {replicas: 3}")])
        .exits(2)
        .complains("spec.servers.replicas: cannot be changed after creation");
    assert_eq!(ids(&cluster), after, "a refused edit touched something");
    cluster.delete(&story);
}

fn ids(cluster: &Cluster) -> Vec<String> {
    let mut ids: Vec<String> = labelled("container", &cluster.labels())
        .iter()
        .map(|name| inspected("container", name)["Id"].as_str().unwrap_or_default().to_owned())
        .collect();
    ids.sort();
    ids
}

/// Address of a node in the network of its cluster.
fn address(node: &str, cluster: &Cluster) -> String {
    let network = cluster.objects("network").remove(0);
    let containers = labelled("container", &cluster.labels());
    let container = containers.iter().find(|name| name.contains(node)).expect("its container");
    let facts: Value = inspected("container", container);
    facts["NetworkSettings"]["Networks"][&network]["IPAddress"].as_str().unwrap_or_default().to_owned()
}

/// How many clusters are made at once.
const AT_ONCE: usize = 5;

/// Five clusters, made at the same moment.
pub fn five_at_once() {
    let story = Story::new("five_at_once");
    let clusters: Vec<Cluster> = (0..AT_ONCE).map(|_| Cluster::new("five")).collect();
    let begun = Instant::now();
    thread::scope(|scope| {
        for cluster in &clusters {
            scope.spawn(|| cluster.apply("").exits(0).complains("Ready at"));
        }
    });
    story.tell(&format!("{AT_ONCE} clusters are Ready after {:.1?}", begun.elapsed()));
    let networks: Vec<String> = clusters
        .iter()
        .map(|cluster| {
            inspected("network", &cluster.objects("network")[0])["IPAM"]["Config"][0]["Subnet"].to_string()
        })
        .collect();
    for (i, network) in networks.iter().enumerate() {
        assert!(!networks[..i].contains(network), "two clusters have {network}");
    }
    clusters.iter().for_each(|cluster| {
        cluster.kubectl().run(&["get", "--raw", "/readyz"]).exits(0).prints("ok");
    });
    thread::scope(|scope| {
        for cluster in &clusters {
            scope.spawn(|| cluster.delete(&story));
        }
    });
}

/// What docker run can say about a node: ports, limits of processes, lines of /etc/hosts, name
/// servers.
pub fn settings() {
    let story = Story::new("settings");
    let cluster = Cluster::new("settings");
    let port = pick::port();
    let spec = format!(
        "agents:
  replicas: 1
  ports: [{{hostIP: 127.0.0.1, hostPort: {port}, port: 10256}}]
  ulimits: [{{name: nofile, soft: 4096, hard: 8192}}]
  hostAliases: [{{ip: 192.0.2.7, hostnames: [registry.example.com]}}, {{ip: host-gateway, hostnames: [host.docker.internal]}}]
dns: {{servers: [192.0.2.53]}}"
    );
    cluster.apply(&spec).exits(0).complains("Ready at");
    let agent = inspected("container", &cluster.container("agent"));
    let host = &agent["HostConfig"];
    assert_eq!(host["Ulimits"][0]["Soft"], 4096, "{host}");
    assert_eq!(host["ExtraHosts"][0], "registry.example.com:192.0.2.7", "{host}");
    assert_eq!(host["Dns"][0], "192.0.2.53", "{host}");
    let balancer = inspected("container", &cluster.container("loadbalancer"));
    assert_eq!(balancer["HostConfig"]["Dns"][0], "192.0.2.53");
    // kube-proxy's health port, as an example of what listens on a node.
    let hosts = std::fs::read_to_string(agent["HostsPath"].as_str().expect("a path")).expect("readable");
    assert!(hosts.contains("192.0.2.7\tregistry.example.com"), "{hosts}");
    assert_eq!(host["PortBindings"]["10256/tcp"][0]["HostPort"], port.to_string().as_str(), "{host}");
    story.tell("ports, ulimits, host aliases and name servers are the node container's");

    let taken = pick::port();
    let publish = format!("127.0.0.1:{taken}:7000");
    let holder = Foreign::container(&pick::name("holder"), &["-p", &publish], &["tcp-echo", ":7000"]);
    let other = Cluster::new("settings");
    other
        .apply(&format!(
            "agents: {{replicas: 1, ports: [{{hostIP: 127.0.0.1, hostPort: {taken}, port: 80}}]}}"
        ))
        .exits(4)
        .complains("spec.agents.ports[0].hostPort")
        .complains(&format!("in use by container {}", holder.name));
    story.tell("a port of a node that is taken is named, with who has it");
    cluster.delete(&story);
}
