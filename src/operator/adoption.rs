//! Who a cluster is in Docker: itself, or whom its annotation names.
//!
//! Labels of Docker objects cannot be changed, so a resource that was created again acts under the
//! identity that they carry, for good. Nothing is done under it before it was found out that it may.

use kube::{ResourceExt, runtime::reflector::Store};

use super::{backend::Backend, context::Context};
use crate::{
    api::{ADOPT_ANNOTATION, Blocked, Identity, K3sCluster, Reason, adopts, condition},
    engine::EngineError,
    plan::adopt,
};

/// Who `cluster` is in Docker. One list is asked for, and only where the annotation is.
///
/// # Errors
/// Where it may not adopt what it names, or that cannot be found out now.
pub(super) async fn identity<B: Backend>(
    cluster: &K3sCluster,
    ctx: &Context<B>,
) -> Result<Identity, Blocked> {
    let own = ctx.identity(cluster);
    let Some(wanted) = adopts(&cluster.metadata) else { return Ok(own) };
    if let Some(rival) = ctx.clusters_known().and_then(|known| rival(cluster, wanted, known)) {
        return Err(rival);
    }
    let records = ctx.backend.records().await;
    adopt(&own, wanted, &records.map_err(|e| Blocked::new(Reason::EngineUnavailable, e.to_string()))?)
}

/// Everybody whose objects go with `cluster`: its own, and those that it adopts.
///
/// # Errors
/// Where Docker does not say.
pub(super) async fn going<B: Backend>(
    cluster: &K3sCluster,
    ctx: &Context<B>,
) -> Result<Vec<Identity>, EngineError> {
    let own = ctx.identity(cluster);
    let mut going = vec![own.clone()];
    let Some(wanted) = adopts(&cluster.metadata) else { return Ok(going) };
    if ctx.clusters_known().and_then(|known| rival(cluster, wanted, known)).is_some() {
        return Ok(going);
    }
    match adopt(&own, wanted, &ctx.backend.records().await?) {
        Ok(adopted) => going.push(adopted),
        // The record goes last, but somebody else may have taken it first.
        Err(blocked) if blocked.reason == Reason::AdoptionNotFound => {
            let left = ctx.backend.owners(wanted).await?;
            going.extend(left.into_iter().filter(|left| may_be_adopted(left, &own)));
        }
        Err(_) => {}
    }
    Ok(going)
}

fn may_be_adopted(left: &Identity, own: &Identity) -> bool {
    left.instance != crate::api::STANDALONE && (&left.namespace, &left.name) == (&own.namespace, &own.name)
}

/// Who among the clusters of this API server has the uid `wanted`, or has adopted it already.
fn rival(cluster: &K3sCluster, wanted: &str, known: &Store<K3sCluster>) -> Option<Blocked> {
    let has = |other: &K3sCluster| {
        other.metadata.uid.as_deref() == Some(wanted)
            || (adopts(&other.metadata) == Some(wanted) && has_adopted(other))
    };
    let rival = known.find(|other| other.metadata.uid != cluster.metadata.uid && has(other))?;
    Some(Blocked::new(
        Reason::AdoptionConflict,
        format!(
            "annotation {ADOPT_ANNOTATION}: the objects of owner {wanted} are those of K3sCluster {}/{}; remove the annotation, or delete that resource",
            rival.namespace().unwrap_or_default(),
            rival.name_any()
        ),
    ))
}

fn has_adopted(cluster: &K3sCluster) -> bool {
    let conditions = cluster.status.iter().flat_map(|status| &status.conditions);
    conditions.into_iter().any(|c| c.type_ == condition::ADOPTED && c.status == "True")
}
