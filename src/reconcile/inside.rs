//! The look inside a nested cluster after its containers are as wanted: kubeconfig, /readyz, Nodes,
//! and the last words of what crashes.

use super::{Request, World, converge::Seen};
use crate::{
    api::Role,
    engine::Engine,
    k3s::{Access, ClusterApi, KUBECONFIG_PATH, NodeFacts, TOKEN_PATH},
    plan::{self, Container, ContainerState, InternalAccess, Observed, Record},
};

/// Asks the nested cluster how it is: kubeconfig from the server's container, /readyz and Nodes
/// through the load balancer. Whatever cannot be asked yet is left open.
pub async fn look_inside<E: Engine, A: ClusterApi>(world: &World<E, A>, request: &Request, seen: &mut Seen) {
    seen.access = read_access(world, request, seen).await;
    if let (Some(access), Some(record)) = (&seen.access, &seen.record) {
        let mut answer = Err("the API has no address yet".to_owned());
        // Before it is known what should be there, the record says how many there are.
        let servers = seen.servers().max(record.servers as usize);
        for (address, port) in own_way_in(request, record) {
            let url = format!("https://{address}:{port}");
            answer = world.clusters.probe(access, &url, servers).await;
            if answer.is_ok() {
                seen.url = Some(url);
                break;
            }
        }
        seen.nodes = Some(match answer {
            Ok(nodes) => Ok(believed(world, nodes, seen).await),
            Err(why) => Err(why),
        });
    }
    seen.crashes = crash_messages(world, request, &seen.observed).await;
}

/// Nodes, where a report from before the container was started does not count: a Node lies in etcd as
/// the former kubelet left it until the new one speaks, which is after the API answers. Nor does one of
/// a container that does not run.
async fn believed<E: Engine, A>(
    world: &World<E, A>,
    mut nodes: Vec<NodeFacts>,
    seen: &Seen,
) -> Vec<NodeFacts> {
    for (want, config) in seen.nodes_wanted() {
        let container = seen.observed.container(&want.name);
        for node in nodes.iter_mut().filter(|n| n.name == config.node_name && n.reported.is_some()) {
            let why = match container {
                None => "its container is missing".to_owned(),
                Some(c) if c.state != ContainerState::Running => {
                    format!("its container is {}", c.state.as_str())
                }
                Some(c) if !node.has_spoken_since(c.created) => silent_since("made"),
                Some(c) if node.ready && c.is_young() && !has_spoken(world, node, c).await => {
                    silent_since("started")
                }
                Some(_) => continue,
            };
            node.ready = false;
            node.message = Some(why);
        }
    }
    nodes
}

fn silent_since(what: &str) -> String {
    format!("the kubelet has not reported since its container was {what}")
}

/// Whether the kubelet has spoken since its container was started. Where that cannot be asked, it has
/// not.
async fn has_spoken<E: Engine, A>(world: &World<E, A>, node: &NodeFacts, container: &Container) -> bool {
    let started = world.engine.started(&container.id).await;
    started.ok().flatten().is_some_and(|started| node.has_spoken_since(started))
}

async fn read_access<E: Engine, A>(world: &World<E, A>, request: &Request, seen: &Seen) -> Option<Access> {
    let servers = seen.observed.containers.iter().filter(|c| c.role() == Some(Role::Server));
    for server in servers {
        let Ok(Some(yaml)) = world.engine.read_file(&server.id, KUBECONFIG_PATH).await else { continue };
        // k3s may be in the middle of writing it.
        if let Ok(access) = Access::from_k3s_yaml(&yaml, &request.identity.service_host()) {
            return Some(access);
        }
    }
    None
}

/// Addresses under which k3nest itself reaches the API, best first.
pub(super) fn own_way_in(request: &Request, record: &Record) -> Vec<(std::net::Ipv4Addr, u16)> {
    let internal = internal_candidates(request, record);
    if !internal.is_empty() {
        return internal;
    }
    let api = request.spec.api.clone().unwrap_or_default();
    let address = match api.host_ip().parse() {
        Ok(std::net::Ipv4Addr::UNSPECIFIED) | Err(_) => std::net::Ipv4Addr::LOCALHOST,
        Ok(address) => address,
    };
    vec![(address, record.api_port)]
}

