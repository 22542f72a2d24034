//! A namespace of one scenario.

use std::time::Duration;

use crate::{
    harness::{docker::labelled, pick, within},
    host::host,
};

/// How long a namespace with clusters may take to go.
const PATIENCE: Duration = Duration::from_secs(120);

/// A namespace of the host cluster, gone at the scenario's end whatever happens.
pub struct Space {
    pub name: String,
}

impl Space {
    /// A new one.
    pub fn new(what: &str) -> Self {
        let name = pick::name(what);
        host().kubectl.run(&["create", "namespace", &name]).ok();
        Self { name }
    }

    /// kubectl in it.
    pub fn run(&self, args: &[&str]) -> crate::harness::Finished {
        host().run(&self.name, args)
    }

    /// Applies manifests that name no namespace.
    #[track_caller]
    pub fn apply(&self, manifests: &str) {
        host().kubectl.apply(&format!("apiVersion: v1\nkind: List\nitems:\n{}", self.items(manifests)));
    }

    /// The documents as items of a list, each told its namespace.
    fn items(&self, manifests: &str) -> String {
        let documents = manifests.split("---\n").filter(|text| !text.trim().is_empty());
        let items = documents.map(|document| {
            let mut object: serde_json::Value = serde_saphyr::from_str(document).expect("YAML");
            object["metadata"]["namespace"] = self.name.as_str().into();
            format!("- {object}\n")
        });
        items.collect()
    }

    /// Names of everything in Docker that clusters of this namespace have.
    pub fn objects(&self) -> Vec<String> {
        let labels = [
            format!("k3nest.dev/instance={}", host().instance),
            format!("k3nest.dev/namespace={}", self.name),
        ];
        ["container", "network", "volume"].iter().flat_map(|kind| labelled(kind, &labels)).collect()
    }

    /// Deletes it with all that is in it, and waits until it and its clusters' objects are gone.
    #[track_caller]
    pub fn delete(&self) {
        host().kubectl.run(&["delete", "namespace", &self.name, "--wait=false"]).ok();
        within(PATIENCE, &format!("namespace {} to go", self.name), || {
            let found = host().kubectl.run(&["get", "namespace", &self.name, "-o", "yaml"]);
            if found.stderr.contains("not found") { Ok(()) } else { Err(found.stdout + &found.stderr) }
        });
        let left = self.objects();
        assert!(left.is_empty(), "left of clusters in {}: {left:?}", self.name);
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let show = |args: &[&str]| eprintln!("--- {}", self.run(args));
            show(&["get", "k3sclusters", "-o", "wide"]);
            show(&["get", "events", "--sort-by=.lastTimestamp"]);
            eprintln!("--- the operator's log ends with\n{}", tail(&host().operator_log(), 60));
        }
        host().kubectl.run(&["delete", "namespace", &self.name, "--ignore-not-found", "--timeout=100s"]);
    }
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
