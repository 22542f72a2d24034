//! The host cluster, which k3nest makes itself, and the operator in it.

use std::{path::PathBuf, time::Duration};

use bytes::Bytes;
use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
    runtime::wait::{Condition, await_condition},
};
use serde_json::json;

use super::{HOST_CLUSTER, VERSION, archive::operator_image, stage::Say};
use crate::{
    api::{FIELD_MANAGER, Identity, K3sCluster, Role},
    cli::{
        CliError,
        apply::{ApplyArgs, converge},
        files::{self, ClusterFile},
        kubeconfig::write_text,
        progress::Line,
        session::{EngineArgs, Session, now},
    },
    engine::{Docker, Engine, observe},
    operator::install,
    plan::Values,
    reconcile::inspect,
};

/// Namespace and name of the operator's Deployment, as in config/.
pub const OPERATOR_NAMESPACE: &str = "k3nest-system";
pub const OPERATOR: &str = "k3nest-operator";

/// The host cluster as a resource, the one in `file` or k3nest's own: one server that can use the
/// Docker socket, which the operator's Pod gets from it.
pub fn resource(file: Option<&str>) -> Result<ClusterFile, CliError> {
    if let Some(path) = file {
        let mut clusters = files::read(&[path.to_owned()])?;
        return match (clusters.pop(), clusters.is_empty()) {
            (Some(cluster), true) => Ok(cluster),
            _ => Err(CliError::Input(format!("{path} holds several clusters; the host cluster is one"))),
        };
    }
    let document = json!({
        "apiVersion": "k3nest.dev/v1alpha1",
        "kind": "K3sCluster",
        "metadata": {"name": HOST_CLUSTER},
        "spec": {
            "version": VERSION,
            "servers": {
                "volumes": [{"target": "/var/run/docker.sock", "hostPath": "/var/run/docker.sock"}],
            },
            "k3s": {"disable": ["traefik", "servicelb", "local-storage", "metrics-server"]},
        },
    });
    let cluster: K3sCluster =
        serde_json::from_value(document.clone()).map_err(|e| CliError::Failed(e.to_string()))?;
    Ok(ClusterFile {
        namespace: "default".into(),
        name: HOST_CLUSTER.into(),
        cluster,
        values: Ok(Values::default()),
        document,
    })
}

/// Makes the host cluster, or finds it made. Returns how to talk to it.
pub async fn ensure(
    session: &Session,
    resource: &ClusterFile,
    timeout: Duration,
    line: &Line,
) -> Result<(Host, String), CliError> {
    let args = ApplyArgs { files: Vec::new(), no_wait: false, timeout };
    let word = converge(session, resource, &args, line).await?;
    let identity = session.identity(&resource.namespace, &resource.name);
    Ok((Host::find(session, &identity).await?, word))
}

/// The running host cluster.
pub struct Host {
    /// A client for its API.
    pub client: Client,
    /// Kubeconfig for it, as text.
    kubeconfig: String,
    name: String,
    /// Id of its server's container.
    pub container: String,
    docker: Docker,
}

impl Host {
    /// Finds it.
    ///
    /// # Errors
    /// Where it is not there or does not answer.
    pub async fn find(session: &Session, identity: &Identity) -> Result<Self, CliError> {
        let observed = observe(&session.docker, identity).await?;
        let absent = || CliError::Failed("there is no host cluster; k3nest up makes one".into());
        let (_, request) = session.recorded(identity, &observed).ok_or_else(absent)?;
        let server =
            observed.containers.iter().find(|c| c.role() == Some(Role::Server)).ok_or_else(absent)?;
        let outcome = inspect(&session.quiet(), &request, now()).await;
        let (Some(access), Some(url)) = (outcome.access, outcome.status.endpoint) else {
            return Err(CliError::Failed(
                "the API of the host cluster does not answer; k3nest get clusters -o wide says why".into(),
            ));
        };
        Ok(Self {
            client: access.client(&url).map_err(|e| CliError::Failed(e.to_string()))?,
            kubeconfig: access.kubeconfig(&super::kubeconfig_context(identity), &url),
            name: identity.name.clone(),
            container: server.id.clone(),
            docker: session.docker.clone(),
        })
    }

    /// Writes its kubeconfig to where `up` keeps it, readable for its user alone.
    pub fn write_kubeconfig(&self) -> Result<PathBuf, CliError> {
        let path = super::host_kubeconfig(&self.name)?;
        write_text(&path, &self.kubeconfig)?;
        Ok(path)
    }

