//! What is said of a cluster after a step.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    Outcome, Request,
    converge::{Seen, Stop},
    inside::internal_candidates,
};
use crate::{
    api::{
        Blocked, Counts, K3sClusterStatus, NetworkStatus, NodeStatus, Phase, Reason, Role, condition, label,
        set_condition,
    },
    engine::EngineError,
    k3s::NodeFacts,
    plan::{ContainerKind, ContainerState, Record},
};

/// How soon to look again while nodes come up: kubelets report within a second or so.
const COMING_UP: Duration = Duration::from_millis(400);

/// How soon to look again at what takes long or fails.
const STRUGGLING: Duration = Duration::from_secs(5);

/// The cluster in a sentence.
struct Verdict {
    ready: Option<bool>,
    reason: Reason,
    message: String,
}

/// The report on a step that found `seen` and ended with `end`.
pub fn report(request: &Request, seen: Seen, end: Result<(), Stop>, now: Timestamp) -> Outcome {
    let mut status = K3sClusterStatus {
        observed_generation: request.generation,
        engine_id: request.former.engine_id.clone(),
        conditions: request.former.conditions.clone(),
        kubeconfig_secret_ref: request.former.kubeconfig_secret_ref.clone(),
        internal_endpoint: request.former.internal_endpoint.clone(),
        ..K3sClusterStatus::default()
    };
    if seen.desired.is_some() {
        describe(&mut status, request, &seen);
    } else {
        // Docker was not asked or did not answer: what was known last still stands.
        keep_former(&mut status, &request.former);
    }
    let crashing = still_crashing(&request.former, request.generation, &seen);
    if crashing.is_some() {
        keep_last_words(&mut status, &request.former);
    }
    let verdict = match (&end, crashing) {
        (Ok(()), Some(message)) => Verdict { ready: Some(false), reason: Reason::NodeCrashLooping, message },
        _ => judge(&status, &seen, &end),
    };
    let initialised = seen.record.as_ref().is_some_and(|r| r.initialised);
    status.phase = phase(&verdict, initialised);
    set_conditions(&mut status, request, &seen, &verdict, now);

    let recheck = match (&end, verdict.ready) {
        (Ok(()), Some(true)) => None,
        (Ok(()), _) if verdict.reason == Reason::NodeCrashLooping => Some(STRUGGLING),
        (Ok(()), _) => Some(seen.recheck.unwrap_or(COMING_UP)),
        (Err(Stop::Drifted(_)), _) => Some(COMING_UP),
        (Err(Stop::Engine(EngineError::Busy { .. } | EngineError::NotFound { .. })), _) => Some(COMING_UP),
        (Err(_), _) => Some(STRUGGLING),
    };
    Outcome {
        internal_candidates: seen.record.iter().flat_map(|r| internal_candidates(request, r)).collect(),
        access: seen.access,
        changes: seen.changes,
        recheck,
        status,
    }
}

/// What was said of a node that crashes again and again: it runs between two crashes, too, so it
/// counts as such until the API answers or the spec is another.
fn still_crashing(former: &K3sClusterStatus, generation: Option<i64>, seen: &Seen) -> Option<String> {
    let ready = former.conditions.iter().find(|c| c.type_ == condition::READY)?;
    let same = generation.is_some() && ready.observed_generation == generation;
    let crashed = same && ready.reason == Reason::NodeCrashLooping.as_str();
    let silent = !matches!(seen.nodes, Some(Ok(_))) && seen.crashes.is_empty();
    (crashed && silent).then(|| ready.message.clone())
}

/// The messages of nodes that are not ready, as they were.
fn keep_last_words(status: &mut K3sClusterStatus, former: &K3sClusterStatus) {
    for node in status.nodes.iter_mut().filter(|node| !node.ready) {
        if let Some(known) = former.nodes.iter().find(|known| known.name == node.name) {
            node.message.clone_from(&known.message);
        }
    }
}

fn keep_former(status: &mut K3sClusterStatus, former: &K3sClusterStatus) {
    let K3sClusterStatus {
        observed_generation: _,
        phase: _,
        conditions: _,
        version,
        engine_id: _,
        endpoint,
        internal_endpoint: _,
        kubeconfig_secret_ref: _,
        network,
        servers,
        agents,
        servers_ready,
        agents_ready,
        nodes,
    } = former.clone();
    status.version = version;
    status.endpoint = endpoint;
    status.network = network;
    (status.servers, status.agents) = (servers, agents);
    (status.servers_ready, status.agents_ready) = (servers_ready, agents_ready);
    status.nodes = nodes;
}

