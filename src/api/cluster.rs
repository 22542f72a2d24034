//! `K3sCluster`, the resource people write.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{AgentGroup, K3sClusterStatus, NodeDefaults, ServerGroup};

/// A k3s cluster that runs in containers on a Docker host.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "k3nest.dev",
    version = "v1alpha1",
    kind = "K3sCluster",
    plural = "k3sclusters",
    shortname = "k3c",
    category = "k3nest",
    namespaced,
    status = "K3sClusterStatus",
    scale(spec_replicas_path = ".spec.agents.replicas", status_replicas_path = ".status.agents.running"),
    derive = "PartialEq",
    doc = "A k3s cluster that runs in containers on a Docker host.

The annotation k3nest.dev/recover: <word>, or <word>:<node>, has a cluster that lost its quorum go on with one server's data, once for each word; what only the lost servers knew is given up. \
k3nest.dev/adopt: <owner>, there from creation on and for life, makes the objects in Docker of that owner its own; k3nest prune prints owners. \
k3nest.dev/abandon: \"true\" lets go of a cluster whose deletion cannot go on; an Event lists what stays.",
    validation = Rule::new(r"self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$') && self.metadata.name.size() <= 32")
        .message("metadata.name: must start with a letter, hold only a-z, 0-9 and '-', and have at most 32 characters, because node names are made from it; for example dev or team-a"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Servers", type_ = "string", json_path = ".status.serversReady"),
    printcolumn(name = "Agents", type_ = "string", json_path = ".status.agentsReady"),
    printcolumn(name = "Endpoint", type_ = "string", json_path = ".status.endpoint", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.network) == has(oldSelf.network) && (!has(self.network) || self.network == oldSelf.network)")
        .message("spec.network: cannot be changed after creation; create a new cluster with the other network instead"),
    validation = Rule::new("has(self.tokenSecretRef) == has(oldSelf.tokenSecretRef) && (!has(self.tokenSecretRef) || self.tokenSecretRef == oldSelf.tokenSecretRef)")
        .message("spec.tokenSecretRef: cannot be changed after creation; the token is copied once and kept for the cluster's life"),
    validation = Rule::new("((has(self.k3s) && has(self.k3s.clusterCIDR)) == (has(oldSelf.k3s) && has(oldSelf.k3s.clusterCIDR))) && (!(has(self.k3s) && has(self.k3s.clusterCIDR)) || self.k3s.clusterCIDR == oldSelf.k3s.clusterCIDR)")
        .message("spec.k3s.clusterCIDR: cannot be changed after creation; create a new cluster with the other range instead"),
    validation = Rule::new("((has(self.k3s) && has(self.k3s.serviceCIDR)) == (has(oldSelf.k3s) && has(oldSelf.k3s.serviceCIDR))) && (!(has(self.k3s) && has(self.k3s.serviceCIDR)) || self.k3s.serviceCIDR == oldSelf.k3s.serviceCIDR)")
        .message("spec.k3s.serviceCIDR: cannot be changed after creation; create a new cluster with the other range instead"),
    validation = Rule::new("((has(self.k3s) && has(self.k3s.clusterDNS)) == (has(oldSelf.k3s) && has(oldSelf.k3s.clusterDNS))) && (!(has(self.k3s) && has(self.k3s.clusterDNS)) || self.k3s.clusterDNS == oldSelf.k3s.clusterDNS)")
        .message("spec.k3s.clusterDNS: cannot be changed after creation; create a new cluster with the other address instead"),
    validation = Rule::new("((has(self.k3s) && has(self.k3s.clusterDomain)) == (has(oldSelf.k3s) && has(oldSelf.k3s.clusterDomain))) && (!(has(self.k3s) && has(self.k3s.clusterDomain)) || self.k3s.clusterDomain == oldSelf.k3s.clusterDomain)")
        .message("spec.k3s.clusterDomain: cannot be changed after creation; create a new cluster with the other domain instead"),
    validation = Rule::new("!has(self.servers) || !has(oldSelf.servers) || self.servers.replicas == oldSelf.servers.replicas")
        .message("spec.servers.replicas: cannot be changed after creation by this version of k3nest; put the former number back, or create a new cluster"),
    validation = Rule::new("!has(self.agents) || !has(oldSelf.agents) || self.agents.replicas >= oldSelf.agents.replicas")
        .message("spec.agents.replicas: agents can be added to a living cluster, but not yet taken away by this version of k3nest; put the former number back")
)]
pub struct K3sClusterSpec {
    /// Version of k3s, for example v1.36.1+k3s1 ("+" may be written as "-"). "latest" is refused:
    /// a cluster that is created again must be the same cluster.
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new(r"self.matches('^v[0-9]+\\.[0-9]+\\.[0-9]+(-rc[0-9]+)?[+-]k3s[0-9]+$')")
        .message("spec.version: must name one k3s release, such as v1.36.1+k3s1; \"latest\", channels and ranges are refused, see https://github.com/k3s-io/k3s/releases"))]
    pub version: String,

    /// Image of the nodes: a repository such as rancher/k3s, whose tag is made from the version,
    /// or a full reference with a digest. Omitted: the operator's (or CLI's) setting, which is
    /// rancher/k3s unless changed.
    #[schemars(length(min = 1, max = 255))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new(r"self.matches('^([a-zA-Z0-9.-]+(:[0-9]+)?/)?[a-z0-9._/-]+((:[A-Za-z0-9._-]+)?@sha256:[0-9a-f]{64})?$')")
        .message("spec.image: must be a repository without a tag, such as rancher/k3s or registry.example.com:5000/rancher/k3s (the tag comes from spec.version), or a reference with a digest (…@sha256:…)"))]
    pub image: Option<String>,

    /// Wanted state of the whole cluster. Running is the only one so far.
    #[serde(default)]
    pub state: ClusterState,

    /// Leaves the cluster alone: nothing is created, changed or healed while true. Does not block
    /// deletion.
    #[serde(default)]
    pub paused: bool,

    /// The control plane. Every server runs embedded etcd.
    #[serde(default)]
    pub servers: ServerGroup,

    /// Nodes that only run workloads.
    #[serde(default)]
    pub agents: AgentGroup,

    /// Settings that every node inherits. A group's own entry wins; see each field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_defaults: Option<NodeDefaults>,

    /// Flags of k3s that must be the same on all servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub k3s: Option<K3sSpec>,

    /// Key of a Secret in this namespace that holds the cluster's token. Omitted: a random token.
    /// It is copied once; a later change of the Secret is reported as reason TokenChanged and
    /// never applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_secret_ref: Option<SecretKeyRef>,

    /// Docker network of the cluster. Omitted: an own bridge network with a free /24.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkSpec>,

    /// Where the cluster's API is published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api: Option<ApiSpec>,

    /// The load balancer in front of the servers. It always exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_balancer: Option<LoadBalancerSpec>,

    /// How nodes and Pods resolve names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<DnsSpec>,

    /// Images of the Docker daemon to have in every node, such as app:dev. They are imported from
    /// it at creation, and again whenever the tag moves or a node lacks them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 255)))]
    #[x_kube(
        merge_strategy = ListMerge::Set,
        validation = Rule::new(r"self.all(i, i.matches('^([a-zA-Z0-9.-]+(:[0-9]+)?/)?[a-z0-9._/-]+(:[A-Za-z0-9._-]+)?$'))").message("spec.images: each must be an image as docker image ls names it, such as app:dev or registry.example.com:5000/app:1.0")
    )]
    pub images: Vec<String>,
}

