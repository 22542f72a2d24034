//! What a plan depends on besides the resource: the operator's settings, the engine, and the
//! values that were looked up.

use std::collections::BTreeMap;

use ipnet::Ipv4Net;
use jiff::Timestamp;

use super::Sensitive;
use crate::api::{ConfigMapKeyRef, Identity, K3sClusterSpec, SecretKeyRef, ValueSource};

/// Repository of the nodes' image unless settings say otherwise.
pub const NODE_IMAGE: &str = "rancher/k3s";

/// Image of the load balancer unless settings say otherwise. The official image has nginx's stream
/// module built in.
pub const LOAD_BALANCER_IMAGE: &str = "nginx:1.29-alpine";

/// Settings of the operator or the CLI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Repository of node images where a cluster names none.
    pub node_image: String,
    /// Image of load balancers where a cluster names none.
    pub load_balancer_image: String,
    /// Ranges that clusters' networks are cut from, each a /24.
    pub subnet_pool: Vec<Ipv4Net>,
    /// First and last port to publish APIs on.
    pub api_ports: (u16, u16),
    /// Prefixes of host paths that volumes may name.
    pub allowed_host_paths: Vec<String>,
    /// Address of the Docker host under which ports that clusters publish are reached from the
    /// host cluster, as a last resort.
    pub publish_address: Option<std::net::Ipv4Addr>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            node_image: NODE_IMAGE.into(),
            load_balancer_image: LOAD_BALANCER_IMAGE.into(),
            subnet_pool: vec![Ipv4Net::new_assert(std::net::Ipv4Addr::new(10, 112, 0, 0), 12)],
            api_ports: (16443, 18442),
            allowed_host_paths: Vec::new(),
            publish_address: None,
        }
    }
}

/// A Docker engine, as far as plans depend on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineInfo {
    /// Its id, which stays for life.
    pub id: String,
    /// 1 or 2.
    pub cgroup_version: u8,
    /// OCI runtimes it knows.
    pub runtimes: Vec<String>,
    /// Operating system of its host, for people.
    pub system: String,
    /// Release of its host's kernel.
    pub kernel: String,
    /// CPUs it has.
    pub cpus: Option<u64>,
    /// Bytes of memory it has.
    pub memory: Option<u64>,
    /// Where it keeps its data on its host.
    pub root: String,
    /// How it keeps containers, such as overlay2.
    pub driver: String,
    /// What it says of that.
    pub driver_status: BTreeMap<String, String>,
    /// What its clock said when it was asked.
    pub time: Option<Timestamp>,
    /// Names of what it has to secure containers: seccomp, selinux, rootless, userns and others.
    pub security: Vec<String>,
}

/// Name of the OCI runtime that `k3nest up` adds where plain `--privileged` fails. An engine that
/// has it runs nodes with it.
pub const OCI_RUNTIME: &str = "k3nest";

impl EngineInfo {
    /// Whether `docker info` lists `name` among its security options.
    pub fn has_security(&self, name: &str) -> bool {
        self.security.iter().any(|known| known == name)
    }

    /// The OCI runtime for privileged nodes, if not the engine's default.
    pub fn node_runtime(&self) -> Option<String> {
        self.runtimes.iter().find(|r| *r == OCI_RUNTIME).cloned()
    }
}

/// How Pods of the host cluster reach nested APIs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum InternalAccess {
    /// There is no host cluster.
    #[default]
    None,
    /// The host cluster's node is a container in this Docker network: load balancers join it.
    Join {
        /// Name of the network.
        network: String,
    },
    /// The host cluster runs natively on the Docker host: load balancers publish on their
    /// network's gateway address.
    Gateway,
}

/// Where a value in the spec comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SourceKey {
    /// A key of a Secret.
    Secret {
        /// Name of the Secret.
        name: String,
        /// Key in it.
        key: String,
    },
    /// A key of a ConfigMap.
    ConfigMap {
        /// Name of the ConfigMap.
        name: String,
        /// Key in it.
        key: String,
    },
}

impl std::fmt::Display for SourceKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Secret { name, key } => write!(f, "key {key} of Secret {name}"),
            Self::ConfigMap { name, key } => write!(f, "key {key} of ConfigMap {name}"),
        }
    }
}

impl From<&SecretKeyRef> for SourceKey {
    fn from(r: &SecretKeyRef) -> Self {
        Self::Secret { name: r.name.clone(), key: r.key.clone() }
    }
}

impl From<&ConfigMapKeyRef> for SourceKey {
    fn from(r: &ConfigMapKeyRef) -> Self {
        Self::ConfigMap { name: r.name.clone(), key: r.key.clone() }
    }
}

impl SourceKey {
    /// The key that `source` names. None only for a source that the schema refuses.
    pub fn of(source: &ValueSource) -> Option<Self> {
        match (&source.secret_key_ref, &source.config_map_key_ref) {
            (Some(secret), _) => Some(secret.into()),
            (None, Some(config_map)) => Some(config_map.into()),
            (None, None) => None,
        }
    }

    /// Every key that `spec` refers to, with the field that does.
    pub fn all(spec: &K3sClusterSpec) -> Vec<(String, Self)> {
        let mut found = Vec::new();
        if let Some(token) = &spec.token_secret_ref {
            found.push(("spec.tokenSecretRef".to_owned(), token.into()));
        }
        let groups = [
            ("spec.nodeDefaults", spec.node_defaults.as_ref()),
            ("spec.servers", Some(&spec.servers.node)),
            ("spec.agents", Some(&spec.agents.node)),
        ];
        for (at, node) in groups {
            let Some(node) = node else { continue };
            let env =
                node.env.iter().enumerate().map(|(i, e)| (format!("{at}.env[{i}].valueFrom"), &e.value_from));
            let files = node
                .files
                .iter()
                .enumerate()
                .map(|(i, f)| (format!("{at}.files[{i}].contentFrom"), &f.content_from));
            for (field, source) in env.chain(files) {
                if let Some(key) = source.as_ref().and_then(Self::of) {
                    found.push((field, key));
                }
            }
        }
        found
    }
}

/// The values of everything the spec refers to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Values(pub BTreeMap<SourceKey, Sensitive<Vec<u8>>>);

impl Values {
    /// The value behind `source`.
    pub fn get(&self, source: &ValueSource) -> Option<&Sensitive<Vec<u8>>> {
        self.0.get(&SourceKey::of(source)?)
    }

    /// Whether the value of everything that `spec` refers to is known.
    pub fn cover(&self, spec: &K3sClusterSpec) -> bool {
        SourceKey::all(spec).iter().all(|(_, key)| self.0.contains_key(key))
    }
}

/// Everything a plan for one cluster depends on, besides what exists.
#[derive(Clone, Debug)]
pub struct Input {
    /// Who it is.
    pub identity: Identity,
    /// What is wanted. Valid, by [`crate::api::validate`].
    pub spec: K3sClusterSpec,
    /// What the spec refers to.
    pub values: Values,
    /// Settings of the operator or the CLI.
    pub settings: Settings,
    /// How Pods of the host cluster get in.
    pub internal: InternalAccess,
}
