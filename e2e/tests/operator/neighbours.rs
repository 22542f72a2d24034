//! Clusters of one name beside each other: in two namespaces, and one of the command line.

use std::thread;

use crate::{
    harness::{Cluster, Story, docker::docker, pick},
    space::Space,
    tenant::Tenant,
};

/// Three clusters of one name; two are deleted one by one, and the third notices nothing.
pub fn of_one_name() {
    let story = Story::new("neighbours");
    let name = pick::name("same");
    let (here, there) = (Space::new("here"), Space::new("there"));
    let (first, second) = (Tenant::new(&name, &here), Tenant::new(&name, &there));
    // In the same namespace by name, too: the command line has namespaces of its own.
    let own = Cluster::named(&name, &here.name);
    first.apply("");
    second.apply("");
    thread::scope(|scope| {
        let applied = scope.spawn(|| own.apply("").exits(0));
        first.is_ready();
        second.is_ready();
        applied.join().expect("the command line makes its own");
    });
    story.tell("two of the operator and one of the command line are Ready");

    let (untouched, of_the_cli) = (second.fingerprint(), containers(&own));
    first.delete(&story);
    assert_eq!(second.fingerprint(), untouched, "after the other was deleted");
    assert_eq!(containers(&own), of_the_cli, "after the operator's was deleted");
    let again = own.apply("").exits(0);
    again.complains("(unchanged)");
    own.delete(&story);
    assert_eq!(second.fingerprint(), untouched, "after the command line's was deleted");
    let nodes = second.kubectl().run(&["get", "nodes", "--no-headers"]).ok();
    assert!(nodes.contains(" Ready "), "{nodes}");
    story.tell("the third was not touched");
    second.delete(&story);
}

fn containers(cluster: &Cluster) -> Vec<String> {
    let format = "{{.Id}} {{.State.StartedAt}} {{.RestartCount}}";
    let names = cluster.objects("container");
    names.iter().map(|name| docker(&["inspect", "--format", format, name]).ok()).collect()
}
