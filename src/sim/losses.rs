//! What a cluster has lost, in truth: what k3nest says of it is measured by this.

use super::docker::Docker;
use crate::{
    api::{Identity, Reason, label},
    plan::Record,
};

/// What the servers' data is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// It serves, or will by itself.
    Nothing,
    /// A person has to say that what only the lost members knew is given up.
    Quorum,
    /// None is left.
    Data,
}

impl Loss {
    /// What the etcd called `etcd` has lost, which served the cluster `identity`.
    pub fn of(docker: &Docker, identity: &Identity, etcd: &str) -> Self {
        let members = docker.members.get(etcd);
        let ours = docker.volumes.values().filter(|v| identity.owns(&v.labels));
        let holders = ours.filter(|v| v.etcd.as_ref().is_some_and(|e| e.id == etcd));
        let nodes: Vec<Option<&String>> = holders.map(|v| v.labels.get(label::NODE)).collect();
        if nodes.is_empty() {
            return Self::Data;
        }
        let is_member =
            |node: &&Option<&String>| node.is_some_and(|n| members.is_some_and(|m| m.contains(n)));
        let kept = nodes.iter().filter(is_member).count();
        if kept * 2 > members.map_or(0, |m| m.len()) { Self::Nothing } else { Self::Quorum }
    }

    /// What a reason says of losses.
    pub fn said(reason: &str) -> Self {
        if reason == Reason::QuorumLost.as_str() {
            Self::Quorum
        } else if reason == Reason::DataLost.as_str() {
            Self::Data
        } else {
            Self::Nothing
        }
    }
}

/// Whether the record knows every server of its cluster as a member. Until then, what is remembered of a
/// record that was lost is a guess.
pub fn knows_members(record: &Record) -> bool {
    record.initialised && record.recovering().is_none() && record.joined.len() == record.servers as usize
}
