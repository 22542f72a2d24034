//! Gather, plan and act, again and again until the plan is empty or something holds it up.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;

use super::{
    Request, World,
    files::StepFiles,
    images::{ImagesSeen, look_at_images},
    inside::{keep_nodes, look_inside},
    planner::Planner,
    stop::Stop,
};
use crate::{
    api::{Blocked, Reason, Role, label},
    engine::{Engine, execute},
    k3s::{Access, ClusterApi, NodeFacts},
    plan::{self, Desired, EngineInfo, HostVerdict, Observed, Plan, Record},
};

/// How often one step plans anew. Creation takes four rounds (record and pull, run, look, mark as
/// initialised); every further one is somebody else's interference.
const MAX_ROUNDS: usize = 10;

/// Everything a step found out, as far as it came.
#[derive(Default)]
pub struct Seen {
    pub engine: Option<EngineInfo>,
    /// What is said of the Docker host, if it was judged.
    pub host: Option<HostVerdict>,
    pub observed: Observed,
    pub record: Option<Record>,
    pub desired: Option<Desired>,
    pub changes: usize,
    pub access: Option<Access>,
    /// What the nested API says; an error in words while it does not answer.
    pub nodes: Option<Result<Vec<NodeFacts>, String>>,
    /// Where it says so.
    pub url: Option<String>,
    /// Why labels or taints of its Nodes are not as wanted.
    pub out_of_step: Option<String>,
    /// What was found out about images, where some are wanted.
    pub images: Option<ImagesSeen>,
    /// Last lines of nodes that crash, by container name.
    pub crashes: Vec<(String, String)>,
    /// Something is on its way that needs another look after this time.
    pub recheck: Option<Duration>,
    /// So does something that nothing waits for.
    pub later: Option<Duration>,
}

impl Seen {
    /// How many servers should be there.
    pub fn servers(&self) -> usize {
        self.nodes_wanted().filter(|(_, node)| node.role == Role::Server).count()
    }

    /// Whether each Node is Ready; None where the nested API does not say.
    pub fn readiness(&self) -> Option<BTreeMap<String, bool>> {
        let nodes = self.nodes.as_ref()?.as_ref().ok()?;
        Some(nodes.iter().map(|node| (node.name.clone(), node.ready)).collect())
    }

    /// The nodes that should be there, with their containers.
    pub fn nodes_wanted(&self) -> impl Iterator<Item = (&plan::ContainerWant, &plan::NodeConfig)> {
        self.desired.iter().flat_map(Desired::nodes)
    }
}

/// Takes the step. What was found out is in `seen`, also when it stops.
pub async fn converge<E: Engine, A: ClusterApi>(
    world: &World<E, A>,
    request: &Request,
    now: Timestamp,
    seen: &mut Seen,
) -> Result<(), Stop> {
    let mut planner = Planner::start(world, request, now, seen).await?;
    if !planner.input.values.cover(&request.spec) {
        // Made without them, a node would be told something else than what its specification says.
        let message = "what the specification refers to was not looked up; this is a bug of k3nest";
        return Err(Blocked::new(Reason::ReferenceMissing, message).into());
    }
    let mut recorded = false;
    for _ in 0..MAX_ROUNDS {
        let plan = planner.plan(seen).await?;
        if let Some(blocked) = plan.blocked {
            return Err(blocked.into());
        }
        // The record is made first and removed last: without it, somebody deletes what is made here.
        let is_recorded = seen.observed.record().is_some();
        if recorded && !is_recorded {
            return Err(Stop::Drifted("deleted while it was made".into()));
        }
        recorded |= is_recorded;
        if plan.steps.is_empty() {
            seen.recheck = plan.recheck;
            seen.later = plan.later;
            if plan.recheck.is_none() {
                look_inside(world, request, seen).await;
                keep_nodes(world, request, seen).await;
                if seen.images.is_none() {
                    look_at_images(world, request, seen, true).await?;
                }
            }
            if !planner.note_success(seen) {
                return Ok(());
            }
            continue;
        }
        let given = planner.input.token().cloned();
        let files = StepFiles::gather(world, seen, &plan, given).await?;
        let report = execute(&world.engine, &request.identity, &plan, &files, &world.progress).await;
        seen.changes += report.done;
        recorded |= report.failures.is_empty() && plan.steps.iter().any(|step| writes_record(&step.action));
        planner.learn(report, seen).await?;
    }
    seen.recheck = Some(Duration::from_secs(1));
    Ok(())
}

fn writes_record(action: &plan::Action) -> bool {
    matches!(action, plan::Action::CreateVolume(v) if v.labels.get(label::ROLE).map(String::as_str) == Some(Role::Record.as_str()))
}

/// The plan that [`converge`] would begin with.
pub async fn preview<E: Engine, A: ClusterApi>(
    world: &World<E, A>,
    request: &Request,
    now: Timestamp,
) -> Result<Plan, Stop> {
    let mut seen = Seen::default();
    let mut planner = Planner::start(world, request, now, &mut seen).await?;
    planner.read_only = true;
    planner.plan(&mut seen).await
}

/// Looks and changes nothing: what is observed, and what the nested API says.
pub async fn inspect<E: Engine, A: ClusterApi>(
    world: &World<E, A>,
    request: &Request,
    now: Timestamp,
    seen: &mut Seen,
) -> Result<(), Stop> {
    let mut planner = Planner::start(world, request, now, seen).await?;
    planner.read_only = true;
    let plan = planner.plan(seen).await?;
    if let Some(step) = plan.steps.first() {
        let message = format!(
            "not as applied last: {} to do, first: {}; run k3nest apply",
            plan.steps.len(),
            step.action
        );
        look_inside(world, request, seen).await;
        return Err(Stop::Drifted(message));
    }
    look_inside(world, request, seen).await;
    Ok(look_at_images(world, request, seen, false).await?)
}
