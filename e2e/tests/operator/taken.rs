//! Names that somebody else has: in Docker and in the namespace. They are left alone to the byte,
//! and a condition names them.

use std::time::Duration;

use serde_json::Value;

use crate::{
    harness::{
        Story,
        docker::{Foreign, docker},
        pick, within,
    },
    host::host,
    space::Space,
    tenant::Tenant,
};

/// How long a condition may take.
const SOON: Duration = Duration::from_secs(30);

/// What the cluster will be called in Docker is known once it has a uid; so each cluster is created
/// paused, its name is taken, and then it may go.
pub fn in_docker() {
    let story = Story::new("taken_in_docker");
    let space = Space::new("taken");
    let kinds = ["container", "volume", "network"];
    let tenants: Vec<Tenant> = kinds.iter().map(|kind| Tenant::new(&format!("no-{kind}"), &space)).collect();
    tenants.iter().for_each(|tenant| tenant.apply("paused: true"));
    let foreign: Vec<Foreign> =
        kinds.iter().zip(&tenants).map(|(kind, tenant)| take(kind, &name_of(kind, tenant), &[])).collect();
    // Names and labels almost like ours, and another one's.
    let alike: Vec<Foreign> = kinds
        .iter()
        .zip(&tenants)
        .map(|(kind, tenant)| {
            let owner = format!("--label=k3nest.dev/owner={}", tenant.uid());
            let name = format!("--label=k3nest.dev/name={}", tenant.name);
            take(kind, &format!("{}0", name_of(kind, tenant)), &[&owner, &name])
        })
        .collect();
    let facts = || -> Vec<String> { foreign.iter().chain(&alike).map(Foreign::facts).collect() };
    let before = facts();

    tenants.iter().for_each(|tenant| tenant.apply("paused: false"));
    for ((kind, tenant), foreign) in kinds.iter().zip(&tenants).zip(&foreign) {
        let stalled = tenant.becomes("Stalled", "True", "NameTaken", SOON);
        let named = stalled.message.contains(&foreign.name) && stalled.message.contains("rename or remove");
        assert!(named, "{kind}: {stalled:?}");
        story.tell(&format!("{kind}: {}", stalled.message));
    }
    for tenant in &tenants {
        tenant.delete(&story);
    }
    assert_eq!(facts(), before);
}

fn name_of(kind: &str, tenant: &Tenant) -> String {
    let uid = tenant.uid();
    let what = match kind {
        "container" => format!("{}-server-0", tenant.name),
        "volume" => format!("{}-server-0-data", tenant.name),
        _ => tenant.name.clone(),
    };
    format!("k3nest-{}-{what}-{}", tenant.namespace, &uid[..8])
}

fn take(kind: &'static str, name: &str, options: &[&str]) -> Foreign {
    let range = format!("--subnet={}.0/24", pick::subnet());
    let command: Vec<&str> = match kind {
        "container" => return Foreign::container(name, options, &["sleep"]),
        "network" => [&["network", "create", &range], options, &[name]].concat(),
        _ => [&["volume", "create"], options, &[name]].concat(),
    };
    docker(&command).ok();
    Foreign { kind, name: name.into() }
}

/// A Secret and a Service that are not ours are never overwritten.
pub fn in_the_namespace() {
    let story = Story::new("taken_in_namespace");
    let space = Space::new("mine");
    space.apply(
        "apiVersion: v1
kind: Secret
metadata: {name: a-kubeconfig}
stringData: {value: somebody's own}
---
apiVersion: v1
kind: Service
metadata: {name: b-k3s-api}
spec: {ports: [{port: 1234}], clusterIP: None}
",
    );
    let version = |kind: &str, name: &str| -> Value {
        let text = host().run(&space.name, &["get", kind, name, "-o", "json"]).ok();
        let object: Value = serde_json::from_str(&text).expect("kubectl prints JSON");
        object["metadata"]["resourceVersion"].clone()
    };
    let versions = || [version("secret", "a-kubeconfig"), version("service", "b-k3s-api")];
    let before = versions();
    let (a, b) = (Tenant::new("a", &space), Tenant::new("b", &space));
    a.apply("");
    b.apply("");
    for (tenant, object) in [(&a, "Secret a-kubeconfig"), (&b, "Service b-k3s-api")] {
        let stalled = tenant.becomes("Stalled", "True", "NameTaken", SOON);
        assert!(stalled.message.contains(object), "{stalled:?}");
        assert_eq!(tenant.condition("Ready").reason, "NameTaken");
        story.tell(&stalled.message);
    }
    assert_eq!(space.objects(), Vec::<String>::new(), "made for what cannot be published");

    b.delete(&story);
    assert_eq!(versions(), before);
    space.run(&["delete", "secret", "a-kubeconfig"]).ok();
    within(SOON, "the cluster to be made after all", || match a.condition("Stalled") {
        stalled if stalled.status == "False" => Ok(()),
        stalled => Err(format!("{stalled:?}")),
    });
    story.tell("once the Secret is out of the way the cluster is made at once");
    a.delete(&story);
}
