//! The Docker host is judged before nodes are made on it.

use ipnet::Ipv4Net;

use super::{converge::Seen, files::random_hex, planner::Planner, stop::Stop};
use crate::{
    api::Role,
    engine::{Engine, EngineError, ImageInfo, Probe, Scope},
    k3s::ClusterApi,
    plan::{self, Ask, Container, ContainerState, HostVerdict, Machine, Plan, Record},
};

impl<E: Engine, A: ClusterApi> Planner<'_, E, A> {
    /// Judges the host by `ask`: first by what the engine has said of itself, which costs nothing
    /// and needs no image, then by what a probe reads.
    pub(super) async fn judge_host(&mut self, mut ask: Ask<'_>, seen: &mut Seen) -> Result<(), Stop> {
        let before = HostVerdict::of(&self.engine, &Machine::default(), &ask);
        if let Some(blocked) = before.blocked() {
            seen.host = Some(before);
            return Err(blocked.into());
        }
        let (machine, image) = match self.known_machine() {
            Some(machine) => (machine, self.node_image().await?.unwrap_or_default()),
            None => self.probe().await?,
        };
        ask.image_env = &image.env;
        ask.running = running(&self.host_facts().await?.containers);
        let verdict = HostVerdict::of(&self.engine, &machine, &ask);
        let blocked = verdict.blocked();
        seen.host = Some(verdict);
        blocked.map_or(Ok(()), |blocked| Err(blocked.into()))
    }

    /// What is known of the host without asking: what was read at most a minute ago, and nothing
    /// where nothing may be made, not even a probe.
    fn known_machine(&self) -> Option<Machine> {
        let recent = self.world.machines.recent(&self.engine.id, self.now);
        recent.or_else(|| self.read_only.then(Machine::default))
    }

    /// The host's own routes, as read at most a minute ago.
    pub(super) async fn routes(&self) -> Result<Vec<Ipv4Net>, EngineError> {
        Ok(match self.known_machine() {
            Some(machine) => machine.routes,
            None => self.probe().await?.0.routes,
        })
    }

    /// Reads the host in a container with its network: Docker may run on another machine than we
    /// do. Needs the nodes' image; where it is not there yet, it is pulled.
    pub(super) async fn probe(&self) -> Result<(Machine, ImageInfo), EngineError> {
        let reference = self.input.node_image(&self.request.settings.node_image);
        let image = match self.node_image().await? {
            Some(image) => image,
            None => {
                self.world.engine.pull_image(&reference, &self.world.progress).await?;
                self.node_image().await?.unwrap_or_default()
            }
        };
        let identity = &self.request.identity;
        let probe = Probe {
            name: identity.object_name(&format!("probe-{}", random_hex(3))),
            image: reference,
            script: plan::PROBE.into(),
            labels: identity.labels(Role::Probe),
            volumes: Vec::new(),
        };
        let machine = Machine::parse(&self.world.engine.run_once(&probe).await?);
        self.world.machines.note(&self.engine.id, self.now, machine.clone());
        Ok((machine, image))
    }

    /// Whether the network that the cluster has joined is still there, if there is something to do: the
    /// record is of when it was.
    pub(super) async fn check_network(&self, record: &Record, plan: &Plan) -> Result<(), Stop> {
        if record.network.owned || plan.blocked.is_some() || plan.steps.is_empty() {
            return Ok(());
        }
        let networks = self.world.engine.list_networks(&Scope::Everything).await?;
        Ok(plan::check_joined(&self.input, record, &networks)?)
    }

    /// The nodes' image, where it is there.
    async fn node_image(&self) -> Result<Option<ImageInfo>, EngineError> {
        self.world.engine.inspect_image(&self.input.node_image(&self.request.settings.node_image)).await
    }
}

/// How many servers and agents of whatever cluster run, and use what nodes use.
fn running(containers: &[Container]) -> [u64; 2] {
    let runs = |c: &&Container| matches!(c.state, ContainerState::Running | ContainerState::Restarting);
    let of = |role: Role| containers.iter().filter(runs).filter(|c| c.role() == Some(role)).count() as u64;
    [of(Role::Server), of(Role::Agent)]
}
