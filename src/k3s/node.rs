//! Labels and taints of live Nodes: pure decisions about what to write.
//!
//! Labels are kept by server-side apply, where removing one from the applied set removes it. Node
//! taints are one atomic list, so ours are remembered in an annotation and changed by
//! read-modify-write.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Taint};
use serde_json::Value;

use crate::api::{FIELD_MANAGER, NodeTaint};

/// Annotation that lists the taints k3nest put on a Node, as JSON.
pub const TAINTS_ANNOTATION: &str = "k3nest.dev/taints";

/// One Node of a nested cluster.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeFacts {
    /// Its name.
    pub name: String,
    /// Whether its Ready condition is True.
    pub ready: bool,
    /// When its kubelet last said so. A Node outlives its container, and the last report with it.
    pub reported: Option<Timestamp>,
    /// Version of its kubelet.
    pub version: String,
    /// Why it is not ready.
    pub message: Option<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Keys of labels that k3nest applied.
    pub applied_labels: BTreeSet<String>,
    /// Its taints.
    pub taints: Vec<Taint>,
    /// Those of them that k3nest put there.
    pub applied_taints: Vec<NodeTaint>,
    /// For optimistic locking.
    pub resource_version: Option<String>,
}

impl NodeFacts {
    /// Whether its kubelet has spoken since its container was made or started, at `moment`. What is
    /// reported are whole seconds, and no kubelet speaks within the second in which its container is
    /// made or started.
    pub fn has_spoken_since(&self, moment: Timestamp) -> bool {
        self.reported.is_some_and(|reported| reported > moment)
    }
}

impl From<Node> for NodeFacts {
    fn from(node: Node) -> Self {
        let status = node.status.unwrap_or_default();
        let ready = status.conditions.unwrap_or_default().into_iter().find(|c| c.type_ == "Ready");
        let is_ready = ready.as_ref().is_some_and(|c| c.status == "True");
        let meta = node.metadata;
        let applied_labels = meta
            .managed_fields
            .unwrap_or_default()
            .into_iter()
            .filter(|entry| entry.manager.as_deref() == Some(FIELD_MANAGER))
            .filter_map(|entry| entry.fields_v1)
            .flat_map(|fields| label_keys(&fields.0))
            .collect();
        let applied_taints = meta
            .annotations
            .as_ref()
            .and_then(|a| a.get(TAINTS_ANNOTATION))
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default();
        Self {
            name: meta.name.unwrap_or_default(),
            ready: is_ready,
            reported: ready.as_ref().and_then(|c| c.last_heartbeat_time.as_ref()).map(|time| time.0),
            version: status.node_info.map(|i| i.kubelet_version).unwrap_or_default(),
            message: (!is_ready).then(|| {
                ready.and_then(|c| c.message).unwrap_or_else(|| "the kubelet has not reported yet".into())
            }),
            labels: meta.labels.unwrap_or_default(),
            applied_labels,
            taints: node.spec.unwrap_or_default().taints.unwrap_or_default(),
            applied_taints,
            resource_version: meta.resource_version,
        }
    }
}

fn label_keys(fields: &Value) -> Vec<String> {
    let labels = fields.get("f:metadata").and_then(|m| m.get("f:labels")).and_then(Value::as_object);
    labels
        .into_iter()
        .flat_map(|l| l.keys())
        .filter_map(|k| k.strip_prefix("f:"))
        .map(str::to_owned)
        .collect()
}

/// Whether the labels `want` must be applied.
pub fn labels_differ(node: &NodeFacts, want: &BTreeMap<String, String>) -> bool {
    let missing = want.iter().any(|(k, v)| node.labels.get(k) != Some(v));
    let stale = node.applied_labels.iter().any(|k| !want.contains_key(k));
    missing || stale
}

/// The whole list of taints that `node` should have, if it differs from the one it has.
pub fn taints_wanted(node: &NodeFacts, want: &[NodeTaint]) -> Option<Vec<Taint>> {
    let is = |taint: &Taint, own: &NodeTaint| taint.key == own.key && taint.effect == own.effect.as_str();
    let holds = |own: &NodeTaint| {
        node.taints.iter().any(|t| {
            is(t, own) && t.value.as_deref().unwrap_or_default() == own.value.as_deref().unwrap_or_default()
        })
    };
    let remembered = want.iter().all(|w| node.applied_taints.contains(w));
    let stale = node.applied_taints.iter().any(|old| !want.contains(old));
    if want.iter().all(holds) && remembered && !stale {
        return None;
    }
    let foreign = node
        .taints
        .iter()
        .filter(|t| !node.applied_taints.iter().any(|old| is(t, old)) && !want.iter().any(|own| is(t, own)))
        .cloned();
    let ours = want.iter().map(|own| Taint {
        key: own.key.clone(),
        value: own.value.clone(),
        effect: own.effect.as_str().into(),
        time_added: None,
    });
    Some(foreign.chain(ours).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::TaintEffect;

    fn own(key: &str) -> NodeTaint {
        NodeTaint { key: key.into(), value: None, effect: TaintEffect::NoSchedule }
    }

    fn on_node(key: &str) -> Taint {
        Taint { key: key.into(), effect: "NoSchedule".into(), ..Taint::default() }
    }

    fn keys(taints: Option<Vec<Taint>>) -> Option<Vec<String>> {
        taints.map(|list| list.into_iter().map(|t| t.key).collect())
    }

    #[test]
    fn foreign_taints_stay_and_stale_own_ones_go() {
        let node = NodeFacts {
            taints: vec![on_node("foreign"), on_node("old")],
            applied_taints: vec![own("old")],
            ..NodeFacts::default()
        };
        assert_eq!(keys(taints_wanted(&node, &[own("new")])), Some(vec!["foreign".into(), "new".into()]));
        assert_eq!(keys(taints_wanted(&node, &[])), Some(vec!["foreign".into()]));
        assert_eq!(keys(taints_wanted(&node, &[own("old")])), None);
    }

    #[test]
    fn labels_that_were_applied_and_are_no_longer_wanted_count() {
        let node = NodeFacts {
            labels: [("a".into(), "1".into()), ("b".into(), "2".into())].into(),
            applied_labels: ["a".into()].into(),
            ..NodeFacts::default()
        };
        assert!(!labels_differ(&node, &[("a".into(), "1".into())].into()));
        assert!(labels_differ(&node, &[("a".into(), "2".into())].into()));
        assert!(labels_differ(&node, &[].into()));
    }
}
