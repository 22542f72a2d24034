//! The sample cluster: applied by kubectl like anybody's, waited for, and shown.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Secret};
use kube::{
    Api, ResourceExt,
    api::ListParams,
    runtime::{WatchStreamExt, watcher},
};

use super::{host::Host, kubectl::Kubectl, stage::Say};
use crate::{
    api::{K3sCluster, Phase, condition},
    cli::{CliError, session::Session},
    k3s::Access,
};

/// The sample, as `kubectl apply` takes it.
pub const SAMPLE: &str = include_str!("../../../config/samples/cluster.yaml");

/// Its name and namespace.
pub const NAME: &str = "sample";
pub const NAMESPACE: &str = "default";

/// Applies the sample and waits until it is Ready. Returns its nodes, as lines for people.
pub async fn ensure(
    session: &Session,
    host: &Host,
    timeout: Duration,
    say: &Say,
) -> Result<(Vec<String>, String), CliError> {
    let applied = kubectl(session, host)?.run(&["apply", "-f", "-"], SAMPLE).await?;
    let clusters: Api<K3sCluster> = Api::namespaced(host.client.clone(), NAMESPACE);
    let status = tokio::time::timeout(timeout, ready(clusters, say)).await.map_err(|_| {
        CliError::NotInTime(format!(
            "the sample is not Ready after {timeout:?}; kubectl describe k3scluster {NAME} says why"
        ))
    })??;
    let word = format!("{}, {status}", applied.trim());
    Ok((nodes(host).await?, word))
}

fn kubectl(session: &Session, host: &Host) -> Result<Kubectl, CliError> {
    let Some(program) = Kubectl::on_path() else {
        return Ok(Kubectl::InNode { docker: session.docker.clone(), container: host.container.clone() });
    };
    Ok(Kubectl::Local { program, kubeconfig: host.write_kubeconfig()? })
}

/// Follows the sample until it is Ready, saying what it waits for.
async fn ready(clusters: Api<K3sCluster>, say: &Say) -> Result<String, CliError> {
    use futures::TryStreamExt;
    let config = watcher::Config::default().fields(&format!("metadata.name={NAME}"));
    let mut changes = std::pin::pin!(watcher(clusters, config).default_backoff().applied_objects());
    loop {
        let cluster = match changes.try_next().await {
            Ok(Some(cluster)) => cluster,
            Ok(None) => return Err(CliError::Failed("the watch of the sample ended".into())),
            // The watcher tries again by itself.
            Err(error) => {
                say(&format!("watching the sample: {error}; trying again"));
                continue;
            }
        };
        let status = cluster.status.clone().unwrap_or_default();
        let Some(ready) = status.conditions.iter().find(|c| c.type_ == condition::READY) else { continue };
        if ready.status == "True" && status.observed_generation == cluster.metadata.generation {
            return Ok(format!("Ready at {}", status.endpoint.unwrap_or_default()));
        }
        if status.phase == Phase::Failed {
            return Err(CliError::Failed(format!("the sample: {}: {}", ready.reason, ready.message)));
        }
        say(&ready.message);
    }
}

/// The sample's nodes, asked with the kubeconfig of its Secret.
async fn nodes(host: &Host) -> Result<Vec<String>, CliError> {
    let failed = |e: &dyn std::error::Error| CliError::Failed(format!("the sample's nodes: {e}"));
    let secrets: Api<Secret> = Api::namespaced(host.client.clone(), NAMESPACE);
    let secret = secrets.get(&format!("{NAME}-kubeconfig")).await.map_err(|e| failed(&e))?;
    let key = |name: &str| {
        let data = secret.data.as_ref().and_then(|d| d.get(name));
        data.map(|d| d.0.clone())
            .ok_or_else(|| CliError::Failed(format!("Secret {NAME}-kubeconfig has no key {name}")))
    };
    let url = String::from_utf8_lossy(&key("server")?).into_owned();
    let identity_host = format!("{NAME}-k3s-api.{NAMESPACE}.svc");
    let access = Access::from_k3s_yaml(&key("kubeconfig")?, &identity_host).map_err(|e| failed(&e))?;
    let nodes: Api<Node> = Api::all(access.client(&url).map_err(|e| failed(&e))?);
    let list = nodes.list(&ListParams::default()).await.map_err(|e| failed(&e))?;
    Ok(list
        .items
        .into_iter()
        .map(|node| {
            let name = node.name_any();
            let facts = crate::k3s::NodeFacts::from(node);
            format!("{name}   {}   {}", if facts.ready { "Ready" } else { "NotReady" }, facts.version)
        })
        .collect())
}
