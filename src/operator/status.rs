//! Step "status": the report, applied server-side, and Events on its transitions.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::Condition};
use kube::{
    Resource, ResourceExt,
    api::{Patch, PatchParams},
    runtime::events::{Event, EventType},
};
use serde_json::json;

use super::{
    backend::Backend,
    context::{Context, MANAGER, namespace},
    error::{Context as _, ReconcileError, host_message, is_gone},
    publish::{Published, terminating},
    published::secret_name,
};
use crate::{
    api::{
        ADOPT_ANNOTATION, Blocked, Identity, K3sCluster, K3sClusterStatus, LocalRef, Phase, Reason, adopts,
        condition, set_condition,
    },
    plan::Acting,
    reconcile::node_news,
};

/// Longest note of an Event that the API server takes, in bytes.
const LONGEST_NOTE: usize = 1024;

/// What the operator adds to the report of a step.
pub(super) fn complete(status: &mut K3sClusterStatus, name: &str, published: &Published, now: Timestamp) {
    status.kubeconfig_secret_ref = published.secret.then(|| LocalRef { name: secret_name(name) });
    status.internal_endpoint = published.internal_url.clone();
    if let Some(why) = &published.unreachable
        && let Some(available) = status.conditions.iter().find(|c| c.type_ == condition::AVAILABLE)
    {
        let message = match available.message.as_str() {
            "" => why.clone(),
            said => format!("{said}; {why}"),
        };
        let (reason, generation) = (available.reason.clone(), available.observed_generation);
        set_condition(
            &mut status.conditions,
            condition::AVAILABLE,
            Some(true),
            Reason::Ready,
            message,
            generation,
            now,
        );
        // The step's own reason stays.
        if let Some(available) = status.conditions.iter_mut().find(|c| c.type_ == condition::AVAILABLE) {
            available.reason = reason;
        }
    }
}

/// Says whose objects in Docker are this cluster's, where its annotation names somebody.
pub(super) fn tell_adoption(
    status: &mut K3sClusterStatus,
    cluster: &K3sCluster,
    acting: &Result<Acting, Blocked>,
    now: Timestamp,
) {
    let (value, reason, message) = match acting {
        // What was said of it last tells what to put back.
        Err(_) if adopts(&cluster.metadata).is_none() => return,
        Ok(Acting { adopter: None, .. }) => {
            status.conditions.retain(|c| c.type_ != condition::ADOPTED);
            return;
        }
        Ok(Acting { identity: Identity { instance, uid, .. }, .. }) => {
            let message = format!(
                "its objects in Docker are those of owner {uid}, instance {instance}; annotation {ADOPT_ANNOTATION}: {uid} stays for its life"
            );
            (true, Reason::Adopted, message)
        }
        // Nothing was found out: what was said last still stands.
        Err(blocked) if [Reason::EngineUnavailable, Reason::EngineMismatch].contains(&blocked.reason) => {
            return;
        }
        Err(blocked) => (false, blocked.reason, blocked.message.clone()),
    };
    let generation = cluster.metadata.generation;
    set_condition(&mut status.conditions, condition::ADOPTED, Some(value), reason, message, generation, now);
}

/// The report of a cluster that is left alone: as it was, but for saying so.
pub(super) fn paused(former: &K3sClusterStatus, generation: Option<i64>, now: Timestamp) -> K3sClusterStatus {
    let mut status = former.clone();
    status.observed_generation = generation;
    let mut set = |type_, value, message: &str| {
        set_condition(&mut status.conditions, type_, value, Reason::Paused, message, generation, now);
    };
    set(
        condition::PAUSED,
        Some(true),
        "spec.paused is true: nothing is created, changed or healed; set it to false to go on",
    );
    set(condition::READY, None, "not looked at while spec.paused is true");
    set(condition::RECONCILING, Some(false), "spec.paused is true");
    status
}

