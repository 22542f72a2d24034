//! `k3nest down`: the operator's clusters first, then the host cluster.

use std::{collections::BTreeSet, time::Duration};

use futures::future::join_all;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams},
};

use super::{
    DownArgs,
    host::{self, Host},
    sample::{NAME, NAMESPACE},
    stage::{Say, Stages},
};
use crate::{
    api::{Identity, K3sCluster},
    cli::{
        CliError,
        confirm::confirm,
        delete::gone,
        session::{EngineArgs, Session},
    },
    engine::observe_all,
};

/// How often the host API is asked whether a cluster is gone.
const LOOK: Duration = Duration::from_millis(500);

/// How long the host API may take to answer before it counts as dead.
const API_TIMEOUT: Duration = Duration::from_secs(15);

/// Removes what `up` has made. Docker, images and caches stay.
pub async fn down(args: &EngineArgs, down: DownArgs) -> Result<(), CliError> {
    let session = Session::open(args).await?;
    let resource = host::resource(down.host_file.as_deref())?;
    let host_identity = session.identity(&resource.namespace, &resource.name);
    let tenants = tenants(&session, &host_identity).await?;
    ask_for(&tenants, down.yes).await?;

    let stages = Stages::new(&["Clusters", "Host cluster"]);
    stages
        .run("Clusters", |say, line| {
            let (session, host, tenants) = (&session, &host_identity, &tenants);
            async move {
                let polite = tokio::time::timeout(down.timeout, delete_resources(session, host, &say)).await;
                let how = match polite {
                    Ok(Ok(())) => "deleted by the operator",
                    Ok(Err(error)) => {
                        say(&format!(
                            "the host cluster cannot do it ({error}); removing its clusters from Docker"
                        ));
                        "removed from Docker"
                    }
                    Err(_) => {
                        say("the operator takes too long; removing its clusters from Docker");
                        "removed from Docker"
                    }
                };
                // Nothing is left where the operator did it; what it could not is removed here.
                for result in join_all(tenants.iter().map(|t| gone(session, t, down.timeout, &line))).await {
                    result?;
                }
                Ok(((), format!("{} {how}", tenants.len())))
            }
        })
        .await?;
    stages
        .run("Host cluster", |_, line| {
            let (session, host) = (&session, &host_identity);
            async move {
                gone(session, host, down.timeout, &line).await?;
                Ok(((), "deleted".into()))
            }
        })
        .await?;
    super::remove_host_kubeconfig(&host_identity.name);
    eprintln!("Docker, images and caches stay; make clean removes those that are k3nest's.");
    Ok(())
}

/// Clusters that the operator in the host cluster keeps: those whose load balancer is a guest in
/// the host cluster's network.
async fn tenants(session: &Session, host: &Identity) -> Result<Vec<Identity>, CliError> {
    let all = observe_all(&session.docker, None).await?;
    let network = all.get(host).and_then(|o| o.record()).map(|r| r.network.name);
    let instances: BTreeSet<&String> = all
        .iter()
        .filter(|(_, observed)| {
            let guest = observed.record().and_then(|r| r.guest);
            guest.is_some_and(|g| Some(g.network) == network)
        })
        .map(|(identity, _)| &identity.instance)
        .collect();
    Ok(all.keys().filter(|identity| instances.contains(&identity.instance)).cloned().collect())
}

async fn ask_for(tenants: &[Identity], yes: bool) -> Result<(), CliError> {
    let others: Vec<String> = tenants
        .iter()
        .filter(|t| (t.namespace.as_str(), t.name.as_str()) != (NAMESPACE, NAME))
        .map(ToString::to_string)
        .collect();
    if yes || others.is_empty() {
        return Ok(());
    }
    let list = others.join(", ");
    confirm(&format!("The operator keeps other clusters, too: {list}. Remove them all?"), || {
        format!("the operator keeps other clusters, too: {list}; run k3nest down --yes to remove them all")
    })
    .await
}

/// Has the operator delete its clusters, and waits until they are gone.
async fn delete_resources(session: &Session, host: &Identity, say: &Say) -> Result<(), CliError> {
    let failed = |e: kube::Error| CliError::Failed(e.to_string());
    let host = Host::find(session, host).await?;
    let all: Api<K3sCluster> = Api::all(host.client.clone());
    let list = || async {
        let answer = tokio::time::timeout(API_TIMEOUT, all.list(&ListParams::default())).await;
        answer.map_err(|_| CliError::Failed("its API does not answer".into()))?.map_err(failed)
    };
    for cluster in list().await?.items {
        let api: Api<K3sCluster> =
            Api::namespaced(host.client.clone(), &cluster.namespace().unwrap_or_default());
        api.delete(&cluster.name_any(), &DeleteParams::default()).await.map_err(failed)?;
    }
    loop {
        let left = list().await?.items;
        let Some(first) = left.first() else { return Ok(()) };
        say(&format!("{} left, such as {}", left.len(), first.name_any()));
        tokio::time::sleep(LOOK).await;
    }
}
