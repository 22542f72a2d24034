//! Docker's events wake the clusters they belong to.
//!
//! The connection is kept up with a back-off of its own. After a lost one every cluster is looked
//! at once, since nobody knows what was missed, and each stream begins with what has happened since
//! Docker was asked for its time, before that look: nothing falls in between.

use std::{pin::pin, sync::Arc, time::Duration};

use futures::{Stream, StreamExt};
use jiff::{SignedDuration, Timestamp};
use kube::runtime::reflector::{ObjectRef, Store};
use tokio::{sync::mpsc, time::Instant};

use super::{backend::Backend, backoff::BackOff, context::Context, server::Health};
use crate::{
    api::{Identity, K3sCluster, Reason, Role, condition, label},
    engine::{EngineError, EngineEvent},
    plan::{InternalAccess, image_name, image_repository},
};

/// A stream that lasted so long was one; one that ends sooner was refused, and the back-off grows.
const LASTED: Duration = Duration::from_secs(5);

/// A stream that brings nothing for so long may be dead without anybody being told, after a lost
/// machine or a proxy: it is asked for again, from where it was. Docker remembers 256 events of
/// whatever kind: on a host where more happens in this time, the slow resync is the net.
const SILENCE: Duration = Duration::from_secs(30);

/// At the start the first list wakes every cluster, which may be looked at before Docker's time is
/// asked for: what happened a little earlier is heard, too.
const START: SignedDuration = SignedDuration::from_secs(60);

/// How often Docker is asked at least whether it is back. To ask a socket that nobody listens at costs
/// nothing, and every cluster waits for the answer.
const LONGEST_AWAY: Duration = Duration::from_secs(5);

/// What wakes clusters. The buffer bounds memory in a storm; a full one holds the reader back, and
/// Docker buffers or drops the connection, which ends in a look at everything.
pub(super) const BUFFER: usize = 256;

/// Receives events for ever and sends the clusters they belong to.
pub(super) async fn follow<B: Backend>(
    ctx: Arc<Context<B>>,
    clusters: Store<K3sCluster>,
    health: Arc<Health>,
    wake: mpsc::Sender<ObjectRef<K3sCluster>>,
) {
    let waits = BackOff::up_to(LONGEST_AWAY);
    let mut told_of_loss = true;
    let mut lost = false;
    loop {
        match ctx.backend.connect().await {
            Err(error) => {
                ctx.metrics.engine_failed("connect");
                tracing::warn!(%error, "Docker does not answer, will be retried");
                if !std::mem::replace(&mut told_of_loss, true) {
                    wake_all(&clusters, &wake).await;
                }
                // Also at the start: who has met no Docker waits, and is to hear of it.
                lost = true;
                set_connected(&ctx, &health, false);
            }
            Ok(now) => {
                told_of_loss = false;
                set_connected(&ctx, &health, true);
                let mut heard = match lost {
                    false => now.saturating_sub(START).unwrap_or(now),
                    true => {
                        wake_all(&clusters, &wake).await;
                        now
                    }
                };
                lost = true;
                let began = Instant::now();
                let end = listen(&ctx.backend, &mut heard, &clusters, &ctx.backoff, &wake).await;
                if began.elapsed() >= LASTED {
                    waits.reset("");
                }
                let End::Lost(error) = end else { return };
                ctx.metrics.engine_failed("events");
                let error = error.map(|error| error.to_string());
                tracing::warn!(error, "Docker's events ended");
                set_connected(&ctx, &health, false);
            }
        }
        tokio::time::sleep(waits.failed("")).await;
    }
}

fn set_connected<B>(ctx: &Context<B>, health: &Health, connected: bool) {
    health.engine(connected);
    ctx.metrics.set_engine_connected(connected);
}

/// One stream after the other, as long as Docker is there. A daemon that hangs, or a socket that is
/// forwarded to nowhere, is silent like one to which nothing happens: so it is asked.
async fn listen<B: Backend>(
    backend: &B,
    heard: &mut Timestamp,
    clusters: &Store<K3sCluster>,
    backoff: &BackOff,
    wake: &mpsc::Sender<ObjectRef<K3sCluster>>,
) -> End {
    loop {
        match hear(backend, backend.events(*heard), heard, clusters, backoff, wake).await {
            End::Silent => {
                if let Err(error) = backend.ping().await {
                    return End::Lost(Some(error));
                }
            }
            end => return end,
        }
    }
}

/// Why a stream is heard no longer.
#[derive(Debug)]
enum End {
    /// It brought nothing for [`SILENCE`].
    Silent,
    /// The connection ended.
    Lost(Option<EngineError>),
    /// Nobody is there to be woken.
    Over,
}

/// One connection, until it ends. `heard` follows what it told, in the engine's time.
async fn hear<B: Backend>(
    backend: &B,
    events: impl Stream<Item = Result<EngineEvent, EngineError>>,
    heard: &mut Timestamp,
    clusters: &Store<K3sCluster>,
    backoff: &BackOff,
    wake: &mpsc::Sender<ObjectRef<K3sCluster>>,
) -> End {
    let mut events = pin!(events);
    loop {
        let event = match tokio::time::timeout(SILENCE, events.next()).await {
            Err(_) => return End::Silent,
            Ok(None) => return End::Lost(None),
            Ok(Some(Err(error))) => return End::Lost(Some(error)),
            Ok(Some(Ok(event))) => event,
        };
        if let Some(at) = event.at {
            // The next one: Docker tells of what happened at that very moment, too.
            *heard = at.saturating_add(SignedDuration::from_nanos(1)).unwrap_or(at).max(*heard);
        }
        let event = match attributed(event, clusters, backend).await {
            Ok(event) => event,
            // It might matter to anybody.
            Err(error) => return End::Lost(Some(error)),
        };
        for cluster in woken_by(&event, clusters, backoff) {
            tracing::debug!(?event, %cluster, "wakes");
            if wake.send(cluster).await.is_err() {
                return End::Over;
            }
        }
    }
}

