//! Two of something.

use crate::harness::{
    Cluster, Nest, Story,
    command::PATIENCE,
    docker::{inspect, inspected},
    pick,
};

/// Two processes that apply one file at the same moment make one cluster.
pub fn two_at_once() {
    let story = Story::new("two_at_once");
    let cluster = Cluster::new("once");
    let file = cluster.write("");
    let start = || Nest::new().start(&["apply", "-f", &file]);
    let (first, second) = (start(), start());
    for apply in [first.wait(PATIENCE), second.wait(PATIENCE)] {
        apply.exits(0).complains("Ready at");
    }
    cluster.is_whole();
    Nest::new().run(&["apply", "-f", &file]).exits(0).complains("(unchanged)");
    story.tell("two applies at once made one cluster, and nothing twice");
    let invalid = cluster.write("servers: {replicas: 4}");
    Nest::new().run(&["delete", "-f", &invalid]).exits(0);
    cluster.is_gone();
    story.tell("deleted by a file that could not be applied any more");
}

/// Clusters of one name in two namespaces know nothing of each other.
pub fn two_namespaces() {
    let story = Story::new("two_namespaces");
    let name = pick::name("twin");
    let (left, right) = (Cluster::named(&name, "team-a"), Cluster::named(&name, "team-b"));
    let both = format!("{}---\n{}", left.document(""), right.document(""));
    let file = left.scratch.file("both.yaml", &both);
    Nest::new().run(&["apply", "-f", &file]).exits(0);
    left.is_whole();
    right.is_whole();

    let alive = |cluster: &Cluster| {
        let started =
            |role: &str| inspected("container", &cluster.container(role))["State"]["StartedAt"].clone();
        let networks = cluster.objects("network");
        let names: Vec<&str> = networks.iter().map(String::as_str).collect();
        (
            cluster.all_objects(),
            cluster.id("server"),
            started("server"),
            started("loadbalancer"),
            inspect("network", &names),
        )
    };
    let before = alive(&right);
    right.kubectl().run(&["create", "configmap", "mine", "--from-literal=a=right"]).ok();
    left.kubectl().run(&["get", "configmap", "mine"]).exits(1).complains("NotFound");
    left.delete(&story);
    assert_eq!(alive(&right), before, "the other one was touched");
    assert_eq!(right.kubectl().get("configmap", "mine")["data"]["a"], "right");
    story.tell("one of two of the same name was deleted; the other went on");
    right.delete(&story);
}
