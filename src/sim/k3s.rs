//! What a started node does, as far as k3nest's promises depend on it: etcd lives in the data
//! volumes of the servers, opens with one token only, and is made anew by whoever starts without
//! data and is told to.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Taint;

use super::docker::{Docker, SimContainer};
use crate::{
    api::{NodeTaint, Role, label},
    k3s::{Access, ClusterApi, KUBECONFIG_PATH, NodeFacts, TOKEN_PATH},
    plan::{API_PORT, ContainerKind, ContainerState, Record, Sensitive},
};

const DATA_DIR: &str = "/var/lib/rancher/k3s";

/// The key in every kubeconfig of this world.
pub const CLIENT_KEY: &str = "PRIVATE-CLIENT-KEY";

/// A server's share of a cluster's etcd, in its data volume.
#[derive(Clone, Debug, PartialEq)]
pub struct Etcd {
    /// Another one for every cluster that was ever made; the same in all of its servers.
    pub id: String,
    /// The token it was made with, and opens with.
    pub token: Vec<u8>,
}

/// A Node: as its kubelet reported last.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SimNode {
    /// Empty until its kubelet registers.
    pub version: String,
    /// What its kubelet has to know.
    pub password: Vec<u8>,
    /// When its kubelet spoke last, in whole seconds.
    pub reported: Timestamp,
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<NodeTaint>,
}

/// The version that an image's tag stands for.
fn version_of(image: &str) -> String {
    image.rsplit(':').next().unwrap_or_default().replace("-k3s", "+k3s")
}

/// As Docker and Kubernetes write times.
pub fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap()
}

impl Docker {
    /// What happens in a container that has just been started.
    pub fn boot(&mut self, name: &str) {
        let now = self.now;
        let state = match self.containers[name].want.kind.clone() {
            ContainerKind::LoadBalancer(_) => ContainerState::Running,
            ContainerKind::Node(node) => self.boot_node(name, node.role),
        };
        if let Some(container) = self.containers.get_mut(name) {
            container.state = state;
            container.started = Some(now);
        }
    }

    fn boot_node(&mut self, name: &str, role: Role) -> ContainerState {
        let container = self.containers[name].clone();
        let owner = container.want.labels.get(label::OWNER).cloned().unwrap_or_default();
        let token = self.read_file(&container.id, TOKEN_PATH).unwrap_or_default();
        let config = self.read_file(&container.id, "/etc/rancher/k3s/config.yaml").unwrap_or_default();
        let config: BTreeMap<String, serde_json::Value> =
            serde_saphyr::from_slice(&config).unwrap_or_default();
        let Some(data) = container.volumes.get(DATA_DIR).cloned() else {
            self.broken.push(format!("SPLIT: {name} keeps its data in no volume"));
            return ContainerState::Running;
        };
        if config.is_empty() {
            self.broken.push(format!("{name} was started without its files"));
        }
        if token.is_empty() {
            // The entrypoint ends: the volume was emptied behind k3nest's back.
            return ContainerState::Restarting;
        }
        if self.volumes[&data].anonymous || container.volumes.values().any(|v| self.volumes[v].anonymous) {
            self.broken.push(format!("{name} has an anonymous volume"));
        }
        if role == Role::Agent {
            if !config.contains_key("server") {
                self.broken.push(format!("{name} is an agent of nobody"));
            }
            return ContainerState::Running;
        }
        let node = container.want.hostname.clone();
        if !self.take_part(&container, &data) {
            return ContainerState::Restarting;
        }
        match self.volumes[&data].etcd.clone() {
            // A member that was removed stays outside.
            Some(etcd) if !self.members.get(&etcd.id).is_some_and(|m| m.contains(&node)) => {
                ContainerState::Restarting
            }
            Some(etcd) => self.open(name, &etcd, &token),
            None if config.contains_key("server") && !config.contains_key("cluster-init") => {
                ContainerState::Running
            }
            None => {
                if self.served.contains(&owner) {
                    self.broken
                        .push(format!("SPLIT: {name} began an empty cluster in the place of one with data"));
                }
                let etcd = Etcd { id: self.id("etcd"), token: token.clone() };
                self.members.entry(etcd.id.clone()).or_default().insert(node);
                self.volumes.entry(data).or_default().etcd = Some(etcd.clone());
                self.open(name, &etcd, &token)
            }
        }
    }

