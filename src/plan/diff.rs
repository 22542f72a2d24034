//! What to do about the difference between what should exist and what does.

use std::{borrow::Cow, collections::BTreeMap, net::Ipv4Addr, time::Duration};

use jiff::{SignedDuration, Timestamp};

use super::{
    Action, Attachment, Container, ContainerKind, ContainerState, ContainerWant, DataState, Desired, Images,
    MountSource, NodeConfig, Observed, Plan, VolumeWant,
    quorum::{Quorum, quorum},
};
use crate::api::{Identity, Role, label};

/// How long a container that was created and not started is left to whoever created it. Its files
/// are written between the two; afterwards it counts as half made and is replaced.
const CREATED_GRACE: SignedDuration = SignedDuration::from_secs(10);

/// How long a probe may run before it counts as left behind. One that stands still is fetched at
/// once by whoever made it, and so gets no more than [`CREATED_GRACE`].
const PROBE_GRACE: SignedDuration = SignedDuration::from_mins(5);

/// The plan that turns `observed` into `desired`. Containers whose image is not among `images` are
/// left for the next plan, after their image was pulled: what an image declares as volumes decides
/// the mounts.
pub fn diff(
    identity: &Identity,
    desired: &Desired,
    observed: &Observed,
    images: &Images,
    now: Timestamp,
) -> Plan {
    match quorum(identity, &desired.record, observed) {
        Quorum::Enough => {}
        Quorum::Unknown => {
            let mut plan = Plan { depends_on_data: true, ..Plan::default() };
            wait(&mut plan, Duration::from_secs(1));
            return plan;
        }
        Quorum::Lost(blocked) => return Plan::blocked(blocked),
    }
    let mut plan = Plan::default();
    let told = plan_founded(&mut plan, desired, observed);
    let recorded = plan_record(&mut plan, identity, desired, observed, told);
    let (observed, removed) = plan_stranded(&mut plan, desired, observed);
    let observed = observed.as_ref();
    let reset = plan_reset(&mut plan, desired, observed);
    let network = plan_network(&mut plan, desired, observed, &[recorded.clone(), removed].concat());
    // Only once the subnet is certain: a data volume holds its node's address for life.
    let base = [recorded, network].concat();
    let volumes = plan_volumes(&mut plan, desired, observed, &base);
    let after = |want: &ContainerWant, joined: &[usize]| -> Vec<usize> {
        let own = want.mounts.iter().filter_map(|mount| match &mount.source {
            MountSource::Volume(name) => volumes.get(name.as_str()),
            MountSource::Host(_) => None,
        });
        base.iter().chain(joined).chain(own).copied().collect()
    };
    let (mut order, rest): (Vec<_>, Vec<_>) =
        desired.containers.iter().partition(|want| decides_token(want, desired, observed));
    let first = order.len();
    order.extend(rest);
    let rolled = next_to_roll(desired, observed);
    let mut deciding = Vec::new();
    for (place, want) in order.into_iter().enumerate() {
        if is_server(want) && rolls(want, desired, observed) && rolled != Some(want.name.as_str()) {
            // Its turn comes when the others are Ready again.
            plan.depends_on_nodes = true;
            wait(&mut plan, Duration::from_secs(1));
            continue;
        }
        let Some(node) = want.node() else {
            plan_container(&mut plan, want, observed, images, after(want, &[]), Rebirth::No, now);
            continue;
        };
        let rebirth = rebirth(&mut plan, want, node, desired, observed);
        if rebirth == Rebirth::Wait {
            wait(&mut plan, Duration::from_secs(1));
            continue;
        }
        let before = if place < first { &[] } else { &deciding[..] };
        let after = [after(want, before), reset.clone()].concat();
        let made = plan_container(&mut plan, want, observed, images, after, rebirth, now);
        if place < first {
            deciding.extend(made);
        }
    }
    plan_leftovers(&mut plan, desired, observed, now);
    plan
}

