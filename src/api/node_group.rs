//! `NodeGroup`: the one shape in which nodes are described, and the defaults they inherit.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{ConfigMapKeyRef, SecretKeyRef};

/// Nodes that are alike.
///
/// Everything but the count is flattened from [`NodeDefaults`]. Keep it the only flattened struct:
/// kube-derive carries over the CEL rules of the first one alone.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct NodeGroup {
    /// How many nodes. A control plane has one server so far.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 1000), extend("format" = "int32"))]
    #[x_kube(validation = Rule::new("self == 1").message("spec.servers.replicas: must be 1; more servers are not supported by this version of k3nest"))]
    pub replicas: u32,
    /// What is said of each node.
    #[serde(flatten)]
    pub node: NodeDefaults,
}

fn one() -> u32 {
    1
}

impl Default for NodeGroup {
    fn default() -> Self {
        Self { replicas: one(), node: NodeDefaults::default() }
    }
}

/// What can be said about a node.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.labels) || self.labels.all(k, !k.startsWith('k3nest.dev/'))")
        .message("labels: keys under k3nest.dev/ are k3nest's own; choose another prefix")
)]
pub struct NodeDefaults {
    /// Extra arguments of k3s, for example --kube-apiserver-arg=v=2. Appended to the inherited
    /// ones. What k3nest owns is refused by name, with the field to use instead.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 1024)))]
    #[x_kube(validation = Rule::new("self.all(a, a.startsWith('-'))").message("args: each must be one flag with its value behind '=', such as --kubelet-arg=max-pods=50"))]
    pub args: Vec<String>,

    /// Free-form content of k3s's config.yaml (https://docs.k3s.io/installation/configuration).
    /// Keys merge over the inherited ones; the node's own win. What k3nest owns is refused.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schemars(schema_with = "free_form")]
    pub config: Map<String, Value>,

    /// Environment of the node container. Merged by name. A value from a Secret is visible to
    /// whoever may use the Docker socket: prefer files for secrets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub env: Vec<EnvVar>,

    /// Files of the node container, written before k3s starts. Merged by path.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["path".into()]))]
    pub files: Vec<NodeFile>,

    /// Volumes of the node container. Merged by target.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["target".into()]))]
    pub volumes: Vec<NodeVolume>,

    /// Labels of the Kubernetes Nodes, kept in step on live ones. Merged by key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "label_map")]
    pub labels: BTreeMap<String, String>,

    /// Taints of the Kubernetes Nodes, kept in step on live ones. Merged by key and effect.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["key".into(), "effect".into()]))]
    pub taints: Vec<NodeTaint>,
}

fn free_form(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "maxProperties": 128,
        "x-kubernetes-preserve-unknown-fields": true,
    })
}

fn label_map(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": { "type": "string", "maxLength": 63 },
    })
}

/// One environment variable, with a value or where to take it from.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.value) != has(self.valueFrom)").message("env[]: give either value or valueFrom"))]
pub struct EnvVar {
    /// Name of the variable.
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z_][A-Za-z0-9_]*$')").message("env[].name: must be a name such as HTTP_PROXY"))]
    pub name: String,
    /// Its value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub value: Option<String>,
    /// Where its value comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<ValueSource>,
}

/// A file in the node container.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.content) != has(self.contentFrom)").message("files[]: give either content or contentFrom"))]
pub struct NodeFile {
    /// Absolute path in the container.
    #[schemars(length(min = 2, max = 512))]
    #[x_kube(validation = Rule::new("self.startsWith('/') && !self.endsWith('/') && !self.contains('/../') && !self.startsWith('/run/') && !self.startsWith('/var/run/') && !self.startsWith('/etc/k3nest/')")
        .message("files[].path: must be an absolute path of a file, outside /run and /var/run (emptied at each start) and /etc/k3nest, such as /etc/rancher/k3s/registries.yaml"))]
    pub path: String,
    /// Permission bits in octal, 0644 unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4))]
    #[x_kube(validation = Rule::new("self.matches('^0[0-7]{3}$')").message("files[].mode: must be four octal digits in quotes, such as \"0600\""))]
    pub mode: Option<String>,
    /// Its content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub content: Option<String>,
    /// Where its content comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_from: Option<ValueSource>,
}

/// Where a value comes from: exactly one key of a Secret or of a ConfigMap.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.secretKeyRef) != has(self.configMapKeyRef)").message("give either secretKeyRef or configMapKeyRef"))]
pub struct ValueSource {
    /// Key of a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<SecretKeyRef>,
    /// Key of a ConfigMap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_key_ref: Option<ConfigMapKeyRef>,
}

/// A volume mounted into the node container.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.name) != has(self.hostPath)").message("volumes[]: give either name, for a named volume, or hostPath"))]
pub struct NodeVolume {
    /// Absolute path in the container.
    #[schemars(length(min = 2, max = 512))]
    #[x_kube(validation = Rule::new("self.startsWith('/') && !self.endsWith('/') && !self.contains('/../') && !(self in ['/var/lib/kubelet','/var/lib/rancher/k3s','/var/lib/cni','/var/log','/etc/rancher/node','/run','/var/run','/etc/k3nest'])")
        .message("volumes[].target: must be an absolute path other than those k3nest mounts itself (/var/lib/kubelet, /var/lib/rancher/k3s, /var/lib/cni, /var/log, /etc/rancher/node, /run, /var/run, /etc/k3nest), such as /data"))]
    pub target: String,
    /// Name of a volume of this cluster. Nodes that mount the same name share it; it is removed
    /// with the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')").message("volumes[].name: must hold only a-z, 0-9 and '-', such as data"))]
    pub name: Option<String>,
    /// A path of the Docker host. Refused unless the operator's setting allows its prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = Rule::new("self.startsWith('/') && !self.contains('/../') && !self.endsWith('/..')").message("volumes[].hostPath: must be an absolute path of the Docker host without '..'"))]
    pub host_path: Option<String>,
    /// Mounts it read-only.
    #[serde(default)]
    pub read_only: bool,
}

/// A taint of a Kubernetes Node.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
pub struct NodeTaint {
    /// Key of the taint.
    #[schemars(length(min = 1, max = 316))]
    pub key: String,
    /// Its value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub value: Option<String>,
    /// What happens to Pods that do not tolerate it.
    pub effect: TaintEffect,
}

/// Effects of a taint.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TaintEffect {
    /// New Pods are not scheduled.
    NoSchedule,
    /// New Pods are scheduled elsewhere if possible.
    PreferNoSchedule,
    /// Running Pods leave, too.
    NoExecute,
}

impl TaintEffect {
    /// As Kubernetes writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoSchedule => "NoSchedule",
            Self::PreferNoSchedule => "PreferNoSchedule",
            Self::NoExecute => "NoExecute",
        }
    }
}