    /// What the entrypoint makes sure of: data that must be there, and the recovery that the server
    /// belongs to. Whether it goes on.
    fn take_part(&mut self, container: &SimContainer, data: &str) -> bool {
        let conf = self.read_file(&container.id, "/etc/k3nest/node.conf").unwrap_or_default();
        let conf = String::from_utf8_lossy(&conf).into_owned();
        let value = |key: &str| {
            conf.lines().find_map(|line| Some(line.strip_prefix(key)?.strip_prefix('=')?.to_owned()))
        };
        let can_join = self.containers.values().any(|other| {
            other.network_id == container.network_id
                && other.state == ContainerState::Running
                && self.etcd_of(other).is_some_and(|etcd| self.has_quorum(etcd))
        });
        let Some(volume) = self.volumes.get_mut(data) else { return false };
        if volume.etcd.is_none() && value("K3NEST_DATA").is_some() {
            return false;
        }
        let Some(epoch) = value("K3NEST_EPOCH").map(String::into_bytes) else { return true };
        if volume.files.get("/k3nest/epoch").is_some_and(|(_, known)| *known == epoch) {
            return true;
        }
        if value("K3NEST_RESET").is_none() && volume.etcd.is_some() && !can_join {
            return false;
        }
        volume.files.insert("/k3nest/epoch".into(), (0o600, epoch));
        if value("K3NEST_RESET").is_none() {
            volume.etcd = None;
        } else if let Some(etcd) = volume.etcd.clone() {
            self.members.insert(etcd.id, [container.want.hostname.clone()].into());
        }
        true
    }

    /// A server opens its data, and writes its kubeconfig.
    fn open(&mut self, name: &str, etcd: &Etcd, token: &[u8]) -> ContainerState {
        if etcd.token != token {
            self.broken.push(format!("{name} was started with another token than its data's"));
            return ContainerState::Restarting;
        }
        let access = Access {
            ca: format!("CA of {}", etcd.id),
            certificate: "CERTIFICATE".into(),
            key: Sensitive::new(CLIENT_KEY.into()),
            server_name: String::new(),
        };
        let yaml = access.kubeconfig("default", "https://127.0.0.1:6443").into_bytes();
        if let Some(c) = self.containers.get_mut(name) {
            c.files.insert(KUBECONFIG_PATH.into(), (0o600, yaml));
        }
        ContainerState::Running
    }

    fn etcd_of(&self, container: &SimContainer) -> Option<&Etcd> {
        self.volumes.get(container.volumes.get(DATA_DIR)?)?.etcd.as_ref()
    }

    /// What nodes of the network of `server` do by themselves: servers without data join its etcd,
    /// and kubelets report, each once it has had its time. Whoever has another token stays outside.
    fn gather(&mut self, server: &SimContainer, etcd: &Etcd) {
        let boot = SignedDuration::from_millis(self.boot_millis);
        let owner = server.want.labels.get(label::OWNER);
        let nodes: Vec<SimContainer> = self
            .containers
            .values()
            .filter(|c| c.network_id == server.network_id && c.want.labels.get(label::OWNER) == owner)
            .filter(|c| c.state == ContainerState::Running && c.attached)
            .cloned()
            .collect();
        for node in nodes {
            let ContainerKind::Node(config) = &node.want.kind else { continue };
            let up_for = node.started.map_or(SignedDuration::ZERO, |s| self.now.duration_since(s));
            if up_for < boot {
                continue;
            }
            let token = self.read_file(&node.id, TOKEN_PATH).unwrap_or_default();
            if token != etcd.token {
                self.broken.push(format!("{} joins with another token than the cluster's", node.want.name));
                continue;
            }
            if !self.knows_password(&node, etcd) {
                continue;
            }
            if config.role == Role::Server && self.etcd_of(&node).is_none() {
                if !self.has_quorum(etcd) {
                    // Nobody is made a member.
                    continue;
                }
                // Another of that name is a member already: k3s refuses the second.
                if !self.members.entry(etcd.id.clone()).or_default().insert(node.want.hostname.clone()) {
                    continue;
                }
                let data = node.volumes.get(DATA_DIR).cloned().unwrap_or_default();
                self.volumes.entry(data).or_default().etcd = Some(etcd.clone());
                self.open(&node.want.name, etcd, &token);
            }
            if up_for >= boot * 2 {
                let known = self.nodes.entry(etcd.id.clone()).or_default();
                let entry = known.entry(node.want.hostname.clone()).or_default();
                entry.version = version_of(&node.want.image);
                entry.reported = whole_seconds(self.now);
            }
        }
    }

