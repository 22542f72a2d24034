//! What exists of a cluster, from three list calls and no inspection of single objects.

use std::collections::{BTreeMap, BTreeSet};

use super::{Engine, Result, Scope};
use crate::{
    api::{Identity, label},
    plan::{Container, Network, Observed, Volume},
};

/// Everything that belongs to `identity`.
///
/// # Errors
/// Where one of the lists could not be had: half a picture would pass for a cluster that lost its
/// other half.
pub async fn observe<E: Engine>(engine: &E, identity: &Identity) -> Result<Observed> {
    let scope = Scope::Labels(vec![
        format!("{}={}", label::INSTANCE, identity.instance),
        format!("{}={}", label::OWNER, identity.uid),
    ]);
    let Observed { mut containers, mut volumes, mut networks, loaded, nodes, data } =
        lists(engine, &scope).await?;
    // Docker has filtered already. What is removed by label is looked at twice.
    containers.retain(|c| identity.owns(&c.labels));
    volumes.retain(|v| identity.owns(&v.labels));
    networks.retain(|n| identity.owns(&n.labels));
    Ok(Observed { containers, volumes, networks, loaded, nodes, data })
}

/// Everything that `instance`, or any instance of k3nest, made and that still exists, by the cluster
/// it belongs to.
///
/// # Errors
/// As [`observe`].
pub async fn observe_all<E: Engine>(
    engine: &E,
    instance: Option<&str>,
) -> Result<BTreeMap<Identity, Observed>> {
    let scope = Scope::Labels(vec![match instance {
        Some(instance) => format!("{}={instance}", label::INSTANCE),
        None => label::INSTANCE.to_owned(),
    }]);
    let all = lists(engine, &scope).await?;
    let mut clusters: BTreeMap<Identity, Observed> = BTreeMap::new();
    for container in all.containers {
        if let Some(owner) = owner(instance, &container.labels) {
            clusters.entry(owner).or_default().containers.push(container);
        }
    }
    for volume in all.volumes {
        if let Some(owner) = owner(instance, &volume.labels) {
            clusters.entry(owner).or_default().volumes.push(volume);
        }
    }
    for network in all.networks {
        if let Some(owner) = owner(instance, &network.labels) {
            clusters.entry(owner).or_default().networks.push(network);
        }
    }
    Ok(clusters)
}

/// Everybody who has objects under `uid`: one cluster, unless somebody has made labels by hand.
///
/// # Errors
/// As [`observe`].
pub async fn owners<E: Engine>(engine: &E, uid: &str) -> Result<Vec<Identity>> {
    let scope = Scope::Labels(vec![label::INSTANCE.to_owned(), format!("{}={uid}", label::OWNER)]);
    let found = lists(engine, &scope).await?;
    let containers = found.containers.iter().map(|c| &c.labels);
    let labels = containers
        .chain(found.volumes.iter().map(|v| &v.labels))
        .chain(found.networks.iter().map(|n| &n.labels));
    let all: BTreeSet<Identity> = labels.filter_map(|labels| owner(None, labels)).collect();
    Ok(all.into_iter().filter(|owner| owner.uid == uid).collect())
}

/// The three lists at once, in an order of their own, so that the same world looks the same.
async fn lists<E: Engine>(engine: &E, scope: &Scope) -> Result<Observed> {
    let (mut containers, mut volumes, mut networks): (Vec<Container>, Vec<Volume>, Vec<Network>) = tokio::try_join!(
        engine.list_containers(scope),
        engine.list_volumes(scope),
        engine.list_networks(scope)
    )?;
    containers.sort_by(|a, b| a.name.cmp(&b.name));
    volumes.sort_by(|a, b| a.name.cmp(&b.name));
    networks.sort_by(|a, b| (&a.name, a.created, &a.id).cmp(&(&b.name, b.created, &b.id)));
    Ok(Observed { containers, volumes, networks, loaded: None, nodes: None, data: None })
}

/// Whose object this is, if it is `instance`'s, or anybody's where none is given.
fn owner(instance: Option<&str>, labels: &BTreeMap<String, String>) -> Option<Identity> {
    let made_by = labels.get(label::INSTANCE)?;
    let is_ours = labels.contains_key(label::OWNER) && instance.is_none_or(|wanted| wanted == made_by);
    is_ours.then(|| Identity::of_labels(labels))
}