/// The report of a cluster on its way out, held up by `reason`.
pub(super) fn deleting(
    former: &K3sClusterStatus,
    generation: Option<i64>,
    blocked: &Blocked,
    now: Timestamp,
) -> K3sClusterStatus {
    let mut status = former.clone();
    status.observed_generation = generation;
    status.phase = Phase::Deleting;
    let mut set = |type_, value, message: &str| {
        set_condition(&mut status.conditions, type_, value, blocked.reason, message, generation, now);
    };
    set(condition::READY, Some(false), &blocked.message);
    set(condition::RECONCILING, Some(true), &blocked.message);
    set(condition::STALLED, Some(false), "");
    status
}

/// Writes the report if it differs from the former one, and sends Events about what changed.
/// A cluster that is gone meanwhile needs no report.
///
/// # Errors
/// Where the API server refused or did not answer.
pub(super) async fn write<B: Backend>(
    ctx: &Context<B>,
    cluster: &K3sCluster,
    former: &K3sClusterStatus,
    status: &K3sClusterStatus,
) -> Result<(), ReconcileError> {
    if same(former, status) {
        return Ok(());
    }
    let name = cluster.name_any();
    let patch = json!({
        "apiVersion": K3sCluster::api_version(&()),
        "kind": K3sCluster::kind(&()),
        "metadata": {"name": name},
        "status": status,
    });
    let by = PatchParams::apply(MANAGER).force();
    match ctx.clusters(cluster).patch_status(&name, &by, &Patch::Apply(&patch)).await {
        Ok(after) => ctx.written.remember(&after),
        Err(error) if is_gone(&error) => return Ok(()),
        error => return error.map(drop).context(|| format!("write the status of {name}")),
    }
    for (reason, transition) in transitions(former, status) {
        announce(ctx, cluster, None, transition.type_, &reason, transition.note).await;
    }
    for news in node_news(former, status) {
        let (type_, reason) = match news.ready {
            true => (EventType::Normal, "NodeReady"),
            false => (EventType::Warning, "NodeNotReady"),
        };
        announce(ctx, cluster, Some(&news.node), type_, reason, news.text).await;
    }
    Ok(())
}

/// Whether two reports say the same; the order of conditions says nothing.
fn same(a: &K3sClusterStatus, b: &K3sClusterStatus) -> bool {
    let sorted = |status: &K3sClusterStatus| {
        let mut status = status.clone();
        status.conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
        status.nodes.sort_by(|a, b| a.name.cmp(&b.name));
        status
    };
    sorted(a) == sorted(b)
}

/// Sends an Event about `cluster`, and one of its nodes where it is about that, unless its namespace is on its way out: nothing can be created
/// there, Events neither. One that cannot be sent is logged: Events are for people, and the report
/// says the same.
pub(super) async fn announce<B: Backend>(
    ctx: &Context<B>,
    cluster: &K3sCluster,
    node: Option<&str>,
    type_: EventType,
    reason: &str,
    note: String,
) {
    if !matches!(terminating(&ctx.client, &namespace(cluster)).await, Ok(false)) {
        return;
    }
    let event = Event {
        type_,
        reason: reason.into(),
        note: Some(shortened(note)),
        action: "Reconcile".into(),
        // Without it, Events about two nodes would count as one that was repeated.
        secondary: node.map(|name| ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Node".into()),
            name: Some(name.into()),
            ..ObjectReference::default()
        }),
    };
    if let Err(error) = ctx.recorder.publish(&event, &cluster.object_ref(&())).await {
        tracing::warn!(reason, error = host_message(&error), "an Event could not be sent");
    }
}

/// What an Event says.
#[derive(Debug, PartialEq)]
struct Transition {
    type_: EventType,
    note: String,
}

