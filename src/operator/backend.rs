//! What the operator drives: the one step, removal, and the engine behind them.
//!
//! A trait, so that the operator's own flow is tested with scripted outcomes; the real one is
//! [`DockerBackend`].

use std::{
    future::Future,
    net::IpAddr,
    sync::{PoisonError, RwLock},
    time::Duration,
};

use futures::Stream;
use jiff::Timestamp;

use crate::{
    api::{Identity, Role, label},
    engine::{Engine, EngineError, EngineEvent, Scope, owners},
    k3s::{Access, ClusterApi},
    plan::{Acting, Container, InternalAccess, Volume},
    reconcile::{self, Import, Outcome, Removal, Request, World},
};

/// How long the handshake with a nested API at one address may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);

/// What the operator drives.
pub trait Backend: Send + Sync + 'static {
    /// Takes one step for one cluster. Never fails: what went wrong is in the outcome.
    fn step(&self, request: &Request, now: Timestamp) -> impl Future<Output = Outcome> + Send;

    /// Carries out an import that a step has planned. How it ended is known to the next step.
    /// Returns into how many nodes it came, and did not come.
    fn import(&self, import: Import) -> impl Future<Output = (usize, usize)> + Send;

    /// Removes everything of a cluster, in the name of who looks after it.
    fn remove(&self, acting: &Acting) -> impl Future<Output = Result<Removal, EngineError>> + Send;

    /// Whether the engine answers; nothing is cheaper to ask.
    fn ping(&self) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Which engine this is.
    fn engine_id(&self) -> impl Future<Output = Result<String, EngineError>> + Send;

    /// The record volumes of all clusters on the engine, whoever looks after them. One list.
    fn records(&self) -> impl Future<Output = Result<Vec<Volume>, EngineError>> + Send;

    /// Everybody who has objects under `uid`.
    fn owners(&self, uid: &str) -> impl Future<Output = Result<Vec<Identity>, EngineError>> + Send;

    /// The container with this id, whoever it belongs to. One list of it alone.
    fn container(&self, id: &str) -> impl Future<Output = Result<Option<Container>, EngineError>> + Send;

    /// How Pods of the host cluster reach nested APIs. Found out once for each connection.
    fn internal(&self) -> impl Future<Output = Result<InternalAccess, EngineError>> + Send;

    /// Whether the nested API answers at `url` with a certificate of its own CA; an error says in
    /// words why not. Bounded to three seconds.
    fn handshake(&self, access: &Access, url: &str) -> impl Future<Output = Result<(), String>> + Send;

    /// Finds out anew what holds for one connection to the engine. Returns what its clock says, or
    /// ours where it says nothing.
    ///
    /// # Errors
    /// Where the engine does not answer.
    fn connect(&self) -> impl Future<Output = Result<Timestamp, EngineError>> + Send;

    /// What happens on the engine from `since` on, in its own time, until the connection ends.
    fn events(&self, since: Timestamp) -> impl Stream<Item = Result<EngineEvent, EngineError>> + Send;
}

/// The real one.
pub struct DockerBackend<E, A> {
    world: World<E, A>,
    host_ip: Option<IpAddr>,
    internal: RwLock<Option<InternalAccess>>,
}

impl<E: Engine, A: ClusterApi> DockerBackend<E, A> {
    /// Drives `world`; `host_ip` is the address of the operator's own Node.
    pub fn new(world: World<E, A>, host_ip: Option<IpAddr>) -> Self {
        Self { world, host_ip, internal: RwLock::new(None) }
    }

    async fn locate(&self) -> Result<InternalAccess, EngineError> {
        let found = match self.host_ip {
            None => InternalAccess::Gateway,
            Some(address) => {
                internal_access(&self.world.engine.list_containers(&Scope::Everything).await?, address)
            }
        };
        tracing::info!(internal = ?found, host_ip = ?self.host_ip, "found out how Pods reach nested APIs");
        *self.internal.write().unwrap_or_else(PoisonError::into_inner) = Some(found.clone());
        Ok(found)
    }
}

