//! What lasts from round to round of a step: what was gathered, and the plan made of it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{
    Request, World,
    converge::Seen,
    data::Look,
    files::random_hex,
    inside::look_inside,
    stop::{Stop, stop},
};
use crate::{
    api::{Blocked, Reason, Role, label},
    engine::{Engine, EngineError, Report, Scope, observe},
    k3s::{ClusterApi, LOADED_PATH, NGINX_PATH, NodeFacts},
    plan::{
        self, Ask, Desired, EngineInfo, HostFacts, Images, Input, InternalAccess, Observed, Plan, Record,
        Values,
    },
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
    next_record: Option<Record>,
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
            return Err(mismatch(former, &engine).into());
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
        if seen.host.is_none() {
            let input = self.input.clone();
            if let Some(ask) = Ask::growth(&input, &desired, &seen.observed) {
                self.judge_host(ask, seen).await?;
            }
        }
        let diff =
            |observed: &Observed| plan::diff(&self.request.identity, &desired, observed, &images, self.now);
        let mut plan = diff(&seen.observed);
        seen.desired = Some(desired.clone());
        if plan.depends_on_data {
            seen.observed.data = Some(self.look_at_data(&record, &seen.observed, Look::Whether).await?);
            plan = diff(&seen.observed);
            if matches!(&plan.blocked, Some(blocked) if blocked.reason == Reason::QuorumLost) {
                // Which of them survives best is told by when it was written to.
                seen.observed.data = Some(self.look_at_data(&record, &seen.observed, Look::When).await?);
                plan = diff(&seen.observed);
            }
        }
        if plan.depends_on_nodes {
            look_inside(self.world, self.request, seen).await;
            if let Some(Ok(nodes)) = &seen.nodes {
                seen.observed.nodes =
                    Some(nodes.iter().map(|node| (node.name.clone(), node.ready)).collect());
                plan = diff(&seen.observed);
            }
        }
        self.check_network(&record, &plan).await?;
        Ok(plan)
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

    /// The record as it should be: the one in Docker with what has changed since, or a new one.
    async fn record(&mut self, seen: &Seen) -> Result<Record, Stop> {
        if let Some(volume) = seen.observed.unreadable_record() {
            return Err(Blocked::new(
                Reason::RecordUnreadable,
                format!(
                    "the volume {volume} holds the cluster's record, and this version of k3nest cannot read it: a newer one may have written it. Nothing is done to the cluster; use that version again, or delete the cluster"
                ),
            )
            .into());
        }
        // What is written wins over what was to be written: another one may have been faster, and
        // its generation must not be replaced by an older one.
        let known = match (self.next_record.take(), seen.observed.record()) {
            (Some(next), Some(written)) if written.generation < next.generation => Some(next),
            (next, written) => written.or(next),
        };
        let known = known.or_else(|| self.remembered(&seen.observed));
        if known.is_none() {
            self.refuse_vanished(&seen.observed)?;
        }
        let Some(known) = known else {
            let engine_id = self.engine.id.clone();
            let salt = random_hex(16);
            let input = self.input.clone();
            if input.spec.network.as_ref().is_none_or(|n| n.name.is_none()) {
                self.learn_routes().await?;
            }
            let mut record = plan::allocate(&input, &engine_id, self.host_facts().await?, &salt)?;
            record.spec = self.request.keep_spec.clone();
            let left = servers_left(&seen.observed);
            if !left.is_empty() {
                // Nodes come after their record: it was lost, with all that had a copy of it.
                record.initialised = true;
                record.joined = left.into_iter().chain(0..self.request.spec.servers.replicas).collect();
            }
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
        let known = self.recovered(known, seen).await?;
        let record = known.changed(|r| {
            if !r.initialised || r.servers == 0 {
                r.servers = self.request.spec.servers.replicas;
            }
            r.guest = guest;
            r.api_port = api_port;
            if self.request.keep_spec.is_some() {
                r.spec = self.request.keep_spec.clone();
            }
        });
        self.next_record = Some(record.clone());
        Ok(record)
    }

    /// The record as the cluster's objects remember it, where its volume is gone. What happened since
    /// they were made is not in it: the safe guess is that it has served, with every server that it was to
    /// have, also those of which nothing is left.
    fn remembered(&self, observed: &Observed) -> Option<Record> {
        let remembered = observed.remembered()?;
        Some(remembered.changed(|r| {
            r.initialised = true;
            r.joined = servers_left(observed).into_iter().chain(0..r.servers).collect();
            r.spec.clone_from(&self.request.keep_spec);
        }))
    }

    /// A cluster that has served, and of whose servers nothing at all is left, is not begun anew. Only to
    /// refuse something is a former report believed.
    fn refuse_vanished(&self, observed: &Observed) -> Result<(), Blocked> {
        match &self.request.former.version {
            Some(version) if servers_left(observed).is_empty() => Err(plan::data_lost(&format!(
                "the cluster ran {version} on this Docker engine, and nothing of its servers is left there"
            ))),
            _ => Ok(()),
        }
    }

    /// The record with the recovery that the request wishes for, each wish once.
    async fn recovered(&self, known: Record, seen: &Seen) -> Result<Record, Stop> {
        let Some(wish) = &self.request.recover else { return Ok(known) };
        if self.read_only || known.recover_nonce.as_ref() == Some(&wish.nonce) {
            return Ok(known);
        }
        let data = self.look_at_data(&known, &seen.observed, Look::When).await?;
        let observed = Observed { data: Some(data), ..seen.observed.clone() };
        let identity = &self.request.identity;
        let record = plan::recover(identity, &known, &observed, wish)?;
        let begun = record.recovery.as_ref().filter(|recovery| known.recovery.as_ref() != Some(recovery));
        (self.world.progress)(&match begun {
            Some(recovery) => format!(
                "keeping the data of {}; the other servers join it as new members",
                identity.node_name(plan::SERVER_POOL, recovery.survivor)
            ),
            None => "enough servers have their data: nothing is given up".to_owned(),
        });
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
    async fn learn_routes(&mut self) -> Result<(), Stop> {
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

    /// Notes in the record that a server was Ready, and with which version. Returns whether
    /// there is something to write.
    pub fn note_success(&mut self, seen: &Seen) -> bool {
        let (Some(record), Some(Ok(nodes))) = (&seen.record, &seen.nodes) else { return false };
        let servers: BTreeMap<&str, u32> = seen
            .nodes_wanted()
            .filter(|(_, node)| node.role == Role::Server)
            .filter_map(|(want, node)| Some((&*node.node_name, want.labels.get(label::INDEX)?.parse().ok()?)))
            .collect();
        let ready: Vec<&NodeFacts> =
            nodes.iter().filter(|n| n.ready && servers.contains_key(n.name.as_str())).collect();
        // Of equals the last counts: v1.36.1+k3s2 over v1.36.1+k3s1.
        let highest = record
            .highest_version
            .iter()
            .chain(ready.iter().map(|n| &n.version))
            .cloned()
            .max_by_key(|version| plan::version_numbers(version));
        let next = record.changed(|r| {
            r.initialised |= !ready.is_empty();
            r.joined.extend(ready.iter().filter_map(|node| servers.get(node.name.as_str())));
            r.highest_version = highest;
        });
        let news = next != *record;
        self.next_record = Some(next);
        news
    }
}

/// The servers that have a data volume.
fn servers_left(observed: &Observed) -> Vec<u32> {
    let servers = observed.members().into_iter().filter(|m| m.pool == plan::SERVER_POOL);
    servers.map(|m| m.index).collect()
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
