//! The one step, the same for operator and CLI: gather → plan → act → report.

mod converge;
mod files;
mod inside;
mod report;

use std::{net::Ipv4Addr, time::Duration};

use jiff::Timestamp;

use crate::{
    api::{Blocked, Identity, K3sClusterSpec, K3sClusterStatus},
    engine::{Engine, EngineError, Progress, execute, observe},
    k3s::{Access, ClusterApi},
    plan::{Input, InternalAccess, Settings, Values, removal},
};

use files::NoFiles;

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
    /// What the spec refers to, or what is wrong with that or with the spec.
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

impl Request {
    /// What plans are made of.
    fn input(&self, values: Values) -> Input {
        Input {
            identity: self.identity.clone(),
            spec: self.spec.clone(),
            values,
            settings: self.settings.clone(),
            internal: self.internal.clone(),
        }
    }
}

/// What a step came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The report. Complete but for `kubeconfigSecretRef` and `internalEndpoint`, which the
    /// operator adds.
    pub status: K3sClusterStatus,
    /// How to get in, once k3s has written its kubeconfig.
    pub access: Option<Access>,
    /// Addresses under which Pods of the host cluster may reach the API, best first, as
    /// (address, port); each still has to pass a TLS handshake.
    pub internal_candidates: Vec<(Ipv4Addr, u16)>,
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

/// Brings one cluster nearer to what is wanted. Never fails: what went wrong is in the report.
pub async fn step<E: Engine, A: ClusterApi>(
    world: &World<E, A>,
    request: &Request,
    now: Timestamp,
) -> Outcome {
    let mut seen = converge::Seen::default();
    let end = converge::converge(world, request, now, &mut seen).await;
    report::report(request, seen, end, now)
}

/// The report on a cluster as it is, changing nothing.
pub async fn inspect<E: Engine, A: ClusterApi>(
    world: &World<E, A>,
    request: &Request,
    now: Timestamp,
) -> Outcome {
    let mut seen = converge::Seen::default();
    let end = converge::inspect(world, request, now, &mut seen).await;
    report::report(request, seen, end, now)
}

/// The plan of the next step, without taking it.
///
/// # Errors
/// Where there is no plan: what the spec asks for cannot be, or Docker cannot be asked.
pub async fn preview<E: Engine, A: ClusterApi>(
    world: &World<E, A>,
    request: &Request,
    now: Timestamp,
) -> Result<crate::plan::Plan, String> {
    converge::preview(world, request, now).await.map_err(|stop| stop.to_string())
}

/// Removes everything of a cluster. Needs no spec and no Secret, and creates nothing.
///
/// # Errors
/// Where Docker could not even be asked.
pub async fn remove<E: Engine, A: Send + Sync>(
    world: &World<E, A>,
    identity: &Identity,
) -> Result<Removal, EngineError> {
    let observed = observe(&world.engine, identity).await?;
    let plan = removal(&observed);
    if plan.steps.is_empty() {
        return Ok(Removal::Gone);
    }
    let report = execute(&world.engine, identity, &plan, &NoFiles, &world.progress).await;
    let left = observe(&world.engine, identity).await?;
    if left.is_empty() {
        return Ok(Removal::Gone);
    }
    let names = left
        .containers
        .iter()
        .map(|c| format!("container {}", c.name))
        .chain(left.networks.iter().map(|n| format!("network {}", n.name)))
        .chain(left.volumes.iter().map(|v| format!("volume {}", v.name)))
        .map(|name| {
            match report
                .failures
                .iter()
                .find(|f| f.action.ends_with(name.rsplit(' ').next().unwrap_or_default()))
            {
                Some(failure) => format!("{name}: {}", failure.error),
                None => name,
            }
        });
    Ok(Removal::Remaining(names.collect()))
}