impl<E: Engine, A: ClusterApi> Backend for DockerBackend<E, A> {
    async fn step(&self, request: &Request, now: Timestamp) -> Outcome {
        reconcile::step(&self.world, request, now).await
    }

    async fn import(&self, import: Import) -> (usize, usize) {
        let world = &self.world;
        reconcile::import(&world.engine, &world.progress, &world.importer, import).await
    }

    async fn remove(&self, acting: &Acting) -> Result<Removal, EngineError> {
        reconcile::remove(&self.world, &acting.identity, acting.adopter.as_ref()).await
    }

    async fn ping(&self) -> Result<(), EngineError> {
        self.world.engine.ping().await
    }

    async fn engine_id(&self) -> Result<String, EngineError> {
        Ok(self.world.engine.info().await?.id)
    }

    async fn records(&self) -> Result<Vec<Volume>, EngineError> {
        let label = format!("{}={}", label::ROLE, Role::Record.as_str());
        self.world.engine.list_volumes(&Scope::Labels(vec![label])).await
    }

    async fn owners(&self, uid: &str) -> Result<Vec<Identity>, EngineError> {
        owners(&self.world.engine, uid).await
    }

    async fn container(&self, id: &str) -> Result<Option<Container>, EngineError> {
        self.world.engine.container(id).await
    }

    async fn internal(&self) -> Result<InternalAccess, EngineError> {
        let known = self.internal.read().unwrap_or_else(PoisonError::into_inner).clone();
        match known {
            Some(known) => Ok(known),
            None => self.locate().await,
        }
    }

    async fn handshake(&self, access: &Access, url: &str) -> Result<(), String> {
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, self.world.clusters.probe(access, url, 1)).await {
            Ok(answer) => answer.map(drop),
            Err(_) => Err(format!("no answer from {url} within {} s", HANDSHAKE_TIMEOUT.as_secs())),
        }
    }

    async fn connect(&self) -> Result<Timestamp, EngineError> {
        let engine = self.world.engine.info().await?;
        self.locate().await?;
        Ok(engine.time.unwrap_or_else(Timestamp::now))
    }

    fn events(&self, since: Timestamp) -> impl Stream<Item = Result<EngineEvent, EngineError>> + Send {
        self.world.engine.events(since)
    }
}

/// Where the Node with `address` is a container of this engine, nested APIs are reached through
/// its network; else the host cluster runs on the Docker host itself, or elsewhere.
fn internal_access(containers: &[Container], address: IpAddr) -> InternalAccess {
    containers
        .iter()
        .flat_map(|container| &container.networks)
        .find(|(_, place)| place.address.map(IpAddr::V4) == Some(address))
        .map_or(InternalAccess::Gateway, |(network, _)| InternalAccess::Join { network: network.clone() })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::plan::{Attachment, ContainerState};

    fn container(network: &str, address: &str) -> Container {
        let place = Attachment { address: address.parse().ok(), pinned: None };
        Container {
            id: "1".into(),
            name: "some".into(),
            image: "some:1".into(),
            state: ContainerState::Running,
            status: String::new(),
            labels: BTreeMap::new(),
            created: Timestamp::UNIX_EPOCH,
            networks: BTreeMap::from([(network.to_owned(), place)]),
            ports: Vec::new(),
        }
    }

    #[test]
    fn a_node_that_is_a_container_is_joined_in_its_network() {
        let containers = [container("bridge", "172.17.0.2"), container("host-cluster", "10.112.0.3")];
        let join = InternalAccess::Join { network: "host-cluster".into() };
        assert_eq!(internal_access(&containers, "10.112.0.3".parse().unwrap()), join);
        assert_eq!(internal_access(&containers, "192.168.1.5".parse().unwrap()), InternalAccess::Gateway);
    }
}
