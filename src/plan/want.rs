//! What should exist, exactly: the vocabulary of [`super::desired`].

use std::{collections::BTreeMap, net::Ipv4Addr};

use ipnet::Ipv4Net;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{GuestAddress, Record, Sensitive, hash};
use crate::api::{HostAlias, NodeTaint, Protocol, Role, Ulimit};

/// Everything of a cluster that should exist.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired {
    /// The record.
    pub record: Record,
    /// The network, unless an existing one is joined.
    pub network: Option<NetworkWant>,
    /// Volumes; records are not among them.
    pub volumes: Vec<VolumeWant>,
    /// Containers.
    pub containers: Vec<ContainerWant>,
}

impl Desired {
    /// The nodes, with their containers.
    pub fn nodes(&self) -> impl Iterator<Item = (&ContainerWant, &NodeConfig)> {
        self.containers.iter().filter_map(|want| Some((want, want.node()?)))
    }
}

/// A network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkWant {
    /// Name.
    pub name: String,
    /// Range.
    pub subnet: Ipv4Net,
    /// First address of the range.
    pub gateway: Ipv4Addr,
    /// Upper half: what Docker may give out by itself. Pinned addresses are in the lower half, so
    /// that the address of a stopped container is never given to another.
    pub ip_range: Ipv4Net,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeWant {
    /// Name.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// A container.
#[derive(Clone, Debug, PartialEq)]
pub struct ContainerWant {
    /// Name.
    pub name: String,
    /// What it is for, and what it is told.
    pub kind: ContainerKind,
    /// Image reference.
    pub image: String,
    /// Hostname.
    pub hostname: String,
    /// Environment.
    pub env: Vec<(String, Sensitive<String>)>,
    /// Labels, the hash among them.
    pub labels: BTreeMap<String, String>,
    /// Mounts.
    pub mounts: Vec<Mount>,
    /// Paths with a tmpfs.
    pub tmpfs: Vec<String>,
    /// Ports to publish.
    pub ports: Vec<Publish>,
    /// What it may use at most.
    pub limits: Limits,
    /// Limits of its processes.
    pub ulimits: Vec<Ulimit>,
    /// Further lines of its /etc/hosts.
    pub host_aliases: Vec<HostAlias>,
    /// Name servers that Docker's own resolver asks for it; empty: those of the Docker host.
    pub dns: Vec<Ipv4Addr>,
    /// Name of its network.
    pub network: String,
    /// Its pinned address there.
    pub address: Ipv4Addr,
    /// A second network, at a pinned address.
    pub guest: Option<GuestAddress>,
    /// Whether it is privileged, with the host's user namespace.
    pub privileged: bool,
    /// OCI runtime, if not the engine's default.
    pub runtime: Option<String>,
}

/// What a container is told, from which its files and command are rendered.
#[derive(Clone, Debug, PartialEq)]
pub enum ContainerKind {
    /// A k3s server or agent.
    Node(Box<NodeConfig>),
    /// The load balancer.
    LoadBalancer(BalancerConfig),
}

impl ContainerWant {
    /// What it is told, where it is a node.
    pub fn node(&self) -> Option<&NodeConfig> {
        match &self.kind {
            ContainerKind::Node(node) => Some(node),
            ContainerKind::LoadBalancer(_) => None,
        }
    }
}

impl ContainerKind {
    /// The role that goes with it.
    pub fn role(&self) -> Role {
        match self {
            Self::Node(node) => node.role,
            Self::LoadBalancer(_) => Role::LoadBalancer,
        }
    }
}

/// What a container may use at most.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Memory in bytes; swap is none.
    pub memory: Option<u64>,
    /// Thousandths of a core.
    pub millicores: Option<u64>,
    /// GPUs of the Docker host.
    pub gpus: Option<Gpus>,
}

impl Limits {
    /// The cores that a kernel can show for the limit: whole ones.
    pub fn whole_cores(&self) -> Option<u64> {
        Some(self.millicores?.div_ceil(1000))
    }
}

/// GPUs of the Docker host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gpus {
    /// Every one.
    All,
    /// As many.
    Count(u32),
}

/// What a k3s node is told.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeConfig {
    /// [`Role::Server`] or [`Role::Agent`].
    pub role: Role,
    /// Its Node name.
    pub node_name: String,
    /// Its address.
    pub node_ip: Ipv4Addr,
    /// Keys of config.yaml that k3nest sets, besides the token and the resolver.
    pub flags: Map<String, Value>,
    /// The user's config.yaml.
    pub config: Map<String, Value>,
    /// The user's arguments.
    pub args: Vec<String>,
    /// The user's files.
    pub files: Vec<FileWant>,
    /// Resolver for Pods that use the node's: the load balancer, which asks Docker's own.
    pub resolver: Ipv4Addr,
    /// Labels to keep on the Node.
    pub labels: BTreeMap<String, String>,
    /// Taints to keep on the Node.
    pub taints: Vec<NodeTaint>,
    /// Addresses of the other servers, on a server that joins them unless it has data already.
    pub peers: Vec<Ipv4Addr>,
    /// How it begins.
    pub begins: Begins,
}

/// What a node's entrypoint makes sure of before k3s starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Begins {
    /// Whether its etcd data must be there: without it, k3s would found an empty cluster.
    pub with_data: bool,
    /// The recovery that the server belongs to. Data of a membership before it is discarded.
    pub epoch: Option<String>,
    /// Whether it is the one whose data that recovery keeps, as the only member.
    pub resets: bool,
}

impl NodeConfig {
    /// Whether this server makes the cluster.
    pub fn founds(&self) -> bool {
        self.flags.contains_key("cluster-init")
    }
}

/// What the load balancer is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BalancerConfig {
    /// Addresses of the servers.
    pub servers: Vec<Ipv4Addr>,
    /// What it forwards besides the API.
    pub forwards: Vec<Forward>,
}

impl BalancerConfig {
    /// Tells one configuration from another. A running load balancer says which one it has loaded.
    pub fn fingerprint(&self) -> String {
        hash::of(self)
    }
}

/// One forwarded port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Forward {
    /// Port it listens on inside its container.
    pub listen: u16,
    /// Protocol.
    pub protocol: Protocol,
    /// Port on the nodes.
    pub port: u16,
    /// Addresses of the nodes.
    pub to: Vec<Ipv4Addr>,
}

/// A file to write into a container before it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileWant {
    /// Absolute path.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Content.
    pub content: Sensitive<Vec<u8>>,
}

impl FileWant {
    /// A file.
    pub fn new(path: impl Into<String>, mode: u32, content: impl Into<Vec<u8>>) -> Self {
        Self { path: path.into(), mode, content: Sensitive::new(content.into()) }
    }
}

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// What.
    pub source: MountSource,
    /// Where.
    pub target: String,
    /// Whether read-only.
    pub read_only: bool,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountSource {
    /// A volume, by name.
    Volume(String),
    /// A path of the Docker host.
    Host(String),
}

/// A port to publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Address on the Docker host.
    pub host_ip: Ipv4Addr,
    /// Port on the Docker host; never 0, which Docker would pick anew at every start.
    pub host_port: u16,
    /// Port in the container.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
}