/// Addresses under which Pods of the host cluster may reach the API, best first: the load balancer
/// as a guest in their node's network, its port on its own network's gateway, and what the
/// operator's settings say.
pub fn internal_candidates(request: &Request, record: &Record) -> Vec<(std::net::Ipv4Addr, u16)> {
    let first = match (&request.internal, &record.guest) {
        (InternalAccess::None, _) => return Vec::new(),
        (InternalAccess::Join { .. }, guest) => guest.as_ref().map(|g| (g.address, plan::API_PORT)),
        // Nothing is published on the gateway of somebody else's network.
        (InternalAccess::Gateway, _) if !record.network.owned => Some((record.load_balancer, plan::API_PORT)),
        (InternalAccess::Gateway, _) => {
            let gateway = u32::from(record.network.subnet.network()).wrapping_add(1);
            Some((gateway.into(), record.api_port))
        }
    };
    let published = request.settings.publish_address.map(|address| (address, record.api_port));
    first.into_iter().chain(published).collect()
}

/// How often labels and taints of Nodes are tried in one step: kubelet and controllers write Nodes,
/// too, and a conflict with them passes.
const KEEP_TRIES: usize = 3;

/// Brings labels and taints of the Nodes in step. What could not be is in `seen`.
pub async fn keep_nodes<E, A: ClusterApi>(world: &World<E, A>, request: &Request, seen: &mut Seen) {
    let (Some(access), Some(url), Some(Ok(mut nodes))) = (&seen.access, &seen.url, seen.nodes.clone()) else {
        return;
    };
    for attempt in 1..=KEEP_TRIES {
        let Err(message) = keep_each(world, seen, access, url, &nodes).await else { return };
        tracing::warn!(cluster = %request.identity, message, attempt, "labels or taints not in step");
        match world.clusters.probe(access, url, seen.servers()).await {
            Ok(looked_again) if attempt < KEEP_TRIES => nodes = looked_again,
            _ => {
                seen.out_of_step = Some(message);
                return;
            }
        }
    }
}

async fn keep_each<E, A: ClusterApi>(
    world: &World<E, A>,
    seen: &Seen,
    access: &Access,
    url: &str,
    nodes: &[NodeFacts],
) -> Result<(), String> {
    for (_, config) in seen.nodes_wanted() {
        let Some(node) = nodes.iter().find(|n| n.name == config.node_name) else { continue };
        world.clusters.keep_node(access, url, node, &config.labels, &config.taints).await?;
    }
    Ok(())
}

/// How many lines of a crashing node are shown.
const CRASH_LINES: usize = 5;

async fn crash_messages<E: Engine, A>(
    world: &World<E, A>,
    request: &Request,
    observed: &Observed,
) -> Vec<(String, String)> {
    let mut secrets: Vec<Vec<u8>> =
        request.values.iter().flat_map(|values| values.0.values()).map(|v| v.expose().clone()).collect();
    let mut found = Vec::new();
    for container in observed.containers.iter().filter(|c| c.state == ContainerState::Restarting) {
        secrets.extend(world.engine.read_file(&container.id, TOKEN_PATH).await.ok().flatten());
        if let Ok(logs) = world.engine.logs(&container.id, CRASH_LINES).await {
            found.push((container.name.clone(), without_secrets(&logs, &secrets)));
        }
    }
    found
}

/// Shorter values are words rather than secrets, and replacing them would make a text unreadable.
const SHORTEST_SECRET: usize = 4;

/// `text` without the secrets, in one line.
fn without_secrets(text: &str, secrets: &[Vec<u8>]) -> String {
    let mut line = text.lines().map(str::trim).filter(|l| !l.is_empty()).collect::<Vec<_>>().join(" | ");
    for secret in secrets.iter().filter_map(|secret| std::str::from_utf8(secret).ok()) {
        // Of one that has several lines, each counts.
        for part in secret.lines().map(str::trim).filter(|part| part.len() >= SHORTEST_SECRET) {
            line = line.replace(part, "***");
        }
    }
    line
}
