//! Clusters, and the edits that people make to them.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{
    api::{Identity, K3sClusterStatus},
    plan::{InternalAccess, Sensitive, Settings, SourceKey, Values},
    reconcile::Request,
};

/// Versions, oldest first.
pub const VERSIONS: [&str; 4] = ["v1.35.0+k3s1", "v1.35.4+k3s1", "v1.36.1+k3s1", "v1.36.1+k3s2"];

/// Repositories of node images.
pub const REPOSITORIES: [&str; 2] = ["rancher/k3s", "registry.example.com/k3s"];

/// A Docker network that others made and clusters may join.
pub const SHARED_NETWORK: &str = "shared";

/// What must never be seen outside of files and, for the second, the container's environment.
pub const SECRETS: [&str; 3] = ["TOKEN-OF-THE-USER", "PASSWORD-IN-THE-ENVIRONMENT", "PASSWORD-IN-A-FILE"];

/// Which network a cluster lives in; chosen once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Picked,
    Subnet,
    Joined,
}

/// What is said of a cluster, as small numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    // For life.
    pub place: Place,
    pub given_token: bool,
    pub internal: u8,
    pub keep_spec: bool,
    pub servers: u32,
    // Free to change.
    pub version: usize,
    pub repository: usize,
    pub api_port: Option<u16>,
    pub host_ip: bool,
    pub ports: BTreeSet<u16>,
    pub args: u8,
    pub env: BTreeSet<u8>,
    pub secret_env: bool,
    pub files: BTreeSet<u8>,
    pub secret_file: bool,
    pub labels: BTreeSet<u8>,
    pub taint: bool,
    pub volumes: BTreeSet<u8>,
    pub san: bool,
    /// 0: limits of what nodes may use, 1: name servers, 2: a component left out, 3: a port straight on
    /// the server, where there is one.
    pub extras: BTreeSet<u8>,
    /// Never fewer than there were.
    pub agents: u32,
    pub agent_args: u8,
}

impl Default for Draft {
    fn default() -> Self {
        Self {
            place: Place::Picked,
            given_token: false,
            internal: 0,
            keep_spec: false,
            servers: 1,
            version: 0,
            repository: 0,
            api_port: None,
            host_ip: false,
            ports: BTreeSet::new(),
            args: 0,
            env: BTreeSet::new(),
            secret_env: false,
            files: BTreeSet::new(),
            secret_file: false,
            labels: BTreeSet::new(),
            taint: false,
            volumes: BTreeSet::new(),
            san: false,
            extras: BTreeSet::new(),
            agents: 0,
            agent_args: 0,
        }
    }
}

/// One edit of a spec that the API lets through.
#[derive(Clone, Debug)]
pub enum Edit {
    /// This many versions up, as far as there are.
    Upgrade(usize),
    Repository(usize),
    ApiPort(Option<u16>),
    HostIp(bool),
    Ports(BTreeSet<u16>),
    Args(u8),
    Env(BTreeSet<u8>, bool),
    Files(BTreeSet<u8>, bool),
    Labels(BTreeSet<u8>, bool),
    Volumes(BTreeSet<u8>),
    San(bool),
    Extras(BTreeSet<u8>),
    /// This many agents more, with these arguments.
    Agents(u32, u8),
}

fn few() -> impl Strategy<Value = BTreeSet<u8>> + Clone {
    prop::collection::btree_set(0..3u8, 0..3)
}

fn some_ports() -> impl Strategy<Value = BTreeSet<u16>> + Clone {
    prop::collection::btree_set(prop_oneof![Just(30080u16), Just(30443), Just(30053)], 0..3)
}

fn api_port() -> impl Strategy<Value = Option<u16>> + Clone {
    prop_oneof![Just(None), Just(Some(26443)), Just(Some(26444))]
}

pub fn edit() -> impl Strategy<Value = Edit> + Clone {
    prop_oneof![
        (1..3usize).prop_map(Edit::Upgrade),
        (0..2usize).prop_map(Edit::Repository),
        api_port().prop_map(Edit::ApiPort),
        any::<bool>().prop_map(Edit::HostIp),
        some_ports().prop_map(Edit::Ports),
        (0..3u8).prop_map(Edit::Args),
        (few(), any::<bool>()).prop_map(|(set, secret)| Edit::Env(set, secret)),
        (few(), any::<bool>()).prop_map(|(set, secret)| Edit::Files(set, secret)),
        (few(), any::<bool>()).prop_map(|(set, taint)| Edit::Labels(set, taint)),
        few().prop_map(Edit::Volumes),
        any::<bool>().prop_map(Edit::San),
        prop::collection::btree_set(0..4u8, 0..4).prop_map(Edit::Extras),
        (0..3u32, 0..2u8).prop_map(|(more, args)| Edit::Agents(more, args)),
    ]
}

/// A new cluster: what is for life, and a few edits of the plainest one.
pub fn draft() -> impl Strategy<Value = Draft> {
    let place = prop_oneof![3 => Just(Place::Picked), 1 => Just(Place::Subnet), 1 => Just(Place::Joined)];
    let servers = prop_oneof![5 => Just(1u32), 4 => Just(3), 1 => Just(5)];
    let life = (place, any::<bool>(), 0..3u8, any::<bool>(), servers);
    (life, prop::collection::vec(edit(), 0..4)).prop_map(
        |((place, given_token, internal, keep_spec, servers), edits)| {
            let plain = Draft { place, given_token, internal, keep_spec, servers, ..Draft::default() };
            edits.iter().fold(plain, |draft, edit| draft.edited(edit))
        },
    )
}

