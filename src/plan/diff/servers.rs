//! Servers are more than containers: one founds the cluster, the majority of them is etcd, and who lost
//! its data cannot come back under its name before the others have forgotten it.

use super::verdict::{Verdict, is_attached, is_of_epoch, verdict};
use crate::{
    api::{Role, label},
    plan::{
        Action, Container, ContainerState, ContainerWant, DataState, Desired, NodeConfig, Observed, Plan,
        Record,
    },
};

pub(super) fn is_server(want: &ContainerWant) -> bool {
    want.kind.role() == Role::Server
}

/// Once the cluster is known to have been Ready, the server that founded it is told to never do that
/// again, and so is the survivor of a recovery, before the record says so: Docker restarts a container as it
/// was told last.
pub(super) fn plan_told(plan: &mut Plan, desired: &Desired, observed: &Observed) -> Vec<usize> {
    let former = observed.record();
    // Where the record was lost, nobody knows whether it was told.
    let initialised = former.as_ref().is_some_and(|former| former.initialised);
    let recovers = desired.record.recovering().is_some();
    let founder = (desired.record.initialised && !initialised && !recovers).then_some(0);
    let recovering = former.as_ref().and_then(Record::recovering);
    let survivor = recovering.filter(|_| desired.record.recovering().is_none());
    let Some(index) = survivor.map(|recovery| recovery.survivor).or(founder) else { return Vec::new() };
    let index = index.to_string();
    let mut servers = desired.containers.iter().filter(|want| is_server(want));
    let begun = servers.find(|want| want.labels.get(label::INDEX) == Some(&index));
    let up = [ContainerState::Running, ContainerState::Restarting, ContainerState::Paused];
    let told = begun.and_then(|want| {
        let container = observed.container(&want.name).filter(|c| up.contains(&c.state))?;
        Some(Action::TellNode { id: container.id.clone(), want: Box::new(want.clone()) })
    });
    told.map(|told| plan.push(told, Vec::new())).into_iter().collect()
}

/// Before a recovery resets the membership of etcd to its survivor, every server of before stops.
/// Returns the steps that remove them.
pub(super) fn plan_reset(plan: &mut Plan, desired: &Desired, observed: &Observed) -> Vec<usize> {
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
pub(super) enum Rebirth {
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
pub(super) fn rebirth(
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
    let runs = state == Some(ContainerState::Running);
    let replaced = runs && matches!(verdict(want, observed), Verdict::Replace(_));
    if !desired.record.initialised || (runs && !replaced) {
        return Rebirth::No;
    }
    if desired.record.recovering().is_some() && is_server(want) && !node.begins.resets {
        // It joins the survivor, once that is Ready.
        plan.depends_on_nodes = true;
        return Rebirth::Wait;
    }
    if runs && is_server(want) {
        // It may be joining: forgotten now, it would be left with the data of a member that was removed.
        return Rebirth::No;
    }
    // What runs may have lost its data without knowing.
    let unseen = replaced && observed.data.is_none() && data == DataState::Kept;
    match if unseen { DataState::Unknown } else { data } {
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

/// Whether `want` is a running server, one of several that have served, whose container is to be
/// replaced: while it is down, the others must hold the majority of etcd.
pub(super) fn rolls(want: &ContainerWant, desired: &Desired, observed: &Observed) -> bool {
    let several = desired.containers.iter().filter(|other| is_server(other)).count() > 1;
    // One that is out of its network is out of the majority already, as are all in a recovery.
    let replaced = matches!(verdict(want, observed), Verdict::Replace(c)
        if c.state == ContainerState::Running && is_attached(want, c) && is_of_epoch(want, c));
    several && desired.record.initialised && replaced
}

/// The server to replace in this plan, of those that run: one at most, and only where the others that
/// are Ready are a majority without it. One that is not Ready itself goes first.
pub(super) fn next_to_roll<'a>(desired: &'a Desired, observed: &Observed) -> Option<&'a str> {
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
