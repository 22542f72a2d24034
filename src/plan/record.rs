//! The durable record: what must outlive operator, CLI and status, kept as labels of a volume next
//! to the data. A change writes the next generation and then removes the last.

use std::{collections::BTreeMap, net::Ipv4Addr};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use super::VolumeWant;
use crate::api::{Identity, Role, label};

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
    /// Highest version a server was Ready with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub highest_version: Option<String>,
    /// Random key with which secret inputs enter hashes, so that a hash tells nothing of a secret
    /// that also occurs elsewhere.
    pub salt: String,
    /// HMAC of the token the cluster was made with, where it came from a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_mac: Option<String>,
    /// The spec as the CLI applied it last; it holds references to secrets, never their values.
    #[serde(skip)]
    pub spec: Option<String>,
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

impl Record {
    /// From the labels of a record volume.
    pub fn from_labels(labels: &BTreeMap<String, String>) -> Option<Self> {
        let mut record: Self = serde_json::from_str(labels.get(label::RECORD)?).ok()?;
        record.spec = labels.get(label::SPEC).cloned();
        Some(record)
    }

    /// The volume that holds this generation.
    pub fn volume(&self, identity: &Identity) -> VolumeWant {
        let mut labels = identity.labels(Role::Record);
        // A struct of strings and numbers always serialises.
        labels.insert(label::RECORD.into(), serde_json::to_string(self).unwrap_or_default());
        if let Some(spec) = &self.spec {
            labels.insert(label::SPEC.into(), spec.clone());
        }
        VolumeWant {
            name: identity.object_name(&format!("{}-record-{}", identity.name, self.generation)),
            labels,
        }
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
