use crate::harness::{Cluster, Nest, Story, nest::nest, proxy::Proxy};

/// A cluster comes up, and applying its file again asks Docker for nothing but looks.
pub fn apply_twice() {
    let story = Story::new("apply_twice");
    let cluster = Cluster::new("twice");
    let applied = cluster.apply("").exits(0).complains("Ready at https://127.0.0.1:");
    story.tell(&format!("Ready in {:.1?}", applied.took));

    let proxy = Proxy::new();
    let again = Nest::new().env("DOCKER_HOST", &proxy.url()).run(&["apply", "-f", &cluster.write("")]);
    again.exits(0).complains("(unchanged)");
    assert!(proxy.changes().is_empty(), "asked for: {:#?}", proxy.changes());
    story.tell(&format!("unchanged, in {} requests that only look", proxy.requests().len()));

    let nodes = cluster.kubectl().run(&["get", "nodes", "--no-headers"]).ok();
    assert!(nodes.contains(&format!("{} ", cluster.node())) && nodes.contains(" Ready "), "{nodes}");
    cluster.delete(&story);
}

/// Version, completion, help.
pub fn words() {
    nest(&["version"]).exits(0).prints("k3nest ");
    nest(&["completion", "bash"]).exits(0).prints("_k3nest()");
}
