//! Docker's objects and its rules about them, without any I/O.
//!
//! What is modelled is what was tried or is documented: names of containers are locks and those of
//! volumes are not; ports are taken at start; networks refuse to overlap; a volume outlives its
//! containers and cannot be removed below one.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use ipnet::Ipv4Net;
use jiff::Timestamp;

use super::k3s::{Etcd, SimNode, whole_seconds};
use crate::{
    api::validate::overlap,
    engine::{EngineError, Result},
    plan::{
        Attachment, BalancerConfig, Container, ContainerKind, ContainerState, ContainerWant, EngineInfo,
        HostPort, Limits, Network, NetworkWant, Volume, VolumeWant,
    },
};

/// A file: mode and content.
pub type File = (u32, Vec<u8>);

/// A container with all that was asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct SimContainer {
    pub id: String,
    pub want: ContainerWant,
    pub state: ContainerState,
    pub created: Timestamp,
    pub started: Option<Timestamp>,
    /// Files outside of volumes.
    pub files: BTreeMap<String, File>,
    /// Volumes by target, anonymous ones among them.
    pub volumes: BTreeMap<String, String>,
    /// The network it was created in: another one of the same name will not do.
    pub network_id: String,
    /// The one that it joined besides, likewise.
    pub guest_id: Option<String>,
    /// Whether it is still in its network.
    pub attached: bool,
}

/// A volume with its files, by path below it, and the etcd that lives there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SimVolume {
    pub labels: BTreeMap<String, String>,
    pub files: BTreeMap<String, File>,
    pub etcd: Option<Etcd>,
    /// Docker made it because nobody named one: a leak unless it goes with its container.
    pub anonymous: bool,
}

/// An image: whether it is on the host, whether it can be had, what it declares.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SimImage {
    pub present: bool,
    pub pullable: bool,
    pub volumes: Vec<String>,
}

/// Everything there is.
#[derive(Clone, Debug, Default)]
pub struct Docker {
    pub info: EngineInfo,
    /// What a probe reads there.
    pub machine: String,
    pub now: Timestamp,
    pub containers: BTreeMap<String, SimContainer>,
    pub volumes: BTreeMap<String, SimVolume>,
    pub networks: Vec<Network>,
    /// The members of each etcd, by its id: names of their Nodes.
    pub members: BTreeMap<String, BTreeSet<String>>,
    /// Nodes by name, of each etcd by its id.
    pub nodes: BTreeMap<String, BTreeMap<String, SimNode>>,
    pub images: BTreeMap<String, SimImage>,
    /// Ports that processes of the host hold.
    pub busy_ports: BTreeSet<u16>,
    /// Ranges that Docker refuses although no network of the list holds them.
    pub busy_ranges: Vec<Ipv4Net>,
    /// How many milliseconds a server takes until it is Ready.
    pub boot_millis: i64,
    /// Clusters that have served: their data must never be found missing again.
    pub served: BTreeSet<String>,
    /// What must never happen and did.
    pub broken: Vec<String>,
    pub last_id: u64,
}

/// A container that nobody has said anything about.
pub fn bare_container() -> ContainerWant {
    ContainerWant {
        name: String::new(),
        kind: ContainerKind::LoadBalancer(BalancerConfig { servers: Vec::new(), forwards: Vec::new() }),
        image: String::new(),
        hostname: String::new(),
        env: Vec::new(),
        labels: BTreeMap::new(),
        mounts: Vec::new(),
        tmpfs: Vec::new(),
        ports: Vec::new(),
        network: "host".into(),
        address: Ipv4Addr::UNSPECIFIED,
        guest: None,
        privileged: false,
        runtime: None,
        limits: Limits::default(),
        ulimits: Vec::new(),
        host_aliases: Vec::new(),
        dns: Vec::new(),
    }
}

fn is_ours(labels: &BTreeMap<String, String>, scope: &[String]) -> bool {
    scope
        .iter()
        .all(|entry| entry.split_once('=').is_some_and(|(k, v)| labels.get(k).map(String::as_str) == Some(v)))
}

pub fn not_found(what: &str, name: &str) -> EngineError {
    EngineError::NotFound { what: what.into(), name: name.into() }
}

pub fn refused(what: &str, message: impl Into<String>) -> EngineError {
    EngineError::Refused { what: what.into(), message: message.into() }
}

pub fn busy(what: &str, message: impl Into<String>) -> EngineError {
    EngineError::Busy { what: what.into(), message: message.into() }
}

impl SimContainer {
    /// Ports it holds while it runs.
    pub fn host_ports(&self) -> Vec<HostPort> {
        let port =
            |p: &crate::plan::Publish| HostPort { ip: p.host_ip, port: p.host_port, protocol: p.protocol };
        self.want.ports.iter().map(port).collect()
    }

