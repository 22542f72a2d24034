//! Gather, plan and act, again and again until the plan is empty or something holds it up.

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;

use super::{
    Request, World,
    files::{StepFiles, random_hex},
    inside::{keep_nodes, look_inside},
};
use crate::{
    api::{Blocked, Reason, Role, label},
    engine::{Engine, EngineError, Probe, Report, Scope, execute, observe},
    k3s::{Access, ClusterApi, NodeFacts},
    plan::{
        self, Desired, EngineInfo, HostFacts, Images, Input, InternalAccess, Observed, Plan, Record, Values,
    },
};

/// How often one step plans anew. Creation takes four rounds (record and pull, run, look, mark as
/// initialised); every further one is somebody else's interference.
const MAX_ROUNDS: usize = 10;

/// Everything a step found out, as far as it came.
#[derive(Default)]
pub struct Seen {
    pub engine: Option<EngineInfo>,
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
    /// Last lines of nodes that crash, by container name.
    pub crashes: Vec<(String, String)>,
    /// Something is on its way that needs another look after this time.
    pub recheck: Option<Duration>,
}

/// Why a step ended before all was as wanted.
#[derive(Debug, thiserror::Error)]
pub enum Stop {
    /// A person must act.
    #[error(transparent)]
    Blocked(#[from] Blocked),
    /// What exists is not what is wanted, and nothing was done about it.
    #[error("{0}")]
    Drifted(String),
    /// Docker failed; trying again may help.
    #[error(transparent)]
    Engine(EngineError),
}

impl From<EngineError> for Stop {
    fn from(error: EngineError) -> Self {
        stop(error, None)
    }
}

/// Takes the step. What was found out is in `seen`, also when it stops.
pub async fn converge<E: Engine, A: ClusterApi>(
    world: &World<E, A>,
    request: &Request,
    now: Timestamp,
    seen: &mut Seen,
) -> Result<(), Stop> {
    let mut planner = Planner::start(world, request, seen).await?;
    if !planner.input.values.cover(&request.spec) {
        // Made without them, a node would be told something else than what its specification says.
        let message = "what the specification refers to was not looked up; this is a bug of k3nest";
        return Err(Blocked::new(Reason::ReferenceMissing, message).into());
    }
    let mut recorded = false;
    for _ in 0..MAX_ROUNDS {
        let plan = planner.plan(now, seen).await?;
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
            if plan.recheck.is_none() {
                look_inside(world, request, seen).await;
                keep_nodes(world, request, seen).await;
            }
            if !planner.note_success(seen) {
                return Ok(());
            }
            continue;
        }
        let files = StepFiles {
            engine: &world.engine,
            given: planner.input.token().cloned(),
            initialised: seen.record.as_ref().is_some_and(|r| r.initialised),
        };
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
    let mut planner = Planner::start(world, request, &mut seen).await?;
    planner.read_only = true;
    planner.plan(now, &mut seen).await
}

/// Looks and changes nothing: what is observed, and what the nested API says.
pub async fn inspect<E: Engine, A: ClusterApi>(
    world: &World<E, A>,
    request: &Request,
    now: Timestamp,
    seen: &mut Seen,
) -> Result<(), Stop> {
    let mut planner = Planner::start(world, request, seen).await?;
    planner.read_only = true;
    let plan = planner.plan(now, seen).await?;
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
    Ok(())
}

/// What lasts from round to round.
struct Planner<'a, E, A> {
    world: &'a World<E, A>,
    request: &'a Request,
    input: Input,
    engine: EngineInfo,
    host: Option<HostFacts>,
    /// A record that is to be written next.
    next_record: Option<Record>,
    /// Whether nothing may be made, not even a probe.
    read_only: bool,
}

