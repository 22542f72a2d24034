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
    api::{Identity, K3sCluster, Reason, condition},
    engine::{EngineError, EngineEvent},
    plan::{image_name, image_repository},
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
                let end = loop {
                    let events = ctx.backend.events(heard);
                    match hear(events, &mut heard, &clusters, &ctx.backoff, &wake).await {
                        End::Silent => {}
                        end => break end,
                    }
                };
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
async fn hear(
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
        for cluster in woken_by(&event, clusters, backoff) {
            tracing::debug!(?event, %cluster, "wakes");
            if wake.send(cluster).await.is_err() {
                return End::Over;
            }
        }
    }
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
/// afterwards: its own tries cause events, too. But one that waits for an image is told of every image that comes, and one that lists
/// images of what becomes of those.
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

/// Container events carry the label; the names of volumes and networks end in the suffix.
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

/// Whether what happened can change what there is to do. Execs, health checks and mounts cannot.
fn matters(event: &EngineEvent) -> bool {
    match event.kind.as_str() {
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
mod tests {
    use kube::runtime::{reflector, watcher};

    use super::*;
    use crate::api::{ADOPT_ANNOTATION, K3sClusterSpec, set_condition};

    const UID: &str = "12345678-9abc-4def-8000-000000000000";

    fn store(reason: Option<Reason>) -> Store<K3sCluster> {
        let (store, mut writer) = reflector::store();
        let spec: K3sClusterSpec =
            serde_json::from_value(serde_json::json!({"version": "v1.36.1+k3s1"})).unwrap();
        let mut cluster = K3sCluster::new("dev", spec);
        cluster.metadata.namespace = Some("team".into());
        cluster.metadata.uid = Some(UID.into());
        if let Some(reason) = reason {
            let status = cluster.status.get_or_insert_default();
            let now = jiff::Timestamp::UNIX_EPOCH;
            set_condition(&mut status.conditions, condition::READY, Some(false), reason, "", None, now);
        }
        writer.apply_watcher_event(&watcher::Event::Apply(cluster));
        store
    }

    fn event(kind: &str, action: &str, name: &str, owner: Option<&str>) -> EngineEvent {
        EngineEvent {
            kind: kind.into(),
            action: action.into(),
            name: name.into(),
            at: None,
            owner: owner.map(Into::into),
        }
    }

    fn wakes(event: &EngineEvent) -> bool {
        !woken_by(event, &store(None), &BackOff::up_to(LONGEST_AWAY)).is_empty()
    }

    #[test]
    fn containers_are_told_by_label_and_volumes_and_networks_by_name() {
        assert!(wakes(&event("container", "die", "any", Some(UID))));
        assert!(wakes(&event("volume", "destroy", "k3nest-team-dev-server-0-data-12345678", None)));
        assert!(wakes(&event("network", "disconnect", "k3nest-team-dev-12345678", None)));
        assert!(!wakes(&event("container", "die", "any", Some("another"))));
        assert!(!wakes(&event("volume", "destroy", "k3nest-team-dev-data-87654321", None)));
    }

    /// How a stream ends that brings these, each after so many seconds, and then nothing; with the
    /// time up to which all was heard, in seconds.
    async fn heard_of(these: Vec<(u64, EngineEvent)>, from: i64) -> (End, i64, u64) {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let (wake, _woken) = mpsc::channel(BUFFER);
        let coming = futures::stream::iter(these).then(|(pause, event)| async move {
            tokio::time::sleep(Duration::from_secs(pause)).await;
            Ok(event)
        });
        let (began, mut heard) = (Instant::now(), at(from));
        let events = coming.chain(futures::stream::pending());
        let end = hear(events, &mut heard, &store(None), &BackOff::up_to(LONGEST_AWAY), &wake).await;
        (end, heard.as_second(), began.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_died_without_a_word_is_asked_for_again_from_where_it_was() {
        let dies = |second| EngineEvent {
            at: Timestamp::from_second(second).ok(),
            ..event("container", "die", "any", Some(UID))
        };
        let (end, heard, took) = heard_of(vec![(20, dies(1100)), (29, dies(1210))], 1000).await;
        assert!(matches!(end, End::Silent), "{end:?}");
        assert_eq!((heard, took), (1210, 20 + 29 + SILENCE.as_secs()));
        let (_, heard, _) = heard_of(Vec::new(), 1000).await;
        assert_eq!(heard, 1000);
    }

    #[test]
    fn objects_of_a_former_uid_wake_the_cluster_that_adopts_them() {
        let (store, mut writer) = reflector::store();
        let mut cluster = K3sCluster::new("dev", K3sClusterSpec::default());
        cluster.metadata.namespace = Some("team".into());
        cluster.metadata.uid = Some(UID.into());
        let former = "87654321-9abc-4def-8000-000000000000";
        cluster.metadata.annotations = Some([(ADOPT_ANNOTATION.to_owned(), former.to_owned())].into());
        writer.apply_watcher_event(&watcher::Event::Apply(cluster));
        let backoff = BackOff::up_to(LONGEST_AWAY);
        let woken = |event: &EngineEvent| woken_by(event, &store, &backoff).len();
        for uid in [former, UID] {
            assert_eq!(woken(&event("container", "die", "any", Some(uid))), 1, "{uid}");
            let name = format!("k3nest-team-dev-data-{}", &uid[..8]);
            assert_eq!(woken(&event("volume", "destroy", &name, None)), 1, "{name}");
        }
        assert_eq!(woken(&event("container", "die", "any", Some("another"))), 0);
        // Its waits are kept by the resource.
        backoff.failed(UID);
        assert_eq!(woken(&event("container", "die", "any", Some(former))), 0);
    }

    #[test]
    fn what_k3nest_itself_does_all_the_time_wakes_nobody() {
        assert!(!wakes(&event("container", "exec_start: sh", "any", Some(UID))));
        assert!(!wakes(&event("volume", "mount", "k3nest-team-dev-12345678", None)));
    }

    #[test]
    fn an_image_wakes_those_who_wait_for_one() {
        let (backoff, pulled) = (BackOff::up_to(LONGEST_AWAY), event("image", "load", "rancher/k3s", None));
        backoff.failed(UID);
        assert_eq!(woken_by(&pulled, &store(Some(Reason::ImageUnavailable)), &backoff).len(), 1);
        assert!(woken_by(&pulled, &store(Some(Reason::Ready)), &backoff).is_empty());
    }

    #[test]
    fn an_image_wakes_those_who_list_it() {
        let (store, mut writer) = reflector::store();
        let spec = serde_json::json!({"version": "v1.36.1+k3s1", "images": ["app:dev"]});
        let mut cluster = K3sCluster::new("dev", serde_json::from_value(spec).unwrap());
        cluster.metadata.uid = Some(UID.into());
        writer.apply_watcher_event(&watcher::Event::Apply(cluster));
        for (action, name, expected) in [
            ("tag", "app:dev", true),
            ("tag", "docker.io/library/app:dev", true),
            ("tag", "app:other", false),
            ("pull", "app", true),
            ("pull", "other", false),
            ("load", "sha256:1f", true),
            ("import", "sha256:1f", true),
            ("untag", "sha256:1f", true),
            ("delete", "sha256:1f", true),
            ("save", "sha256:1f", false),
        ] {
            let woken = woken_by(&event("image", action, name, None), &store, &BackOff::up_to(LONGEST_AWAY));
            assert_eq!(!woken.is_empty(), expected, "{action} {name}");
        }
    }

    #[test]
    fn a_cluster_in_back_off_is_left_to_it() {
        let backoff = BackOff::up_to(LONGEST_AWAY);
        backoff.failed(UID);
        assert!(woken_by(&event("container", "die", "any", Some(UID)), &store(None), &backoff).is_empty());
    }
}