/// Fills in what was seen of nodes, network and addresses.
fn describe(status: &mut K3sClusterStatus, request: &Request, seen: &Seen) {
    if let Some(record) = &seen.record {
        status.network = Some(NetworkStatus {
            name: record.network.name.clone(),
            subnet: record.network.subnet.to_string(),
        });
        status.endpoint = Some(outside_url(request, record));
        status.engine_id = Some(record.engine_id.clone());
    }
    status.nodes = nodes(seen);
    let servers: Vec<&NodeStatus> = status.nodes.iter().filter(|n| n.role == Role::Server.as_str()).collect();
    let count = |test: &dyn Fn(&NodeStatus) -> bool| servers.iter().filter(|n| test(n)).count() as u32;
    status.servers = Counts {
        desired: request.spec.servers.replicas,
        running: count(&|n| n.state == ContainerState::Running.as_str()),
        ready: count(&|n| n.ready),
    };
    status.servers_ready = Some(format!("{}/{}", status.servers.ready, status.servers.desired));
    status.agents_ready = Some(format!("{}/{}", status.agents.ready, status.agents.desired));
    let mut versions: Vec<&String> = servers.iter().filter_map(|n| n.version.as_ref()).collect();
    versions.sort_by_key(|v| crate::plan::version_numbers(v));
    status.version = versions.first().map(|v| (*v).clone());
}

/// URL of the API for readers on the Docker host and beyond.
fn outside_url(request: &Request, record: &Record) -> String {
    let api = request.spec.api.clone().unwrap_or_default();
    let host = match (&api.host, api.host_ip()) {
        (Some(host), _) => host.clone(),
        (None, "0.0.0.0") => "127.0.0.1".into(),
        (None, address) => address.into(),
    };
    format!("https://{host}:{}", record.api_port)
}

fn nodes(seen: &Seen) -> Vec<NodeStatus> {
    let facts: &[NodeFacts] = match &seen.nodes {
        Some(Ok(nodes)) => nodes,
        _ => &[],
    };
    let wanted = seen.desired.iter().flat_map(|d| &d.containers);
    wanted
        .filter_map(|want| match &want.kind {
            ContainerKind::Server(config) => Some((want, config)),
            ContainerKind::LoadBalancer(_) => None,
        })
        .map(|(want, config)| {
            let container = seen.observed.container(&want.name);
            let state = container.map_or("missing", |c| c.state.as_str());
            let running = container.is_some_and(|c| c.state == ContainerState::Running);
            let node = facts.iter().find(|n| n.name == config.node_name);
            let crash = seen.crashes.iter().find(|(name, _)| *name == want.name).map(|(_, text)| text);
            let ready = running && node.is_some_and(|n| n.ready);
            let message = match (ready, crash, node) {
                (true, ..) => None,
                (_, Some(text), _) => {
                    Some(format!("the container stops again and again; its last words: {text}"))
                }
                (_, _, Some(node)) => node.message.clone(),
                (_, _, None) if running => Some("the Node has not registered yet".into()),
                _ => container.map(|c| c.status.clone()),
            };
            NodeStatus {
                name: config.node_name.clone(),
                role: Role::Server.as_str().into(),
                pool: want.labels.get(label::POOL).cloned().unwrap_or_default(),
                container: want.name.clone(),
                ip: want.address.to_string(),
                version: node.map(|n| n.version.clone()),
                state: state.into(),
                ready,
                message,
            }
        })
        .collect()
}

