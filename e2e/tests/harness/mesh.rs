//! A workload on the agents of a cluster, of which every Pod reaches every other.

use serde_json::Value;

use super::{Story, docker::TOOLS, eventually, kubectl::Kubectl};

/// How many Pods.
const REPLICAS: usize = 4;

/// The cluster has so many servers, each a voting member of etcd, and so many agents, all Ready.
#[track_caller]
pub fn is_whole(kubectl: &Kubectl, servers: usize, agents: usize) {
    let nodes: Value = serde_json::from_str(&kubectl.run(&["get", "nodes", "-o", "json"]).ok())
        .expect("kubectl prints JSON");
    let nodes = nodes["items"].as_array().cloned().unwrap_or_default();
    let is = |node: &Value, condition: &str| {
        let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|c| c["type"] == condition && c["status"] == "True")
    };
    let leads = |node: &Value| !node["metadata"]["labels"]["node-role.kubernetes.io/control-plane"].is_null();
    assert_eq!(nodes.iter().filter(|node| is(node, "Ready")).count(), servers + agents, "{nodes:#?}");
    assert_eq!(nodes.iter().filter(|node| leads(node)).count(), servers, "servers among the Nodes");
    // k3s sets this condition on its etcd members (https://docs.k3s.io/datastore/ha-embedded).
    let voters = nodes.iter().filter(|node| is(node, "EtcdIsVoter")).count();
    assert_eq!(voters, servers, "voting members of etcd");
}

/// A Deployment of four, never pulled, on the Nodes with the label `tier=work`.
#[track_caller]
pub fn works(story: &Story, kubectl: &Kubectl) {
    kubectl.apply(&manifests());
    kubectl.run(&["rollout", "status", "deployment/mesh", "--timeout=90s"]).ok();
    let pods = pods(kubectl);
    assert_eq!(pods.len(), REPLICAS, "{pods:?}");
    let mut nodes: Vec<&str> = pods.iter().map(|pod| pod.node.as_str()).collect();
    nodes.sort_unstable();
    nodes.dedup();
    for from in &pods {
        for to in &pods {
            let address = format!("{}:7000", to.address);
            let answer = ask(kubectl, &from.name, &address);
            assert_eq!(answer.trim(), format!("{}: hello", to.name), "{} asks {}", from.name, to.name);
        }
        let answer = ask(kubectl, &from.name, "mesh.default.svc.cluster.local:7000");
        assert!(
            pods.iter().any(|pod| answer.starts_with(&pod.name)),
            "{} asks the Service: {answer}",
            from.name
        );
    }
    story.tell(&format!(
        "each of {REPLICAS} Pods on {} reaches every other by address, and the Service by name",
        nodes.join(", ")
    ));
}

fn ask(kubectl: &Kubectl, pod: &str, address: &str) -> String {
    eventually(&format!("{pod} to get an answer from {address}"), || {
        kubectl.tools(pod, &["tcp-ask", address, "hello"]).result()
    })
}

#[derive(Debug)]
struct Pod {
    name: String,
    node: String,
    address: String,
}

fn pods(kubectl: &Kubectl) -> Vec<Pod> {
    let list: Value =
        serde_json::from_str(&kubectl.run(&["get", "pods", "-l", "app=mesh", "-o", "json"]).ok())
            .expect("kubectl prints JSON");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let pods = list["items"].as_array().cloned().unwrap_or_default();
    pods.iter()
        .map(|pod| Pod {
            name: text(&pod["metadata"]["name"]),
            node: text(&pod["spec"]["nodeName"]),
            address: text(&pod["status"]["podIP"]),
        })
        .collect()
}

fn manifests() -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: mesh}}
spec:
  replicas: {REPLICAS}
  selector: {{matchLabels: {{app: mesh}}}}
  template:
    metadata: {{labels: {{app: mesh}}}}
    spec:
      terminationGracePeriodSeconds: 1
      nodeSelector: {{tier: work}}
      topologySpreadConstraints:
      - {{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, labelSelector: {{matchLabels: {{app: mesh}}}}}}
      containers:
      - {{name: tools, image: {TOOLS}, imagePullPolicy: Never, args: [tcp-echo, ':7000']}}
---
apiVersion: v1
kind: Service
metadata: {{name: mesh}}
spec:
  selector: {{app: mesh}}
  ports: [{{port: 7000}}]
"
    )
}
