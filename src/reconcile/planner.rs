//! What lasts from round to round of a step: what was gathered, and the plan made of it.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::{
    Request, World,
    converge::Seen,
    data::Look,
    inside::look_inside,
    stop::{Stop, stop},
};
use crate::{
    api::{Blocked, Reason, Role},
    engine::{Engine, EngineError, Report, Scope, observe},
    k3s::{ClusterApi, LOADED_PATH, NGINX_PATH},
    plan::{self, Ask, Desired, EngineInfo, HostFacts, Images, Input, Observed, Plan, Record, Values},
};

/// What lasts from round to round.
pub(super) struct Planner<'a, E, A> {
    pub world: &'a World<E, A>,
    pub request: &'a Request,
    pub now: Timestamp,
    pub input: Input,
    pub engine: EngineInfo,
    host: Option<HostFacts>,
    /// A record that is to be written next.
    pub(super) next_record: Option<Record>,
    /// Whether nothing may be made, not even a probe.
    pub read_only: bool,
}

impl<'a, E: Engine, A: ClusterApi> Planner<'a, E, A> {
    pub async fn start(
        world: &'a World<E, A>,
        request: &'a Request,
        now: Timestamp,
        seen: &mut Seen,
    ) -> Result<Self, Stop> {
        let engine = world.engine.info().await?;
        let former = request.former.engine_id.as_ref();
        seen.engine = Some(engine.clone());
        if let Some(former) = former.filter(|id| **id != engine.id) {
            return Err(plan::engine_mismatch(former, &engine.id).into());
        }
        let values: Values = request.values.clone()?;
        let input = request.input(values);
        Ok(Self { world, request, now, input, engine, host: None, next_record: None, read_only: false })
    }

    /// Gathers, and makes the plan of this round.
    pub async fn plan(&mut self, seen: &mut Seen) -> Result<Plan, Stop> {
        seen.observed = observe(&self.world.engine, &self.request.identity).await?;
        seen.observed.loaded = self.loaded(&seen.observed).await?;
        if seen.observed.record().is_none() && self.next_record.is_none() {
            let input = self.input.clone();
            self.judge_host(Ask::whole(&input), seen).await?;
        }
        let record = self.record(seen).await?;
        let plan = self.plan_by(&record, seen).await?;
        let (record, plan) = match self.served_unseen(&record, &plan, seen).await? {
            None => (record, plan),
            Some(served) => (served.clone(), self.plan_by(&served, seen).await?),
        };
        self.check_network(&record, &plan).await?;
        Ok(plan)
    }

    /// The plan by a record that stands.
    async fn plan_by(&mut self, record: &Record, seen: &mut Seen) -> Result<Plan, Stop> {
        seen.record = Some(record.clone());
        let taken = self.taken_addresses(record, &seen.observed).await?;
        let mut images = Images::new();
        let mut desired = self.desired(record, &seen.observed, &images, &taken)?;
        for reference in plan::images_needed(&desired, &seen.observed) {
            if let Some(image) = self.world.engine.inspect_image(&reference).await? {
                images.insert(reference, image.volumes);
            }
        }
        if images.values().any(|volumes| !volumes.is_empty()) {
            desired = self.desired(record, &seen.observed, &images, &taken)?;
        }
        if seen.host.is_none() {
            let input = self.input.clone();
            if let Some(ask) = Ask::growth(&input, &desired, &seen.observed) {
                self.judge_host(ask, seen).await?;
            }
        }
        seen.desired = Some(desired.clone());
        let diff =
            |observed: &Observed| plan::diff(&self.request.identity, &desired, observed, &images, self.now);
        let mut plan = diff(&seen.observed);
        let mut asked = false;
        loop {
            // Where the API is silent and all that is left is to wait for it, too few may have their data for
            // it to answer ever again.
            let silent = asked && seen.observed.nodes.is_none() && plan.waits();
            if seen.observed.data.is_none() && (plan.depends_on_data || silent) {
                plan = self.with_data(record, seen, &diff).await?;
            } else if plan.depends_on_nodes && !asked {
                asked = true;
                look_inside(self.world, self.request, seen).await;
                seen.observed.nodes = seen.readiness();
                plan = diff(&seen.observed);
            } else {
                return Ok(plan);
            }
        }
    }

