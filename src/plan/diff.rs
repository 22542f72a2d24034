//! What to do about the difference between what should exist and what does.

mod servers;
mod verdict;

use std::{borrow::Cow, collections::BTreeMap, time::Duration};

use jiff::{SignedDuration, Timestamp};

use self::{
    servers::{Rebirth, is_server, next_to_roll, plan_reset, plan_told, rebirth, rolls},
    verdict::{Verdict, verdict},
};
use super::{
    Action, Container, ContainerKind, ContainerState, ContainerWant, Desired, Images, MountSource, Observed,
    Plan, VolumeWant,
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
    if was_lost(desired, observed) {
        // What becomes of it is to be remembered, whatever else was lost with it: also where the founder,
        // of whom nobody knows any more whether it was told, has not even a token to be told of.
        let mut plan = Plan::default();
        plan_told(&mut plan, desired, observed);
        plan_record(&mut plan, identity, desired, observed, Vec::new());
        return plan;
    }
    match quorum(identity, &desired.record, observed) {
        Quorum::Enough => {}
        Quorum::Unknown => {
            let mut plan = Plan { depends_on_data: true, ..Plan::default() };
            wait(&mut plan, Duration::from_secs(1));
            return plan;
        }
        Quorum::Doubted(blocked) => return Plan { depends_on_nodes: true, ..Plan::blocked(blocked) },
        Quorum::Lost(blocked) => return Plan::blocked(blocked),
    }
    let mut plan = Plan::default();
    let told = plan_told(&mut plan, desired, observed);
    let recorded = plan_record(&mut plan, identity, desired, observed, told);
    let (observed, removed) = plan_stranded(&mut plan, desired, observed, &recorded);
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

/// Whether the record of a cluster that has served was lost, and not its nodes' volumes with it.
fn was_lost(desired: &Desired, observed: &Observed) -> bool {
    desired.record.initialised && observed.record().is_none() && !observed.members().is_empty()
}

/// Images of the containers that `desired` wants made, or may want made once their data was looked at,
/// which a plan must know.
pub fn images_needed(desired: &Desired, observed: &Observed) -> Vec<String> {
    let (observed, _) = plan_stranded(&mut Plan::default(), desired, observed, &[]);
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
/// takes them for its, and after the record, of which they have copies. Returns what is left, and the steps that remove them.
fn plan_stranded<'a>(
    plan: &mut Plan,
    desired: &Desired,
    observed: &'a Observed,
    recorded: &[usize],
) -> (Cow<'a, Observed>, Vec<usize>) {
    let stranded = |c: &Container| {
        desired.network.is_some() && observed.networks.is_empty() && c.role() != Some(Role::Probe)
    };
    if !observed.containers.iter().any(stranded) {
        return (Cow::Borrowed(observed), Vec::new());
    }
    let (gone, containers): (Vec<_>, Vec<_>) = observed.containers.iter().cloned().partition(stranded);
    let removals = gone.into_iter().map(|c| {
        let removal = Action::RemoveContainer { id: c.id, name: c.name, graceful: false };
        plan.push(removal, recorded.to_vec())
    });
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

/// Whether the cluster's token is what the container `want` will have: that of the one that founds the
/// cluster and, once there is one, while no server is there to be asked, of those whose data volume is
/// older. The founder's name is a lock: of two who make a cluster at once, one decides. What joins starts
/// after it, so that no other volume has a token which the founder's has not.
fn decides_token(want: &ContainerWant, desired: &Desired, observed: &Observed) -> bool {
    let ContainerKind::Node(node) = &want.kind else { return false };
    let asked = observed.containers.iter().any(|c| c.role() == Some(Role::Server));
    let data = desired.volumes.iter().find(|volume| {
        is_data(volume) && want.mounts.iter().any(|m| m.source == MountSource::Volume(volume.name.clone()))
    });
    let older = data.is_some_and(|volume| observed.volume(&volume.name).is_some());
    node.role == Role::Server && (node.founds() || (desired.record.initialised && !asked && older))
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
