//! One reconciliation of one cluster: dereference → step → publish → status.
//!
//! Whatever goes wrong on the way, the report is written; what could not be seen through is
//! retried with the cluster's own back-off.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use kube::{
    ResourceExt,
    runtime::{
        controller::Action,
        finalizer::{Error as FinalizerError, Event as Turn, finalizer},
        reflector::ObjectRef,
    },
};

use super::{
    adoption,
    backend::Backend,
    cleanup::cleanup,
    context::{Context, namespace, now},
    error::{Next, ReconcileError, host_message, is_gone},
    metrics::Result as Label,
    publish,
    published::Owner,
    reference::dereference,
    status,
};
use crate::{
    api::{
        Blocked, FINALIZER, Identity, K3sCluster, K3sClusterStatus, RECOVER_ANNOTATION, Reason, condition,
        validate::check_spec,
    },
    plan::{Acting, Adopter, InternalAccess, Recover, Values},
    reconcile::{Import, Outcome, Request, WAITING},
};

/// The slow net under all events.
const RESYNC: Duration = Duration::from_secs(600);

/// When an address for Pods is looked for again where none was found: nobody tells when a firewall
/// opens.
const LOOK_FOR_ADDRESS: Duration = Duration::from_secs(60);

/// Reconciles `cluster`, with the finalizer around it.
///
/// # Errors
/// Never for what is wrong with the cluster, which is in its report; only where something could
/// not be asked or written. [`retry`] says when to come back.
pub async fn reconcile<B: Backend>(
    cluster: Arc<K3sCluster>,
    ctx: Arc<Context<B>>,
) -> Result<Action, ReconcileError> {
    let started = Instant::now();
    // Waits are kept by the resource, whatever it adopts.
    let uid = ctx.identity(&cluster).uid;
    let result = finalizer(&ctx.clusters(&cluster), FINALIZER, cluster.clone(), |turn| async {
        match turn {
            Turn::Apply(cluster) => {
                ctx.backoff.begin(&uid);
                apply(&cluster, &ctx).await.map(|next| action(next, &ctx, &uid))
            }
            Turn::Cleanup(cluster) => {
                ctx.backoff.begin(&uid);
                cleanup(&cluster, &ctx).await.map(|()| Action::await_change())
            }
        }
    })
    .await;
    ctx.metrics.reconciled(started.elapsed());
    let result = result.or_else(unwrapped);
    if let Err(error) = &result {
        ctx.metrics.count(Label::Error, error.label());
    }
    result
}

/// What the controller does after an error.
pub fn retry<B: Backend>(cluster: Arc<K3sCluster>, error: &ReconcileError, ctx: Arc<Context<B>>) -> Action {
    let identity = ctx.identity(&cluster);
    let wait = ctx.backoff.failed(&identity.uid);
    tracing::warn!(cluster = %identity, %error, wait_ms = wait.as_millis(), "not done, will be retried");
    Action::requeue(wait)
}

fn unwrapped(error: FinalizerError<ReconcileError>) -> Result<Action, ReconcileError> {
    match error {
        FinalizerError::ApplyFailed(error) | FinalizerError::CleanupFailed(error) => Err(error),
        // Deleted in the meantime: nothing is left to do.
        FinalizerError::AddFinalizer(error) | FinalizerError::RemoveFinalizer(error) if is_gone(&error) => {
            Ok(Action::await_change())
        }
        FinalizerError::AddFinalizer(error) | FinalizerError::RemoveFinalizer(error) => {
            Err(ReconcileError::Finalizer(host_message(&error)))
        }
        other => Err(ReconcileError::Finalizer(other.to_string())),
    }
}

fn action<B: Backend>(next: Next, ctx: &Context<B>, uid: &str) -> Action {
    if next == Next::BackOff {
        return Action::requeue(ctx.backoff.failed(uid));
    }
    if ctx.backoff.reset(uid) {
        // Something happened meanwhile, maybe behind the back of what was looked at.
        return Action::requeue(Duration::ZERO);
    }
    match next {
        Next::After(wait) => Action::requeue(wait.min(RESYNC)),
        // Spread, so that clusters that started together do not stay together.
        _ => Action::requeue(RESYNC.mul_f64(rand::random_range(0.9..=1.1))),
    }
}

