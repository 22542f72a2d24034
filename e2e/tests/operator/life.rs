//! A cluster from `kubectl apply` to `kubectl delete`: what its readers get, inside and outside.

use std::{collections::BTreeSet, thread, time::Duration};

use serde_json::Value;

use crate::{
    echo,
    harness::{
        Story,
        docker::{Foreign, TOOLS, docker, inspected},
        eventually,
        kubectl::Kubectl,
        pick,
    },
    host::host,
    secrets, served,
    space::Space,
    tenant::Tenant,
};

/// How long a cluster with nothing to do is watched.
const IDLE: Duration = Duration::from_secs(30);

/// A file of the node whose content is in a ConfigMap.
const NOTE: &str = "/etc/e2e-note";

/// The story.
pub fn from_apply_to_delete() {
    let story = Story::new("life");
    let space = Space::new("life");
    let tenant = Tenant::new("life", &space);
    let token = format!("{:032x}", rand::random::<u128>());
    space.apply(&inputs(&token));
    let (tcp, udp) = (pick::port(), pick::port());
    tenant.apply(&format!(
        "tokenSecretRef: {{name: seed, key: token}}
servers: {{files: [{{path: {NOTE}, contentFrom: {{configMapKeyRef: {{name: settings, key: note}}}}}}]}}
loadBalancer:
  ports:
  - {{name: tcp, hostPort: {tcp}, port: {}}}
  - {{name: udp, hostPort: {udp}, port: {}, protocol: UDP}}",
        echo::TCP_NODE_PORT,
        echo::UDP_NODE_PORT
    ));
    let took = tenant.is_ready();
    story.tell(&format!("Ready in {took:.1?}"));

    columns(&tenant);
    let note = docker(&["cp", &format!("{}:{NOTE}", tenant.server()), "-"]).ok();
    assert!(note.contains("from a ConfigMap"), "{NOTE} is not what the ConfigMap says");
    has_no_anonymous_volume(&tenant);
    let kubectl = tenant.kubectl();
    let nodes = kubectl.run(&["get", "nodes", "--no-headers"]).ok();
    assert!(nodes.contains(&tenant.node()) && nodes.contains(" Ready "), "{nodes}");
    story.tell("the Secret's kubeconfig works on the Docker host");
    works_from_a_pod(&space, &tenant);
    story.tell("the Secret's value works from a Pod of the host cluster, certificate verified");

    tenant.import(TOOLS);
    echo::serve(&kubectl);
    echo::answers(tcp, udp);
    story.tell("a Deployment answers on the Docker host over TCP, a Pod over UDP");
    names_resolve(&tenant, &kubectl);
    story.tell("names resolve in Pods: the cluster's, and those that only Docker knows");

    served::health_and_metrics(&story);
    secrets::are_nowhere(&story, &tenant, &token);
    stays_silent(&tenant);
    story.tell(&format!("{IDLE:?} without a write"));

    tenant.delete(&story);
    eventually("what was published to go", || {
        let left = space.run(&["get", "secret,service,endpointslice", "-o", "name"]).stdout;
        let ours: Vec<&str> = left.lines().filter(|name| name.contains("/life-")).collect();
        if ours.is_empty() { Ok(()) } else { Err(ours.join(" ")) }
    });
}

/// What the spec refers to.
fn inputs(token: &str) -> String {
    format!(
        "apiVersion: v1
kind: Secret
metadata: {{name: seed}}
stringData: {{token: {token}}}
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: settings}}
data: {{note: from a ConfigMap}}
"
    )
}

/// What `kubectl get` shows.
fn columns(tenant: &Tenant) {
    let table = tenant.run(&["get", "k3c", "-o", "wide"]).ok();
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["NAME", "VERSION", "PHASE", "SERVERS", "AGENTS", "ENDPOINT", "AGE"]);
    let status = &tenant.object()["status"];
    let endpoint = status["endpoint"].as_str().unwrap_or_default();
    assert_eq!(rows[1][..6], ["life", crate::harness::nest::VERSION, "Running", "1/1", "0/0", endpoint]);
    let internal = format!("https://life-k3s-api.{}.svc:6443", tenant.namespace);
    assert_eq!(status["internalEndpoint"], internal.as_str());
    assert_eq!(status["kubeconfigSecretRef"]["name"], "life-kubeconfig");
    for (type_, wanted) in [
        ("Ready", "True"),
        ("Available", "True"),
        ("Reconciling", "False"),
        ("Stalled", "False"),
        ("Paused", "False"),
        ("HostCompatible", "True"),
    ] {
        let condition = tenant.condition(type_);
        assert_eq!(condition.status, wanted, "{type_}: {condition:?}");
    }
}

