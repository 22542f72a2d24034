//! Labels and taints of the Node, kept in step on a living one.

use serde_json::{Value, json};

use crate::harness::Story;

use super::life::Wish;

/// They are there after the first apply; a change is brought in step without replacing anything;
/// what others put there stays.
pub fn labels_and_taints(story: &Story, wish: &mut Wish) {
    let kubectl = wish.cluster.kubectl();
    let name = wish.cluster.node();
    let labels = |node: &Value, key: &str| node["metadata"]["labels"][key].clone();
    let taint = |key: &str, value: &str| json!({"key": key, "value": value, "effect": "PreferNoSchedule"});
    let taints = |node: &Value| node["spec"]["taints"].as_array().cloned().unwrap_or_default();

    let node = kubectl.get("node", &name);
    assert_eq!(labels(&node, "example.com/tier"), "one");
    assert_eq!(labels(&node, "node-role.kubernetes.io/e2e"), "true", "a label that kubelets may not set");
    assert!(taints(&node).contains(&taint("example.com/quiet", "a")), "{:?}", taints(&node));

    let ids = (wish.cluster.id("server"), wish.cluster.id("loadbalancer"));
    kubectl.run(&["taint", "node", &name, "foreign=yes:PreferNoSchedule"]).ok();
    kubectl.run(&["label", "node", &name, "foreign=yes"]).ok();
    wish.labels = "example.com/tier: two, example.com/new: 'yes'";
    wish.taints = "{key: example.com/other, value: b, effect: PreferNoSchedule}";
    wish.apply();

    let node = kubectl.get("node", &name);
    assert_eq!(labels(&node, "example.com/tier"), "two");
    assert_eq!(labels(&node, "example.com/new"), "yes");
    assert_eq!(labels(&node, "foreign"), "yes");
    assert_eq!(labels(&node, "node-role.kubernetes.io/e2e"), Value::Null, "a label that is no longer wanted");
    let found = taints(&node);
    assert!(found.contains(&taint("example.com/other", "b")), "{found:?}");
    assert!(found.contains(&taint("foreign", "yes")), "{found:?}");
    assert!(!found.contains(&taint("example.com/quiet", "a")), "{found:?}");
    assert_eq!(ids, (wish.cluster.id("server"), wish.cluster.id("loadbalancer")), "nothing is replaced");

    kubectl.run(&["label", "node", &name, "example.com/new-"]).ok();
    wish.cluster.verb(&["get", "clusters"]).exits(0);
    assert_eq!(
        labels(&kubectl.get("node", &name), "example.com/new"),
        Value::Null,
        "get must change nothing"
    );
    wish.apply();
    assert_eq!(labels(&kubectl.get("node", &name), "example.com/new"), "yes");
    story.tell("labels and taints are in step on the living Node; foreign ones stay");
}
