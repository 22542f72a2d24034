//! What exists in Docker, as plain data, from three list calls.

use std::{collections::BTreeMap, net::Ipv4Addr};

use ipnet::Ipv4Net;
use jiff::Timestamp;

use super::{Keeper, Member, Record};
use crate::api::{Protocol, Role, label};

/// The objects of one cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Its containers.
    pub containers: Vec<Container>,
    /// Its volumes.
    pub volumes: Vec<Volume>,
    /// Its networks, of which there should be one at most.
    pub networks: Vec<Network>,
    /// Fingerprint of the configuration that its load balancer has loaded, where one runs.
    pub loaded: Option<String>,
    /// The Nodes that the nested API knows, and whether each is Ready; None while it was not asked or
    /// did not answer.
    pub nodes: Option<BTreeMap<String, bool>>,
    /// What lies in the data volumes of nodes, by name of the volume; None while nobody looked.
    pub data: Option<BTreeMap<String, NodeData>>,
}

/// What was found in a node's data volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeData {
    /// Whether the token lies there, which k3nest writes before it starts a node.
    pub token: bool,
    /// Whether there is an etcd member's data.
    pub etcd: bool,
    /// Whether the token counts as such data: of what was never Ready none can be lost.
    pub begun: bool,
    /// When etcd wrote there last, where that was asked.
    pub written: Option<Timestamp>,
    /// Whether its server was a member after a later recovery than the data was part of: somebody has put
    /// a copy back. It is no member's any more.
    pub outgrown: bool,
}

/// What has become of a node's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataState {
    /// It is there.
    Kept,
    /// There is none: the node is new, or its data is lost.
    Empty,
    /// Its volume is there, and nobody has looked into it.
    Unknown,
}

/// A container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Id.
    pub id: String,
    /// Name, without the slash.
    pub name: String,
    /// The image as it was asked for.
    pub image: String,
    /// State.
    pub state: ContainerState,
    /// State in Docker's words, such as "Restarting (1) 5 seconds ago".
    pub status: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// When it was created.
    pub created: Timestamp,
    /// Networks by name.
    pub networks: BTreeMap<String, Attachment>,
    /// Ports of the host that it holds.
    pub ports: Vec<HostPort>,
}

/// State of a container (https://docs.docker.com/reference/api/engine/, ContainerList).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerState {
    /// Never started.
    Created,
    /// Running.
    Running,
    /// Paused by hand.
    Paused,
    /// Between two tries.
    Restarting,
    /// On its way out.
    Removing,
    /// Stopped.
    Exited,
    /// Could not be removed.
    Dead,
}

impl ContainerState {
    /// As Docker writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Removing => "removing",
            Self::Exited => "exited",
            Self::Dead => "dead",
        }
    }

    /// From Docker's word. An unknown word counts as dead, which is replaced.
    pub fn parse(text: &str) -> Self {
        [Self::Created, Self::Running, Self::Paused, Self::Restarting, Self::Removing, Self::Exited]
            .into_iter()
            .find(|s| s.as_str() == text)
            .unwrap_or(Self::Dead)
    }
}

/// A container's place in a network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attachment {
    /// The address it has now, if it runs.
    pub address: Option<Ipv4Addr>,
    /// The address it was given for good.
    pub pinned: Option<Ipv4Addr>,
}

/// A port of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    /// Address it is bound on.
    pub ip: Ipv4Addr,
    /// Port.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Name.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// A network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Id.
    pub id: String,
    /// Name. Before API 1.44 not unique.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Its first IPv4 range, if it was configured with one.
    pub subnet: Option<Ipv4Net>,
    /// Its gateway.
    pub gateway: Option<Ipv4Addr>,
    /// The part of the range that Docker gives out by itself.
    pub ip_range: Option<Ipv4Net>,
    /// When it was created.
    pub created: Timestamp,
}

fn role_of(labels: &BTreeMap<String, String>) -> Option<Role> {
    Role::parse(labels.get(label::ROLE)?)
}

impl Container {
    /// What it is for.
    pub fn role(&self) -> Option<Role> {
        role_of(&self.labels)
    }

    /// Whether it runs for less than a minute, by Docker's words ("Up 5 seconds").
    pub fn is_young(&self) -> bool {
        self.state == ContainerState::Running && self.status.contains("second")
    }

    /// The hash of what was asked for when it was made.
    pub fn hash(&self) -> &str {
        self.labels.get(label::HASH).map(String::as_str).unwrap_or_default()
    }
}

