//! What people, programs and power cuts do to a cluster behind k3nest's back.

use proptest::prelude::*;

use super::docker::Docker;
use crate::{
    api::{Identity, Role, label},
    plan::ContainerState,
};

/// One thing that happens in Docker and that k3nest has to put right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wound {
    /// `docker kill` of the n-th container.
    Kill(usize),
    /// `docker rm -f` of the n-th container.
    Remove(usize),
    /// `docker restart` of the n-th container.
    Restart(usize),
    /// `docker network disconnect` of the n-th container.
    Disconnect(usize),
    /// All were disconnected, and the network was removed.
    NetworkRemoved,
    /// The load balancer's configuration was deleted, and Docker restarts it in vain.
    Unconfigured,
    /// dockerd was killed: containers stand still when it is back.
    DaemonKilled,
    /// The record's volume was removed, as `docker volume prune` does.
    RecordRemoved,
    /// The volumes of the n-th node were emptied, and its container was restarted.
    Emptied(usize),
    /// The n-th node was removed with its volumes.
    Lost(usize),
    /// All servers but the n-th lost their data: their volumes were emptied, or removed with them.
    MostLost(usize, bool),
    /// So did all of them.
    AllLost(bool),
}

/// Any wound.
pub fn wound() -> impl Strategy<Value = Wound> + Clone {
    let n = 0..8usize;
    prop_oneof![
        2 => n.clone().prop_map(Wound::Kill),
        2 => n.clone().prop_map(Wound::Remove),
        2 => n.clone().prop_map(Wound::Restart),
        2 => n.clone().prop_map(Wound::Disconnect),
        2 => Just(Wound::NetworkRemoved),
        2 => Just(Wound::Unconfigured),
        2 => Just(Wound::DaemonKilled),
        2 => Just(Wound::RecordRemoved),
        2 => n.clone().prop_map(Wound::Emptied),
        2 => n.clone().prop_map(Wound::Lost),
        3 => (n, any::<bool>()).prop_map(|(n, volumes)| Wound::MostLost(n, volumes)),
        1 => any::<bool>().prop_map(Wound::AllLost),
    ]
}

impl Wound {
    /// Whether data goes.
    pub fn takes_data(&self) -> bool {
        matches!(self, Self::Emptied(_) | Self::Lost(_) | Self::MostLost(..) | Self::AllLost(_))
    }

    /// Does it to the cluster `identity`.
    pub fn inflict(&self, docker: &mut Docker, identity: &Identity) {
        let ours = |d: &Docker| {
            let own = d.containers.values().filter(|c| identity.owns(&c.want.labels));
            own.map(|c| c.want.name.clone()).collect::<Vec<_>>()
        };
        let all = ours(docker);
        let nth = |n: usize| (!all.is_empty()).then(|| all[n % all.len()].clone());
        match self {
            Self::Kill(n) => nth(*n).into_iter().for_each(|name| docker.fall(&name)),
            Self::Remove(n) => nth(*n).into_iter().for_each(|name| docker.vanish(&name)),
            Self::Restart(n) => nth(*n).into_iter().for_each(|name| docker.restart(&name)),
            Self::Disconnect(n) => nth(*n).into_iter().for_each(|name| docker.detach(&name)),
            Self::NetworkRemoved => {
                all.iter().for_each(|name| docker.detach(name));
                docker.networks.retain(|network| !identity.owns(&network.labels));
            }
            Self::Unconfigured => {
                let balancer = all.iter().find(|name| docker.is_balancer(name)).cloned();
                balancer.into_iter().for_each(|name| docker.unconfigure(&name));
            }
            Self::DaemonKilled => all.iter().for_each(|name| docker.fall(name)),
            Self::RecordRemoved => docker
                .volumes
                .retain(|_, v| !(identity.owns(&v.labels) && v.labels.contains_key(label::RECORD))),
            Self::Emptied(n) | Self::Lost(n) => {
                let nodes: Vec<&String> = all.iter().filter(|name| !docker.is_balancer(name)).collect();
                let Some(name) = (!nodes.is_empty()).then(|| nodes[n % nodes.len()].clone()) else { return };
                // More than a minority is not put right but said, and has a wound of its own.
                if docker.is_server(&name) && !docker.can_lose_a_server(identity) {
                    return;
                }
                docker.lose_data(&name, matches!(self, Self::Lost(_)));
            }
            Self::MostLost(n, volumes) => {
                let servers: Vec<&String> = all.iter().filter(|name| docker.is_server(name)).collect();
                let kept = (!servers.is_empty()).then(|| servers[n % servers.len()]);
                let lost = servers.iter().filter(|name| Some(**name) != kept);
                lost.for_each(|name| docker.lose_data(name, *volumes));
            }
            Self::AllLost(volumes) => {
                let servers: Vec<&String> = all.iter().filter(|name| docker.is_server(name)).collect();
                servers.iter().for_each(|name| docker.lose_data(name, *volumes));
            }
        }
    }
}