/// The event with the owner of the container that left a network which is no cluster's own: the host
/// cluster's, in which load balancers are guests, or one that clusters have joined. Its name tells nobody.
async fn attributed<B: Backend>(
    event: EngineEvent,
    clusters: &Store<K3sCluster>,
    backend: &B,
) -> Result<EngineEvent, EngineError> {
    let left = (event.kind == "network" && event.action == "disconnect").then(|| event.container.clone());
    let Some(container) = left.flatten() else { return Ok(event) };
    let joined = |cluster: &K3sCluster| {
        let network = cluster.spec.network.as_ref().and_then(|network| network.name.as_ref());
        network == Some(&event.name)
    };
    let is_shared = clusters.find(joined).is_some()
        || backend.internal().await? == InternalAccess::Join { network: event.name.clone() };
    if !is_shared {
        return Ok(event);
    }
    let mut labels = backend.container(&container).await?.map(|found| found.labels).unwrap_or_default();
    Ok(EngineEvent { owner: labels.remove(label::OWNER), ..event })
}

async fn wake_all(clusters: &Store<K3sCluster>, wake: &mpsc::Sender<ObjectRef<K3sCluster>>) {
    for cluster in clusters.state() {
        if wake.send(ObjectRef::from_obj(cluster.as_ref())).await.is_err() {
            return;
        }
    }
}

/// The clusters that an event matters to.
///
/// A cluster that waits after a failure is left to its back-off, and one that is at it hears of it
/// afterwards: its own tries cause events, too. But one that waits for an image is told of every image that
/// comes, and one that lists images of what becomes of those.
fn woken_by(
    event: &EngineEvent,
    clusters: &Store<K3sCluster>,
    backoff: &BackOff,
) -> Vec<ObjectRef<K3sCluster>> {
    let found = if event.kind == "image" {
        clusters.state_filter(|cluster| {
            lists_image(cluster, event) || (brings_image(event) && wants_image(cluster))
        })
    } else if matters(event) {
        owner_of(event, clusters)
            .filter(|cluster| backoff.wakes(cluster.metadata.uid.as_deref().unwrap_or_default()))
            .into_iter()
            .collect()
    } else {
        Vec::new()
    };
    found.iter().map(|cluster| ObjectRef::from_obj(cluster.as_ref())).collect()
}

/// Container events carry the label, and it was asked for where needed; the names of volumes and networks
/// end in the suffix.
fn owner_of(event: &EngineEvent, clusters: &Store<K3sCluster>) -> Option<Arc<K3sCluster>> {
    match &event.owner {
        Some(owner) => clusters.find(|cluster| uids(cluster).contains(&owner.as_str())),
        None => {
            let (_, tail) = event.name.rsplit_once('-')?;
            clusters.find(|cluster| uids(cluster).into_iter().any(|uid| suffix(uid) == tail))
        }
    }
}

fn brings_image(event: &EngineEvent) -> bool {
    matches!(event.action.as_str(), "pull" | "load" | "tag" | "import")
}

/// Whether the event may change what one of `spec.images` is. A tag that is set is named, a pull
/// names the repository; everything else tells the image's ID alone, and may be any of them.
fn lists_image(cluster: &K3sCluster, event: &EngineEvent) -> bool {
    let name = event.name.as_str();
    let meant = |image: &String| match event.action.as_str() {
        "tag" => image_name(image) == image_name(name),
        "pull" => image_repository(image) == image_repository(name),
        action => matches!(action, "load" | "import" | "untag" | "delete"),
    };
    cluster.spec.images.iter().any(meant)
}

fn wants_image(cluster: &K3sCluster) -> bool {
    let conditions = cluster.status.iter().flat_map(|status| &status.conditions);
    conditions
        .into_iter()
        .any(|c| c.type_ == condition::READY && c.reason == Reason::ImageUnavailable.as_str())
}

/// Whether what happened can change what there is to do. Execs, health checks and mounts cannot, nor can
/// probes: who runs one knows when it ends, and one that is left behind is looked for when its time is over.
fn matters(event: &EngineEvent) -> bool {
    match event.kind.as_str() {
        "container" if event.role.as_deref() == Some(Role::Probe.as_str()) => false,
        "container" => {
            matches!(
                event.action.as_str(),
                "start" | "die" | "oom" | "destroy" | "pause" | "unpause" | "rename" | "update"
            )
        }
        "volume" => event.action == "destroy",
        "network" => matches!(event.action.as_str(), "destroy" | "disconnect"),
        _ => false,
    }
}

/// The uids that its objects may carry: its own, and the one that it adopts.
fn uids(cluster: &K3sCluster) -> [&str; 2] {
    [cluster.docker_uid(), cluster.metadata.uid.as_deref().unwrap_or_default()]
}

fn suffix(uid: &str) -> String {
    let uid = uid.to_owned();
    Identity { instance: String::new(), uid, namespace: String::new(), name: String::new() }.suffix()
}

#[cfg(test)]
mod tests;
