//! The durable record: what must outlive operator, CLI and status, kept as labels of a volume next
//! to the data. A change writes the next generation and then removes the last.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use super::VolumeWant;
use crate::api::{Blocked, Identity, Reason, Role, label};

/// What a cluster must remember.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Counts the changes.
    pub generation: u64,
    /// The engine it lives on.
    pub engine_id: String,
    /// Its network.
    pub network: RecordedNetwork,
    /// Address of the load balancer in that network.
    pub load_balancer: Ipv4Addr,
    /// Port of the Docker host for its API, kept for life.
    pub api_port: u16,
    /// Place of the load balancer in the host cluster's network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest: Option<GuestAddress>,
    /// Repository of node images where the spec names none. Kept, so that neither a new release nor
    /// another setting of k3nest rolls a node.
    pub node_image: String,
    /// Image of the load balancer where the spec names none, kept likewise.
    pub load_balancer_image: String,
    /// Whether a server was Ready once. From then on no server ever makes an empty cluster.
    #[serde(default)]
    pub initialised: bool,
    /// How many servers it has. 0: not known.
    #[serde(default)]
    pub servers: u32,
    /// Indices of the servers that were Ready once since the cluster was made or recovered: its etcd
    /// has them as members.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub joined: BTreeSet<u32>,
    /// The last recovery of a lost quorum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<Recovery>,
    /// The nonce of the last recovery that was asked for, whatever came of it: nothing is done twice
    /// for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recover_nonce: Option<String>,
    /// Highest version a server was Ready with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub highest_version: Option<String>,
    /// Random key with which secret inputs enter hashes, so that a hash tells nothing of a secret
    /// that also occurs elsewhere.
    pub salt: String,
    /// The resource that has adopted it, where another than that of its labels looks after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keeper: Option<Keeper>,
    /// HMAC of the token the cluster was made with, where it came from a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_mac: Option<String>,
    /// The spec as the CLI applied it last; it holds references to secrets, never their values.
    #[serde(skip)]
    pub spec: Option<String>,
}

/// A resource that looks after a cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Keeper {
    /// uid of the kube-system namespace of its host cluster.
    pub instance: String,
    /// Its own uid.
    pub uid: String,
}

impl Keeper {
    /// The resource that is `own` by itself.
    pub fn of(own: &Identity) -> Self {
        Self { instance: own.instance.clone(), uid: own.uid.clone() }
    }
}

/// The network of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordedNetwork {
    /// Its name.
    pub name: String,
    /// Its range.
    pub subnet: Ipv4Net,
    /// Whether k3nest made it, and removes it with the cluster.
    pub owned: bool,
}

/// A recovery: one server's data was kept, and the others joined it as new members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Recovery {
    /// Tells it from every other. A word.
    pub epoch: String,
    /// Index of the server whose data was kept.
    pub survivor: u32,
}

/// A pinned address in somebody else's network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GuestAddress {
    /// Name of the network.
    pub network: String,
    /// The address.
    pub address: Ipv4Addr,
}

/// A node that was born: its data volume exists or is about to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// Pool; `server` for the control plane.
    pub pool: String,
    /// Index in the pool.
    pub index: u32,
    /// Its address for life.
    pub address: Ipv4Addr,
}

/// Says that a cluster lives on the engine `recorded`, where nothing can be done for it: this is `here`.
pub fn engine_mismatch(recorded: &str, here: &str) -> Blocked {
    Blocked::new(
        Reason::EngineMismatch,
        format!(
            "the cluster lives on Docker engine {recorded}, and this is {here}; connect to that engine again, or delete the cluster and create it here"
        ),
    )
}

impl Record {
    /// From the labels of a record volume.
    pub fn from_labels(labels: &BTreeMap<String, String>) -> Option<Self> {
        let mut record: Self = serde_json::from_str(labels.get(label::RECORD)?).ok()?;
        record.spec = labels.get(label::SPEC).cloned();
        Some(record)
    }

    /// As in the label.
    pub fn to_label(&self) -> String {
        // A struct of strings and numbers always serialises.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The volume that holds this generation.
    pub fn volume(&self, identity: &Identity) -> VolumeWant {
        let mut labels = identity.labels(Role::Record);
        labels.insert(label::RECORD.into(), self.to_label());
        if let Some(spec) = &self.spec {
            labels.insert(label::SPEC.into(), spec.clone());
        }
        VolumeWant {
            name: identity.object_name(&format!("{}-record-{}", identity.name, self.generation)),
            labels,
        }
    }

    /// The servers that are members of the cluster's etcd, as far as is known.
    pub fn voters(&self) -> BTreeSet<u32> {
        match &self.recovery {
            Some(recovery) if self.joined.is_empty() => [recovery.survivor].into(),
            _ => self.joined.clone(),
        }
    }

    /// Which servers' data is of before the last recovery, though they were Ready after it: copies that
    /// somebody has put back. `epochs` has the recovery that each server's data was part of last.
    ///
    /// Where some but too few have data of that recovery, it is none of them: a record that was made again
    /// counts servers that had yet to join.
    pub fn outgrown(&self, epochs: &BTreeMap<u32, Option<String>>) -> BTreeSet<u32> {
        let Some(recovery) = &self.recovery else { return BTreeSet::new() };
        let members = epochs.iter().filter(|(index, _)| self.joined.contains(index));
        let (current, former): (Vec<_>, Vec<_>) =
            members.partition(|(_, epoch)| epoch.as_ref() == Some(&recovery.epoch));
        if !current.is_empty() && current.len() <= self.joined.len() / 2 {
            return BTreeSet::new();
        }
        former.into_iter().map(|(index, _)| *index).collect()
    }

    /// The recovery under way, until its survivor was Ready.
    pub fn recovering(&self) -> Option<&Recovery> {
        self.recovery.as_ref().filter(|_| self.joined.is_empty())
    }

    /// This record with `change` made, as the next generation; unchanged if nothing changes.
    pub fn changed(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut next = self.clone();
        change(&mut next);
        if next != *self {
            next.generation = self.generation + 1;
        }
        next
    }
}