async fn apply<B: Backend>(cluster: &K3sCluster, ctx: &Arc<Context<B>>) -> Result<Next, ReconcileError> {
    let former = ctx.former(cluster);
    let generation = cluster.metadata.generation;
    if cluster.spec.paused {
        status::write(ctx, cluster, &former, &status::paused(&former, generation, now())).await?;
        ctx.metrics.count(Label::Ok, Reason::Paused.as_str());
        return Ok(Next::Resync);
    }
    let own = ctx.identity(cluster);
    let uid = own.uid.clone();
    let acting = adoption::acting(cluster, ctx).await;
    let Acting { identity, adopter } = acting.clone().unwrap_or(Acting { identity: own, adopter: None });
    let owner = Owner::new(identity, uid);
    let prepared = match &acting {
        Ok(_) => prepare(cluster, ctx, &owner).await?,
        Err(blocked) => Err(blocked.clone()),
    };
    let (inputs, existing) = match prepared {
        Ok((inputs, existing)) => (Ok(inputs), Some(existing)),
        Err(blocked) => (Err(blocked), None),
    };
    let request = request(cluster, ctx, (owner.identity.clone(), adopter), inputs, &former);
    let mut outcome = ctx.backend.step(&request, now()).await;
    begin_imports(cluster, ctx, std::mem::take(&mut outcome.imports));
    ctx.nested.follow(cluster, &outcome, &ctx.wake);

    let published = match existing {
        Some(existing) => publish::publish(ctx, &owner, existing, &outcome).await,
        // Blocked before anything was looked at: what was published stays as it was.
        None => Ok(publish::Published {
            secret: former.kubeconfig_secret_ref.is_some(),
            internal_url: former.internal_endpoint.clone(),
            unreachable: None,
        }),
    };
    if let Ok(published) = &published {
        status::complete(&mut outcome.status, &owner.identity.name, published, now());
    } else {
        outcome.status.kubeconfig_secret_ref = former.kubeconfig_secret_ref.clone();
        outcome.status.internal_endpoint = former.internal_endpoint.clone();
    }
    outcome.status.observed_generation = generation;
    status::tell_adoption(&mut outcome.status, cluster, &acting, now());
    status::write(ctx, cluster, &former, &outcome.status).await?;
    let published = published?;

    count(ctx, &outcome.status);
    Ok(next(&outcome, &published))
}

/// Imports go on beside the steps to come: they may take minutes, and a cluster that is deleted must
/// not wait for them. They end by themselves when the containers do.
fn begin_imports<B: Backend>(cluster: &K3sCluster, ctx: &Arc<Context<B>>, imports: Vec<Import>) {
    if imports.is_empty() {
        return;
    }
    let (ctx, key) = (ctx.clone(), ObjectRef::from_obj(cluster));
    tokio::spawn(async move {
        for import in imports {
            let failed = ctx.backend.import(import).await;
            ctx.metrics.imported(failed);
        }
        ctx.wake.up(key).await;
    });
}

/// What a step needs, and what is published already.
type Inputs = ((Values, InternalAccess), publish::Existing);

/// Everything that is found out before the step. The outer error is ours to retry, the inner one
/// is what the report says.
async fn prepare<B: Backend>(
    cluster: &K3sCluster,
    ctx: &Context<B>,
    owner: &Owner,
) -> Result<Result<Inputs, Blocked>, ReconcileError> {
    if let Err(blocked) = valid(cluster, ctx) {
        return Ok(Err(blocked));
    }
    let values = match dereference(&ctx.client, &namespace(cluster), &cluster.spec).await? {
        Ok(values) => values,
        Err(blocked) => return Ok(Err(blocked)),
    };
    let existing = match publish::gather(&ctx.client, owner).await? {
        Ok(existing) => existing,
        Err(blocked) => return Ok(Err(blocked)),
    };
    Ok(match ctx.backend.internal().await {
        Ok(internal) => Ok(((values, internal), existing)),
        Err(error) => Err(Blocked::new(Reason::EngineUnavailable, format!("{error}; {WAITING}"))),
    })
}

/// Step "validate": what the schema cannot say.
fn valid<B: Backend>(cluster: &K3sCluster, ctx: &Context<B>) -> Result<(), Blocked> {
    let problems = check_spec(&cluster.spec, &ctx.policy);
    if problems.is_empty() {
        return Ok(());
    }
    let only_host_paths = problems.iter().all(|problem| problem.field.ends_with(".hostPath"));
    let reason = if only_host_paths { Reason::HostPathDenied } else { Reason::InvalidSpec };
    let message = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    Err(Blocked::new(reason, message))
}