/// Once the cluster is known to have been Ready, the server that founded it is told to never do that
/// again, before the record says so: Docker restarts it as it was told last.
fn plan_founded(plan: &mut Plan, desired: &Desired, observed: &Observed) -> Vec<usize> {
    if !desired.record.initialised || observed.record().is_none_or(|record| record.initialised) {
        return Vec::new();
    }
    let servers = desired.containers.iter().filter(|want| is_server(want));
    let founder = servers.min_by_key(|want| want.labels.get(label::INDEX));
    let up = [ContainerState::Running, ContainerState::Restarting, ContainerState::Paused];
    let told = founder.and_then(|want| {
        let container = observed.container(&want.name).filter(|c| up.contains(&c.state))?;
        Some(Action::TellNode { id: container.id.clone(), want: Box::new(want.clone()) })
    });
    told.map(|told| plan.push(told, Vec::new())).into_iter().collect()
}

/// Before a recovery resets the membership of etcd to its survivor, every server of before stops.
/// Returns the steps that remove them.
fn plan_reset(plan: &mut Plan, desired: &Desired, observed: &Observed) -> Vec<usize> {
    if desired.record.recovering().is_none() {
        return Vec::new();
    }
    let servers = desired.containers.iter().filter(|want| is_server(want));
    let former = servers.filter_map(|want| {
        let container = observed.container(&want.name).filter(|c| !is_of_epoch(want, c))?;
        // The survivor's own is replaced, like any other that is not as wanted.
        let resets = want.node().is_some_and(|node| node.begins.resets);
        (!resets && container.state != ContainerState::Removing).then_some(container)
    });
    let remove = |c: &Container| Action::RemoveContainer {
        id: c.id.clone(),
        name: c.name.clone(),
        graceful: c.state == ContainerState::Running,
    };
    former.map(|c| plan.push(remove(c), Vec::new())).collect()
}

/// Whether a node that is about to start begins anew under the name of one that the cluster knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rebirth {
    /// It has its data, or there never was one of its name.
    No,
    /// Its data is lost. The cluster forgets the Node first, with its password and its membership of
    /// etcd, which keep another of its name away.
    Forget,
    /// It is not known yet, or not its turn.
    Wait,
}

/// What comes before `want` is started in a cluster that was Ready. What is to be found out first is
/// said in `plan`.
fn rebirth(
    plan: &mut Plan,
    want: &ContainerWant,
    node: &NodeConfig,
    desired: &Desired,
    observed: &Observed,
) -> Rebirth {
    let state = observed.container(&want.name).map(|c| c.state);
    let data = observed.data_of(node.role, &want.hostname, &want.name);
    // Also of a cluster that never was: what was started before its files were written never will.
    if state == Some(ContainerState::Restarting) && data == DataState::Unknown {
        plan.depends_on_data = true;
        return Rebirth::Wait;
    }
    if !desired.record.initialised || state == Some(ContainerState::Running) {
        return Rebirth::No;
    }
    if desired.record.recovering().is_some() && is_server(want) && !node.begins.resets {
        // It joins the survivor, once that is Ready.
        return Rebirth::Wait;
    }
    match data {
        DataState::Kept => return Rebirth::No,
        DataState::Empty => {}
        DataState::Unknown => {
            plan.depends_on_data = true;
            return Rebirth::Wait;
        }
    }
    let Some(nodes) = &observed.nodes else {
        plan.depends_on_nodes = true;
        return Rebirth::Wait;
    };
    if nodes.contains_key(&want.hostname) { Rebirth::Forget } else { Rebirth::No }
}

/// Images of the containers that `desired` wants made, or may want made once their data was looked at,
/// which a plan must know.
pub fn images_needed(desired: &Desired, observed: &Observed) -> Vec<String> {
    let (observed, _) = plan_stranded(&mut Plan::default(), desired, observed);
    let mut images: Vec<String> = desired
        .containers
        .iter()
        .filter(|want| {
            let stands = |c: &Container| c.state != ContainerState::Running;
            !matches!(verdict(want, &observed), Verdict::Keep | Verdict::Reload(_))
                || observed.container(&want.name).is_some_and(stands)
        })
        .map(|want| want.image.clone())
        .collect();
    images.sort();
    images.dedup();
    images
}