impl<'a, E: Engine, A: ClusterApi> Planner<'a, E, A> {
    async fn start(world: &'a World<E, A>, request: &'a Request, seen: &mut Seen) -> Result<Self, Stop> {
        let engine = world.engine.info().await?;
        let former = request.former.engine_id.as_ref();
        seen.engine = Some(engine.clone());
        if let Some(former) = former.filter(|id| **id != engine.id) {
            return Err(mismatch(former, &engine).into());
        }
        let values: Values = request.values.clone()?;
        let input = request.input(values);
        Ok(Self { world, request, input, engine, host: None, next_record: None, read_only: false })
    }

    /// Gathers, and makes the plan of this round.
    async fn plan(&mut self, now: Timestamp, seen: &mut Seen) -> Result<Plan, Stop> {
        seen.observed = observe(&self.world.engine, &self.request.identity).await?;
        let record = self.record(seen).await?;
        seen.record = Some(record.clone());
        let taken = self.taken_addresses(&record, &seen.observed).await?;

        let mut images = Images::new();
        let mut desired = self.desired(&record, &seen.observed, &images, &taken)?;
        for reference in plan::images_needed(&desired, &seen.observed) {
            if let Some(image) = self.world.engine.inspect_image(&reference).await? {
                images.insert(reference, image.volumes);
            }
        }
        if images.values().any(|volumes| !volumes.is_empty()) {
            desired = self.desired(&record, &seen.observed, &images, &taken)?;
        }
        let plan = plan::diff(&self.request.identity, &desired, &seen.observed, &images, now);
        seen.desired = Some(desired);
        Ok(plan)
    }

    fn desired(
        &self,
        record: &Record,
        observed: &Observed,
        images: &Images,
        taken: &BTreeSet<std::net::Ipv4Addr>,
    ) -> Result<Desired, Blocked> {
        plan::desired(&self.input, &self.engine, record, observed, images, taken)
    }

    /// The record as it should be: the one in Docker with what has changed since, or a new one.
    async fn record(&mut self, seen: &Seen) -> Result<Record, Stop> {
        // What is written wins over what was to be written: another one may have been faster, and
        // its generation must not be replaced by an older one.
        let known = match (self.next_record.take(), seen.observed.record()) {
            (Some(next), Some(written)) if written.generation < next.generation => Some(next),
            (next, written) => written.or(next),
        };
        let Some(known) = known else {
            let engine_id = self.engine.id.clone();
            let salt = random_hex(16);
            let input = self.input.clone();
            let own_network = input.spec.network.as_ref().is_none_or(|n| n.name.is_none());
            if own_network {
                self.learn_routes().await?;
            }
            let mut record = plan::allocate(&input, &engine_id, self.host_facts().await?, &salt)?;
            record.spec = self.request.keep_spec.clone();
            // Kept for the further rounds of this step: allocation is not repeated.
            self.next_record = Some(record.clone());
            return Ok(record);
        };
        if known.engine_id != self.engine.id {
            return Err(mismatch(&known.engine_id, &self.engine).into());
        }
        self.refuse_other_token(&known)?;
        let guest = match &self.input.internal {
            InternalAccess::Join { network } if known.guest.as_ref().map(|g| &g.network) != Some(network) => {
                let input = self.input.clone();
                plan::allocate_guest(&input, self.host_facts().await?)?
            }
            InternalAccess::Join { .. } => known.guest.clone(),
            InternalAccess::None | InternalAccess::Gateway => None,
        };
        let explicit = self.request.spec.api.as_ref().and_then(|api| api.host_port);
        let api_port = match explicit.filter(|port| *port != known.api_port) {
            // Asked before the load balancer is replaced: one that cannot start helps nobody.
            Some(_) => {
                let input = self.input.clone();
                plan::next_port(&known, &input, self.host_facts().await?)?.api_port
            }
            None => known.api_port,
        };
        let record = known.changed(|r| {
            r.guest = guest;
            r.api_port = api_port;
            if self.request.keep_spec.is_some() {
                r.spec = self.request.keep_spec.clone();
            }
        });
        self.next_record = Some(record.clone());
        Ok(record)
    }