    /// Whether the node has the password that the cluster knows for its name. One that is new brings
    /// its own.
    fn knows_password(&mut self, node: &SimContainer, etcd: &Etcd) -> bool {
        let Some(volume) = node.volumes.get("/etc/rancher/node").cloned() else { return false };
        let fresh = self.id("password").into_bytes();
        let files = &mut self.volumes.entry(volume).or_default().files;
        let password = files.entry("/password".into()).or_insert((0o600, fresh)).1.clone();
        let known = self.nodes.entry(etcd.id.clone()).or_default().entry(node.want.hostname.clone());
        let known = known.or_default();
        if known.password.is_empty() {
            known.password.clone_from(&password);
        }
        known.password == password
    }

    /// Notes it if the container `id`, about to go down, takes the majority of its etcd along, in a
    /// cluster that is known to have served. One server alone has nobody to leave it to; that is no
    /// loss.
    pub fn mourn(&mut self, id: &str) {
        let Some(container) = self.containers.values().find(|c| c.id == id) else { return };
        let Some(etcd) = self.etcd_of(container).cloned() else { return };
        let owner = container.want.labels.get(label::OWNER);
        let ours = self.volumes.values().filter(|v| v.labels.get(label::OWNER) == owner);
        let initialised =
            ours.filter_map(|v| Record::from_labels(&v.labels)).any(|record| record.initialised);
        let members = self.members.get(&etcd.id).map_or(0, BTreeSet::len);
        let served = owner.is_some_and(|owner| self.served.contains(owner));
        if members < 3 || !served || !initialised || !self.has_quorum(&etcd) {
            return;
        }
        let name = container.want.name.clone();
        let up =
            std::mem::replace(&mut self.containers.get_mut(&name).unwrap().state, ContainerState::Exited);
        if !self.has_quorum(&etcd) {
            self.broken.push(format!("QUORUM: {name} was taken down while too few others ran"));
        }
        self.containers.get_mut(&name).unwrap().state = up;
    }

    /// Whether more than half of the members of `etcd` run.
    fn has_quorum(&self, etcd: &Etcd) -> bool {
        let Some(members) = self.members.get(&etcd.id) else { return false };
        let runs = |c: &&SimContainer| {
            c.state == ContainerState::Running
                && c.attached
                && members.contains(&c.want.hostname)
                && self.etcd_of(c).is_some_and(|e| e.id == etcd.id)
        };
        self.containers.values().filter(runs).count() * 2 > members.len()
    }

    /// The server behind `url`, through whatever load balancer publishes it.
    fn server_behind(&self, url: &str) -> Option<&SimContainer> {
        let (address, port) = url.strip_prefix("https://")?.split_once(':')?;
        let (address, port) = (address.parse::<Ipv4Addr>().ok()?, port.parse::<u16>().ok()?);
        let balancer = self.containers.values().find(|c| {
            let guest = c.want.guest.as_ref().map(|g| g.address);
            let joined = port == API_PORT && (guest == Some(address) || c.want.address == address);
            let published =
                c.host_ports().iter().any(|p| p.port == port && (p.ip == address || p.ip.is_unspecified()));
            c.state == ContainerState::Running && c.attached && (joined || published)
        })?;
        let ContainerKind::LoadBalancer(config) = &balancer.want.kind else { return None };
        self.containers.values().find(|c| {
            c.state == ContainerState::Running
                && c.network_id == balancer.network_id
                && c.attached
                && config.servers.contains(&c.want.address)
                && self.etcd_of(c).is_some()
        })
    }

