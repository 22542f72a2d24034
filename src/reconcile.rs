//! The one step, the same for operator and CLI: gather → plan → act → report.

use std::time::Duration;

use jiff::Timestamp;

use crate::{
    api::{Blocked, Identity, K3sClusterSpec, K3sClusterStatus},
    engine::{Engine, EngineError, Progress},
    k3s::{Access, ClusterApi},
    plan::{InternalAccess, Settings, Values},
};

/// The outside world of a step.
pub struct World<E, A> {
    /// Docker.
    pub engine: E,
    /// The nested clusters' APIs.
    pub clusters: A,
    /// Hears in words what is being done.
    pub progress: Box<Progress>,
}

/// One cluster to take a step for.
#[derive(Clone, Debug)]
pub struct Request {
    /// Who it is.
    pub identity: Identity,
    /// What is wanted, valid by the schema.
    pub spec: K3sClusterSpec,
    /// `metadata.generation`; None for the CLI.
    pub generation: Option<i64>,
    /// What the spec refers to, or what is wrong with that.
    pub values: Result<Values, Blocked>,
    /// Settings of the operator or the CLI.
    pub settings: Settings,
    /// How Pods of the host cluster get in.
    pub internal: InternalAccess,
    /// The former report, for transition times and texts. Never the operator's memory.
    pub former: K3sClusterStatus,
    /// The spec to keep in the record (the CLI, which has no other place for it).
    pub keep_spec: Option<String>,
}

/// What a step came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The report. Complete but for `kubeconfigSecretRef`, which the operator adds.
    pub status: K3sClusterStatus,
    /// How to get in, once k3s has written its kubeconfig.
    pub access: Option<Access>,
    /// Addresses under which Pods of the host cluster may reach the API, best first, as
    /// (address, port); each still has to pass a TLS handshake.
    pub internal_candidates: Vec<(std::net::Ipv4Addr, u16)>,
    /// How many changes were made in Docker.
    pub changes: usize,
    /// When to look again, unless an event comes first. None: only on events.
    pub recheck: Option<Duration>,
}

/// What is left of a cluster after a removing step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removal {
    /// Nothing.
    Gone,
    /// These objects, and why.
    Remaining(Vec<String>),
}

/// Brings one cluster a step nearer to what is wanted. Never fails: what went wrong is in the
/// report.
pub async fn step<E: Engine, A: ClusterApi>(_world: &World<E, A>, _request: &Request, _now: Timestamp) -> Outcome {
    unimplemented!()
}

/// Removes everything of a cluster. Needs no spec and no Secret, and creates nothing.
///
/// # Errors
/// Where Docker could not even be asked.
pub async fn remove<E: Engine, A>(_world: &World<E, A>, _identity: &Identity) -> Result<Removal, EngineError> {
    unimplemented!()
}