    fn refuse_other_token(&self, record: &Record) -> Result<(), Blocked> {
        let (Some(token), Some(mac)) = (self.input.token(), &record.token_mac) else { return Ok(()) };
        if plan::mac(&record.salt, token.expose()) == *mac {
            return Ok(());
        }
        Err(Blocked::new(
            Reason::TokenChanged,
            "spec.tokenSecretRef: the Secret holds another token than the one the cluster was made with; put the former one back (the cluster keeps using it)",
        ))
    }

    /// Addresses that others have in a network which is not ours, where a node still needs one.
    async fn taken_addresses(
        &mut self,
        record: &Record,
        observed: &Observed,
    ) -> Result<BTreeSet<std::net::Ipv4Addr>, Stop> {
        let all_born = observed.members().len() >= self.request.spec.servers.replicas as usize;
        if record.network.owned || all_born {
            return Ok(BTreeSet::new());
        }
        Ok(plan::addresses_in(self.host_facts().await?, &record.network.name))
    }

    /// What else Docker has; looked up once a step, and only where something is to be picked.
    async fn host_facts(&mut self) -> Result<&HostFacts, Stop> {
        let facts = match self.host.take() {
            Some(facts) => facts,
            None => {
                let engine = &self.world.engine;
                let (containers, networks) = tokio::try_join!(
                    engine.list_containers(&Scope::Everything),
                    engine.list_networks(&Scope::Everything),
                )?;
                HostFacts { containers, networks, ..HostFacts::default() }
            }
        };
        Ok(self.host.insert(facts))
    }

    /// Adds the host's own routes to what is known: only a subnet is picked by them.
    async fn learn_routes(&mut self) -> Result<(), Stop> {
        self.host_facts().await?;
        let routes = self.routes().await?;
        self.host.get_or_insert_default().routes = routes;
        Ok(())
    }

    /// The host's own routes, asked in a container with the host's network: Docker may run on
    /// another machine than we do. Needs the node's image; where it is not there yet, it is pulled.
    async fn routes(&self) -> Result<Vec<ipnet::Ipv4Net>, EngineError> {
        if self.read_only {
            return Ok(Vec::new());
        }
        let image = self.input.node_image(&self.request.settings.node_image);
        if self.world.engine.inspect_image(&image).await?.is_none() {
            self.world.engine.pull_image(&image, &self.world.progress).await?;
        }
        let identity = &self.request.identity;
        let probe = Probe {
            name: identity.object_name(&format!("probe-{}", random_hex(3))),
            image,
            script: "while IFS= read -r line; do echo \"$line\"; done < /proc/net/route".into(),
            labels: identity.labels(Role::Probe),
        };
        Ok(plan::parse_routes(&self.world.engine.run_once(&probe).await?))
    }

    /// Draws the conclusions from what was executed: picks again what Docker refused, goes on
    /// after what passes by itself, and stops at everything else.
    async fn learn(&mut self, report: Report, seen: &mut Seen) -> Result<(), Stop> {
        let Some(record) = seen.record.clone() else { return Ok(()) };
        for failure in report.failures {
            match failure.error {
                EngineError::PortTaken { message, .. } if self.may_pick_port(&record, &message) => {
                    let input = self.input.clone();
                    self.forget_host_facts().await?;
                    let host = self.host.get_or_insert_default();
                    host.refused_ports.insert(record.api_port);
                    self.next_record = Some(plan::next_port(&record, &input, host)?);
                }
                EngineError::SubnetTaken { .. } if self.may_pick_subnet(&record, seen) => {
                    let input = self.input.clone();
                    self.forget_host_facts().await?;
                    self.learn_routes().await?;
                    let host = self.host.get_or_insert_default();
                    host.refused_subnets.push(record.network.subnet);
                    self.next_record = Some(plan::next_subnet(&record, &input, host)?);
                }
                error @ EngineError::Busy { .. } if record.guest.is_some() => {
                    let input = self.input.clone();
                    self.forget_host_facts().await?;
                    let host = self.host.get_or_insert_default();
                    match plan::next_guest(&record, &input, host)? {
                        Some(next) => self.next_record = Some(next),
                        None => return Err(stop(error, Some(&failure.action))),
                    }
                }
                error => return Err(stop(error, Some(&failure.action))),
            }
        }
        Ok(())
    }

