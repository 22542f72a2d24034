//! What a started server does, as far as k3nest's promises depend on it: etcd lives in the data
//! volume, opens with one token only, and is made anew by whoever starts without data.

use std::{collections::BTreeMap, net::Ipv4Addr};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Taint;

use super::docker::{Docker, SimContainer};
use crate::{
    api::{NodeTaint, label},
    k3s::{Access, ClusterApi, KUBECONFIG_PATH, NodeFacts, TOKEN_PATH},
    plan::{API_PORT, ContainerKind, ContainerState, Sensitive},
};

const DATA_DIR: &str = "/var/lib/rancher/k3s";

/// The key in every kubeconfig of this world.
pub const CLIENT_KEY: &str = "PRIVATE-CLIENT-KEY";

/// A cluster's state, in the data volume of its server.
#[derive(Clone, Debug, PartialEq)]
pub struct Etcd {
    /// Another one for every cluster that was ever made.
    pub id: String,
    /// The token it was made with, and opens with.
    pub token: Vec<u8>,
    /// Its Nodes.
    pub nodes: BTreeMap<String, SimNode>,
}

/// A Node: as its kubelet reported last.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SimNode {
    pub version: String,
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
            ContainerKind::Server(_) => self.boot_server(name),
        };
        if let Some(container) = self.containers.get_mut(name) {
            container.state = state;
            container.started = Some(now);
        }
    }

    fn boot_server(&mut self, name: &str) -> ContainerState {
        let container = self.containers[name].clone();
        let owner = container.want.labels.get(label::OWNER).cloned().unwrap_or_default();
        let token = self.read_file(&container.id, TOKEN_PATH).unwrap_or_default();
        let config = self.read_file(&container.id, "/etc/rancher/k3s/config.yaml").unwrap_or_default();
        let Some(data) = container.volumes.get(DATA_DIR).cloned() else {
            self.broken.push(format!("SPLIT: {name} keeps its data in no volume"));
            return ContainerState::Running;
        };
        if token.is_empty() || config.is_empty() {
            self.broken.push(format!("{name} was started without its files"));
        }
        if self.volumes[&data].anonymous || container.volumes.values().any(|v| self.volumes[v].anonymous) {
            self.broken.push(format!("{name} has an anonymous volume"));
        }
        if self.volumes[&data].etcd.is_none() {
            if self.served.contains(&owner) {
                self.broken
                    .push(format!("SPLIT: {name} began an empty cluster in the place of one with data"));
            }
            let id = self.id("etcd");
            let made = Etcd { id, token: token.clone(), nodes: BTreeMap::new() };
            self.volumes.entry(data.clone()).or_default().etcd = Some(made);
        }
        let etcd = self.volumes[&data].etcd.clone();
        match etcd {
            Some(etcd) if etcd.token == token => {
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
            _ => {
                self.broken.push(format!("{name} was started with another token than its data's"));
                ContainerState::Restarting
            }
        }
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
            c.state == ContainerState::Running && (joined || published)
        })?;
        let ContainerKind::LoadBalancer(config) = &balancer.want.kind else { return None };
        self.containers.values().find(|c| {
            c.state == ContainerState::Running
                && c.network_id == balancer.network_id
                && config.servers.contains(&c.want.address)
        })
    }

    /// What the nested API at `url` says. Its Node is up when the server has had its time.
    pub fn probe(&mut self, access: &Access, url: &str) -> Result<Vec<NodeFacts>, String> {
        let server = self.server_behind(url).cloned().ok_or("connection refused")?;
        let data = server.volumes.get(DATA_DIR).cloned().unwrap_or_default();
        let owner = server.want.labels.get(label::OWNER).cloned().unwrap_or_default();
        let up_for = server.started.map_or(SignedDuration::ZERO, |s| self.now.duration_since(s));
        let boot = SignedDuration::from_millis(self.boot_millis);
        let etcd = self.volumes.get_mut(&data).and_then(|v| v.etcd.as_mut()).ok_or("no etcd")?;
        if access.ca != format!("CA of {}", etcd.id) {
            return Err("certificate signed by unknown authority".into());
        }
        if up_for < boot {
            return Err("the API is not ready: waiting for etcd".into());
        }
        if up_for >= boot * 2 {
            let node = etcd.nodes.entry(server.want.hostname.clone()).or_default();
            node.version = version_of(&server.want.image);
            node.reported = whole_seconds(self.now);
            self.served.insert(owner);
        }
        Ok(etcd.nodes.iter().map(|(name, node)| node.facts(name)).collect())
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
        let data = server.volumes.get(DATA_DIR).cloned().unwrap_or_default();
        let etcd = self.volumes.get_mut(&data).and_then(|v| v.etcd.as_mut()).ok_or("no etcd")?;
        let node = etcd.nodes.get_mut(name).ok_or("no such Node")?;
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
    async fn probe(&self, access: &Access, url: &str) -> Result<Vec<NodeFacts>, String> {
        self.0.pause().await;
        self.0.docker().probe(access, url)
    }

    async fn keep_node(
        &self,
        _access: &Access,
        url: &str,
        node: &NodeFacts,
        labels: &BTreeMap<String, String>,
        taints: &[NodeTaint],
    ) -> Result<bool, String> {
        self.0.pause().await;
        let news = self.0.docker().keep_node(url, &node.name, labels, taints)?;
        if news {
            self.0.note(format!("keep node {}", node.name));
        }
        Ok(news)
    }
}