/// The record comes first: what it says must not be lost once anything else exists.
fn plan_record(
    plan: &mut Plan,
    identity: &Identity,
    desired: &Desired,
    observed: &Observed,
    after: Vec<usize>,
) -> Vec<usize> {
    let current = desired.record.volume(identity);
    let written: Vec<usize> = match observed.volume(&current.name) {
        Some(_) => Vec::new(),
        None => vec![plan.push(Action::CreateVolume(current.clone()), after)],
    };
    for old in observed.volumes.iter().filter(|v| v.role() == Some(Role::Record) && v.name != current.name) {
        plan.push(Action::RemoveVolume(old.name.clone()), written.clone());
    }
    written
}

/// Containers of a network that is gone can never start again: Docker knows it by its id, and one of
/// the same name is another one. They go before the new network comes, so that after a cut nobody
/// takes them for its. Returns what is left, and the steps that remove them.
fn plan_stranded<'a>(
    plan: &mut Plan,
    desired: &Desired,
    observed: &'a Observed,
) -> (Cow<'a, Observed>, Vec<usize>) {
    let stranded = |c: &Container| {
        desired.network.is_some() && observed.networks.is_empty() && c.role() != Some(Role::Probe)
    };
    if !observed.containers.iter().any(stranded) {
        return (Cow::Borrowed(observed), Vec::new());
    }
    let (gone, containers): (Vec<_>, Vec<_>) = observed.containers.iter().cloned().partition(stranded);
    let removals = gone
        .into_iter()
        .map(|c| plan.push(Action::RemoveContainer { id: c.id, name: c.name, graceful: false }, Vec::new()));
    let removed = removals.collect();
    (Cow::Owned(Observed { containers, ..observed.clone() }), removed)
}

fn plan_network(plan: &mut Plan, desired: &Desired, observed: &Observed, after: &[usize]) -> Vec<usize> {
    let Some(want) = &desired.network else { return Vec::new() };
    let Some(kept) = observed.network() else {
        return vec![plan.push(Action::CreateNetwork(want.clone()), after.to_vec())];
    };
    // Before API 1.44 two creators at once make two networks of one name; the older stays.
    for double in observed.networks.iter().filter(|n| n.id != kept.id) {
        plan.push(Action::RemoveNetwork { id: double.id.clone(), name: double.name.clone() }, Vec::new());
    }
    Vec::new()
}

/// Whether the cluster's token is what the container `want` will have, while no server is there to
/// be asked: one whose data volume is older than it, and the one that founds the cluster. Its name
/// is a lock: of two who make a cluster at once, one decides. What joins it starts after it.
fn decides_token(want: &ContainerWant, desired: &Desired, observed: &Observed) -> bool {
    let ContainerKind::Node(node) = &want.kind else { return false };
    let asked = observed.containers.iter().any(|c| c.role() == Some(Role::Server));
    let data = desired.volumes.iter().find(|volume| {
        is_data(volume) && want.mounts.iter().any(|m| m.source == MountSource::Volume(volume.name.clone()))
    });
    let older = data.is_some_and(|volume| observed.volume(&volume.name).is_some());
    node.role == Role::Server && !asked && (older || node.founds())
}

fn is_data(volume: &VolumeWant) -> bool {
    volume.labels.get(label::ROLE).map(String::as_str) == Some(Role::Data.as_str())
}

/// Data volumes first: they are the birth certificates of their nodes. Returns the steps by the
/// name of the volume.
fn plan_volumes<'a>(
    plan: &mut Plan,
    desired: &'a Desired,
    observed: &Observed,
    after: &[usize],
) -> BTreeMap<&'a str, usize> {
    let missing = desired.volumes.iter().filter(|want| observed.volume(&want.name).is_none());
    let (data, others): (Vec<_>, Vec<_>) = missing.partition(|want| is_data(want));
    let node = |want: &VolumeWant| want.labels.get(label::NODE).cloned();
    let mut born: BTreeMap<Option<String>, usize> = BTreeMap::new();
    let mut made = BTreeMap::new();
    for want in data {
        let step = plan.push(Action::CreateVolume(want.clone()), after.to_vec());
        born.insert(node(want), step);
        made.insert(want.name.as_str(), step);
    }
    for want in others {
        let after = after.iter().chain(born.get(&node(want))).copied().collect();
        made.insert(want.name.as_str(), plan.push(Action::CreateVolume(want.clone()), after));
    }
    made
}