/// How nodes and Pods resolve names that are not the cluster's own.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct DnsSpec {
    /// Addresses of the name servers to ask, best first. Omitted: what the Docker host itself
    /// resolves with. Names of containers in the cluster's network resolve either way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3), inner(length(max = 15)))]
    #[x_kube(validation = Rule::new("self.all(s, isIP(s) && ip(s).family() == 4 && !ip(s).isLoopback())").message("spec.dns.servers: each must be the IPv4 address of a name server that containers reach, such as 10.0.0.53"))]
    pub servers: Vec<String>,
}

/// Wanted state of a cluster.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClusterState {
    /// Every node runs.
    #[default]
    Running,
}

/// Flags of k3s that must match on all servers (https://docs.k3s.io/cli/server).
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct K3sSpec {
    /// Range of Pod addresses. k3s's default is 10.42.0.0/16. Immutable.
    #[serde(rename = "clusterCIDR", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 18))]
    #[x_kube(validation = Rule::new("isCIDR(self) && cidr(self).ip().family() == 4").message("spec.k3s.clusterCIDR: must be an IPv4 range, such as 10.42.0.0/16"))]
    pub cluster_cidr: Option<String>,
    /// Range of Service addresses. k3s's default is 10.43.0.0/16. Immutable.
    #[serde(rename = "serviceCIDR", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 18))]
    #[x_kube(validation = Rule::new("isCIDR(self) && cidr(self).ip().family() == 4").message("spec.k3s.serviceCIDR: must be an IPv4 range, such as 10.43.0.0/16"))]
    pub service_cidr: Option<String>,
    /// Address of the cluster's DNS Service, inside serviceCIDR. k3s's default is 10.43.0.10.
    /// Immutable.
    #[serde(rename = "clusterDNS", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 15))]
    #[x_kube(validation = Rule::new("isIP(self) && ip(self).family() == 4").message("spec.k3s.clusterDNS: must be an IPv4 address inside spec.k3s.serviceCIDR, such as 10.43.0.10"))]
    pub cluster_dns: Option<String>,
    /// DNS domain of the cluster. k3s's default is cluster.local. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = Rule::new(r"self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')").message("spec.k3s.clusterDomain: must be a DNS domain, such as cluster.local"))]
    pub cluster_domain: Option<String>,
    /// How Pods of different nodes reach each other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flannel_backend: Option<FlannelBackend>,
    /// Encrypts Secrets at rest in the nested cluster's datastore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets_encryption: Option<bool>,
    /// Packaged components to leave out: coredns, servicelb, traefik, local-storage,
    /// metrics-server.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(max = 32)))]
    #[x_kube(validation = Rule::new("self.all(c, c in ['coredns','servicelb','traefik','local-storage','metrics-server'])").message("spec.k3s.disable: k3s packages coredns, servicelb, traefik, local-storage and metrics-server; write one of these"))]
    pub disable: Vec<String>,
}