    /// What the nested API at `url` says. Its Node is up when the server has had its time.
    pub fn probe(&mut self, access: &Access, url: &str) -> Result<Vec<NodeFacts>, String> {
        let server = self.server_behind(url).cloned().ok_or("connection refused")?;
        let etcd = self.etcd_of(&server).cloned().ok_or("no etcd")?;
        let owner = server.want.labels.get(label::OWNER).cloned().unwrap_or_default();
        let up_for = server.started.map_or(SignedDuration::ZERO, |s| self.now.duration_since(s));
        if access.ca != format!("CA of {}", etcd.id) {
            return Err("certificate signed by unknown authority".into());
        }
        if up_for < SignedDuration::from_millis(self.boot_millis) {
            return Err("the API is not ready: waiting for etcd".into());
        }
        self.gather(&server, &etcd);
        if !self.has_quorum(&etcd) {
            return Err("the API is not ready: waiting for etcd".into());
        }
        let nodes = self.nodes.entry(etcd.id).or_default();
        if nodes.values().any(|node| !node.version.is_empty()) {
            self.served.insert(owner);
        }
        let registered = nodes.iter().filter(|(_, node)| !node.version.is_empty());
        Ok(registered.map(|(name, node)| node.facts(name)).collect())
    }

    /// Forgets a Node, with its password and its membership.
    pub fn forget_node(&mut self, url: &str, name: &str) -> Result<(), String> {
        let server = self.server_behind(url).cloned().ok_or("connection refused")?;
        let etcd = self.etcd_of(&server).cloned().ok_or("no etcd")?;
        if !self.has_quorum(&etcd) {
            return Err("etcdserver: request timed out".into());
        }
        let up = |c: &SimContainer| c.is_up() && c.want.hostname == name && c.network_id == server.network_id;
        if self.containers.values().any(up) {
            self.broken.push(format!("Node {name} was deleted while it ran"));
        }
        self.nodes.entry(etcd.id.clone()).or_default().remove(name);
        self.members.entry(etcd.id).or_default().remove(name);
        Ok(())
    }

    /// Labels and taints as k3nest wants them. Returns whether that is news.
    pub fn keep_node(
        &mut self,
        url: &str,
        name: &str,
        labels: &BTreeMap<String, String>,
        taints: &[NodeTaint],
    ) -> Result<bool, String> {
        let server = self.server_behind(url).cloned().ok_or("connection refused")?;
        let etcd = self.etcd_of(&server).cloned().ok_or("no etcd")?;
        let node =
            self.nodes.get_mut(&etcd.id).and_then(|nodes| nodes.get_mut(name)).ok_or("no such Node")?;
        let news = node.labels != *labels || node.taints != taints;
        (node.labels, node.taints) = (labels.clone(), taints.to_vec());
        Ok(news)
    }
}

impl SimNode {
    fn facts(&self, name: &str) -> NodeFacts {
        let taint = |t: &NodeTaint| Taint {
            key: t.key.clone(),
            value: t.value.clone(),
            effect: t.effect.as_str().into(),
            time_added: None,
        };
        NodeFacts {
            name: name.into(),
            ready: true,
            reported: Some(self.reported),
            version: self.version.clone(),
            labels: self.labels.clone(),
            applied_labels: self.labels.keys().cloned().collect(),
            taints: self.taints.iter().map(taint).collect(),
            applied_taints: self.taints.clone(),
            ..NodeFacts::default()
        }
    }
}

/// The nested APIs of a simulated engine.
impl ClusterApi for super::engine::SimClusters {
    async fn probe(&self, access: &Access, url: &str, _servers: usize) -> Result<Vec<NodeFacts>, String> {
        self.0.reach(|docker| docker.probe(access, url)).await
    }

    async fn forget_node(&self, _access: &Access, url: &str, node: &str) -> Result<(), String> {
        self.0.note(format!("forget node {node}"));
        self.0.reach(|docker| docker.forget_node(url, node)).await
    }

    async fn keep_node(
        &self,
        _access: &Access,
        url: &str,
        node: &NodeFacts,
        labels: &BTreeMap<String, String>,
        taints: &[NodeTaint],
    ) -> Result<bool, String> {
        let news = self.0.reach(|docker| docker.keep_node(url, &node.name, labels, taints)).await?;
        if news {
            self.0.note(format!("keep node {}", node.name));
        }
        Ok(news)
    }
}
