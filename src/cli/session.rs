//! What every verb needs: the engine, settings, and requests for standalone clusters.

use std::sync::Arc;

use clap::Args;
use jiff::Timestamp;

use super::{CliError, files::ClusterFile};
use crate::{
    api::{Identity, K3sCluster, K3sClusterStatus, STANDALONE},
    engine::{Docker, Engine, observe_all},
    k3s::Network,
    plan::{InternalAccess, LOAD_BALANCER_IMAGE, NODE_IMAGE, Observed, Settings, Values},
    reconcile::{Request, World},
};

/// Options of every verb that talks to Docker.
#[derive(Args, Clone, Debug)]
pub struct EngineArgs {
    /// Docker engine, such as unix:///var/run/docker.sock
    #[arg(long, env = "DOCKER_HOST", global = true, value_name = "URL")]
    pub docker_host: Option<String>,

    /// Repository of node images for clusters that name none
    #[arg(long, env = "K3NEST_NODE_IMAGE", global = true, default_value = NODE_IMAGE, value_name = "REPOSITORY")]
    pub node_image: String,

    /// Image of load balancers for clusters that name none
    #[arg(long, env = "K3NEST_LOAD_BALANCER_IMAGE", global = true, default_value = LOAD_BALANCER_IMAGE, value_name = "IMAGE")]
    pub load_balancer_image: String,
}

impl EngineArgs {
    /// Settings of the CLI: host paths are free, since its user holds the Docker socket already.
    pub fn settings(&self) -> Settings {
        Settings {
            node_image: self.node_image.clone(),
            load_balancer_image: self.load_balancer_image.clone(),
            allowed_host_paths: vec!["/".into()],
            ..Settings::default()
        }
    }
}

/// A connection to Docker and who it is.
pub struct Session {
    pub docker: Docker,
    pub engine_id: String,
    pub settings: Settings,
}

impl Session {
    /// Connects.
    pub async fn open(args: &EngineArgs) -> Result<Self, CliError> {
        // No call was made yet: what is wrong is what was written.
        let docker =
            Docker::connect(args.docker_host.as_deref()).map_err(|e| CliError::Input(e.to_string()))?;
        let engine_id = docker.info().await?.id;
        Ok(Self { docker, engine_id, settings: args.settings() })
    }

    /// The world of a step, whose progress goes to `say`.
    pub fn world(&self, say: Arc<dyn Fn(&str) + Send + Sync>) -> World<Docker, Network> {
        World::new(self.docker.clone(), Network, Box::new(move |text| say(text)))
    }

    /// A world that says nothing.
    pub fn quiet(&self) -> World<Docker, Network> {
        self.world(Arc::new(|_| ()))
    }

    /// Who `namespace/name` is on this engine.
    pub fn identity(&self, namespace: &str, name: &str) -> Identity {
        Identity::standalone(&self.engine_id, namespace, name)
    }

    /// Every cluster of the CLI on this engine.
    pub async fn clusters(&self) -> Result<Vec<(Identity, Observed)>, CliError> {
        Ok(observe_all(&self.docker, Some(STANDALONE)).await?.into_iter().collect())
    }

    /// A request for what a file says.
    pub fn request(&self, file: &ClusterFile) -> Request {
        Request {
            identity: self.identity(&file.namespace, &file.name),
            spec: file.cluster.spec.clone(),
            generation: None,
            values: file.values.clone(),
            settings: self.settings.clone(),
            internal: InternalAccess::None,
            former: K3sClusterStatus::default(),
            recover: None,
            adopter: None,
            keep_spec: Some(file.kept()),
        }
    }

    /// A request for what was applied last, to look only: values of Secrets are not kept. None
    /// where the record is gone or unreadable.
    pub fn recorded(&self, identity: &Identity, observed: &Observed) -> Option<(K3sCluster, Request)> {
        let kept = observed.record()?.spec?;
        let cluster: K3sCluster = serde_json::from_str(&kept).ok()?;
        let request = Request {
            identity: identity.clone(),
            spec: cluster.spec.clone(),
            generation: None,
            values: Ok(Values::default()),
            settings: self.settings.clone(),
            internal: InternalAccess::None,
            former: K3sClusterStatus::default(),
            recover: None,
            adopter: None,
            keep_spec: Some(kept),
        };
        Some((cluster, request))
    }
}

/// Now. The only clock of the CLI.
pub fn now() -> Timestamp {
    Timestamp::now()
}