    /// The plan that knows what lies in data volumes.
    async fn with_data(
        &self,
        record: &Record,
        seen: &mut Seen,
        diff: &impl Fn(&Observed) -> Plan,
    ) -> Result<Plan, Stop> {
        seen.observed.data = Some(self.look_at_data(record, &seen.observed, Look::Whether).await?);
        let plan = diff(&seen.observed);
        if !matches!(&plan.blocked, Some(blocked) if blocked.reason == Reason::QuorumLost) {
            return Ok(plan);
        }
        // Which of them survives best is told by when it was written to.
        seen.observed.data = Some(self.look_at_data(record, &seen.observed, Look::When).await?);
        Ok(diff(&seen.observed))
    }

    /// What the load balancer says that it has loaded. Without the configuration itself it has not: it
    /// runs on what it read, and would not start again.
    async fn loaded(&self, observed: &Observed) -> Result<Option<String>, EngineError> {
        let up = [plan::ContainerState::Running, plan::ContainerState::Restarting];
        let runs = |c: &&plan::Container| c.role() == Some(Role::LoadBalancer) && up.contains(&c.state);
        let Some(balancer) = observed.containers.iter().find(runs) else { return Ok(None) };
        let engine = &self.world.engine;
        let (configuration, mark) = tokio::try_join!(
            engine.read_file(&balancer.id, NGINX_PATH),
            engine.read_file(&balancer.id, LOADED_PATH)
        )?;
        let there = configuration.is_some_and(|text| !text.is_empty());
        Ok(mark.filter(|_| there).and_then(|mark| String::from_utf8(mark).ok()))
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

    /// Addresses that others have in a network which is not ours, where a node still needs one.
    async fn taken_addresses(
        &mut self,
        record: &Record,
        observed: &Observed,
    ) -> Result<BTreeSet<std::net::Ipv4Addr>, Stop> {
        let wanted = self.request.spec.servers.replicas + self.request.spec.agents.replicas;
        let all_born = observed.members().len() >= wanted as usize;
        if record.network.owned || all_born {
            return Ok(BTreeSet::new());
        }
        Ok(plan::addresses_in(self.host_facts().await?, &record.network.name))
    }

    /// What else Docker has; looked up once a step, and only where something is to be picked.
    pub(super) async fn host_facts(&mut self) -> Result<&HostFacts, Stop> {
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
    pub(super) async fn learn_routes(&mut self) -> Result<(), Stop> {
        self.host_facts().await?;
        let routes = self.routes().await?;
        self.host.get_or_insert_default().routes = routes;
        Ok(())
    }

    /// Draws the conclusions from what was executed: picks again what Docker refused, goes on
    /// after what passes by itself, and stops at everything else.
    pub async fn learn(&mut self, report: Report, seen: &mut Seen) -> Result<(), Stop> {
        let Some(record) = seen.record.clone() else { return Ok(()) };
        // What passes by itself is often only the echo of what does not.
        let mut failures = report.failures;
        failures.sort_by_key(|failure| matches!(failure.error, EngineError::Busy { .. }));
        for failure in failures {
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
                    // Docker knows of a range that we do not: what was read may be old.
                    self.probe().await?;
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
                EngineError::PortTaken { ref message, .. } => {
                    let input = self.input.clone();
                    self.forget_host_facts().await?;
                    let host = self.host.get_or_insert_default();
                    let named = plan::port_taken(&input, host, message).map(Stop::Blocked);
                    return Err(named.unwrap_or_else(|| stop(failure.error, Some(&failure.action))));
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
        !explicit && plan::names_port(message, record.api_port) && !record.initialised
    }

    /// Whether the subnet is one we picked, and no node has its address in it yet.
    fn may_pick_subnet(&self, record: &Record, seen: &Seen) -> bool {
        self.request.spec.network.is_none() && !record.initialised && seen.observed.members().is_empty()
    }
}