    /// Brings this very binary into the host cluster as an image, unless it is there. Returns the
    /// image's reference.
    pub async fn ensure_image(&self, say: &Say) -> Result<(String, String), CliError> {
        let failed = |e: std::io::Error| CliError::Failed(format!("this program cannot be read: {e}"));
        let binary = std::fs::read(std::env::current_exe().map_err(failed)?).map_err(failed)?;
        if !super::archive::is_static(&binary) {
            return Err(CliError::Failed(
                "this k3nest is not a static binary, so it cannot run in an image of its own; build it with make build".into(),
            ));
        }
        let image = operator_image(&binary);
        let name = format!("name=={}", image.reference);
        let list = ["/bin/k3s", "ctr", "-n", "k8s.io", "images", "ls", "-q", &name];
        if self.exec(&list, Vec::new()).await?.contains(&image.reference) {
            return Ok((image.reference, "there already".into()));
        }
        say("importing the operator's image");
        let import = ["/bin/k3s", "ctr", "-n", "k8s.io", "images", "import", "-"];
        let chunks = image.archive.chunks(1 << 20).map(Bytes::copy_from_slice).collect();
        self.exec(&import, chunks).await?;
        // Some versions of ctr report success without having imported anything.
        if !self.exec(&list, Vec::new()).await?.contains(&image.reference) {
            return Err(CliError::Failed(format!(
                "image {} is not in the host cluster after its import",
                image.reference
            )));
        }
        let word = format!("imported {}", image.reference);
        Ok((image.reference, word))
    }

    async fn exec(&self, command: &[&str], input: Vec<Bytes>) -> Result<String, CliError> {
        let output = self.docker.exec(&self.container, command, futures::stream::iter(input)).await?;
        if output.code == 0 {
            return Ok(output.output);
        }
        Err(CliError::Failed(format!(
            "{}: exit code {}: {}",
            command.join(" "),
            output.code,
            output.output.trim()
        )))
    }

    /// Installs the operator, or brings it in step, and waits until it is available.
    pub async fn ensure_operator(
        &self,
        image: &str,
        settings: &EngineArgs,
        timeout: Duration,
        say: &Say,
    ) -> Result<String, CliError> {
        let failed = |e: &dyn std::error::Error| CliError::Failed(format!("installing the operator: {e}"));
        let flags = [
            format!("--node-image={}", settings.node_image),
            format!("--load-balancer-image={}", settings.load_balancer_image),
        ];
        let objects = install::objects(image, &flags).map_err(|e| failed(&e))?;
        let mut changed = 0;
        for object in objects {
            say(&format!(
                "applying {} {}",
                object.types.as_ref().map(|t| t.kind.clone()).unwrap_or_default(),
                object.name_any()
            ));
            changed += usize::from(self.apply(object).await?);
        }
        say("waiting for the operator");
        let deployments: Api<Deployment> = Api::namespaced(self.client.clone(), OPERATOR_NAMESPACE);
        let wait = await_condition(deployments, OPERATOR, available());
        match tokio::time::timeout(timeout, wait).await {
            Ok(Ok(_)) => {
                Ok(if changed == 0 { "unchanged".into() } else { format!("{changed} objects applied") })
            }
            Ok(Err(e)) => Err(failed(&e)),
            Err(_) => Err(CliError::NotInTime(format!(
                "the operator is not available after {timeout:?}; kubectl -n {OPERATOR_NAMESPACE} describe pods says why"
            ))),
        }
    }

    /// Applies an object server-side. Returns whether that changed it.
    async fn apply(&self, object: DynamicObject) -> Result<bool, CliError> {
        let types = object.types.clone().unwrap_or_default();
        let failed = |e: kube::Error| CliError::Failed(format!("{} {}: {e}", types.kind, object.name_any()));
        let gvk =
            kube::core::GroupVersionKind::try_from(&types).map_err(|e| CliError::Failed(e.to_string()))?;
        let resource = ApiResource::from_gvk(&gvk);
        let api: Api<DynamicObject> = match object.namespace() {
            Some(namespace) => Api::namespaced_with(self.client.clone(), &namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        };
        let before = api.get_opt(&object.name_any()).await.map_err(failed)?;
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let after = api.patch(&object.name_any(), &params, &Patch::Apply(&object)).await.map_err(failed)?;
        Ok(before.and_then(|b| b.resource_version()) != after.resource_version())
    }
}

fn available() -> impl Condition<Deployment> {
    |deployment: Option<&Deployment>| {
        let Some(deployment) = deployment else { return false };
        let status = deployment.status.clone().unwrap_or_default();
        status.observed_generation >= deployment.metadata.generation
            && status.updated_replicas.unwrap_or_default() >= 1
            && status.available_replicas.unwrap_or_default() >= 1
            && status.unavailable_replicas.unwrap_or_default() == 0
    }
}