/// What is to be done about one container.
enum Verdict<'a> {
    Keep,
    /// A load balancer that runs with another configuration.
    Reload(&'a Container),
    Create,
    Start(&'a Container),
    Replace(&'a Container),
    /// Somebody else is at it.
    Wait,
}

fn verdict<'a>(want: &ContainerWant, observed: &'a Observed) -> Verdict<'a> {
    let Some(container) = observed.container(&want.name) else { return Verdict::Create };
    let same = Some(container.hash()) == want.labels.get(label::HASH).map(String::as_str)
        && is_of_epoch(want, container)
        && is_attached(want, container);
    match container.state {
        ContainerState::Removing => Verdict::Wait,
        ContainerState::Dead | ContainerState::Created => Verdict::Replace(container),
        _ if !same => Verdict::Replace(container),
        ContainerState::Exited | ContainerState::Restarting if has_no_data(want, observed) => {
            Verdict::Replace(container)
        }
        ContainerState::Exited => Verdict::Start(container),
        // Docker restarts it in vain.
        ContainerState::Restarting if want.node().is_none() && !is_loaded(want, observed) => {
            Verdict::Replace(container)
        }
        ContainerState::Running if !is_loaded(want, observed) => Verdict::Reload(container),
        ContainerState::Running | ContainerState::Restarting | ContainerState::Paused => Verdict::Keep,
    }
}

/// Whether the container of a server was made after the last recovery.
fn is_of_epoch(want: &ContainerWant, container: &Container) -> bool {
    want.labels.get(label::EPOCH) == container.labels.get(label::EPOCH)
}

/// Whether a container is where it should be in every network that it should be in.
fn is_attached(want: &ContainerWant, container: &Container) -> bool {
    let at = |network: &str, address: Ipv4Addr| {
        let place = container.networks.get(network);
        let is = |Attachment { address: now, pinned }: &Attachment| pinned.or(*now) == Some(address);
        // One that stands still may not tell.
        place.is_some_and(|place| *place == Attachment::default() || is(place))
    };
    // A container has one place in a network.
    let guests = want.guest.iter().filter(|guest| guest.network != want.network);
    at(&want.network, want.address) && guests.into_iter().all(|guest| at(&guest.network, guest.address))
}

/// Whether a node's data is gone. One that fails for other reasons is not mended by a new container.
fn has_no_data(want: &ContainerWant, observed: &Observed) -> bool {
    let state = |node: &NodeConfig| observed.data_of(node.role, &want.hostname, &want.name);
    want.node().is_some_and(|node| state(node) == DataState::Empty)
}

fn is_server(want: &ContainerWant) -> bool {
    want.kind.role() == Role::Server
}

/// Whether `want` is a running server, one of several that have served, whose container is to be
/// replaced: while it is down, the others must hold the majority of etcd.
fn rolls(want: &ContainerWant, desired: &Desired, observed: &Observed) -> bool {
    let several = desired.containers.iter().filter(|other| is_server(other)).count() > 1;
    // One that is out of its network is out of the majority already, as are all in a recovery.
    let replaced = matches!(verdict(want, observed), Verdict::Replace(c)
        if c.state == ContainerState::Running && is_attached(want, c) && is_of_epoch(want, c));
    several && desired.record.initialised && replaced
}

