//! Who a cluster is in Docker: itself, or whom its annotation names.
//!
//! Labels of Docker objects cannot be changed, so a resource that was created again acts under the
//! identity that they carry, for good. Nothing is done under it before it was found out that it may.

use kube::{ResourceExt, runtime::reflector::Store};

use super::{backend::Backend, context::Context};
use crate::{
    api::{ADOPT_ANNOTATION, Blocked, K3sCluster, K3sClusterStatus, Reason, adopts, adopts_from, condition},
    engine::EngineError,
    plan::{Acting, Keeper, Wanted, adopt, adopted_by, engine_mismatch},
    reconcile::WAITING,
};

/// Who `cluster` is in Docker. One list is asked for, and only where the annotation is.
///
/// # Errors
/// Where it may not adopt what it names, or that cannot be found out now.
pub(super) async fn acting<B: Backend>(cluster: &K3sCluster, ctx: &Context<B>) -> Result<Acting, Blocked> {
    let Some(owner) = adopts(&cluster.metadata) else {
        refuse_forgotten(&ctx.former(cluster))?;
        return Ok(Acting { identity: ctx.identity(cluster), adopter: None });
    };
    if let Some(rival) = ctx.clusters_known().and_then(|known| rival(cluster, owner, known)) {
        return Err(rival);
    }
    let away = |e: EngineError| Blocked::new(Reason::EngineUnavailable, format!("{e}; {WAITING}"));
    let adopted = adoption(cluster, owner, ctx).await.map_err(away)?;
    // On another engine than before, that nothing is there says nothing.
    match (is_not_found(&adopted), ctx.former(cluster).engine_id) {
        (true, Some(recorded)) => {
            let here = ctx.backend.engine_id().await.map_err(away)?;
            if here == recorded { adopted } else { Err(engine_mismatch(&recorded, &here)) }
        }
        _ => adopted,
    }
}

fn is_not_found(adopted: &Result<Acting, Blocked>) -> bool {
    matches!(adopted, Err(blocked) if blocked.reason == Reason::AdoptionNotFound)
}

/// What comes of the annotation, which names `owner`.
async fn adoption<B: Backend>(
    cluster: &K3sCluster,
    owner: &str,
    ctx: &Context<B>,
) -> Result<Result<Acting, Blocked>, EngineError> {
    let own = ctx.identity(cluster);
    let wanted = Wanted { owner, from: adopts_from(&cluster.metadata) };
    let is_gone = |keeper: &Keeper| is_gone(keeper, ctx);
    let records = ctx.backend.records().await?;
    let adopted = adopt(&own, wanted, &records, &[], is_gone);
    if !is_not_found(&adopted) {
        return Ok(adopted);
    }
    // Somebody may have taken the record alone, as docker volume prune does.
    let left = ctx.backend.owners(owner).await?;
    Ok(adopt(&own, wanted, &records, &left, is_gone))
}

/// Whether a keeper of this API server exists no more.
fn is_gone<B: Backend>(keeper: &Keeper, ctx: &Context<B>) -> bool {
    let is = |cluster: &K3sCluster| cluster.metadata.uid.as_ref() == Some(&keeper.uid);
    keeper.instance == ctx.instance && ctx.clusters_known().is_some_and(|known| known.find(is).is_none())
}

/// Without the annotation its objects are not found, and it would seem to have lost them.
fn refuse_forgotten(former: &K3sClusterStatus) -> Result<(), Blocked> {
    match former.conditions.iter().find(|c| c.type_ == condition::ADOPTED && c.status == "True") {
        None => Ok(()),
        Some(adopted) => Err(Blocked::new(
            Reason::AdoptionConflict,
            format!("the annotation {ADOPT_ANNOTATION} is gone: put it back; {}", adopted.message),
        )),
    }
}

/// Everybody whose objects go with `cluster`: its own, and those that it has adopted.
///
/// # Errors
/// Where Docker does not say.
pub(super) async fn going<B: Backend>(
    cluster: &K3sCluster,
    ctx: &Context<B>,
) -> Result<Vec<Acting>, EngineError> {
    let identity = ctx.identity(cluster);
    let mut going = vec![Acting { identity, adopter: None }];
    let has_adopted = has_adopted(&ctx.former(cluster));
    match adopts(&cluster.metadata) {
        Some(owner) if has_adopted => {
            if ctx.clusters_known().and_then(|known| rival(cluster, owner, known)).is_none() {
                going.extend(adoption(cluster, owner, ctx).await?);
            }
        }
        None if !has_adopted => {}
        // What is only asked for was not adopted, unless the record says so.
        _ => going.extend(adopted_by(&going[0].identity, &ctx.backend.records().await?)),
    }
    Ok(going)
}

/// Who among the clusters of this API server has the uid `wanted`, or has adopted it already.
fn rival(cluster: &K3sCluster, wanted: &str, known: &Store<K3sCluster>) -> Option<Blocked> {
    let has = |other: &K3sCluster| {
        other.metadata.uid.as_deref() == Some(wanted)
            || (adopts(&other.metadata) == Some(wanted) && other.status.as_ref().is_some_and(has_adopted))
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

fn has_adopted(status: &K3sClusterStatus) -> bool {
    status.conditions.iter().any(|c| c.type_ == condition::ADOPTED && c.status == "True")
}
