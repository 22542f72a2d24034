//! Whether the servers that have their data are enough to go on, and what a recovery makes of those
//! that do where they are not (https://docs.k3s.io/datastore/ha-embedded, `--cluster-reset`).

use std::collections::{BTreeMap, BTreeSet};

use super::{Container, ContainerState, DataState, Observed, Record, SERVER_POOL, hash};
use crate::api::{Blocked, Identity, RECOVER_ANNOTATION, Reason, Role, STANDALONE};

/// A wish to recover a cluster that has lost its quorum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recover {
    /// Tells this wish from others: for each, something is done once at most.
    pub nonce: String,
    /// The Node whose data is to be kept. None: the one that was written to last.
    pub from: Option<String>,
}

/// The members of etcd, and what has become of their data.
fn members(identity: &Identity, record: &Record, observed: &Observed) -> BTreeMap<u32, DataState> {
    let state = |index: u32| {
        let node = identity.node_name(SERVER_POOL, index);
        observed.data_of(Role::Server, &node, &identity.object_name(&node))
    };
    record.voters().into_iter().map(|index| (index, state(index))).collect()
}

/// All servers, and whether there is data to recover from: one may have joined that was never seen Ready,
/// in a recovery the data of the others is there until they join, and a person may have put copies back.
fn servers(identity: &Identity, record: &Record, observed: &Observed) -> BTreeMap<u32, DataState> {
    let state = |index: u32| {
        let node = identity.node_name(SERVER_POOL, index);
        observed.former_data_of(&node, &identity.object_name(&node))
    };
    record.voters().into_iter().chain(0..record.servers).map(|index| (index, state(index))).collect()
}

/// How many of `members` agree on anything.
fn majority(members: usize) -> usize {
    members / 2 + 1
}

/// What the servers' data allows.
pub(super) enum Quorum {
    /// Going on.
    Enough,
    /// Nothing before somebody has looked into their volumes.
    Unknown,
    /// Nothing before a person acts, unless the API answers: then they agree, whatever was seen of them.
    Doubted(Blocked),
    /// Nothing before a person acts.
    Lost(Blocked),
}

/// Whether enough servers have their data. Of what was never a member nothing is missed.
pub(super) fn quorum(identity: &Identity, record: &Record, observed: &Observed) -> Quorum {
    let mut members = members(identity, record, observed);
    let count = |members: &BTreeMap<u32, DataState>, state: DataState| {
        members.values().filter(|s| **s == state).count()
    };
    let mut kept = count(&members, DataState::Kept);
    if kept >= majority(members.len()) || !record.initialised {
        return Quorum::Enough;
    }
    if count(&members, DataState::Unknown) > 0 {
        return Quorum::Unknown;
    }
    // A record of before the members were kept in it.
    if members.is_empty() && observed.members().iter().any(|m| m.pool == SERVER_POOL) {
        return Quorum::Enough;
    }
    if kept == 0 {
        members = servers(identity, record, observed);
        if count(&members, DataState::Unknown) > 0 {
            return Quorum::Unknown;
        }
        kept = count(&members, DataState::Kept);
    }
    if kept == 0 {
        return Quorum::Lost(data_lost(if members.len() == 1 {
            "the server's data is gone"
        } else {
            "no server's data is left"
        }));
    }
    let have = |state: DataState| {
        let names = members.iter().filter(|(_, s)| **s == state);
        names.map(|(index, _)| identity.node_name(SERVER_POOL, *index)).collect::<Vec<_>>().join(", ")
    };
    if they_agree(observed) {
        return Quorum::Enough;
    }
    let few = kept < majority(members.len());
    let outgrown = has_outgrown(observed);
    let why = if few {
        "too few to agree on anything"
    } else if outgrown {
        "but it is of before the last recovery"
    } else {
        "but none of them was Ready before"
    };
    let best = survivor(&members, identity, observed).unwrap_or_default();
    let blocked = Blocked::new(
        Reason::QuorumLost,
        format!(
            "{kept} of {} servers have their data, {why}: {} lost theirs, {} survived; to go on with the data of {}, run {}; what only the lost ones knew is gone then",
            members.len(),
            Some(have(DataState::Empty)).filter(|names| !names.is_empty()).unwrap_or("none".into()),
            have(DataState::Kept),
            identity.node_name(SERVER_POOL, best),
            recovery_command(identity, None),
        ),
    );
    if outgrown { Quorum::Lost(blocked) } else { Quorum::Doubted(blocked) }
}

/// Whether the API answers, which it does while most members of etcd agree. Then none of them is missed: the
/// record may count servers that had yet to join, where it was made again, and not those that joined and
/// were never seen Ready.
fn they_agree(observed: &Observed) -> bool {
    observed.nodes.is_some() && !has_outgrown(observed)
}

/// Whether somebody has put back data of before the last recovery.
fn has_outgrown(observed: &Observed) -> bool {
    observed.data.iter().flatten().any(|(_, data)| data.outgrown)
}