/// What changed between two reports that people want to hear of, one for each reason.
fn transitions(former: &K3sClusterStatus, status: &K3sClusterStatus) -> BTreeMap<String, Transition> {
    let told = [
        condition::READY,
        condition::AVAILABLE,
        condition::STALLED,
        condition::HOST_COMPATIBLE,
        condition::ADOPTED,
    ];
    let mut found = BTreeMap::new();
    for now in status.conditions.iter().filter(|c| told.contains(&c.type_.as_str())) {
        let before = former.conditions.iter().find(|c| c.type_ == now.type_);
        let changed = before.is_none_or(|b| b.status != now.status || b.reason != now.reason);
        if changed && worth_telling(now, before) {
            let type_ = if is_trouble(now) { EventType::Warning } else { EventType::Normal };
            found.entry(now.reason.clone()).or_insert_with(|| Transition { type_, note: note(now) });
        }
    }
    found
}

/// Ready tells of every change; the others only when they turn bad.
fn worth_telling(now: &Condition, before: Option<&Condition>) -> bool {
    match now.type_.as_str() {
        condition::READY => true,
        condition::STALLED | condition::ADOPTED => now.status == "True",
        condition::AVAILABLE => now.status == "False" && before.is_some_and(|b| b.status == "True"),
        _ => now.status == "False",
    }
}

fn is_trouble(condition: &Condition) -> bool {
    let calm = [
        Reason::Ready,
        Reason::Progressing,
        Reason::WaitingForNodes,
        Reason::Deleting,
        Reason::Paused,
        Reason::Adopted,
    ];
    !calm.iter().any(|reason| reason.as_str() == condition.reason)
}

fn note(condition: &Condition) -> String {
    match condition.message.as_str() {
        "" => format!("{} is {}", condition.type_, condition.status),
        message => message.to_owned(),
    }
}

fn shortened(note: String) -> String {
    if note.len() <= LONGEST_NOTE {
        return note;
    }
    let end = (0..=LONGEST_NOTE - '…'.len_utf8()).rev().find(|end| note.is_char_boundary(*end)).unwrap_or(0);
    format!("{}…", &note[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(ready: Option<bool>, reason: Reason) -> K3sClusterStatus {
        let mut status = K3sClusterStatus::default();
        set_condition(
            &mut status.conditions,
            condition::READY,
            ready,
            reason,
            "words",
            Some(1),
            Timestamp::UNIX_EPOCH,
        );
        status
    }

    #[test]
    fn a_transition_is_told_once_and_a_state_never() {
        let (working, ready) = (report(Some(false), Reason::Progressing), report(Some(true), Reason::Ready));
        let told = transitions(&working, &ready);
        assert_eq!(told["Ready"], Transition { type_: EventType::Normal, note: "words".into() });
        assert!(transitions(&ready, &ready).is_empty());
    }

    #[test]
    fn trouble_is_a_warning_and_told_once_for_all_conditions() {
        let mut stalled = report(Some(false), Reason::PortTaken);
        set_condition(
            &mut stalled.conditions,
            condition::STALLED,
            Some(true),
            Reason::PortTaken,
            "",
            Some(1),
            Timestamp::UNIX_EPOCH,
        );
        let told = transitions(&report(Some(false), Reason::Progressing), &stalled);
        assert_eq!(told.len(), 1);
        assert_eq!(told["PortTaken"].type_, EventType::Warning);
    }

    #[test]
    fn a_long_note_is_cut_between_characters() {
        let cut = shortened("ä".repeat(2000));
        assert!(cut.len() <= LONGEST_NOTE && cut.ends_with('…'));
    }

    #[test]
    fn what_blocks_pods_is_added_to_available() {
        let mut status = report(Some(true), Reason::Ready);
        set_condition(
            &mut status.conditions,
            condition::AVAILABLE,
            Some(true),
            Reason::Ready,
            "answers",
            Some(1),
            Timestamp::UNIX_EPOCH,
        );
        let published = Published { secret: true, internal_url: None, unreachable: Some("firewall".into()) };
        complete(&mut status, "dev", &published, Timestamp::UNIX_EPOCH);
        let available = status.conditions.iter().find(|c| c.type_ == condition::AVAILABLE).unwrap();
        assert_eq!((available.status.as_str(), available.message.as_str()), ("True", "answers; firewall"));
        assert_eq!(status.kubeconfig_secret_ref.unwrap().name, "dev-kubeconfig");
    }
}