    /// Others have made things since; what Docker refused before stays refused.
    async fn forget_host_facts(&mut self) -> Result<(), Stop> {
        let former = self.host.take().unwrap_or_default();
        self.host_facts().await?;
        let host = self.host.get_or_insert_default();
        host.refused_ports.extend(former.refused_ports);
        host.refused_subnets.extend(former.refused_subnets);
        Ok(())
    }

    /// Whether the port that Docker names is one we picked, for a cluster nobody uses yet.
    fn may_pick_port(&self, record: &Record, message: &str) -> bool {
        let explicit = self.request.spec.api.as_ref().and_then(|api| api.host_port).is_some();
        let named =
            message.split(|c: char| !c.is_ascii_digit()).any(|number| number.parse() == Ok(record.api_port));
        !explicit && named && !record.initialised
    }

    /// Whether the subnet is one we picked, and no node has its address in it yet.
    fn may_pick_subnet(&self, record: &Record, seen: &Seen) -> bool {
        self.request.spec.network.is_none() && !record.initialised && seen.observed.members().is_empty()
    }

    /// Notes in the record that a server was Ready, and with which version. Returns whether
    /// there is something to write.
    fn note_success(&mut self, seen: &Seen) -> bool {
        let (Some(record), Some(Ok(nodes))) = (&seen.record, &seen.nodes) else { return false };
        let ready: Vec<&NodeFacts> = nodes.iter().filter(|n| n.ready).collect();
        // Of equals the last counts: v1.36.1+k3s2 over v1.36.1+k3s1.
        let highest = record
            .highest_version
            .iter()
            .chain(ready.iter().map(|n| &n.version))
            .cloned()
            .max_by_key(|version| plan::version_numbers(version));
        let next = record.changed(|r| {
            r.initialised |= !ready.is_empty();
            r.highest_version = highest;
        });
        let news = next != *record;
        self.next_record = Some(next);
        news
    }
}

fn mismatch(recorded: &str, engine: &EngineInfo) -> Blocked {
    Blocked::new(
        Reason::EngineMismatch,
        format!(
            "the cluster lives on Docker engine {recorded}, and this is {}; connect to that engine again, or delete the cluster and create it here",
            engine.id
        ),
    )
}

/// What a failure of Docker means for the cluster.
fn stop(error: EngineError, action: Option<&str>) -> Stop {
    let (reason, advice) = match &error {
        EngineError::NameTaken { kind, .. } => {
            (Reason::NameTaken, format!("k3nest leaves it alone: rename or remove that {kind}"))
        }
        EngineError::ImageUnavailable { .. } => (
            Reason::ImageUnavailable,
            "check spec.version and spec.image, and that the Docker host reaches the registry".to_owned(),
        ),
        EngineError::PortTaken { .. } => {
            (Reason::PortTaken, "stop what uses it, or choose another hostPort".to_owned())
        }
        EngineError::NoPinning { .. } => (
            Reason::NetworkUnusable,
            "spec.network.name: addresses can be pinned only in a network with a configured subnet: make it anew with docker network create --subnet, delete the cluster and create it again".to_owned(),
        ),
        EngineError::SubnetTaken { .. } => {
            (Reason::SubnetUnavailable, "choose another spec.network.subnet".to_owned())
        }
        _ => return Stop::Engine(error),
    };
    // These errors name the object themselves.
    let action = action.filter(|_| !matches!(reason, Reason::NameTaken | Reason::ImageUnavailable));
    let at = action.map(|action| format!("{action}: ")).unwrap_or_default();
    Blocked::new(reason, format!("{at}{error}; {advice}")).into()
}
