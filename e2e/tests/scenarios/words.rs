//! What needs no cluster: versions, completion, exit codes, messages.

use std::time::Duration;

use crate::harness::{
    Nest,
    nest::nest,
    pick,
    pick::Scratch,
    proxy::{Fate, Proxy},
};

/// Words and exit codes.
pub fn words() {
    nest(&["version"]).exits(0).prints("k3nest ");
    nest(&["--version"]).exits(0).prints("k3nest ");
    nest(&["completion", "bash"]).exits(0).prints("_k3nest()");
    nest(&["crds"]).exits(0).prints("kind: CustomResourceDefinition");
    nest(&["--help"]).exits(0).prints("Exit codes:");
    nest(&["no-such-verb"]).exits(2);
    nest(&["apply"]).exits(2).complains("--filename");
    nest(&["apply", "-f", "/no/such/file"]).exits(2).complains("/no/such/file cannot be read");
    nest(&["delete", &pick::name("none")]).exits(4).complains("not found").complains("k3nest get clusters");

    let scratch = Scratch::new();
    nest(&["apply", "-f", &scratch.file("empty.yaml", "")]).exits(2).complains("no K3sCluster in");
    nest(&["apply", "-f", &scratch.file("broken.yaml", "a: [b")]).exits(2).complains("is not YAML");
    let input = "kind: Pod\napiVersion: v1\nmetadata: {name: x}\n";
    Nest::new().run_with_input(&["apply", "-f", "-"], input).exits(2).complains("write k3nest.dev/v1alpha1");

    docker_is_away(&scratch);
}

/// Each way of not reaching Docker says what to do, at once.
fn docker_is_away(scratch: &Scratch) {
    let nowhere = format!("unix://{}", scratch.path("docker.sock"));
    let get = |host: &str| Nest::new().env("DOCKER_HOST", host).run(&["get", "clusters"]);
    let missing = get(&nowhere).exits(5).complains("is Docker running");
    assert!(missing.took < Duration::from_secs(5), "{missing}");
    get("tcp://127.0.0.1:1").exits(5).complains("nothing listens");
    let proxy = Proxy::with_rule(|_| Fate::Answer(503, "no Docker behind it".into()));
    get(&proxy.url()).exits(5).complains("no Docker behind it");
    get("ssh://me@there").exits(2).complains("ssh -L");
}
