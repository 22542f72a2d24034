//! The life of a container in the simulated Docker: made, started, stopped, removed, and its files.

use std::{collections::BTreeMap, net::Ipv4Addr};

use super::docker::{Docker, SimContainer, SimVolume, busy, not_found, refused};
use crate::{
    api::{Protocol, label},
    engine::{EngineError, Probe, Result},
    k3s::{ETCD_DATABASE_PATH, ETCD_LOG_PATH},
    plan::{ContainerState, ContainerWant, FileWant, HostPort, MountSource, VolumeWant},
};

/// Addresses and ports that would be bound, of which two collide unless their addresses differ.
fn collide(a: &HostPort, b: &HostPort) -> bool {
    let any = |ip: Ipv4Addr| ip.is_unspecified();
    a.port == b.port && a.protocol == b.protocol && (a.ip == b.ip || any(a.ip) || any(b.ip))
}

impl Docker {
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
        let id_of = |name: &str| self.networks.iter().find(|n| n.name == name).map(|n| n.id.clone());
        let guest_id = match &want.guest {
            Some(guest) => Some(id_of(&guest.network).ok_or_else(|| not_found(&what, &guest.network))?),
            None => None,
        };
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
        let id = self.place_container(want, ContainerState::Created, network_id, volumes)?;
        if let Some(made) = self.containers.get_mut(&want.name) {
            made.guest_id = guest_id;
        }
        Ok(id)
    }

    /// What a probe says: of the host, or of the volumes that it looks into.
    pub fn told(&self, probe: &Probe) -> String {
        if probe.volumes.is_empty() {
            return self.machine.clone();
        }
        let line = |(VolumeWant { name, .. }, _): &(VolumeWant, String)| {
            let volume = self.volumes.get(name);
            let token = volume.is_some_and(|v| v.files.contains_key("/k3nest/token"));
            let etcd = volume.is_some_and(|v| v.etcd.is_some());
            let word = |is: bool, word: &'static str| if is { word } else { "-" };
            let epoch = volume.and_then(|v| v.files.get("/k3nest/epoch"));
            let epoch = epoch.map_or("-".into(), |(_, epoch)| String::from_utf8_lossy(epoch));
            format!("{name} {} {} - {epoch}\n", word(token, "token"), word(etcd, "etcd"))
        };
        probe.volumes.iter().map(line).collect()
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
            guest_id: None,
            attached: true,
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
        let mut known = [&container.network_id].into_iter().chain(&container.guest_id);
        if let Some(gone) = known.find(|id| !self.networks.iter().any(|n| n.id == **id)) {
            return Err(not_found(&what, &format!("network {gone}")));
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
        self.mourn(id);
        if let Some(container) = self.containers.values_mut().find(|c| c.id == id && c.is_up()) {
            container.state = ContainerState::Exited;
        }
    }

    /// By force, with its anonymous volumes.
    pub fn remove_container(&mut self, id: &str) {
        let Ok(name) = self.name_of(id, "") else { return };
        self.mourn(id);
        let Some(container) = self.containers.remove(&name) else { return };
        for volume in container.volumes.values() {
            if self.volumes.get(volume).is_some_and(|v| v.anonymous) {
                self.volumes.remove(volume);
            }
        }
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

    pub fn has_path(&self, id: &str, path: &str) -> bool {
        let etcd = || {
            let container = self.containers.values().find(|c| c.id == id)?;
            let (volume, _) = self.place(container, path)?;
            self.volumes.get(volume)?.etcd.as_ref()
        };
        match path {
            ETCD_DATABASE_PATH | ETCD_LOG_PATH => etcd().is_some(),
            _ => self.read_file(id, path).is_some(),
        }
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
