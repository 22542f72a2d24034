//! `k3nest down`: the operator's clusters first, then the host cluster.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

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
    plan::{Belongings, Observed},
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
                let removals = tenants.iter().map(|Belongings { identity, keeper, .. }| {
                    gone(session, identity, keeper.clone(), down.timeout, &line)
                });
                for result in join_all(removals).await {
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
                gone(session, host, None, down.timeout, &line).await?;
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
async fn tenants(session: &Session, host: &Identity) -> Result<Vec<Belongings>, CliError> {
    let all = observe_all(&session.docker, None).await?;
    let network = all.get(host).and_then(|o| o.record()).map(|r| r.network.name);
    Ok(guests_of(network.as_deref(), all))
}

/// Those of the instances that have a guest in `network`. A cluster is its keeper's instance's, whatever
/// its labels say: others of the instance that it was adopted from live elsewhere.
fn guests_of(network: Option<&str>, all: BTreeMap<Identity, Observed>) -> Vec<Belongings> {
    let is_guest = |observed: &Observed| {
        let guest = observed.record().and_then(|record| record.guest);
        guest.is_some_and(|guest| Some(guest.network.as_str()) == network)
    };
    let tenants = all.into_iter().map(|(identity, observed)| {
        let guest = is_guest(&observed);
        (guest, Belongings::new(identity, &observed))
    });
    let (guests, others): (Vec<_>, Vec<_>) = tenants.partition(|(guest, _)| *guest);
    let instances: BTreeSet<String> = guests.iter().map(|(_, tenant)| tenant.instance().to_owned()).collect();
    let all = guests.into_iter().chain(others).map(|(_, tenant)| tenant);
    all.filter(|tenant| instances.contains(tenant.instance())).collect()
}

async fn ask_for(tenants: &[Belongings], yes: bool) -> Result<(), CliError> {
    let others: Vec<String> = tenants
        .iter()
        .map(|tenant| &tenant.identity)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{GuestAddress, Keeper, Record, Volume, VolumeWant, tests::record as a_record};

    /// A cluster of `instance`, kept by another one if so, and a guest in `network` if so.
    fn cluster(
        instance: &str,
        name: &str,
        keeper: Option<&str>,
        network: Option<&str>,
    ) -> (Identity, Observed) {
        let identity = Identity {
            instance: instance.into(),
            uid: name.into(),
            namespace: "team".into(),
            name: name.into(),
        };
        let guest =
            network.map(|network| GuestAddress { network: network.into(), address: [10, 0, 0, 9].into() });
        let keeper = keeper.map(|instance| Keeper { instance: instance.into(), uid: "other".into() });
        let VolumeWant { name, labels } = Record { guest, keeper, ..a_record() }.volume(&identity);
        (identity, Observed { volumes: vec![Volume { name, labels }], ..Observed::default() })
    }

    #[test]
    fn the_host_clusters_tenants_are_its_instances_and_no_others() {
        let all = [
            cluster("NEW", "guest", None, Some("host")),
            cluster("NEW", "not-yet-a-guest", None, None),
            cluster("OLD", "adopted", Some("NEW"), Some("host")),
            cluster("OLD", "left-behind", None, Some("another")),
            cluster("NEW", "moved-away", Some("OTHER"), Some("another")),
            cluster("standalone", "cli", None, None),
        ];
        let tenants = guests_of(Some("host"), all.into());
        let mut names: Vec<&str> = tenants.iter().map(|t| t.identity.name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["adopted", "guest", "not-yet-a-guest"]);
    }
}
