//! The one shape in which nodes are described, wherever they are, and the defaults they inherit.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{ConfigMapKeyRef, Protocol, Quantity, SecretKeyRef};

/// The control plane.
///
/// Everything but the count is flattened from [`NodeDefaults`], here as in [`AgentGroup`]. Keep it
/// the only flattened struct: kube-derive carries over the CEL rules of the first one alone.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ServerGroup {
    /// How many servers: 1, 3 or 5, since etcd needs a majority of them. Fixed at creation.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 1000), extend("format" = "int32"))]
    #[x_kube(validation = Rule::new("self in [1, 3, 5]").message("spec.servers.replicas: must be 1, 3 or 5: etcd needs a majority, and an even number of servers survives no more failures than one less"))]
    pub replicas: u32,
    /// What is said of each server.
    #[serde(flatten)]
    pub node: NodeDefaults,
}

fn one() -> u32 {
    1
}

impl Default for ServerGroup {
    fn default() -> Self {
        Self { replicas: one(), node: NodeDefaults::default() }
    }
}

/// Nodes that only run workloads.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct AgentGroup {
    /// How many agents, 0 to 200. More can be added to a living cluster, also by kubectl scale.
    #[serde(default)]
    #[schemars(range(min = 0, max = 200), extend("format" = "int32"))]
    pub replicas: u32,
    /// What is said of each agent.
    #[serde(flatten)]
    pub node: NodeDefaults,
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

    /// What each node may use at most, and what Kubernetes sees as its capacity. Omitted: all that
    /// the Docker host has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<NodeResources>,

    /// Ports of the Docker host published straight on the node, past the load balancer: for groups
    /// of one node. Merged by host port and protocol.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["hostPort".into(), "protocol".into()]))]
    pub ports: Vec<NodePort>,

    /// Limits of the node's processes, as docker run --ulimit sets them. Merged by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub ulimits: Vec<Ulimit>,

    /// Further lines of the node's /etc/hosts, as docker run --add-host writes them. Pods do not
    /// see them. Merged by address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["ip".into()]))]
    pub host_aliases: Vec<HostAlias>,

    /// OCI runtime of the node container, by the name under which the Docker engine knows it, such
    /// as sysbox-runc. Omitted: the engine's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9][A-Za-z0-9._/-]*$')").message("runtime: must be the name of an OCI runtime that docker info lists, such as runc or sysbox-runc"))]
    pub runtime: Option<String>,
}

/// What a node may use at most.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct NodeResources {
    /// Cores, such as 2 or 1500m. Enforced exactly; the node's capacity is rounded up to whole
    /// cores, since a kernel has no half ones. At least 100m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(
        validation = Rule::new("string(self).matches('^[0-9]{1,12}([.][0-9]{1,6})?m?$')").message("resources.cpu: must be a number of cores, such as 2, 1.5 or 500m"),
        validation = Rule::new("!isQuantity(string(self)) || quantity(string(self)).compareTo(quantity('100m')) >= 0").message("resources.cpu: a node needs at least 100m")
    )]
    pub cpu: Option<Quantity>,
    /// Memory, such as 1Gi: the node's capacity is exactly this. At least 512Mi for a server and
    /// 256Mi for an agent. There is no swap on top.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("string(self).matches('^[0-9]{1,15}([.][0-9]{1,6})?(k|M|G|T|Ki|Mi|Gi|Ti)?$')").message("resources.memory: must be a number of bytes, such as 512Mi or 2Gi"))]
    pub memory: Option<Quantity>,
    /// GPUs of the Docker host, as docker run --gpus gives them: a number, or all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "gpu_count")]
    #[x_kube(validation = Rule::new("string(self).matches('^(all|[1-9][0-9]{0,2})$')").message("resources.gpus: must be a number from 1 to 999, or all"))]
    pub gpus: Option<IntOrString>,
}

fn gpu_count(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "anyOf": [{"type": "integer"}, {"type": "string"}],
        "maxLength": 3,
        "x-kubernetes-int-or-string": true,
    })
}

/// A port of the Docker host that is published on one node.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct NodePort {
    /// Address of the Docker host to publish on. Omitted: all addresses (0.0.0.0).
    #[serde(rename = "hostIP", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 15))]
    #[x_kube(validation = Rule::new("isIP(self) && ip(self).family() == 4").message("ports[].hostIP: must be an IPv4 address of the Docker host, such as 127.0.0.1"))]
    pub host_ip: Option<String>,
    /// Port on the Docker host, 1 to 65535.
    #[schemars(range(min = 1, max = 65535), extend("format" = "int32"))]
    pub host_port: u16,
    /// Port on the node, 1 to 65535.
    #[schemars(range(min = 1, max = 65535), extend("format" = "int32"))]
    pub port: u16,
    /// TCP or UDP.
    #[serde(default)]
    pub protocol: Protocol,
}

/// A limit of a node's processes.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.hard == -1 || (self.soft != -1 && self.soft <= self.hard)").message("ulimits[]: soft must not be above hard; -1 means unlimited"))]
pub struct Ulimit {
    /// Name of the limit, such as nofile.
    #[schemars(length(max = 16))]
    #[x_kube(validation = Rule::new("self in ['core','cpu','data','fsize','locks','memlock','msgqueue','nice','nofile','nproc','rss','rtprio','rttime','sigpending','stack']").message("ulimits[].name: must be a limit that Docker knows, such as nofile or nproc"))]
    pub name: String,
    /// Soft limit; -1 is unlimited.
    #[schemars(range(min = -1))]
    pub soft: i64,
    /// Hard limit; -1 is unlimited.
    #[schemars(range(min = -1))]
    pub hard: i64,
}

/// A line of /etc/hosts.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct HostAlias {
    /// The address, or host-gateway for the Docker host's own.
    #[schemars(length(min = 1, max = 45))]
    #[x_kube(validation = Rule::new("self == 'host-gateway' || isIP(self)").message("hostAliases[].ip: must be an IP address, or host-gateway for the Docker host"))]
    pub ip: String,
    /// The names it gets.
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 253)))]
    #[x_kube(validation = Rule::new(r"self.all(n, n.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$'))").message("hostAliases[].hostnames: each must be a host name, such as registry.example.com"))]
    pub hostnames: Vec<String>,
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
