//! A cluster that the operator keeps.

use std::{ops::Deref, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::Value;

use crate::{
    harness::{
        Cluster, Finished, Story,
        docker::{docker, labelled},
        kubectl::Kubectl,
        within,
    },
    host::host,
    space::Space,
};

/// How long a cluster may take to come up on a machine that is busy with others.
pub const READY: Duration = Duration::from_secs(150);

/// How long deletion may take.
const GONE: Duration = Duration::from_secs(60);

/// How much of each log a failure shows.
const TAIL: &str = "40";

/// A cluster that the operator keeps. Dropping it deletes it; after a panic, its state is printed
/// first.
pub struct Tenant {
    cluster: Cluster,
}

impl Deref for Tenant {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}

/// A condition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    pub status: String,
    pub reason: String,
    pub message: String,
}

impl Tenant {
    /// A name in a namespace; nothing exists yet.
    pub fn new(name: &str, space: &Space) -> Self {
        let mut cluster = Cluster::named(name, &space.name);
        cluster.instance = host().instance.clone();
        Self { cluster }
    }

    /// kubectl in its namespace.
    pub fn run(&self, args: &[&str]) -> Finished {
        host().run(&self.namespace, args)
    }

    /// Has kubectl apply the resource with `spec`.
    #[track_caller]
    pub fn apply(&self, spec: &str) {
        self.run(&["apply", "-f", &self.write(spec)]).ok();
    }

    /// The resource as it stands.
    #[track_caller]
    pub fn object(&self) -> Value {
        self.get("k3scluster", &self.name)
    }

    /// An object in its namespace.
    #[track_caller]
    pub fn get(&self, kind: &str, name: &str) -> Value {
        let text = self.run(&["get", kind, name, "-o", "json"]).ok();
        serde_json::from_str(&text).expect("kubectl prints JSON")
    }

    /// The resource's uid.
    #[track_caller]
    pub fn uid(&self) -> String {
        self.object()["metadata"]["uid"].as_str().expect("a uid").to_owned()
    }

    /// A condition of it; an empty one while there is none.
    pub fn condition(&self, type_: &str) -> Condition {
        let object = self.object();
        let all = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let found = all.iter().find(|condition| condition["type"] == type_);
        found.map_or_else(Condition::default, |condition| {
            let text = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
            Condition { status: text("status"), reason: text("reason"), message: text("message") }
        })
    }

    /// Waits until a condition has this status and reason, and returns it.
    #[track_caller]
    pub fn becomes(&self, type_: &str, status: &str, reason: &str, patience: Duration) -> Condition {
        let what = format!("{} of {} to be {status} with reason {reason}", type_, self.name);
        within(patience, &what, || {
            let condition = self.condition(type_);
            let fits = condition.status == status && condition.reason == reason;
            if fits { Ok(condition) } else { Err(format!("{condition:?}")) }
        })
    }

    /// Waits as users do, until the spec as it is now is reached.
    #[track_caller]
    pub fn is_ready(&self) -> Duration {
        let timeout = format!("--timeout={}s", READY.as_secs());
        let resource = format!("k3scluster/{}", self.name);
        self.run(&["wait", "--for=condition=Ready", &resource, &timeout]).exits(0).took
    }

    /// Ids of its containers with `role`, as many as there are.
    pub fn ids(&self, role: &str) -> Vec<String> {
        let labels: Vec<String> =
            self.labels().into_iter().chain([format!("k3nest.dev/role={role}")]).collect();
        let names = labelled("container", &labels);
        // One that goes between the two calls is no failure.
        let ids = names.iter().map(|name| docker(&["inspect", "--format", "{{.Id}}", name]));
        ids.filter(|found| found.code == 0).map(|found| found.stdout.trim().to_owned()).collect()
    }

    /// Data of its kubeconfig Secret under `key`.
    #[track_caller]
    pub fn secret(&self, key: &str) -> String {
        let secret = self.get("secret", &format!("{}-kubeconfig", self.name));
        let value = secret["data"][key].as_str().unwrap_or_else(|| panic!("key {key} of {secret}"));
        String::from_utf8(BASE64_STANDARD.decode(value).expect("base64")).expect("text")
    }

    /// kubectl in the nested cluster, with the kubeconfig that the Secret holds for readers outside.
    #[track_caller]
    pub fn kubectl(&self) -> Kubectl {
        Kubectl::new(&self.secret("kubeconfig"))
    }

    /// Deletes it, and checks that nothing of it is left.
    #[track_caller]
    pub fn delete(&self, story: &Story) {
        let timeout = format!("--timeout={}s", GONE.as_secs());
        let deleted = self.run(&["delete", "k3scluster", &self.name, &timeout]).exits(0);
        story.tell(&format!("{} deleted in {:.1?}", self.name, deleted.took));
        self.is_gone();
    }

    /// What tells whether anything of it was touched: ids and start times of its containers, and the
    /// versions of what is published.
    #[track_caller]
    pub fn fingerprint(&self) -> Vec<String> {
        let containers = self.objects("container").into_iter().map(|name| {
            let format = "{{.Id}} {{.State.StartedAt}} {{.RestartCount}}";
            docker(&["inspect", "--format", format, &name]).ok()
        });
        let published = [
            ("secret", format!("{}-kubeconfig", self.name)),
            ("service", format!("{}-k3s-api", self.name)),
            ("endpointslice", format!("{}-k3s-api", self.name)),
        ];
        let published = published.into_iter().map(|(kind, name)| {
            let object = self.get(kind, &name);
            format!("{kind} {} {}", object["metadata"]["uid"], object["metadata"]["resourceVersion"])
        });
        let others = ["network", "volume"].into_iter().flat_map(|kind| self.objects(kind));
        containers.chain(others).chain(published).collect()
    }
}

impl Drop for Tenant {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- state of {}/{} after the failure", self.namespace, self.name);
            eprintln!("--- {}", self.run(&["describe", "k3scluster", &self.name]));
            for container in self.objects("container") {
                eprintln!("--- {}", docker(&["logs", "--tail", TAIL, &container]));
            }
        }
        let timeout = format!("--timeout={}s", GONE.as_secs());
        self.run(&["delete", "k3scluster", &self.name, "--ignore-not-found", &timeout]);
    }
}
