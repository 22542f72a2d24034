//! What should exist, exactly: the vocabulary of [`super::desired`].

use std::{collections::BTreeMap, net::Ipv4Addr};

use ipnet::Ipv4Net;
use serde_json::{Map, Value};

use super::{GuestAddress, Record, Sensitive};
use crate::api::{NodeTaint, Protocol, Role};

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
    /// A k3s server.
    Server(Box<ServerConfig>),
    /// The load balancer.
    LoadBalancer(BalancerConfig),
}

impl ContainerKind {
    /// The role that goes with it.
    pub fn role(&self) -> Role {
        match self {
            Self::Server(_) => Role::Server,
            Self::LoadBalancer(_) => Role::LoadBalancer,
        }
    }
}

/// What a k3s server is told.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerConfig {
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
}

/// What the load balancer is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BalancerConfig {
    /// Addresses of the servers.
    pub servers: Vec<Ipv4Addr>,
    /// What it forwards besides the API.
    pub forwards: Vec<Forward>,
}

/// One forwarded port.
#[derive(Clone, Debug, PartialEq, Eq)]
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