/// The record of a cluster that has served though it was never seen Ready: the server that would found
/// it has no data, and others are members. None where nothing says so.
pub fn served_unseen(identity: &Identity, record: &Record, observed: &Observed) -> Option<Record> {
    let is_member = |index: &u32| {
        let found = observed.found_of(&identity.node_name(SERVER_POOL, *index));
        found.is_some_and(|data| data.etcd)
    };
    let members: BTreeSet<u32> = (0..record.servers).filter(is_member).collect();
    let served = !record.initialised && !members.is_empty() && !members.contains(&0);
    served.then(|| {
        record.changed(|r| {
            r.initialised = true;
            r.joined = members;
        })
    })
}

/// What a person writes to have a cluster recovered, `from` a certain Node's data if so.
pub fn recovery_command(identity: &Identity, from: Option<&str>) -> String {
    let Identity { instance, uid: _, namespace, name } = identity;
    if instance == STANDALONE {
        let from = from.map(|node| format!(" --from {node}")).unwrap_or_default();
        return format!("k3nest cluster recover {name} -n {namespace}{from}");
    }
    let from = from.map(|node| format!(":{node}")).unwrap_or_default();
    format!("kubectl annotate --overwrite k3c {name} -n {namespace} {RECOVER_ANNOTATION}=$(date +%s){from}")
}

/// A cluster without data is said to be one, and never replaced by an empty one.
pub(crate) fn data_lost(what: &str) -> Blocked {
    Blocked::new(
        Reason::DataLost,
        format!(
            "{what}, and the cluster is not started empty in its place; delete it and create it again, or restore the volumes"
        ),
    )
}

/// The member that survives best: etcd wrote to it last. Of equals the first.
fn survivor(members: &BTreeMap<u32, DataState>, identity: &Identity, observed: &Observed) -> Option<u32> {
    let written = |index: u32| {
        let volume = identity.object_name(&format!("{}-data", identity.node_name(SERVER_POOL, index)));
        observed.data.as_ref().and_then(|data| data.get(&volume)).and_then(|data| data.written)
    };
    let kept = members.iter().filter(|(_, state)| **state == DataState::Kept).map(|(index, _)| *index);
    kept.max_by_key(|index| (written(*index), std::cmp::Reverse(*index)))
}

/// Whether nothing but etcd itself can keep those of `members` with data from agreeing: they and the way in
/// are up, and have been for a while, or fail again and again.
fn had_their_time(identity: &Identity, members: &BTreeMap<u32, DataState>, observed: &Observed) -> bool {
    let has = |container: &Container| match container.state {
        ContainerState::Running => !container.is_young(),
        state => state == ContainerState::Restarting,
    };
    let balancer = observed.containers.iter().find(|c| c.role() == Some(Role::LoadBalancer));
    let server =
        |index: &u32| observed.container(&identity.object_name(&identity.node_name(SERVER_POOL, *index)));
    let mut kept = members.iter().filter(|(_, state)| **state == DataState::Kept);
    balancer.is_some_and(has) && kept.all(|(index, _)| server(index).is_some_and(has))
}

/// The record after a wish to recover: with a recovery to carry out, or, where enough servers have
/// their data to come back by themselves or the API answers, with nothing but the wish noted; unchanged
/// where that cannot be told yet. Needs to know what lies in the servers' volumes, and what the API says.
///
/// # Errors
/// Where nothing is left to recover from, or not where the wish says.
pub fn recover(
    identity: &Identity,
    record: &Record,
    observed: &Observed,
    wish: &Recover,
) -> Result<Record, Blocked> {
    let noted = record.changed(|r| r.recover_nonce = Some(wish.nonce.clone()));
    let node = |index: u32| identity.node_name(SERVER_POOL, index);
    let mut members = members(identity, record, observed);
    let kept = members.values().filter(|state| **state == DataState::Kept).count();
    // A recovery that does not succeed may be begun again from another server. So may one be begun where
    // what lies there is of no use to etcd: then nobody answers.
    let silent = record.recovering().is_none() && observed.nodes.is_none();
    let elsewhere = wish.from.as_ref().is_some_and(|from| match record.recovering() {
        Some(recovery) => node(recovery.survivor) != *from,
        None => silent,
    });
    let enough = kept >= majority(members.len()) || they_agree(observed);
    if enough && elsewhere && silent && !had_their_time(identity, &members, observed) {
        // They may be about to answer. The wish stays until they do, or could have.
        return Ok(record.clone());
    }
    if !record.initialised || (enough && !elsewhere) {
        return Ok(noted);
    }
    if kept == 0 || elsewhere {
        members = servers(identity, record, observed);
    }
    let kept: Vec<u32> =
        members.iter().filter(|(_, s)| **s == DataState::Kept).map(|(index, _)| *index).collect();
    let Some(best) = survivor(&members, identity, observed) else {
        return Err(data_lost("no server's data is left to recover from"));
    };
    let survivor = match &wish.from {
        None => best,
        Some(from) => kept.iter().copied().find(|index| node(*index) == *from).ok_or_else(|| {
            let names = kept.iter().map(|index| node(*index)).collect::<Vec<_>>().join(" or ");
            let message = format!("to recover from {from}: it is no server that has its data; write {names}");
            Blocked::new(Reason::QuorumLost, message)
        })?,
    };
    Ok(record.changed(|r| {
        r.recover_nonce = Some(wish.nonce.clone());
        r.recovery = Some(super::Recovery { epoch: hash::of(&(&wish.nonce, record.generation)), survivor });
        r.joined.clear();
    }))
}