impl Docker {
    fn is_balancer(&self, name: &str) -> bool {
        self.containers[name].want.kind.role() == Role::LoadBalancer
    }

    fn is_server(&self, name: &str) -> bool {
        self.containers[name].want.kind.role() == Role::Server
    }

    /// It stands still, and Docker will not start it again.
    fn fall(&mut self, name: &str) {
        if let Some(container) = self.containers.get_mut(name).filter(|c| c.is_up()) {
            container.state = ContainerState::Exited;
        }
    }

    fn vanish(&mut self, name: &str) {
        let Some(container) = self.containers.remove(name) else { return };
        for volume in container.volumes.values() {
            if self.volumes.get(volume).is_some_and(|v| v.anonymous) {
                self.volumes.remove(volume);
            }
        }
    }

    /// As Docker does it by itself: with the files that the container has, which is why only one that
    /// was started can be.
    fn restart(&mut self, name: &str) {
        if !self.containers[name].is_up() {
            return;
        }
        self.fall(name);
        let id = self.containers[name].id.clone();
        // What keeps it from starting keeps it still.
        let _ = self.start_container(&id);
    }

    fn detach(&mut self, name: &str) {
        if let Some(container) = self.containers.get_mut(name) {
            container.attached = false;
        }
    }

    /// It runs on what it has read until it is restarted.
    fn unconfigure(&mut self, name: &str) {
        if let Some(container) = self.containers.get_mut(name) {
            container.files.remove(crate::k3s::NGINX_PATH);
            if container.is_up() {
                container.state = ContainerState::Restarting;
            }
        }
    }

    /// What lies in a node's own volumes is gone; with `volumes`, so are they and the container.
    pub fn lose_data(&mut self, name: &str, volumes: bool) {
        let own: Vec<String> = self.containers[name].volumes.values().cloned().collect();
        if volumes {
            self.vanish(name);
        }
        for volume in own {
            let Some(found) = self.volumes.get_mut(&volume).filter(|v| v.labels.contains_key(label::NODE))
            else {
                continue;
            };
            if volumes {
                self.volumes.remove(&volume);
            } else {
                found.files.clear();
                found.etcd = None;
            }
        }
        if !volumes {
            self.restart(name);
        }
    }

    /// Whether the cluster would be without a majority if another server lost its data.
    pub fn can_lose_a_server(&self, identity: &Identity) -> bool {
        let servers = self.containers.values().filter(|c| identity.owns(&c.want.labels));
        let servers: Vec<_> = servers.filter(|c| c.want.kind.role() == Role::Server).collect();
        servers.len() >= 3
            && servers.iter().all(|c| {
                let member = |id: &String| self.members.get(id).is_some_and(|m| m.contains(&c.want.hostname));
                let volumes = c.volumes.values().filter_map(|v| self.volumes.get(v)?.etcd.as_ref());
                volumes.into_iter().any(|etcd| member(&etcd.id))
            })
    }
}
