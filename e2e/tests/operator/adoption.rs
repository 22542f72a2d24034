//! A resource that was lost and created again: what it left in Docker is its own again.

use std::time::Duration;

use serde_json::Value;

use crate::{
    harness::{Nest, Story, docker::remove_container, eventually, within},
    host::host,
    space::Space,
    tenant::{READY, Tenant},
};

/// How long the operator may take to see something.
const SEEN: Duration = Duration::from_secs(60);

/// The resource goes and its objects stay; created again with the annotation, it has the same
/// containers and data, keeps them, and takes them along when it goes.
pub fn of_a_lost_resource() {
    let story = Story::new("adoption");
    let space = Space::new("adopt");
    let tenant = Tenant::new("adopt", &space);
    tenant.apply("");
    tenant.is_ready();
    let (former, containers) = (tenant.uid(), ids(&tenant));
    tenant.kubectl().run(&["create", "configmap", "kept", "--from-literal=word=before"]).ok();

    // Given a resource that is gone while its objects stay: the operator is told that they are
    // elsewhere, waits, and is told to let go
    let status = r#"{"status": {"engineID": "e2e-another-engine"}}"#;
    tenant
        .run(&["patch", "k3scluster", &tenant.name, "--subresource=status", "--type=merge", "-p", status])
        .ok();
    tenant.run(&["delete", "k3scluster", &tenant.name, "--wait=false"]).ok();
    let ready = tenant.becomes("Ready", "False", "EngineMismatch", SEEN);
    assert!(ready.message.contains("e2e-another-engine"), "{ready:?}");
    assert_eq!(ids(&tenant), containers, "nothing is done on another engine");
    tenant.run(&["annotate", "k3scluster", &tenant.name, "k3nest.dev/abandon=true"]).ok();
    within(SEEN, "the resource to go", || {
        let found = tenant.run(&["get", "k3scluster", &tenant.name, "-o", "name"]);
        if found.stderr.contains("not found") { Ok(()) } else { Err(found.to_string()) }
    });
    assert_eq!(ids(&tenant), containers, "what was abandoned stays");
    let row = listed(&former);
    assert_eq!(
        (&row["name"], &row["state"]),
        (&Value::from(&*tenant.name), &Value::from("orphaned")),
        "{row}"
    );
    story.tell("the resource is gone, its objects are orphaned");

    // When it is created again, first with a mistake
    apply_adopting(&tenant, "dev");
    tenant.becomes("Stalled", "True", "AdoptionInvalid", SEEN);
    tenant
        .run(&["annotate", "--overwrite", "k3scluster", &tenant.name, &format!("k3nest.dev/adopt={former}")])
        .ok();
    tenant.becomes("Adopted", "True", "Adopted", READY);
    tenant.is_ready();
    // Then everything is as before, and belongs to the new resource
    let uid = tenant.uid();
    assert_ne!(uid, former);
    assert_eq!(ids(&tenant), containers, "after the adoption");
    let word = tenant.kubectl().run(&["get", "configmap", "kept", "-o", "jsonpath={.data.word}"]).ok();
    assert_eq!(word, "before");
    let secret = tenant.get("secret", &format!("{}-kubeconfig", tenant.name));
    assert_eq!(secret["metadata"]["ownerReferences"][0]["uid"], uid.as_str());
    let events = tenant.run(&["get", "events", "--field-selector", "reason=Adopted", "-o", "json"]).ok();
    let events: Value = serde_json::from_str(&events).expect("kubectl prints JSON");
    assert_eq!(events["items"].as_array().map(Vec::len), Some(1), "{events}");
    let row = listed(&former);
    assert_eq!(row["state"], "alive", "{row}");
    story.tell("adopted: the same containers and data");

    // And what happens to its objects is seen
    let balancer = tenant.container("loadbalancer");
    let before = tenant.id("loadbalancer");
    remove_container(&balancer);
    eventually("a new load balancer", || match tenant.ids("loadbalancer").as_slice() {
        [id] if *id != before => Ok(()),
        other => Err(format!("{other:?}")),
    });
    tenant.is_ready();
    assert_eq!(tenant.ids("server"), containers["server"], "after the load balancer was replaced");
    story.tell("a lost load balancer was made anew");

    // And goes with it
    tenant.delete(&story);
}

fn ids(tenant: &Tenant) -> std::collections::BTreeMap<&'static str, Vec<String>> {
    ["server", "loadbalancer"].into_iter().map(|role| (role, tenant.ids(role))).collect()
}

/// Applies the resource with the annotation from the start.
fn apply_adopting(tenant: &Tenant, uid: &str) {
    let name = format!("metadata: {{name: {}, ", tenant.name);
    let annotated = format!("{name}annotations: {{k3nest.dev/adopt: {uid:?}}}, ");
    let document = tenant.document("");
    assert!(document.contains(&name), "{document}");
    let file = tenant.scratch.file("adopting.yaml", &document.replace(&name, &annotated));
    tenant.run(&["apply", "-f", &file]).ok();
}

/// What prune says of an owner, once it has asked the host cluster, which it finds in Docker.
fn listed(owner: &str) -> Value {
    let nest = Nest::new().env("KUBECONFIG", "/nonexistent");
    within(SEEN, "prune to ask the host cluster", || {
        let text = nest.run(&["prune", "--instance", &host().instance, "-o", "json"]).ok();
        let list: Value = serde_json::from_str(&text).expect("-o json is JSON");
        let items = list["items"].as_array().cloned().unwrap_or_default();
        let found = items.into_iter().find(|item| item["owner"] == owner && item["state"] != "unknown");
        found.ok_or(text)
    })
}