    /// Its places, by name of network.
    pub fn addresses(&self) -> Vec<(String, Ipv4Addr)> {
        let guest = self.want.guest.iter().map(|g| (g.network.clone(), g.address));
        guest.chain([(self.want.network.clone(), self.want.address)]).collect()
    }

    pub fn is_up(&self) -> bool {
        matches!(self.state, ContainerState::Running | ContainerState::Restarting)
    }

    /// In Docker's words, as far as somebody reads them.
    fn status(&self, now: Timestamp) -> String {
        match (self.state, self.started) {
            (ContainerState::Running, Some(started)) => match now.duration_since(started).as_secs() {
                0 => "Up Less than a second".into(),
                seconds @ 1..60 => format!("Up {seconds} seconds"),
                _ => "Up About a minute".into(),
            },
            _ => self.state.as_str().into(),
        }
    }

    fn summary(&self, now: Timestamp) -> Container {
        let up = self.is_up();
        let attach = |address: Ipv4Addr| Attachment { address: up.then_some(address), pinned: Some(address) };
        let guest = self.want.guest.iter().map(|g| (g.network.clone(), attach(g.address)));
        Container {
            id: self.id.clone(),
            name: self.want.name.clone(),
            image: self.want.image.clone(),
            state: self.state,
            status: self.status(now),
            labels: self.want.labels.clone(),
            created: whole_seconds(self.created),
            networks: guest
                .chain(self.attached.then(|| (self.want.network.clone(), attach(self.want.address))))
                .collect(),
            ports: if up { self.host_ports() } else { Vec::new() },
        }
    }
}

impl Docker {
    pub fn id(&mut self, kind: &str) -> String {
        self.last_id += 1;
        format!("{kind}-{}", self.last_id)
    }

    pub fn list_containers(&self, scope: &[String]) -> Vec<Container> {
        let ours = self.containers.values().filter(|c| is_ours(&c.want.labels, scope));
        ours.map(|c| c.summary(self.now)).collect()
    }

    pub fn list_volumes(&self, scope: &[String]) -> Vec<Volume> {
        let ours = self.volumes.iter().filter(|(_, v)| is_ours(&v.labels, scope));
        ours.map(|(name, v)| Volume { name: name.clone(), labels: v.labels.clone() }).collect()
    }

    pub fn list_networks(&self, scope: &[String]) -> Vec<Network> {
        self.networks.iter().filter(|n| is_ours(&n.labels, scope)).cloned().collect()
    }

    pub fn pull(&mut self, reference: &str) -> Result<()> {
        match self.images.get_mut(reference).filter(|i| i.pullable) {
            Some(image) => image.present = true,
            None => {
                return Err(EngineError::ImageUnavailable {
                    image: reference.into(),
                    message: "manifest unknown".into(),
                });
            }
        }
        Ok(())
    }

    /// By the trait's contract: one of that name is returned, the oldest.
    pub fn create_network(&mut self, want: &NetworkWant) -> Result<Network> {
        let same = self.networks.iter().filter(|n| n.name == want.name);
        if let Some(existing) = same.min_by_key(|n| (n.created, n.id.clone())) {
            return Ok(existing.clone());
        }
        let taken = self.networks.iter().filter_map(|n| n.subnet).chain(self.busy_ranges.iter().copied());
        if let Some(taken) = taken.into_iter().find(|range| overlap(*range, want.subnet)) {
            let message = format!("Pool overlaps with other one on this address space ({taken})");
            return Err(EngineError::SubnetTaken { what: format!("create network {}", want.name), message });
        }
        let network = Network {
            id: self.id("network"),
            name: want.name.clone(),
            labels: want.labels.clone(),
            subnet: Some(want.subnet),
            gateway: Some(want.gateway),
            ip_range: Some(want.ip_range),
            created: self.now,
        };
        self.networks.push(network.clone());
        Ok(network)
    }

    pub fn create_volume(&mut self, want: &VolumeWant) -> Volume {
        let volume = self
            .volumes
            .entry(want.name.clone())
            .or_insert_with(|| SimVolume { labels: want.labels.clone(), ..SimVolume::default() });
        Volume { name: want.name.clone(), labels: volume.labels.clone() }
    }

    pub fn remove_volume(&mut self, name: &str) -> Result<()> {
        if let Some(user) = self.containers.values().find(|c| c.volumes.values().any(|v| v == name)) {
            return Err(busy(
                &format!("remove volume {name}"),
                format!("volume is in use - [{}]", user.want.name),
            ));
        }
        self.volumes.remove(name);
        Ok(())
    }

    /// Only those that run hold an endpoint.
    pub fn remove_network(&mut self, id: &str) -> Result<()> {
        let holds = |c: &SimContainer| {
            c.is_up() && ((c.network_id == id && c.attached) || c.guest_id.as_deref() == Some(id))
        };
        if self.containers.values().any(holds) {
            return Err(busy(&format!("remove network {id}"), "has active endpoints"));
        }
        self.networks.retain(|n| n.id != id);
        Ok(())
    }
}