/// Flannel backends of k3s (https://docs.k3s.io/networking/basic-network-options).
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum FlannelBackend {
    /// VXLAN, k3s's default.
    Vxlan,
    /// Plain routes; the nodes of one cluster share a network, so these suffice.
    HostGw,
    /// WireGuard; needs the kernel module on the Docker host.
    WireguardNative,
    /// No flannel: bring a CNI of your own.
    None,
}

impl FlannelBackend {
    /// The value that k3s's `--flannel-backend` takes.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Vxlan => "vxlan",
            Self::HostGw => "host-gw",
            Self::WireguardNative => "wireguard-native",
            Self::None => "none",
        }
    }
}

/// One key of a Secret in the cluster's namespace.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key in its data.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// One key of a ConfigMap in the cluster's namespace.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapKeyRef {
    /// Name of the ConfigMap.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key in its data.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// Docker network of a cluster.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.name) != has(self.subnet)")
    .message("spec.network: give either name, to join an existing Docker network, or subnet, for an own network with that range"))]
pub struct NetworkSpec {
    /// Name of an existing Docker network to join. It must have a configured subnet, since node
    /// addresses are pinned; k3nest never changes or removes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub name: Option<String>,
    /// IPv4 range of the cluster's own network, /16 to /26. Must not overlap another Docker
    /// network or a route of the Docker host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 18))]
    #[x_kube(validation = Rule::new("isCIDR(self) && cidr(self).ip().family() == 4 && cidr(self) == cidr(self).masked() && cidr(self).prefixLength() >= 16 && cidr(self).prefixLength() <= 26").message("spec.network.subnet: must be an IPv4 range from /16 to /26 that starts at its network address, such as 172.30.0.0/24"))]
    pub subnet: Option<String>,
}

