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

use super::k3s::{Etcd, whole_seconds};
use crate::{
    api::{Protocol, label, validate::overlap},
    engine::{EngineError, Result},
    plan::{
        Attachment, BalancerConfig, Container, ContainerKind, ContainerState, ContainerWant, EngineInfo,
        FileWant, HostPort, MountSource, Network, NetworkWant, Volume, VolumeWant,
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
    pub now: Timestamp,
    pub containers: BTreeMap<String, SimContainer>,
    pub volumes: BTreeMap<String, SimVolume>,
    pub networks: Vec<Network>,
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
    }
}

fn is_ours(labels: &BTreeMap<String, String>, scope: &[String]) -> bool {
    scope
        .iter()
        .all(|entry| entry.split_once('=').is_some_and(|(k, v)| labels.get(k).map(String::as_str) == Some(v)))
}

fn not_found(what: &str, name: &str) -> EngineError {
    EngineError::NotFound { what: what.into(), name: name.into() }
}

fn refused(what: &str, message: impl Into<String>) -> EngineError {
    EngineError::Refused { what: what.into(), message: message.into() }
}

fn busy(what: &str, message: impl Into<String>) -> EngineError {
    EngineError::Busy { what: what.into(), message: message.into() }
}

/// Addresses and ports that would be bound, of which two collide unless their addresses differ.
fn collide(a: &HostPort, b: &HostPort) -> bool {
    let any = |ip: Ipv4Addr| ip.is_unspecified();
    a.port == b.port && a.protocol == b.protocol && (a.ip == b.ip || any(a.ip) || any(b.ip))
}

impl SimContainer {
    /// Ports it holds while it runs.
    pub fn host_ports(&self) -> Vec<HostPort> {
        let port =
            |p: &crate::plan::Publish| HostPort { ip: p.host_ip, port: p.host_port, protocol: p.protocol };
        self.want.ports.iter().map(port).collect()
    }

    /// Its places, by name of network.
    fn addresses(&self) -> Vec<(String, Ipv4Addr)> {
        let guest = self.want.guest.iter().map(|g| (g.network.clone(), g.address));
        guest.chain([(self.want.network.clone(), self.want.address)]).collect()
    }

    pub fn is_up(&self) -> bool {
        matches!(self.state, ContainerState::Running | ContainerState::Restarting)
    }

