//! Changes to a living cluster, by its user and by accident.

use std::time::{Duration, Instant};

use crate::{
    harness::{
        Story,
        docker::{docker, remove_container},
        eventually, pick, within,
    },
    space::Space,
    tenant::Tenant,
};

/// How long a cluster may take to be Ready again after something of it was removed.
const HEALED: Duration = Duration::from_secs(90);

/// How long nothing has to happen to a cluster that is paused.
const PAUSED: Duration = Duration::from_secs(5);

/// The story.
pub fn of_a_living_cluster() {
    let story = Story::new("edits");
    let space = Space::new("edits");
    let tenant = Tenant::new("edits", &space);
    tenant.apply("");
    tenant.is_ready();
    tenant.kubectl().run(&["create", "configmap", "kept", "--from-literal=a=b"]).ok();

    let ports = a_port_more(&story, &tenant);
    labels_and_taints(&story, &tenant, &ports);
    paused(&story, &tenant, &ports);
    what_is_published(&story, &tenant);
    the_server_is_removed(&story, &tenant);
    tenant.delete(&story);
}

/// Only the load balancer has ports, so only it is made anew.
/// Returns that part of the spec.
fn a_port_more(story: &Story, tenant: &Tenant) -> String {
    let (server, balancer) = (tenant.id("server"), tenant.id("loadbalancer"));
    let port = pick::port();
    let ports = format!("loadBalancer: {{ports: [{{hostPort: {port}, port: 6443}}]}}\n");
    tenant.apply(&ports);
    tenant.is_ready();
    within(HEALED, "another load balancer", || differs(tenant, &balancer));
    assert_eq!(tenant.id("server"), server, "the server was replaced for a port");
    let published = docker(&["port", &tenant.container("loadbalancer")]).ok();
    assert!(published.contains(&format!(":{port}")), "{published}");
    tenant.kubectl().run(&["get", "configmap", "kept"]).ok();
    story.tell("a port more: the load balancer was replaced, the server was not");
    ports
}

fn differs(tenant: &Tenant, id: &str) -> Result<(), String> {
    let balancers = tenant.ids("loadbalancer");
    match balancers.as_slice() {
        [one] if one != id => Ok(()),
        other => Err(format!("{other:?}, {id} before")),
    }
}

/// Both are kept in step on the live Node: what is added comes, what is removed goes.
fn labels_and_taints(story: &Story, tenant: &Tenant, ports: &str) {
    let (server, kubectl) = (tenant.id("server"), tenant.kubectl());
    let node = || kubectl.get("node", &tenant.node());
    let label = |key: &str| node()["metadata"]["labels"][key].as_str().map(str::to_owned);
    let taints = || node()["spec"]["taints"].to_string();
    tenant.apply(&format!(
        "{ports}servers:
  labels: {{tier: gold, node-role.kubernetes.io/gold: 'true'}}
  taints: [{{key: busy, value: very, effect: PreferNoSchedule}}]"
    ));
    eventually("label and taint to come", || match (label("tier").as_deref(), taints()) {
        (Some("gold"), taints) if taints.contains("busy") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(label("node-role.kubernetes.io/gold").as_deref(), Some("true"));
    tenant.apply(&format!("{ports}servers: {{labels: {{tier: silver}}}}"));
    eventually("label and taint to go", || match (label("tier").as_deref(), taints()) {
        (Some("silver"), taints) if !taints.contains("busy") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(label("node-role.kubernetes.io/gold"), None);
    tenant.is_ready();
    assert_eq!(tenant.id("server"), server, "the server was replaced for a label");
    story.tell("labels and taints follow on the live Node");
}

/// A paused cluster is left alone, and healed afterwards.
fn paused(story: &Story, tenant: &Tenant, ports: &str) {
    tenant.apply(&format!("{ports}paused: true"));
    tenant.becomes("Paused", "True", "Paused", Duration::from_secs(10));
    remove_container(&tenant.container("loadbalancer"));
    std::thread::sleep(PAUSED);
    assert_eq!(tenant.ids("loadbalancer"), Vec::<String>::new(), "healed while paused");
    assert_ne!(tenant.condition("Ready").status, "True");
    tenant.apply(ports);
    tenant.is_ready();
    assert_eq!(tenant.ids("loadbalancer").len(), 1);
    tenant.kubectl().run(&["get", "configmap", "kept"]).ok();
    story.tell("paused: not healed; afterwards: healed");
}

/// What readers rely on is put right again when somebody spoils it.
fn what_is_published(story: &Story, tenant: &Tenant) {
    let (secret, service) = (format!("{}-kubeconfig", tenant.name), format!("{}-k3s-api", tenant.name));
    let slice = tenant.get("endpointslice", &service)["endpoints"].clone();
    for (kind, name, type_, patch) in [
        ("secret", &secret, "json", r#"[{"op": "remove", "path": "/data/value"}]"#),
        ("service", &service, "merge", r#"{"spec": {"ports": [{"name": "https", "port": 1}]}}"#),
        ("endpointslice", &service, "merge", r#"{"endpoints": [{"addresses": ["192.0.2.1"]}]}"#),
    ] {
        tenant.run(&["patch", kind, name, "--type", type_, "-p", patch]).ok();
    }
    eventually("what is published to be put right", || {
        let value = tenant.get("secret", &secret)["data"]["value"].is_string();
        let port = tenant.get("service", &service)["spec"]["ports"][0]["port"].clone();
        let endpoints = tenant.get("endpointslice", &service)["endpoints"].clone();
        let right = value && port == 6443 && endpoints == slice;
        if right { Ok(()) } else { Err(format!("value: {value}, port {port}, {endpoints}")) }
    });
    story.tell("Secret, Service and EndpointSlice are put right after others changed them");
}

/// Docker's events wake the operator, and the data is still there.
fn the_server_is_removed(story: &Story, tenant: &Tenant) {
    let server = tenant.id("server");
    let since = Instant::now();
    remove_container(&tenant.server());
    within(HEALED, "another server", || match tenant.ids("server").as_slice() {
        [one] if *one != server => Ok(()),
        other => Err(format!("{other:?}")),
    });
    // The report may still be the one from before.
    within(HEALED, "the nested API to answer with what was written before", || {
        tenant.kubectl().run(&["get", "configmap", "kept", "-o", "name"]).result()
    });
    tenant.is_ready();
    let took = since.elapsed();
    assert!(took < HEALED, "healed in {took:?}");
    story.tell(&format!("the server was removed by hand: Ready again in {took:.1?}, with its data"));
}
