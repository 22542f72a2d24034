//! What k3nest shows of a living cluster.

use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::harness::{
    Cluster, Finished, Story,
    kubectl::Kubectl,
    nest::{VERSION, nest},
};

/// `get` in all its formats says the same.
pub fn every_format(story: &Story, cluster: &Cluster) {
    let get = |what: &str, format: &str| nest(&["get", what, &cluster.name, "-o", format]).exits(0).stdout;
    let table = get("clusters", "table");
    for word in ["NAME", "PHASE", "SERVERS", &cluster.name, "Running", "1/1", VERSION] {
        assert!(table.contains(word), "{word} is missing in\n{table}");
    }
    assert!(!table.contains("ENDPOINT"), "{table}");
    let wide = get("clusters", "wide");
    assert!(wide.contains("https://127.0.0.1:") && wide.contains("every node is Ready"), "{wide}");
    assert_eq!(get("clusters", "name"), format!("cluster/{}\n", cluster.name));

    let json: Value = serde_json::from_str(&get("clusters", "json")).expect("-o json is JSON");
    let yaml: Value = serde_saphyr::from_str(&get("clusters", "yaml")).expect("-o yaml is YAML");
    for list in [&json, &yaml] {
        let item = &list["items"][0];
        assert_eq!(item["kind"], "K3sCluster");
        assert_eq!(item["metadata"]["name"], cluster.name);
        assert_eq!(item["status"]["phase"], "Running");
        assert_eq!(item["status"]["nodes"][0]["ready"], true);
    }

    let nodes = get("nodes", "wide");
    for word in [&cluster.node(), &cluster.server(), "server", "running", VERSION] {
        assert!(nodes.contains(word), "{word} is missing in\n{nodes}");
    }
    assert_eq!(get("nodes", "name"), format!("node/{}\n", cluster.node()));
    nest(&["get", "clusters", "no-such-cluster"]).exits(4).complains("no-such-cluster not found");
    story.tell("get prints table, wide, json, yaml and name");
}

/// A kubeconfig file of somebody's keeps its other entries, and is nobody else's to read.
pub fn kubeconfig_files(story: &Story, cluster: &Cluster) {
    let context = format!("k3nest-{}", cluster.name);
    let theirs = "apiVersion: v1
kind: Config
preferences: {colors: true}
clusters: [{name: work, cluster: {server: 'https://work.example.com'}}]
users: [{name: me, user: {token: theirs}}]
contexts: [{name: work, context: {cluster: work, user: me}}]
current-context: work
";
    let file = cluster.scratch.file("kubeconfig", theirs);
    let verb = |verb: &str, more: &[&str]| -> Finished {
        nest(&[&["kubeconfig", verb, &cluster.name, "--kubeconfig", &file], more].concat()).exits(0)
    };
    let read = || -> Value {
        serde_saphyr::from_str(&std::fs::read_to_string(&file).expect("it was written")).expect("it is YAML")
    };
    let before = read();

    verb("merge", &[]);
    assert_eq!(read()["current-context"], "work", "the current context stays unless asked for");
    verb("merge", &["--switch"]);
    let merged = read();
    assert_eq!(merged["current-context"], context);
    assert_eq!(merged["contexts"].as_array().map(Vec::len), Some(2));
    assert_eq!(merged["users"][0], before["users"][0]);
    assert_eq!(merged["preferences"], before["preferences"]);
    let mode = std::fs::metadata(&file).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode, 0o600, "mode of a merged kubeconfig: {mode:o}");
    let text = std::fs::read_to_string(&file).expect("it was written");
    Kubectl::new(&text).run(&["get", "--raw", "/readyz"]).exits(0).prints("ok");

    verb("remove", &[]);
    let after = read();
    for list in ["clusters", "users", "contexts", "preferences"] {
        assert_eq!(after[list], before[list], "{list} after remove");
    }
    story.tell("kubeconfig merge and remove leave the rest of a file as it is; mode 0600");
}

/// Of a cluster that is gone there is no kubeconfig, but its entries can be taken out of a file.
pub fn kubeconfig_of_the_dead(cluster: &Cluster) {
    nest(&["kubeconfig", "get", &cluster.name]).exits(4).complains("not found");
    let file = cluster.scratch.path("none");
    nest(&["kubeconfig", "remove", &cluster.name, "--kubeconfig", &file]).exits(0);
}