impl Volume {
    /// What it is for.
    pub fn role(&self) -> Option<Role> {
        role_of(&self.labels)
    }

    /// The node that it makes a member, if it is a readable birth certificate.
    pub fn member(&self) -> Option<Member> {
        (self.role()? == Role::Data).then_some(())?;
        Some(Member {
            pool: self.labels.get(label::POOL)?.clone(),
            index: self.labels.get(label::INDEX)?.parse().ok()?,
            address: self.labels.get(label::ADDRESS)?.parse().ok()?,
        })
    }
}

impl Observed {
    /// Whether nothing is there.
    pub fn is_empty(&self) -> bool {
        self.containers.is_empty() && self.volumes.is_empty() && self.networks.is_empty()
    }

    /// The container called `name`.
    pub fn container(&self, name: &str) -> Option<&Container> {
        self.containers.iter().find(|c| c.name == name)
    }

    /// The volume called `name`.
    pub fn volume(&self, name: &str) -> Option<&Volume> {
        self.volumes.iter().find(|v| v.name == name)
    }

    /// The network to use: the oldest, since two creators may have made two of one name.
    pub fn network(&self) -> Option<&Network> {
        self.networks.iter().min_by_key(|n| (n.created, &n.id))
    }

    /// The newest readable record.
    pub fn record(&self) -> Option<Record> {
        self.volumes
            .iter()
            .filter(|v| v.role() == Some(Role::Record))
            .filter_map(|v| Record::from_labels(&v.labels))
            .max_by_key(|r| r.generation)
    }

    /// Name of a volume with a record that cannot be read: another version of k3nest may have written it, and
    /// knows more than any other record here.
    pub fn unreadable_record(&self) -> Option<&str> {
        let unreadable =
            |v: &&Volume| v.role() == Some(Role::Record) && Record::from_labels(&v.labels).is_none();
        self.volumes.iter().find(unreadable).map(|v| v.name.as_str())
    }

    /// The record as containers and networks were made by it, where its own volume is gone: it is in
    /// no container's use, so that `docker volume prune` takes it.
    pub fn remembered(&self) -> Option<Record> {
        let containers = self.containers.iter().map(|c| &c.labels);
        let networks = self.networks.iter().map(|n| &n.labels);
        containers.chain(networks).filter_map(Record::from_labels).max_by_key(|r| r.generation)
    }

    /// Who has adopted the cluster, by its record, or by what is remembered of that.
    pub fn keeper(&self) -> Option<Keeper> {
        self.record().or_else(|| self.remembered())?.keeper
    }

    /// What has become of the data of the node called `node`, of a role, in the container called
    /// `container`. One that runs has it open; one that was just started may be about to stop for want
    /// of it.
    pub fn data_of(&self, role: Role, node: &str, container: &str) -> DataState {
        let there = |data: &NodeData| match role {
            Role::Server => (data.etcd || data.begun) && !data.outgrown,
            _ => data.token,
        };
        self.data_that(there, node, container)
    }

    /// The same of a server, where data counts that is no member's any more, too: it can be recovered from.
    pub fn former_data_of(&self, node: &str, container: &str) -> DataState {
        self.data_that(|data| data.etcd, node, container)
    }

    fn data_that(&self, there: impl Fn(&NodeData) -> bool, node: &str, container: &str) -> DataState {
        let Some(volume) = self.data_volume(node) else { return DataState::Empty };
        if let Some(data) = self.data.as_ref().and_then(|data| data.get(&volume.name)) {
            return if there(data) { DataState::Kept } else { DataState::Empty };
        }
        let up = [ContainerState::Running, ContainerState::Paused];
        match self.container(container) {
            Some(container) if up.contains(&container.state) && !container.is_young() => DataState::Kept,
            _ => DataState::Unknown,
        }
    }

    fn data_volume(&self, node: &str) -> Option<&Volume> {
        let is_its = |v: &&Volume| {
            v.role() == Some(Role::Data) && v.labels.get(label::NODE).map(String::as_str) == Some(node)
        };
        self.volumes.iter().find(is_its)
    }

    /// What was found in the data volume of the node called `node`, where somebody looked.
    pub fn found_of(&self, node: &str) -> Option<&NodeData> {
        self.data.as_ref()?.get(&self.data_volume(node)?.name)
    }

    /// Every node whose birth certificate exists.
    pub fn members(&self) -> Vec<Member> {
        self.volumes.iter().filter_map(Volume::member).collect()
    }
}
