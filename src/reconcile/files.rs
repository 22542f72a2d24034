//! The files of containers, resolved when they are written: only then is it known whether the
//! node's data volume holds a token already.

use rand::RngExt;
use tokio::sync::OnceCell;

use super::{World, converge::Seen};
use crate::{
    api::Role,
    engine::{Command, Engine, EngineError, Inside, Result},
    k3s::{self, Access, ClusterApi, ETCD_DATABASE_PATH, K3S_TOKEN_PATH, TOKEN_PATH},
    plan::{ContainerKind, ContainerWant, FileWant, NodeConfig, Plan, Sensitive},
};

/// The files that a step writes, and its way into the nested cluster.
pub struct StepFiles<'a, E, A> {
    engine: &'a E,
    clusters: &'a A,
    /// Where the nested API answered in this step.
    way_in: Option<(Access, String)>,
    /// The token the user gave.
    given: Option<Sensitive<Vec<u8>>>,
    /// Whether the cluster was Ready once, so that its token is not to be invented.
    initialised: bool,
    /// The cluster's token, the same for every node that the step starts.
    token: OnceCell<Sensitive<Vec<u8>>>,
}

impl<'a, E: Engine, A: ClusterApi> StepFiles<'a, E, A> {
    /// For a step that found `seen` and carries out `plan`: if that starts a node, what those that are there
    /// know of the token is asked before any of them is removed.
    ///
    /// # Errors
    /// Where Docker could not be asked.
    pub async fn gather(
        world: &'a World<E, A>,
        seen: &Seen,
        plan: &Plan,
        given: Option<Sensitive<Vec<u8>>>,
    ) -> Result<Self> {
        let files = Self {
            engine: &world.engine,
            clusters: &world.clusters,
            way_in: seen.access.clone().zip(seen.url.clone()),
            given,
            initialised: seen.record.as_ref().is_some_and(|r| r.initialised),
            token: OnceCell::new(),
        };
        if !plan.starts_nodes() {
            return Ok(files);
        }
        // Servers first. An agent that was told the token of a server which came to nothing holds
        // the only copy.
        for role in [Role::Server, Role::Agent] {
            for node in seen.observed.containers.iter().filter(|c| c.role() == Some(role)) {
                if let Some(token) = files.token_in(&node.id).await? {
                    return Ok(Self { token: OnceCell::new_with(Some(token)), ..files });
                }
            }
        }
        Ok(files)
    }

    /// The token for the node in container `id`: a server's own, which is what its etcd was made
    /// with, else the cluster's.
    async fn token(&self, id: &str, node: &NodeConfig) -> Result<Sensitive<Vec<u8>>> {
        let own = if self.has_own_token(id, node).await? { self.token_in(id).await? } else { None };
        let token = self.token.get_or_try_init(|| async { self.first_token(own.clone(), node) }).await?;
        Ok(own.unwrap_or_else(|| token.clone()))
    }

    /// Whether what lies in the volume of a server counts. One that is to join a cluster which never was, and
    /// has not, may have been told a token of which nothing came.
    async fn has_own_token(&self, id: &str, node: &NodeConfig) -> Result<bool> {
        Ok(node.role == Role::Server
            && (self.initialised || node.founds() || self.engine.has_path(id, ETCD_DATABASE_PATH).await?))
    }

    /// The token where no node has one yet: that of a server whose data is older than its container
    /// (it starts before whoever joins it, see [`crate::plan::diff`]), else the user's, else, for a
    /// cluster that never was, a new one, which the founding server gets.
    fn first_token(&self, own: Option<Sensitive<Vec<u8>>>, node: &NodeConfig) -> Result<Sensitive<Vec<u8>>> {
        let what = format!("start node {}", node.node_name);
        match (own, &self.given, self.initialised) {
            (Some(own), ..) => Ok(own),
            (None, Some(given), _) => Ok(Sensitive::new(given.expose().trim_ascii().to_vec())),
            (None, None, false) if node.founds() => Ok(Sensitive::new(random_hex(32).into_bytes())),
            (None, None, false) => Err(EngineError::Busy {
                what,
                message: "the server that it joins is being made by somebody else at this moment".into(),
            }),
            (None, None, true) => Err(EngineError::Refused {
                what,
                message: "no server's data volume holds the cluster's token, and a new one would not open its data; restore the volumes, or delete the cluster and create it again".into(),
            }),
        }
    }

    async fn token_in(&self, id: &str) -> Result<Option<Sensitive<Vec<u8>>>> {
        for path in [TOKEN_PATH, K3S_TOKEN_PATH] {
            if let Some(token) = self.engine.read_file(id, path).await?.filter(|t| !t.is_empty()) {
                return Ok(Some(Sensitive::new(token.trim_ascii().to_vec())));
            }
        }
        Ok(None)
    }
}

impl<E: Engine, A: ClusterApi> Inside for StepFiles<'_, E, A> {
    fn command(&self, want: &ContainerWant) -> Command {
        k3s::command(want)
    }

    async fn files(&self, id: &str, want: &ContainerWant) -> Result<Vec<FileWant>> {
        Ok(match &want.kind {
            ContainerKind::Node(config) => {
                k3s::node_files(config, &want.limits, &self.token(id, config).await?)
            }
            ContainerKind::LoadBalancer(config) => k3s::balancer_files(config),
        })
    }

    async fn forget(&self, node: &str) -> Result<()> {
        let failed = |message: String| EngineError::Busy { what: format!("forget Node {node}"), message };
        let Some((access, url)) = &self.way_in else { return Err(failed("the API does not answer".into())) };
        self.clusters.forget_node(access, url, node).await.map_err(failed)
    }
}

/// For plans that create nothing.
pub struct NoFiles;

impl Inside for NoFiles {
    fn command(&self, want: &ContainerWant) -> Command {
        k3s::command(want)
    }

    async fn files(&self, _id: &str, _want: &ContainerWant) -> Result<Vec<FileWant>> {
        Ok(Vec::new())
    }

    async fn forget(&self, _node: &str) -> Result<()> {
        Ok(())
    }
}

/// `bytes` random bytes as hex.
pub fn random_hex(bytes: usize) -> String {
    let mut rng = rand::rng();
    (0..bytes).map(|_| format!("{:02x}", rng.random::<u8>())).collect()
}
