//! Deletion: the finalizer is let go only when nothing of the cluster is left in Docker, or when a
//! person says so.

use kube::{ResourceExt, runtime::events::EventType};

use super::{
    adoption,
    backend::Backend,
    context::{Context, now},
    error::ReconcileError,
    metrics::Result as Label,
    status::{announce, deleting, write},
};
use crate::{
    api::{ABANDON_ANNOTATION, Blocked, K3sCluster, Phase, Reason, label},
    engine::EngineError,
    plan::Keeper,
    reconcile::{Removal, WAITING},
};

/// How many of the remaining objects a condition or Event names.
const NAMED: usize = 10;

/// Removes everything of `cluster`. Works whatever its spec says.
///
/// # Errors
/// As long as something is left, or it is not known whether something is: the finalizer stays.
pub(super) async fn cleanup<B: Backend>(
    cluster: &K3sCluster,
    ctx: &Context<B>,
) -> Result<(), ReconcileError> {
    let identity = ctx.identity(cluster);
    ctx.nested.forget(&identity.uid);
    if ctx.former(cluster).phase != Phase::Deleting {
        report(
            cluster,
            ctx,
            Blocked::new(Reason::Deleting, "its containers, volumes and network are removed"),
        )
        .await?;
    }
    let result = remove(cluster, ctx).await;
    if let Err(error) = &result {
        ctx.metrics.engine_failed("remove");
        tracing::warn!(cluster = %identity, %error, "cannot be removed");
    }
    match result {
        Ok(Removal::Gone | Removal::Kept(_)) => {}
        result if abandoned(cluster) => say_what_stays(cluster, ctx, &result).await,
        Ok(Removal::Remaining(left)) => {
            let left = listed(&left);
            report(cluster, ctx, Blocked::new(Reason::Deleting, format!("still there: {left}"))).await?;
            return Err(ReconcileError::Remaining(left));
        }
        Err(Held::Elsewhere(blocked)) => {
            let message = blocked.message.clone();
            report(cluster, ctx, blocked).await?;
            return Err(ReconcileError::Elsewhere(message));
        }
        Err(Held::Engine(error)) => {
            report(cluster, ctx, away(&error)).await?;
            return Err(error.into());
        }
    }
    ctx.backoff.reset(&identity.uid);
    ctx.written.forget(&identity.uid);
    ctx.metrics.count(Label::Ok, Reason::Deleting.as_str());
    tracing::info!(cluster = %identity, "removed");
    Ok(())
}

/// Why nothing could be removed.
#[derive(Debug, thiserror::Error)]
enum Held {
    /// The cluster lives on another engine: that nothing of it is here says nothing.
    #[error("{0}")]
    Elsewhere(Blocked),
    /// Docker could not be asked.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Removes what is its own, and what it has adopted.
async fn remove<B: Backend>(cluster: &K3sCluster, ctx: &Context<B>) -> Result<Removal, Held> {
    if let Some(recorded) = ctx.former(cluster).engine_id {
        let here = ctx.backend.engine_id().await?;
        if here != recorded {
            return Err(Held::Elsewhere(elsewhere(&recorded, &here)));
        }
    }
    let mut remaining = Vec::new();
    for acting in adoption::going(cluster, ctx).await? {
        match ctx.backend.remove(&acting).await? {
            Removal::Gone => {}
            Removal::Remaining(left) => remaining.extend(left),
            Removal::Kept(Keeper { instance, uid }) => {
                let note = format!(
                    "nothing of owner {} is removed: it was adopted, and the resource {uid} of instance {instance} looks after it",
                    acting.identity.uid
                );
                tracing::info!(cluster = %acting.identity, note, "let go");
                announce(ctx, cluster, None, EventType::Normal, "LetGo", note).await;
            }
        }
    }
    Ok(if remaining.is_empty() { Removal::Gone } else { Removal::Remaining(remaining) })
}

fn elsewhere(recorded: &str, here: &str) -> Blocked {
    Blocked::new(
        Reason::EngineMismatch,
        format!(
            "the cluster lives on Docker engine {recorded}, and this is {here}: deletion waits for that engine; to let go of it and leave its objects behind, annotate it with {ABANDON_ANNOTATION}=true"
        ),
    )
}

fn abandoned(cluster: &K3sCluster) -> bool {
    cluster.annotations().get(ABANDON_ANNOTATION).is_some_and(|value| value == "true")
}

fn away(error: &EngineError) -> Blocked {
    Blocked::new(
        Reason::EngineUnavailable,
        format!(
            "deletion waits for Docker: {error}; {WAITING}; to let go of it and leave its objects behind, annotate it with {ABANDON_ANNOTATION}=true"
        ),
    )
}

async fn report<B: Backend>(
    cluster: &K3sCluster,
    ctx: &Context<B>,
    blocked: Blocked,
) -> Result<(), ReconcileError> {
    let former = ctx.former(cluster);
    let status = deleting(&former, cluster.metadata.generation, &blocked, now());
    write(ctx, cluster, &former, &status).await
}

/// The last word about an abandoned cluster: what of it stays.
async fn say_what_stays<B: Backend>(cluster: &K3sCluster, ctx: &Context<B>, result: &Result<Removal, Held>) {
    let note = match result {
        Ok(Removal::Gone | Removal::Kept(_)) => return,
        Ok(Removal::Remaining(left)) => format!("abandoned; these stay in Docker: {}", listed(left)),
        Err(error) => format!(
            "abandoned; what stays in Docker could not be listed ({error}); find it by the label {}={}",
            label::OWNER,
            cluster.docker_uid()
        ),
    };
    tracing::warn!(cluster = %ctx.identity(cluster), note, "let go");
    announce(ctx, cluster, None, EventType::Warning, "Abandoned", note).await;
}

fn listed(left: &[String]) -> String {
    let named = left.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    match left.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_is_bounded() {
        let left: Vec<_> = (0..12).map(|i| format!("v{i}")).collect();
        assert!(listed(&left).ends_with("v9 and 2 more"));
        assert_eq!(listed(&left[..1]), "v0");
    }
}