fn request<B: Backend>(
    cluster: &K3sCluster,
    ctx: &Context<B>,
    (identity, adopter): (Identity, Option<Adopter>),
    inputs: Result<(Values, InternalAccess), Blocked>,
    former: &K3sClusterStatus,
) -> Request {
    let (values, internal) = match inputs {
        Ok((values, internal)) => (Ok(values), internal),
        Err(blocked) => (Err(blocked), InternalAccess::None),
    };
    Request {
        identity,
        spec: cluster.spec.clone(),
        generation: cluster.metadata.generation,
        values,
        settings: ctx.settings.clone(),
        internal,
        former: former.clone(),
        recover: recover(cluster),
        adopter,
        keep_spec: None,
    }
}

/// The wish to recover from a lost quorum: a nonce, and behind a colon the Node whose data is to be kept,
/// if it is not to be the one that was written to last.
fn recover(cluster: &K3sCluster) -> Option<Recover> {
    let wish = cluster.annotations().get(RECOVER_ANNOTATION).filter(|wish| !wish.is_empty())?;
    Some(match wish.split_once(':') {
        Some((nonce, from)) => Recover { nonce: nonce.into(), from: Some(from.into()) },
        None => Recover { nonce: wish.clone(), from: None },
    })
}

/// When to come back. Trouble is retried with back-off, but for what only a changed spec, Secret
/// or ConfigMap can mend: their watches tell.
fn next(outcome: &Outcome, published: &publish::Published) -> Next {
    let watched =
        [Reason::InvalidSpec, Reason::HostPathDenied, Reason::ReferenceMissing, Reason::AdoptionInvalid];
    let images = [Reason::ImageMissing, Reason::NodeOutOfSpace];
    let is = |reasons: &[Reason], word: &str| reasons.iter().any(|reason| reason.as_str() == word);
    match trouble(&outcome.status) {
        _ if outcome.held_up => Next::BackOff,
        Some(reason) if is(&watched, reason) => Next::Resync,
        // The step knows when the next try is due; what comes into Docker is told.
        Some(reason) if is(&images, reason) => outcome.recheck.map_or(Next::Resync, Next::After),
        Some(_) => Next::BackOff,
        None => match outcome.recheck {
            Some(wait) => Next::After(wait),
            None if published.unreachable.is_some() => Next::After(LOOK_FOR_ADDRESS),
            None => Next::Resync,
        },
    }
}

/// The reason why a cluster does not go on by itself, if so.
fn trouble(status: &K3sClusterStatus) -> Option<&str> {
    let engine = [Reason::EngineUnavailable, Reason::EngineError];
    let find = |type_: &str| status.conditions.iter().find(|c| c.type_ == type_);
    let stalled = find(condition::STALLED).filter(|c| c.status == "True");
    let engine_trouble = find(condition::READY)
        .filter(|c| c.status != "True" && engine.iter().any(|reason| reason.as_str() == c.reason));
    stalled.or(engine_trouble).map(|c| c.reason.as_str())
}

fn count<B: Backend>(ctx: &Context<B>, status: &K3sClusterStatus) {
    let reason =
        status.conditions.iter().find(|c| c.type_ == condition::READY).map_or("", |c| c.reason.as_str());
    if trouble(status).is_some() {
        ctx.metrics.count(Label::Blocked, reason);
    } else {
        ctx.metrics.count(Label::Ok, reason);
    }
    if [Reason::EngineUnavailable, Reason::EngineError].iter().any(|r| r.as_str() == reason) {
        ctx.metrics.engine_failed("step");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_to_recover_is_a_word_and_maybe_a_node() {
        let wish = |value: &str| {
            let mut cluster = K3sCluster::new("dev", Default::default());
            cluster.annotations_mut().insert(RECOVER_ANNOTATION.into(), value.into());
            recover(&cluster).map(|wish| (wish.nonce, wish.from))
        };
        assert_eq!(wish("a"), Some(("a".into(), None)));
        assert_eq!(wish("a:dev-server-1"), Some(("a".into(), Some("dev-server-1".into()))));
        assert_eq!(wish(""), None);
        assert_eq!(recover(&K3sCluster::new("dev", Default::default())), None);
    }
}
