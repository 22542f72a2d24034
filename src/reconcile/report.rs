//! What is said of a cluster after a step.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    ComingUp, Outcome, Request, coming_up::look_again, converge::Seen, inside::internal_candidates,
    stop::Stop,
};
use crate::{
    api::{
        Blocked, Counts, K3sClusterStatus, NetworkStatus, NodeStatus, Phase, Reason, Role, condition, label,
        set_condition,
    },
    engine::EngineError,
    k3s::NodeFacts,
    plan::{ContainerState, Record, WantedImage},
};

/// How soon to look again at what takes long or fails.
const STRUGGLING: Duration = Duration::from_secs(5);

/// What becomes of a cluster while Docker is away, in the operator and in the command line alike.
pub const WAITING: &str = "tried again within a minute, and as soon as Docker is back";

/// How soon to look again where the end of an import is waited for, should it not be told.
const LOST: Duration = Duration::from_secs(30);

/// The cluster in a sentence.
struct Verdict {
    ready: Option<bool>,
    reason: Reason,
    message: String,
    /// Whether all is well but for images.
    about_images: bool,
}

impl Verdict {
    fn new(ready: Option<bool>, reason: Reason, message: String) -> Self {
        Self { ready, reason, message, about_images: false }
    }
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
    let lost = matches!(&end, Err(Stop::Blocked(blocked)) if blocked.reason == Reason::DataLost);
    let vanished = lost && !seen.observed.containers.iter().any(|c| c.role() == Some(Role::Server));
    if seen.desired.is_some() || vanished {
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
        (Ok(()), Some(message)) => Verdict::new(Some(false), Reason::NodeCrashLooping, message),
        _ => judge(&status, &seen, &end),
    };
    let initialised = match &seen.record {
        Some(record) => record.initialised,
        // Nothing was seen of it, so nothing of it has changed.
        None => request.former.version.is_some() || was_running(request.former.phase),
    };
    status.phase = phase(&verdict, initialised);
    set_conditions(&mut status, request, &seen, &verdict, now);
    set_host_condition(&mut status, request, &seen, (&verdict, end.is_ok()), now);

