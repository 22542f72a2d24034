//! What happens inside a nested cluster: how to get in, whether it is ready, and the rendering of
//! everything k3s and its load balancer are told.

mod access;

pub use access::{Access, AccessError};

use std::future::Future;

/// One Node of a nested cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// Its name.
    pub name: String,
    /// Whether its Ready condition is True.
    pub ready: bool,
    /// Version of its kubelet.
    pub version: String,
    /// Why it is not ready.
    pub message: Option<String>,
}

/// The nested clusters' APIs, as far as k3nest needs them. A trait for the sake of tests without
/// clusters.
pub trait ClusterApi: Send + Sync + 'static {
    /// Whether /readyz says ok at `url`, and every Node. An error says in words why it cannot be
    /// told. Bounded to a few seconds.
    fn probe(&self, access: &Access, url: &str) -> impl Future<Output = Result<Vec<NodeFacts>, String>> + Send;
}
