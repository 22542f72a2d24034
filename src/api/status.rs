//! What k3nest reports of a cluster. Status is a report, never the operator's memory.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Status of a `K3sCluster`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct K3sClusterStatus {
    /// Generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// One word for people; scripts read the conditions.
    #[serde(default)]
    pub phase: Phase,
    /// Ready, Available, Reconciling, Stalled, Paused, HostCompatible and, where another uid's
    /// objects were adopted, Adopted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Version that the servers report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Identity of the Docker engine that the cluster lives on.
    #[serde(rename = "engineID", default, skip_serializing_if = "Option::is_none")]
    pub engine_id: Option<String>,
    /// URL of the nested API for readers outside the host cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// URL of the nested API for Pods of the host cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub internal_endpoint: Option<String>,
    /// The Secret that holds the kubeconfig.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubeconfig_secret_ref: Option<LocalRef>,
    /// The cluster's Docker network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkStatus>,
    /// Server counts.
    #[serde(default)]
    pub servers: Counts,
    /// Agent counts.
    #[serde(default)]
    pub agents: Counts,
    /// Ready servers of the wanted, such as 1/1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub servers_ready: Option<String>,
    /// Ready agents of the wanted, such as 0/0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agents_ready: Option<String>,
    /// Every node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub nodes: Vec<NodeStatus>,
}

/// A cluster in one word.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Nothing was done yet.
    #[default]
    Pending,
    /// On its way to Running for the first time.
    Provisioning,
    /// As wanted.
    Running,
    /// Was running and is being changed or healed.
    Updating,
    /// Being removed.
    Deleting,
    /// Will not go on without a person.
    Failed,
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}

/// Name of an object in the same namespace.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct LocalRef {
    /// Its name.
    pub name: String,
}

/// The Docker network of a cluster.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct NetworkStatus {
    /// Its name in Docker.
    pub name: String,
    /// Its IPv4 range.
    pub subnet: String,
}

/// How many nodes of a kind there are.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Wanted.
    #[schemars(extend("format" = "int32"))]
    pub desired: u32,
    /// With a running container.
    #[schemars(extend("format" = "int32"))]
    pub running: u32,
    /// With a Ready Node.
    #[schemars(extend("format" = "int32"))]
    pub ready: u32,
}

/// One node.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// Name of the Node, which is the container's hostname.
    pub name: String,
    /// server or agent.
    pub role: String,
    /// The pool it belongs to.
    pub pool: String,
    /// Name of its container.
    pub container: String,
    /// Its pinned address in the cluster's network.
    pub ip: String,
    /// Version that its kubelet reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// State of its container: running, exited, restarting, missing and so on.
    pub state: String,
    /// Whether its Node is Ready.
    pub ready: bool,
    /// Why it is not, if it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}