/// Every volume that a container of it mounts has a name of ours, so it goes with the cluster.
fn has_no_anonymous_volume(tenant: &Tenant) {
    let named: BTreeSet<String> = tenant.objects("volume").into_iter().collect();
    for container in tenant.objects("container") {
        let facts = inspected("container", &container);
        for mount in facts["Mounts"].as_array().into_iter().flatten() {
            let known =
                mount["Type"] != "volume" || named.contains(mount["Name"].as_str().unwrap_or_default());
            assert!(known, "{container} mounts {mount}, which is no volume of ours");
        }
    }
}

/// The address and the credentials under key `value` work where they are meant to.
fn works_from_a_pod(space: &Space, tenant: &Tenant) {
    let secret = tenant.get("secret", "life-kubeconfig");
    assert_eq!(secret["type"], "cluster.x-k8s.io/secret");
    assert_eq!(secret["metadata"]["labels"]["cluster.x-k8s.io/cluster-name"], "life");
    let value: Value = serde_saphyr::from_str(&tenant.secret("value")).expect("a kubeconfig");
    let cluster = &value["clusters"][0]["cluster"];
    let (server, name) = (cluster["server"].as_str(), cluster["tls-server-name"].as_str());
    let (server, name) = (server.expect("a server"), name.expect("a server name"));
    assert_eq!(server, tenant.secret("internal-server"));
    assert_eq!(cluster["certificate-authority-data"], base64(&tenant.secret("ca.crt")));
    let user = &value["users"][0]["user"];
    assert_eq!(user["client-certificate-data"], base64(&tenant.secret("tls.crt")));
    assert_eq!(user["client-key-data"], base64(&tenant.secret("tls.key")));

    space.apply(&format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: reader}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: tools
    image: {TOOLS}
    imagePullPolicy: Never
    args: [sleep]
    volumeMounts: [{{name: access, mountPath: /access}}]
  volumes: [{{name: access, secret: {{secretName: life-kubeconfig}}}}]
"
    ));
    space.run(&["wait", "pod/reader", "--for=condition=Ready", "--timeout=60s"]).ok();
    let get = |url: &str, name: &str| {
        let url = format!("{server}{url}");
        let tls = ["--cacert", "/access/ca.crt", "--cert", "/access/tls.crt", "--key", "/access/tls.key"];
        let tool = ["exec", "reader", "--", "/bin/tools", "get", &url, "--server-name", name];
        space.run(&[&tool[..], &tls].concat())
    };
    let answer = eventually("the nested API to answer a Pod", || get("/readyz", name).result());
    assert_eq!(answer.split_whitespace().collect::<Vec<_>>(), ["200", "ok"]);
    assert!(get("/api/v1/nodes", name).ok().contains(&tenant.node()), "the Pod is not an administrator");
    get("/readyz", "other.example.com").exits(1).complains("certificate");
}

fn base64(text: &str) -> Value {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    Value::from(BASE64_STANDARD.encode(text))
}

/// Names of the nested cluster, and of the network that its nodes are in.
fn names_resolve(tenant: &Tenant, kubectl: &Kubectl) {
    let address = |name: &str| {
        let found = eventually(&format!("{name} to resolve in a Pod"), || {
            kubectl.tools("udp", &["resolve", name]).result()
        });
        found.trim().to_owned()
    };
    assert_eq!(address("kubernetes.default.svc.cluster.local"), "10.43.0.1");
    let network = tenant.objects("network").remove(0);
    let neighbour = Foreign::container(&pick::name("neighbour"), &["--network", &network], &["sleep"]);
    let facts = inspected("container", &neighbour.name);
    let known = facts["NetworkSettings"]["Networks"][&network]["IPAddress"].as_str().unwrap_or_default();
    assert_eq!(address(&neighbour.name), known);
}

/// Where nothing happens nothing is written: neither the resource nor an Event.
fn stays_silent(tenant: &Tenant) {
    let looked = || {
        let version = tenant.object()["metadata"]["resourceVersion"].to_string();
        (version, tenant.run(&["get", "events", "-o", "name"]).ok(), tenant.fingerprint())
    };
    let before = looked();
    thread::sleep(IDLE);
    let now = looked();
    assert_eq!(before, now, "something was written; the operator's log:\n{}", host().operator_log());
}
