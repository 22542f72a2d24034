//! What to do about the difference between what should exist and what does.

use std::{borrow::Cow, time::Duration};

use jiff::{SignedDuration, Timestamp};

use super::{Action, Container, ContainerState, ContainerWant, Desired, Images, Observed, Plan};
use crate::api::{Identity, Role};

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
    let mut plan = Plan::default();
    let recorded = plan_record(&mut plan, identity, desired, observed);
    let (observed, removed) = plan_stranded(&mut plan, desired, observed);
    let observed = observed.as_ref();
    let network = plan_network(&mut plan, desired, observed, &[recorded.clone(), removed].concat());
    // Only once the subnet is certain: a data volume holds its node's address for life.
    let volumes = plan_volumes(&mut plan, desired, observed, &[&recorded[..], &network].concat());
    let base = [recorded, network, volumes].concat();
    for want in &desired.containers {
        plan_container(&mut plan, want, observed, images, &base, now);
    }
    plan_leftovers(&mut plan, desired, observed, now);
    plan
}

/// Images of the containers that `desired` wants made, which a plan must know.
pub fn images_needed(desired: &Desired, observed: &Observed) -> Vec<String> {
    let (observed, _) = plan_stranded(&mut Plan::default(), desired, observed);
    let mut images: Vec<String> = desired
        .containers
        .iter()
        .filter(|want| !matches!(verdict(want, &observed), Verdict::Keep | Verdict::Start(_)))
        .map(|want| want.image.clone())
        .collect();
    images.sort();
    images.dedup();
    images
}

/// The record comes first: what it says must not be lost once anything else exists.
fn plan_record(plan: &mut Plan, identity: &Identity, desired: &Desired, observed: &Observed) -> Vec<usize> {
    let current = desired.record.volume(identity);
    let written: Vec<usize> = match observed.volume(&current.name) {
        Some(_) => Vec::new(),
        None => vec![plan.push(Action::CreateVolume(current.clone()), Vec::new())],
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

/// Data volumes first: they are the birth certificates of their nodes.
fn plan_volumes(plan: &mut Plan, desired: &Desired, observed: &Observed, after: &[usize]) -> Vec<usize> {
    let missing = desired.volumes.iter().filter(|want| observed.volume(&want.name).is_none());
    let (data, others): (Vec<_>, Vec<_>) = missing.partition(|want| {
        want.labels.get(crate::api::label::ROLE).map(String::as_str) == Some(Role::Data.as_str())
    });
    let mut after = after.to_vec();
    let mut made = Vec::new();
    for kind in [data, others] {
        let steps: Vec<usize> = kind
            .into_iter()
            .map(|want| plan.push(Action::CreateVolume(want.clone()), after.clone()))
            .collect();
        after.extend(&steps);
        made.extend(steps);
    }
    made
}

/// What is to be done about one container.
enum Verdict<'a> {
    Keep,
    Create,
    Start(&'a Container),
    Replace(&'a Container),
    /// Somebody else is at it.
    Wait,
}

fn verdict<'a>(want: &ContainerWant, observed: &'a Observed) -> Verdict<'a> {
    let Some(container) = observed.container(&want.name) else { return Verdict::Create };
    let same = Some(container.hash()) == want.labels.get(crate::api::label::HASH).map(String::as_str);
    match container.state {
        ContainerState::Removing => Verdict::Wait,
        ContainerState::Dead | ContainerState::Created => Verdict::Replace(container),
        _ if !same => Verdict::Replace(container),
        ContainerState::Exited => Verdict::Start(container),
        ContainerState::Running | ContainerState::Restarting | ContainerState::Paused => Verdict::Keep,
    }
}

fn plan_container(
    plan: &mut Plan,
    want: &ContainerWant,
    observed: &Observed,
    images: &Images,
    base: &[usize],
    now: Timestamp,
) {
    let mut after = base.to_vec();
    match verdict(want, observed) {
        Verdict::Keep => return,
        Verdict::Wait => return wait(plan, Duration::from_secs(1)),
        Verdict::Start(container) => {
            plan.push(
                Action::StartContainer { id: container.id.clone(), want: Box::new(want.clone()) },
                after,
            );
            return;
        }
        Verdict::Replace(container)
            if container.state == ContainerState::Created
                && now.duration_since(container.created) < CREATED_GRACE =>
        {
            return wait(plan, Duration::from_secs(1));
        }
        Verdict::Create | Verdict::Replace(_) if !images.contains_key(&want.image) => {
            let pull = Action::PullImage(want.image.clone());
            if !plan.steps.iter().any(|step| step.action == pull) {
                plan.push(pull, Vec::new());
            }
            return;
        }
        Verdict::Replace(container) => {
            let graceful = container.state == ContainerState::Running;
            let remove =
                Action::RemoveContainer { id: container.id.clone(), name: container.name.clone(), graceful };
            after.push(plan.push(remove, base.to_vec()));
        }
        Verdict::Create => {}
    }
    plan.push(Action::RunContainer(Box::new(want.clone())), after);
}

fn wait(plan: &mut Plan, time: Duration) {
    plan.recheck = Some(plan.recheck.map_or(time, |known| known.min(time)));
}

/// Containers of ours that nothing wants any more. Volumes stay: they may hold data.
fn plan_leftovers(plan: &mut Plan, desired: &Desired, observed: &Observed, now: Timestamp) {
    for container in &observed.containers {
        let wanted = desired.containers.iter().any(|want| want.name == container.name);
        let grace = if container.state == ContainerState::Running { PROBE_GRACE } else { CREATED_GRACE };
        let at_work = container.role() == Some(Role::Probe) && now.duration_since(container.created) < grace;
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