    let (recheck, coming_up) = match (&end, verdict.ready) {
        (Ok(()), Some(true)) => (seen.later, None),
        (Ok(()), _) if verdict.about_images => (images_recheck(&seen), None),
        (Ok(()), _) if verdict.reason == Reason::NodeCrashLooping => (Some(STRUGGLING), None),
        (Ok(()), _) => {
            let soon = look_again(request, Some(&seen.observed), now);
            match seen.recheck {
                Some(time) => (Some(time.max(soon)), None),
                None => (Some(soon), ComingUp::of(request, &seen, &status, soon)),
            }
        }
        (
            Err(Stop::Drifted(_) | Stop::Engine(EngineError::Busy { .. } | EngineError::NotFound { .. })),
            _,
        ) => (Some(look_again(request, None, now)), None),
        (Err(_), _) => (Some(STRUGGLING), None),
    };
    Outcome {
        held_up: matches!(end, Err(Stop::Engine(EngineError::Busy { .. } | EngineError::NotFound { .. }))),
        coming_up,
        internal_candidates: seen.record.iter().flat_map(|r| internal_candidates(request, r)).collect(),
        access: seen.access,
        url: seen.url,
        imports: seen.images.map(|images| images.imports).unwrap_or_default(),
        initialised,
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
    let of_role = |role: Role| status.nodes.iter().filter(move |n| n.role == role.as_str());
    let counts = |role: Role, desired: u32| Counts {
        desired,
        running: of_role(role).filter(|n| n.state == ContainerState::Running.as_str()).count() as u32,
        ready: of_role(role).filter(|n| n.ready).count() as u32,
    };
    let ready = |counts: Counts| Some(format!("{}/{}", counts.ready, counts.desired));
    let servers = counts(Role::Server, request.spec.servers.replicas);
    let agents = counts(Role::Agent, request.spec.agents.replicas);
    let mut versions: Vec<&String> = of_role(Role::Server).filter_map(|n| n.version.as_ref()).collect();
    versions.sort_by_key(|v| crate::plan::version_numbers(v));
    // What it ran while nobody answers, and what a cluster that has vanished is known by.
    status.version = versions.first().map(|v| (*v).clone()).or_else(|| request.former.version.clone());
    (status.servers_ready, status.agents_ready) = (ready(servers), ready(agents));
    (status.servers, status.agents) = (servers, agents);
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
    seen.nodes_wanted()
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
                role: config.role.as_str().into(),
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
    let verdict = Verdict::new;
    match end {
        Err(Stop::Blocked(Blocked { reason, message })) => verdict(Some(false), *reason, message.clone()),
        Err(Stop::Drifted(message)) => verdict(Some(false), Reason::Progressing, message.clone()),
        Err(Stop::Engine(error @ (EngineError::Unavailable { .. } | EngineError::TimedOut { .. }))) => {
            verdict(None, Reason::EngineUnavailable, format!("{error}; {WAITING}"))
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
                let agent =
                    status.nodes.iter().any(|n| n.container == *name && n.role == Role::Agent.as_str());
                let group = if agent { "agents" } else { "servers" };
                let message = format!(
                    "container {name} stops again and again: check spec.{group}.args and spec.{group}.config, and docker logs {name}; its last words: {text}"
                );
                return verdict(Some(false), Reason::NodeCrashLooping, message);
            }
            let waiting = status.nodes.iter().find(|n| !n.ready);
            match (&seen.nodes, waiting) {
                (Some(Ok(_)), None) if seen.out_of_step.is_some() => {
                    verdict(Some(false), Reason::Progressing, seen.out_of_step.clone().unwrap_or_default())
                }
                (Some(Ok(_)), None) if seen.recheck.is_some() => {
                    let message = "every node is Ready, and what is to be changed waits for its turn";
                    verdict(Some(false), Reason::Progressing, message.into())
                }
                (Some(Ok(_)), None) => judge_images(seen)
                    .unwrap_or_else(|| verdict(Some(true), Reason::Ready, "every node is Ready".into())),
                (Some(Ok(_)), Some(node)) => {
                    let why = node.message.clone().unwrap_or_default();
                    let ready = status.nodes.iter().filter(|n| n.ready).count();
                    let of = match status.nodes.len() {
                        1 => String::new(),
                        all => format!("{ready} of {all} nodes are Ready; "),
                    };
                    verdict(
                        Some(false),
                        Reason::WaitingForNodes,
                        format!("{of}node {} is not Ready: {why}", node.name),
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

/// What images are not where they should be, if so. What fails is said before what is on its way, and
/// that before what a person has to bring.
fn judge_images(seen: &Seen) -> Option<Verdict> {
    let images = seen.images.as_ref()?;
    let verdict =
        |reason, message| Some(Verdict { about_images: true, ..Verdict::new(Some(false), reason, message) });
    if !images.failures.is_empty() {
        let full = images.failures.iter().any(|failure| failure.out_of_space);
        let reason = if full { Reason::NodeOutOfSpace } else { Reason::ImageImportFailed };
        let messages: Vec<&str> = images.failures.iter().map(|failure| failure.message.as_str()).collect();
        return verdict(reason, messages.join("; "));
    }
    if !images.imports.is_empty() {
        let words: Vec<String> = images.imports.iter().map(ToString::to_string).collect();
        return verdict(Reason::Progressing, words.join("; "));
    }
    if !images.busy.is_empty() {
        return verdict(Reason::Progressing, format!("importing images into {}", images.busy.join(", ")));
    }
    if let Some((node, why)) = images.unlisted.first() {
        let message = format!("node {node} could not be asked for its images: {why}; looking again");
        return verdict(Reason::Progressing, message);
    }
    if !images.lacking.is_empty() {
        return verdict(Reason::Progressing, format!("{}; run k3nest apply", images.lacking.join("; ")));
    }
    if images.missing.is_empty() {
        return None;
    }
    let all = |of: fn(&WantedImage) -> &str| images.missing.iter().map(of).collect::<Vec<_>>().join(", ");
    let message = format!(
        "{}: the Docker daemon has no image {}; docker build, docker pull or docker load it there, and it is imported as soon as it comes",
        all(|image| &image.field),
        all(|image| &image.reference)
    );
    verdict(Reason::ImageMissing, message)
}

/// When to look again at images. The end of an import and what comes into Docker are told.
fn images_recheck(seen: &Seen) -> Option<Duration> {
    let images = seen.images.as_ref()?;
    let unlisted = (!images.unlisted.is_empty()).then_some(STRUGGLING);
    let busy = !(images.imports.is_empty() && images.busy.is_empty());
    [images.retry, unlisted, busy.then_some(LOST)].into_iter().flatten().min()
}

fn was_running(phase: Phase) -> bool {
    matches!(phase, Phase::Running | Phase::Updating)
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
    let Verdict { ready, reason, message, about_images: _ } = verdict;
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
}

/// What is said of the Docker host: judged is it when nodes are made, and what was said then stands
/// as long as they run.
fn set_host_condition(
    status: &mut K3sClusterStatus,
    request: &Request,
    seen: &Seen,
    (verdict, done): (&Verdict, bool),
    now: Timestamp,
) {
    let former = request.former.conditions.iter().find(|c| c.type_ == condition::HOST_COMPATIBLE);
    // One that was found unfit has nothing more asked of it than what runs, once all is done.
    let stands = former.filter(|c| c.status == "True" || (c.status == "False" && !done));
    let (value, reason, message) = match (&seen.host, &seen.engine, stands) {
        (Some(host), ..) => match host.blocked() {
            Some(blocked) => (Some(false), blocked.reason, blocked.message),
            None => (Some(true), Reason::HostCompatible, host.message()),
        },
        (None, _, Some(former)) => {
            let fit = former.status == "True";
            let reason = if fit { Reason::HostCompatible } else { Reason::HostIncompatible };
            (Some(fit), reason, former.message.clone())
        }
        (None, None, None) => (None, verdict.reason, "Docker could not be asked".to_owned()),
        (None, Some(engine), None) if done => {
            let text = format!("the Docker host uses cgroup v{}", engine.cgroup_version);
            (Some(true), Reason::HostCompatible, text)
        }
        (None, Some(_), None) => (None, verdict.reason, "the Docker host was not looked at yet".to_owned()),
    };
    let type_ = condition::HOST_COMPATIBLE;
    set_condition(&mut status.conditions, type_, value, reason, message, request.generation, now);
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