    fn summary(&self) -> Container {
        let up = self.is_up();
        let attach = |address: Ipv4Addr| Attachment { address: up.then_some(address), pinned: Some(address) };
        let guest = self.want.guest.iter().map(|g| (g.network.clone(), attach(g.address)));
        Container {
            id: self.id.clone(),
            name: self.want.name.clone(),
            image: self.want.image.clone(),
            state: self.state,
            status: self.state.as_str().into(),
            labels: self.want.labels.clone(),
            created: whole_seconds(self.created),
            networks: guest.chain([(self.want.network.clone(), attach(self.want.address))]).collect(),
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
        ours.map(SimContainer::summary).collect()
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

    pub fn create_container(&mut self, want: &ContainerWant) -> Result<String> {
        if self.containers.contains_key(&want.name) {
            return Err(EngineError::NameTaken { kind: "container", name: want.name.clone() });
        }
        let what = format!("create container {}", want.name);
        let Some(image) = self.images.get(&want.image).filter(|i| i.present).cloned() else {
            return Err(EngineError::ImageUnavailable {
                image: want.image.clone(),
                message: "No such image".into(),
            });
        };
        let networks: Vec<_> = self.networks.iter().filter(|n| n.name == want.network).collect();
        let network_id = match networks.as_slice() {
            [] => return Err(not_found(&what, &want.network)),
            [one] if one.subnet.is_some_and(|s| s.contains(&want.address)) => one.id.clone(),
            [_] => return Err(refused(&what, format!("{} is in no subnet of the network", want.address))),
            _ => return Err(refused(&what, format!("network {} is ambiguous", want.network))),
        };
        if let Some(guest) =
            want.guest.as_ref().filter(|g| !self.networks.iter().any(|n| n.name == g.network))
        {
            return Err(not_found(&what, &guest.network));
        }
        let mut volumes = BTreeMap::new();
        for mount in &want.mounts {
            if let MountSource::Volume(name) = &mount.source {
                // Docker makes what is not there, with the labels that our engine gives it.
                let owner = [label::INSTANCE, label::OWNER, label::NAME, label::NAMESPACE];
                let labels = want.labels.iter().filter(|(k, _)| owner.contains(&k.as_str()));
                let labels = labels.map(|(k, v)| (k.clone(), v.clone())).collect();
                self.create_volume(&VolumeWant { name: name.clone(), labels });
                volumes.insert(mount.target.clone(), name.clone());
            }
        }
        for target in image.volumes.iter().filter(|t| !want.mounts.iter().any(|m| m.target == **t)) {
            let name = self.id("anonymous");
            self.volumes.insert(name.clone(), SimVolume { anonymous: true, ..SimVolume::default() });
            volumes.insert(target.clone(), name);
        }
        self.place_container(want, ContainerState::Created, network_id, volumes)
    }

    /// A container in the host's network that runs and ends.
    pub fn run_probe(&mut self, want: &ContainerWant) -> Result<String> {
        if !self.images.get(&want.image).is_some_and(|i| i.present) {
            return Err(EngineError::ImageUnavailable {
                image: want.image.clone(),
                message: "No such image".into(),
            });
        }
        self.place_container(want, ContainerState::Exited, String::new(), BTreeMap::new())
    }

    /// Puts a container there, whatever the rules.
    pub fn place_container(
        &mut self,
        want: &ContainerWant,
        state: ContainerState,
        network_id: String,
        volumes: BTreeMap<String, String>,
    ) -> Result<String> {
        if self.containers.contains_key(&want.name) {
            return Err(EngineError::NameTaken { kind: "container", name: want.name.clone() });
        }
        let container = SimContainer {
            id: self.id("container"),
            want: want.clone(),
            state,
            created: self.now,
            started: None,
            files: BTreeMap::new(),
            volumes,
            network_id,
        };
        let id = container.id.clone();
        self.containers.insert(want.name.clone(), container);
        Ok(id)
    }

    /// The container with this id, by name.
    pub fn name_of(&self, id: &str, what: &str) -> Result<String> {
        let found = self.containers.values().find(|c| c.id == id);
        found.map(|c| c.want.name.clone()).ok_or_else(|| not_found(what, id))
    }

    pub fn start_container(&mut self, id: &str) -> Result<()> {
        let what = format!("start container {id}");
        let name = self.name_of(id, &what)?;
        let container = self.containers[&name].clone();
        if container.is_up() {
            return Ok(());
        }
        if !self.networks.iter().any(|n| n.id == container.network_id) {
            return Err(not_found(&what, &format!("network {}", container.network_id)));
        }
        let up = |c: &&SimContainer| c.is_up();
        let asked = container.addresses();
        let others = self.containers.values().filter(up).flat_map(SimContainer::addresses);
        if let Some((network, address)) = others.into_iter().find(|taken| asked.contains(taken)) {
            return Err(busy(
                &what,
                format!("another container has its pinned address {address} in {network}"),
            ));
        }
        let held: Vec<HostPort> =
            self.containers.values().filter(up).flat_map(SimContainer::host_ports).collect();
        let asked = container.host_ports();
        for (i, port) in asked.iter().enumerate() {
            let by_us = held.iter().chain(&asked[..i]).any(|other| collide(other, port));
            if by_us || (self.busy_ports.contains(&port.port) && port.protocol == Protocol::Tcp) {
                let message = format!("Bind for {}:{} failed: port is already allocated", port.ip, port.port);
                return Err(EngineError::PortTaken { what, message });
            }
        }
        self.boot(&name);
        Ok(())
    }

    pub fn stop_container(&mut self, id: &str) {
        if let Some(container) = self.containers.values_mut().find(|c| c.id == id && c.is_up()) {
            container.state = ContainerState::Exited;
        }
    }

    /// By force, with its anonymous volumes.
    pub fn remove_container(&mut self, id: &str) {
        let Ok(name) = self.name_of(id, "") else { return };
        let Some(container) = self.containers.remove(&name) else { return };
        for volume in container.volumes.values() {
            if self.volumes.get(volume).is_some_and(|v| v.anonymous) {
                self.volumes.remove(volume);
            }
        }
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
        let guests: BTreeSet<&str> =
            self.networks.iter().filter(|n| n.id == id).map(|n| n.name.as_str()).collect();
        let holds = |c: &SimContainer| {
            c.is_up()
                && (c.network_id == id
                    || c.want.guest.as_ref().is_some_and(|g| guests.contains(g.network.as_str())))
        };
        if self.containers.values().any(holds) {
            return Err(busy(&format!("remove network {id}"), "has active endpoints"));
        }
        self.networks.retain(|n| n.id != id);
        Ok(())
    }

    /// The volume that holds `path` of a container, and the path below it.
    fn place<'a>(&self, container: &'a SimContainer, path: &str) -> Option<(&'a String, String)> {
        let below = |target: &String| path.strip_prefix(target.as_str()).is_some_and(|r| r.starts_with('/'));
        let (target, volume) =
            container.volumes.iter().filter(|(t, _)| below(t)).max_by_key(|(t, _)| t.len())?;
        Some((volume, path[target.len()..].to_owned()))
    }

    pub fn write_files(&mut self, id: &str, files: &[FileWant]) -> Result<()> {
        let name = self.name_of(id, &format!("write files of container {id}"))?;
        let container = self.containers[&name].clone();
        for file in files {
            let content = (file.mode, file.content.expose().clone());
            let held = self.place(&container, &file.path);
            match held.and_then(|(volume, rest)| Some((self.volumes.get_mut(volume)?, rest))) {
                Some((volume, rest)) => drop(volume.files.insert(rest, content)),
                None => {
                    let files = self.containers.get_mut(&name).map(|c| &mut c.files);
                    files.and_then(|f| f.insert(file.path.clone(), content));
                }
            }
        }
        Ok(())
    }

    pub fn read_file(&self, id: &str, path: &str) -> Option<Vec<u8>> {
        let container = self.containers.values().find(|c| c.id == id)?;
        let file = match self.place(container, path) {
            Some((volume, rest)) => self.volumes.get(volume)?.files.get(&rest)?,
            None => container.files.get(path)?,
        };
        Some(file.1.clone())
    }
}
