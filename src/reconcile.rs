//! The one step, the same for operator and CLI: gather → plan → act → report.

mod coming_up;
mod converge;
mod data;
mod files;
mod host;
mod images;
mod import;
mod importer;
mod inside;
mod machines;
mod news;
mod planner;
mod record;
mod report;
mod stop;

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use jiff::Timestamp;

use crate::{
    api::{Blocked, Identity, K3sClusterSpec, K3sClusterStatus},
    engine::{Engine, EngineError, Progress, Report, Scope, execute, observe},
    k3s::{Access, ClusterApi},
    plan::{
        Adopter, Input, InternalAccess, Keeper, Observed, Recover, Settings, Values, refuse_other_keeper,
        removal,
    },
};

pub use coming_up::ComingUp;
use files::NoFiles;
use machines::Machines;
pub use news::{NodeNews, node_news};
pub use report::WAITING;

pub use images::wanted_images;
pub use import::{bring, import, list, run_list};
pub use importer::{ImageNode, Import, ImportFailure, Importer};

/// The outside world of a step.
pub struct World<E, A> {
    /// Docker.
    pub engine: E,
    /// The nested clusters' APIs.
    pub clusters: A,
    /// Hears in words what is being done.
    pub progress: Box<Progress>,
    /// What is known of imports from step to step.
    pub importer: Importer,
    /// What was read of Docker hosts lately.
    machines: Machines,
}

impl<E, A> World<E, A> {
    /// A world in which nothing is known yet.
    pub fn new(engine: E, clusters: A, progress: Box<Progress>) -> Self {
        Self { engine, clusters, progress, importer: Importer::default(), machines: Machines::default() }
    }
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
    /// A wish to recover from a lost quorum, which holds for good: each is carried out once at most.
    pub recover: Option<Recover>,
    /// Who asks, where the cluster was adopted.
    pub adopter: Option<Adopter>,
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
    /// Where the step itself got an answer from the API.
    pub url: Option<String>,
    /// Imports to carry out by [`import()`], beside the steps to come.
    pub imports: Vec<Import>,
    /// Addresses under which Pods of the host cluster may reach the API, best first, as
    /// (address, port); each still has to pass a TLS handshake.
    pub internal_candidates: Vec<(Ipv4Addr, u16)>,
    /// Whether a server was Ready once.
    pub initialised: bool,
    /// How many changes were made in Docker.
    pub changes: usize,
    /// When to look again, unless an event comes first. None: only on events.
    pub recheck: Option<Duration>,
    /// Whether it ended at something in Docker that is in use, changing or gone: that mostly passes by
    /// itself, but may not.
    pub held_up: bool,
    /// What to wait for rather than [`Self::recheck`], while nodes come up.
    pub coming_up: Option<ComingUp>,
}

/// What is left of a cluster after a removing step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removal {
    /// Nothing.
    Gone,
    /// These objects, and why.
    Remaining(Vec<String>),
    /// Everything: it was adopted by this resource.
    Kept(Keeper),
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

/// Removes everything of a cluster, for the `adopter` who looks after it, if there is one. Needs no spec
/// and no Secret, and creates nothing.
///
/// # Errors
/// Where Docker could not even be asked.
pub async fn remove<E: Engine, A: Send + Sync>(
    world: &World<E, A>,
    identity: &Identity,
    adopter: Option<&Adopter>,
) -> Result<Removal, EngineError> {
    let observed = observe(&world.engine, identity).await?;
    if let Some(keeper) = observed.keeper()
        && (adopter.is_none() || observed.record().is_some())
        && refuse_other_keeper(Some(&keeper), identity, adopter).is_err()
    {
        return Ok(Removal::Kept(keeper));
    }
    let plan = removal(&observed);
    if plan.steps.is_empty() {
        return Ok(Removal::Gone);
    }
    let report = execute(&world.engine, identity, &plan, &NoFiles, &world.progress).await;
    let left = observe(&world.engine, identity).await?;
    if left.is_empty() {
        return Ok(Removal::Gone);
    }
    let guests = engine_guests(&world.engine, &left).await;
    Ok(Removal::Remaining(remaining(&left, &report, &guests)))
}

/// Containers of others in networks that could not be removed, by network.
async fn engine_guests<E: Engine>(engine: &E, left: &Observed) -> BTreeMap<String, Vec<String>> {
    if left.networks.is_empty() {
        return BTreeMap::new();
    }
    // Only for the message: without it the failure says less.
    let all = engine.list_containers(&Scope::Everything).await.unwrap_or_default();
    let mut guests: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for container in all.iter().filter(|c| !left.containers.iter().any(|own| own.id == c.id)) {
        for network in container.networks.keys() {
            guests.entry(network.clone()).or_default().push(container.name.clone());
        }
    }
    guests
}

/// What is left, in words: first what could not be removed and why, then what waits for that.
fn remaining(left: &Observed, report: &Report, guests: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    let containers = left.containers.iter().map(|c| ("container", &c.name));
    let networks = left.networks.iter().map(|n| ("network", &n.name));
    let volumes = left.volumes.iter().map(|v| ("volume", &v.name));
    let (mut failed, mut waiting) = (Vec::new(), Vec::new());
    for (kind, name) in containers.chain(networks).chain(volumes) {
        let object = format!("{kind} {name}");
        let failure = report.failures.iter().find(|f| f.action == format!("remove {object}"));
        match (failure, guests.get(name).filter(|_| kind == "network")) {
            (Some(_), Some(guests)) => failed.push(format!(
                "{object} is used by {}, which is not this cluster's: remove it or docker network disconnect it",
                guests.join(", ")
            )),
            (Some(failure), None) => failed.push(failure.error.to_string()),
            (None, _) => waiting.push(object),
        }
    }
    failed.into_iter().chain(waiting).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{engine::Failure, plan::Network};

    #[test]
    fn a_network_that_somebody_else_uses_is_said_first_and_by_whom() {
        let mut left = Observed::default();
        left.volumes.push(crate::plan::Volume { name: "record".into(), labels: BTreeMap::new() });
        left.networks.push(Network {
            id: "1f".into(),
            name: "net".into(),
            labels: BTreeMap::new(),
            subnet: None,
            gateway: None,
            ip_range: None,
            created: Timestamp::UNIX_EPOCH,
        });
        let error =
            EngineError::Busy { what: "remove network 1f".into(), message: "active endpoints".into() };
        let report =
            Report { done: 0, failures: vec![Failure { action: "remove network net".into(), error }] };
        let guests = BTreeMap::from([("net".to_owned(), vec!["db".to_owned()])]);
        assert_eq!(
            remaining(&left, &report, &guests),
            [
                "network net is used by db, which is not this cluster's: remove it or docker network disconnect it",
                "volume record"
            ]
        );
    }
}