fn judge(status: &K3sClusterStatus, seen: &Seen, end: &Result<(), Stop>) -> Verdict {
    let verdict = |ready, reason, message: String| Verdict { ready, reason, message };
    match end {
        Err(Stop::Blocked(Blocked { reason, message })) => verdict(Some(false), *reason, message.clone()),
        Err(Stop::Drifted(message)) => verdict(Some(false), Reason::Progressing, message.clone()),
        Err(Stop::Engine(error @ (EngineError::Unavailable { .. } | EngineError::TimedOut { .. }))) => {
            verdict(None, Reason::EngineUnavailable, format!("{error}; trying again"))
        }
        // It mostly passes by itself; where it does not, only Docker's words help.
        Err(Stop::Engine(error @ (EngineError::Busy { .. } | EngineError::NotFound { .. }))) => {
            verdict(Some(false), Reason::Progressing, format!("{error}; looking again"))
        }
        Err(Stop::Engine(error)) => {
            verdict(Some(false), Reason::EngineError, format!("{error}; trying again"))
        }
        Ok(()) => {
            if let Some((name, text)) = seen.crashes.first() {
                let message = format!(
                    "container {name} stops again and again: check spec.servers.args and spec.servers.config, and docker logs {name}; its last words: {text}"
                );
                return verdict(Some(false), Reason::NodeCrashLooping, message);
            }
            let waiting = status.nodes.iter().find(|n| !n.ready);
            match (&seen.nodes, waiting) {
                (Some(Ok(_)), None) if seen.out_of_step.is_some() => {
                    verdict(Some(false), Reason::Progressing, seen.out_of_step.clone().unwrap_or_default())
                }
                (Some(Ok(_)), None) => verdict(Some(true), Reason::Ready, "every node is Ready".into()),
                (Some(Ok(_)), Some(node)) => {
                    let why = node.message.clone().unwrap_or_default();
                    verdict(
                        Some(false),
                        Reason::WaitingForNodes,
                        format!("node {} is not Ready: {why}", node.name),
                    )
                }
                (Some(Err(why)), _) => verdict(Some(false), Reason::WaitingForNodes, why.clone()),
                (None, _) if seen.recheck.is_some() => {
                    verdict(Some(false), Reason::Progressing, "objects in Docker are being made".into())
                }
                (None, _) => verdict(
                    Some(false),
                    Reason::WaitingForNodes,
                    "k3s has not written its kubeconfig yet".into(),
                ),
            }
        }
    }
}

fn phase(verdict: &Verdict, initialised: bool) -> Phase {
    match verdict.ready {
        Some(true) => Phase::Running,
        _ if verdict.reason.needs_a_person() => Phase::Failed,
        _ if initialised => Phase::Updating,
        _ => Phase::Provisioning,
    }
}

fn set_conditions(
    status: &mut K3sClusterStatus,
    request: &Request,
    seen: &Seen,
    verdict: &Verdict,
    now: Timestamp,
) {
    let generation = request.generation;
    let Verdict { ready, reason, message } = verdict;
    let stalled = reason.needs_a_person();
    let mut set = |type_: &str, value: Option<bool>, reason: Reason, message: String| {
        set_condition(&mut status.conditions, type_, value, reason, message, generation, now);
    };
    set(condition::READY, *ready, *reason, message.clone());
    set(condition::RECONCILING, Some(*ready != Some(true) && !stalled), *reason, message.clone());
    set(condition::STALLED, Some(stalled), *reason, message.clone());
    set(condition::PAUSED, Some(false), Reason::NotPaused, "spec.paused is not set".into());
    match &seen.nodes {
        Some(Ok(_)) => set(condition::AVAILABLE, Some(true), Reason::Ready, "the API answers".into()),
        Some(Err(why)) => set(condition::AVAILABLE, Some(false), Reason::WaitingForNodes, why.clone()),
        None => set(condition::AVAILABLE, None, *reason, "the API could not be asked".into()),
    }
    match &seen.engine {
        Some(engine) => {
            let text = format!("the Docker host uses cgroup v{}", engine.cgroup_version);
            set(condition::HOST_COMPATIBLE, Some(true), Reason::HostCompatible, text);
        }
        None => set(condition::HOST_COMPATIBLE, None, *reason, "Docker could not be asked".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crashed(generation: i64) -> K3sClusterStatus {
        let mut status = K3sClusterStatus::default();
        let (reason, now) = (Reason::NodeCrashLooping, Timestamp::UNIX_EPOCH);
        set_condition(
            &mut status.conditions,
            condition::READY,
            Some(false),
            reason,
            "last words",
            Some(generation),
            now,
        );
        status
    }

    #[test]
    fn between_two_crashes_a_node_is_still_one_that_crashes() {
        let silent = Seen { nodes: Some(Err("no answer".into())), ..Seen::default() };
        assert_eq!(still_crashing(&crashed(1), Some(1), &silent).as_deref(), Some("last words"));
        assert_eq!(still_crashing(&crashed(1), Some(2), &silent), None, "the spec is another");
        let answers = Seen { nodes: Some(Ok(Vec::new())), ..Seen::default() };
        assert_eq!(still_crashing(&crashed(1), Some(1), &answers), None);
        let again = Seen { crashes: vec![("a".into(), "newer words".into())], ..Seen::default() };
        assert_eq!(still_crashing(&crashed(1), Some(1), &again), None, "there are newer words");
        assert_eq!(still_crashing(&K3sClusterStatus::default(), Some(1), &silent), None);
    }
}