impl Draft {
    pub fn edited(&self, edit: &Edit) -> Self {
        let mut next = self.clone();
        match edit.clone() {
            Edit::Upgrade(by) => next.version = (self.version + by).min(VERSIONS.len() - 1),
            Edit::Repository(repository) => next.repository = repository,
            Edit::ApiPort(port) => next.api_port = port,
            Edit::HostIp(all) => next.host_ip = all,
            Edit::Ports(ports) => next.ports = ports,
            Edit::Args(args) => next.args = args,
            Edit::Env(set, secret) => (next.env, next.secret_env) = (set, secret),
            Edit::Files(set, secret) => (next.files, next.secret_file) = (set, secret),
            Edit::Labels(set, taint) => (next.labels, next.taint) = (set, taint),
            Edit::Volumes(set) => next.volumes = set,
            Edit::San(san) => next.san = san,
            Edit::Extras(set) => next.extras = set,
            Edit::Agents(more, args) => (next.agents, next.agent_args) = ((self.agents + more).min(4), args),
        }
        next
    }

    /// The spec as a person would write it.
    pub fn spec(&self) -> Value {
        let from_secret = |key: &str| json!({"secretKeyRef": {"name": "secrets", "key": key}});
        let mut env: Vec<Value> =
            self.env.iter().map(|n| json!({"name": format!("E{n}"), "value": format!("v{n}")})).collect();
        if self.secret_env {
            env.push(json!({"name": "PASSWORD", "valueFrom": from_secret("env")}));
        }
        let mut files: Vec<Value> = self
            .files
            .iter()
            .map(|n| json!({"path": format!("/etc/file-{n}"), "content": format!("c{n}"), "mode": "0600"}))
            .collect();
        if self.secret_file {
            files.push(json!({"path": "/etc/password", "contentFrom": from_secret("file")}));
        }
        let args = |count: u8| (0..count).map(|n| format!("--kubelet-arg=v={n}")).collect::<Vec<_>>();
        let labels: BTreeMap<String, String> =
            self.labels.iter().map(|n| (format!("example.com/l{n}"), "x".into())).collect();
        let volumes: Vec<Value> = self
            .volumes
            .iter()
            .map(|n| json!({"target": format!("/mnt/{n}"), "name": format!("user-{n}")}))
            .collect();
        let taints = if self.taint { json!([{"key": "own", "effect": "NoSchedule"}]) } else { json!([]) };
        let ports: Vec<Value> =
            self.ports.iter().map(|p| json!({"hostPort": p, "port": p - 30000, "to": "All"})).collect();
        let mut api = json!({"tlsSANs": if self.san { vec!["dev.example.com"] } else { vec![] }});
        if let Some(port) = self.api_port {
            api["hostPort"] = json!(port);
        }
        if self.host_ip {
            api["hostIP"] = json!("0.0.0.0");
        }
        let mut spec = json!({
            "version": VERSIONS[self.version],
            "servers": {
                "replicas": self.servers, "args": args(self.args), "env": env, "files": files, "labels": labels, "taints": taints,
                "volumes": volumes,
            },
            "agents": {"replicas": self.agents, "args": args(self.agent_args)},
            "loadBalancer": {"ports": ports},
            "api": api,
        });
        let extra = |n: u8| self.extras.contains(&n);
        if extra(0) {
            spec["nodeDefaults"] = json!({"resources": {"cpu": "2", "memory": "2Gi"}});
        }
        if extra(1) {
            spec["dns"] = json!({"servers": ["10.0.0.53"]});
        }
        if extra(2) {
            spec["k3s"] = json!({"disable": ["traefik"]});
        }
        if extra(3) && self.servers == 1 {
            spec["servers"]["ports"] = json!([{"hostPort": 30555, "port": 555}]);
        }
        if self.repository > 0 {
            spec["image"] = json!(REPOSITORIES[self.repository]);
        }
        match self.place {
            Place::Picked => {}
            Place::Subnet => spec["network"] = json!({"subnet": "10.200.7.0/24"}),
            Place::Joined => spec["network"] = json!({"name": SHARED_NETWORK}),
        }
        if self.given_token {
            spec["tokenSecretRef"] = json!({"name": "secrets", "key": "token"});
        }
        spec
    }

    /// What a step is asked for the cluster `identity`.
    pub fn request(&self, identity: &Identity) -> Request {
        let spec = serde_json::from_value(self.spec()).unwrap();
        let values = ["token", "env", "file"].iter().zip(SECRETS).map(|(key, secret)| {
            let source = SourceKey::Secret { name: "secrets".into(), key: (*key).into() };
            (source, Sensitive::new(secret.as_bytes().to_vec()))
        });
        Request {
            identity: identity.clone(),
            generation: Some(1),
            values: Ok(Values(values.collect())),
            settings: Settings::default(),
            internal: match self.internal {
                0 => InternalAccess::None,
                1 => InternalAccess::Join { network: SHARED_NETWORK.into() },
                _ => InternalAccess::Gateway,
            },
            former: K3sClusterStatus::default(),
            recover: None,
            adopter: None,
            keep_spec: self.keep_spec.then(|| serde_json::to_string(&self.spec()).unwrap()),
            spec,
        }
    }
}

/// The cluster that most tests are about.
pub fn dev() -> Identity {
    identity("default", "2f0c7a51-0000-4000-8000-000000000001")
}

/// A cluster called dev.
pub fn identity(namespace: &str, uid: &str) -> Identity {
    Identity { instance: "host-a".into(), uid: uid.into(), namespace: namespace.into(), name: "dev".into() }
}
