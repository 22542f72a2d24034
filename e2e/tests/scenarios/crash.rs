//! Clusters that cannot come up say why.

use std::time::Duration;

use crate::harness::{Cluster, Story, nest::nest, within};

/// A node that ends again and again is told by its last words, and can be deleted.
pub fn crash_loop() {
    let story = Story::new("crash_loop");
    let cluster = Cluster::new("crash");
    let file = cluster.write("servers: {args: [--no-such-flag=1]}");
    let apply = nest(&["apply", "-f", &file, "--timeout", "15s"]).exits(3);
    let apply =
        apply.complains("not Ready after 15s").complains("no-such-flag").complains("spec.servers.args");
    assert!(apply.took < Duration::from_secs(20), "{apply}");
    story.tell(apply.stderr.lines().last().unwrap_or_default());

    // Between two tries Docker calls the container running.
    within(Duration::from_secs(20), "the reason in the list", || {
        let wide = nest(&["get", "clusters", &cluster.name, "-o", "wide"]).exits(0).stdout;
        if wide.contains("NodeCrashLooping") && wide.contains("no-such-flag") { Ok(()) } else { Err(wide) }
    });
    cluster.delete(&story);
}

/// An image that cannot be had is named, at once.
pub fn missing_image() {
    let story = Story::new("missing_image");
    let cluster = Cluster::new("image");
    let file = cluster.write("image: localhost:1/no/such-image");
    let apply = nest(&["apply", "-f", &file]).exits(4);
    let apply =
        apply.complains("image localhost:1/no/such-image:v1.36.1-k3s1 cannot be had").complains("spec.image");
    assert!(apply.took < Duration::from_secs(20), "{apply}");
    story.tell(apply.stderr.lines().last().unwrap_or_default());
    nest(&["delete", &cluster.name]);
    cluster.is_gone();
}
