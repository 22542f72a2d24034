//! Asks every API server that can be found which clusters it knows.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    path::Path,
    time::Duration,
};

use futures::future::join_all;
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client, Config, ResourceExt,
    api::ListParams,
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::sync::oneshot;

use super::contexts::{Asked, contexts};
use crate::{
    api::{Identity, K3sCluster, K3sClusterSpec, NodeVolume, Role, STANDALONE, adopts},
    cli::{
        session::Session,
        up::{HOST_CLUSTER, Host},
    },
    k3s::root_cause,
    plan::{Answer, ApiServer, Observed},
};

/// How long one API server may take to say what it knows.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks all of them at once. `all` is what exists on the engine.
pub async fn api_servers(
    session: &Session,
    all: &BTreeMap<Identity, Observed>,
    kubeconfig: Option<&Path>,
) -> Vec<ApiServer> {
    let (contexts, mut servers) = contexts(kubeconfig);
    let contexts = contexts.into_iter().map(|Asked { name, config, context }| {
        bounded(name, async move { ask(client(config, context).await?).await })
    });
    let hosts = hosts(session, all).into_iter().map(|identity| async move {
        let asked = async {
            let host = Host::find(session, &identity).await.map_err(|e| e.to_string())?;
            ask(host.client).await
        };
        let answer = tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| Err(silent()));
        ApiServer { name: format!("host cluster {}", identity.name), answer }
    });
    let (contexts, hosts) = tokio::join!(join_all(contexts), join_all(hosts));
    servers.extend(contexts);
    servers.extend(hosts);
    servers
}

fn silent() -> String {
    format!("no answer within {} s", PATIENCE.as_secs())
}

/// Asks in a thread of its own: credential plugins that a kubeconfig names are waited for without
/// end, and would hold up whatever runs beside them.
async fn bounded(
    name: String,
    question: impl Future<Output = Result<Answer, String>> + Send + 'static,
) -> ApiServer {
    let (send, answer) = oneshot::channel();
    std::thread::spawn(move || {
        let answer = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(question),
            Err(error) => Err(error.to_string()),
        };
        let _ = send.send(answer);
    });
    let answer = match tokio::time::timeout(PATIENCE, answer).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => Err("asking it failed".into()),
        Err(_) => Err(silent()),
    };
    ApiServer { name, answer }
}

async fn client(config: Kubeconfig, context: String) -> Result<Client, String> {
    let options = KubeConfigOptions { context: Some(context), ..KubeConfigOptions::default() };
    let mut config =
        Config::from_custom_kubeconfig(config, &options).await.map_err(|error| error.to_string())?;
    config.connect_timeout = Some(PATIENCE);
    config.read_timeout = Some(PATIENCE);
    Client::try_from(config).map_err(|error| said(&error))
}

/// Which instance an API server is, and which clusters it knows, also those on their way out.
async fn ask(client: Client) -> Result<Answer, String> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let system = namespaces.get_metadata("kube-system").await.map_err(|error| said(&error))?;
    let instance = system.uid().ok_or("its namespace kube-system has no uid")?;
    let all: Api<K3sCluster> = Api::all(client);
    let list = match all.list_metadata(&ListParams::default()).await {
        Ok(list) => list.items,
        // No such kind: no operator is installed there, and so there are none.
        Err(kube::Error::Api(status)) if status.is_not_found() => Vec::new(),
        Err(error) => return Err(said(&error)),
    };
    let mut clusters = BTreeMap::new();
    for cluster in list {
        let what = format!("K3sCluster {}/{}", cluster.namespace().unwrap_or_default(), cluster.name_any());
        if let Some(adopted) = adopts(&cluster.metadata) {
            clusters.insert(adopted.to_owned(), format!("{what} adopts it"));
        }
        clusters.extend(cluster.uid().map(|uid| (uid, what)));
    }
    Ok(Answer { instance, clusters })
}

fn said(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => root_cause(other),
    }
}

/// Clusters of the command line that may have an operator for this engine: what `up` makes, those
/// that others are guests of, and those with the Docker socket in a node.
fn hosts(session: &Session, all: &BTreeMap<Identity, Observed>) -> Vec<Identity> {
    let joined: BTreeSet<String> =
        all.values().filter_map(|observed| Some(observed.record()?.guest?.network)).collect();
    let may_be_host = |(identity, observed): &(&Identity, &Observed)| {
        let Some((cluster, _)) = session.recorded(identity, observed) else {
            // Without its record anything may be in it. That it cannot be asked is an answer, too.
            return observed.containers.iter().any(|c| c.role() == Some(Role::Server));
        };
        let network = observed.record().map(|record| record.network.name).unwrap_or_default();
        identity.name == HOST_CLUSTER || joined.contains(&network) || has_docker(&cluster.spec)
    };
    let standalone = all.iter().filter(|(identity, _)| identity.instance == STANDALONE);
    standalone.filter(may_be_host).map(|(identity, _)| identity.clone()).collect()
}

fn has_docker(spec: &K3sClusterSpec) -> bool {
    let defaults = spec.node_defaults.iter().flat_map(|defaults| &defaults.volumes);
    let volumes = defaults.chain(&spec.servers.node.volumes).chain(&spec.agents.node.volumes);
    let socket =
        |volume: &NodeVolume| volume.host_path.as_deref().is_some_and(|p| p.ends_with("docker.sock"));
    volumes.into_iter().any(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_with_the_docker_socket_may_be_a_host() {
        let spec = |text: &str| serde_saphyr::from_str::<K3sClusterSpec>(text).unwrap();
        assert!(has_docker(&spec(
            "{version: v1.36.1+k3s1, servers: {volumes: [{target: /var/run/docker.sock, hostPath: /var/run/docker.sock}]}}"
        )));
        assert!(!has_docker(&spec(
            "{version: v1.36.1+k3s1, servers: {volumes: [{target: /data, hostPath: /srv}]}}"
        )));
    }
}