/// Where the API of a cluster is published on the Docker host.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ApiSpec {
    /// Address of the Docker host to publish on. Omitted: 127.0.0.1, reachable from that machine
    /// only. 0.0.0.0 publishes on all.
    #[serde(rename = "hostIP", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 15))]
    #[x_kube(validation = Rule::new("isIP(self) && ip(self).family() == 4").message("spec.api.hostIP: must be an IPv4 address of the Docker host, such as 127.0.0.1 or 0.0.0.0"))]
    pub host_ip: Option<String>,
    /// Port on the Docker host. Omitted: a free one of the operator's range, kept for life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535), extend("format" = "int32"))]
    pub host_port: Option<u16>,
    /// Host name or address that kubeconfigs name, for readers on other machines. Added to the
    /// certificate. Omitted: hostIP (127.0.0.1 where that is 0.0.0.0).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(r"isIP(self) || self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')").message("spec.api.host: must be a host name or an IP address, without scheme and port, such as dev.example.com"))]
    pub host: Option<String>,
    /// Further names and addresses for the API's certificate.
    #[serde(rename = "tlsSANs", default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 253)))]
    #[x_kube(validation = Rule::new(r"self.all(n, isIP(n) || n.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$'))").message("spec.api.tlsSANs: each must be a host name or an IP address, such as dev.example.com"))]
    pub tls_sans: Vec<String>,
}

impl ApiSpec {
    /// The address the API is published on.
    pub fn host_ip(&self) -> &str {
        self.host_ip.as_deref().unwrap_or("127.0.0.1")
    }
}

/// The load balancer (nginx) in front of a cluster.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancerSpec {
    /// Image of the load balancer, with its tag or digest. Omitted: the operator's setting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    #[x_kube(validation = Rule::new("!self.endsWith(':latest') && self.matches('(:[^/]+|@sha256:[0-9a-f]{64})$')").message("spec.loadBalancer.image: must carry a tag other than latest, or a digest, such as nginx:1.29-alpine"))]
    pub image: Option<String>,
    /// Ports of the Docker host that lead to nodes of the cluster.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(
        merge_strategy = ListMerge::Map(vec!["hostPort".into(), "protocol".into()]),
        validation = Rule::new("self.all(p, self.exists_one(q, q.hostPort == p.hostPort && q.protocol == p.protocol))").message("spec.loadBalancer.ports: each hostPort and protocol may be used once; give one of the two another hostPort")
    )]
    pub ports: Vec<PortMapping>,
}

/// A port of the Docker host that the load balancer forwards to nodes.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PortMapping {
    /// A name, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub name: Option<String>,
    /// Address of the Docker host to publish on. Omitted: all addresses (0.0.0.0).
    #[serde(rename = "hostIP", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 15))]
    #[x_kube(validation = Rule::new("isIP(self) && ip(self).family() == 4").message("spec.loadBalancer.ports[].hostIP: must be an IPv4 address of the Docker host, such as 127.0.0.1"))]
    pub host_ip: Option<String>,
    /// Port on the Docker host, 1 to 65535.
    #[schemars(range(min = 1, max = 65535), extend("format" = "int32"))]
    pub host_port: u16,
    /// Port on the nodes, 1 to 65535: a node port of a Service, or a host port such as 80 of an
    /// ingress controller.
    #[schemars(range(min = 1, max = 65535), extend("format" = "int32"))]
    pub port: u16,
    /// TCP or UDP.
    #[serde(default)]
    pub protocol: Protocol,
    /// Which nodes get the traffic.
    #[serde(default)]
    pub to: PortTarget,
}

/// Transport protocol of a port.
#[derive(
    JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord,
)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// As Docker writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// Nodes that a load balancer port leads to.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PortTarget {
    /// The servers.
    #[default]
    Servers,
    /// The agents.
    Agents,
    /// Every node.
    All,
}