/// The server to replace in this plan, of those that run: one at most, and only where the others that
/// are Ready are a majority without it. One that is not Ready itself goes first.
fn next_to_roll<'a>(desired: &'a Desired, observed: &Observed) -> Option<&'a str> {
    let nodes = observed.nodes.as_ref()?;
    let is_ready = |want: &ContainerWant| {
        // One that is made anew in this plan whatever the others do is not there meanwhile.
        let stays = matches!(verdict(want, observed), Verdict::Keep) || rolls(want, desired, observed);
        let running = observed.container(&want.name).is_some_and(|c| c.state == ContainerState::Running);
        stays && running && nodes.get(&want.hostname).copied().unwrap_or_default()
    };
    let servers = desired.containers.iter().filter(|want| is_server(want));
    let (healthy, sick): (Vec<_>, Vec<_>) = servers.partition(|want| is_ready(want));
    let all = healthy.len() + sick.len();
    let others = if sick.is_empty() { healthy.len().saturating_sub(1) } else { healthy.len() };
    if others <= all / 2 {
        return None;
    }
    let turn = if sick.is_empty() { healthy } else { sick };
    turn.into_iter().find(|want| rolls(want, desired, observed)).map(|want| want.name.as_str())
}

/// Whether a load balancer has loaded what it should forward.
fn is_loaded(want: &ContainerWant, observed: &Observed) -> bool {
    match &want.kind {
        ContainerKind::Node(_) => true,
        ContainerKind::LoadBalancer(config) => observed.loaded.as_ref() == Some(&config.fingerprint()),
    }
}

/// Returns the step that makes or starts it, if there is one.
fn plan_container(
    plan: &mut Plan,
    want: &ContainerWant,
    observed: &Observed,
    images: &Images,
    mut after: Vec<usize>,
    rebirth: Rebirth,
    now: Timestamp,
) -> Option<usize> {
    match verdict(want, observed) {
        Verdict::Keep => return None,
        Verdict::Wait => {
            wait(plan, Duration::from_secs(1));
            return None;
        }
        Verdict::Reload(container) => {
            let action = Action::ReloadBalancer { id: container.id.clone(), want: Box::new(want.clone()) };
            plan.push(action, after);
            return None;
        }
        Verdict::Start(container) => {
            let action = Action::StartContainer { id: container.id.clone(), want: Box::new(want.clone()) };
            return Some(plan.push(action, after));
        }
        Verdict::Replace(container)
            if container.state == ContainerState::Created
                && now.duration_since(container.created) < CREATED_GRACE =>
        {
            wait(plan, Duration::from_secs(1));
            return None;
        }
        Verdict::Create | Verdict::Replace(_) if !images.contains_key(&want.image) => {
            let pull = Action::PullImage(want.image.clone());
            if !plan.steps.iter().any(|step| step.action == pull) {
                plan.push(pull, Vec::new());
            }
            return None;
        }
        Verdict::Replace(container) => {
            let graceful = container.state == ContainerState::Running;
            let remove =
                Action::RemoveContainer { id: container.id.clone(), name: container.name.clone(), graceful };
            let removed = plan.push(remove, after.clone());
            after.push(removed);
        }
        Verdict::Create => {}
    }
    if rebirth == Rebirth::Forget {
        // Only now: its kubelet would register again, and its etcd would come back.
        let forgotten = plan.push(Action::ForgetNode(want.hostname.clone()), after.clone());
        after.push(forgotten);
    }
    Some(plan.push(Action::RunContainer(Box::new(want.clone())), after))
}

fn wait(plan: &mut Plan, time: Duration) {
    plan.recheck = Some(plan.recheck.map_or(time, |known| known.min(time)));
}

/// Containers of ours that nothing wants any more. Volumes stay: they may hold data.
fn plan_leftovers(plan: &mut Plan, desired: &Desired, observed: &Observed, now: Timestamp) {
    for container in &observed.containers {
        let wanted = desired.containers.iter().any(|want| want.name == container.name);
        let grace = if container.state == ContainerState::Running { PROBE_GRACE } else { CREATED_GRACE };
        let left = grace - now.duration_since(container.created);
        let at_work = container.role() == Some(Role::Probe) && left.is_positive();
        if at_work {
            let left = left.unsigned_abs();
            plan.later = Some(plan.later.map_or(left, |known| known.min(left)));
        }
        if !wanted && !at_work {
            let action = Action::RemoveContainer {
                id: container.id.clone(),
                name: container.name.clone(),
                graceful: false,
            };
            plan.push(action, Vec::new());
        }
    }
}
