//! The plan for nothing. It needs no spec, no Secret and no record, and creates nothing.

use super::{Action, Observed, Plan};
use crate::api::Role;

/// Removes everything of a cluster: containers, then networks and volumes, a node's data volume
/// after its others, the record last of all, so that what is left after a cut is still known as
/// ours and as whose. Volumes do not wait for networks, which somebody else may be using.
pub fn removal(observed: &Observed) -> Plan {
    let mut plan = Plan::default();
    let containers: Vec<usize> = observed
        .containers
        .iter()
        .map(|c| {
            plan.push(
                Action::RemoveContainer { id: c.id.clone(), name: c.name.clone(), graceful: false },
                Vec::new(),
            )
        })
        .collect();
    let networks: Vec<usize> = observed
        .networks
        .iter()
        .map(|network| {
            let remove = Action::RemoveNetwork { id: network.id.clone(), name: network.name.clone() };
            plan.push(remove, containers.clone())
        })
        .collect();
    let mut last: Vec<usize> = containers;
    let rank = |role: Option<Role>| match role {
        Some(Role::Record) => 2,
        Some(Role::Data) => 1,
        _ => 0,
    };
    for stage in 0..=2 {
        if stage == 2 {
            last.extend(&networks);
        }
        let after = last.clone();
        for volume in observed.volumes.iter().filter(|v| rank(v.role()) == stage) {
            last.push(plan.push(Action::RemoveVolume(volume.name.clone()), after.clone()));
        }
    }
    plan
}
