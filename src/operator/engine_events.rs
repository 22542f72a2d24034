//! Docker's events wake the clusters they belong to.
//!
//! The connection is kept up with a back-off of its own. After a lost one every cluster is looked
//! at once, since nobody knows what was missed.

use std::{pin::pin, sync::Arc, time::Duration};

use futures::StreamExt;
use kube::runtime::reflector::{ObjectRef, Store};
use tokio::sync::mpsc;

use super::{backend::Backend, backoff::BackOff, context::Context, server::Health};
use crate::{
    api::{Identity, K3sCluster, Reason, condition},
    engine::EngineEvent,
    plan::{image_name, image_repository},
};

/// After this time a subscription counts as made, also where Docker has nothing to say: what
/// happens from now on is heard.
const SUBSCRIBED: Duration = Duration::from_secs(1);

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
    let waits = BackOff::default();
    // At the start the first list wakes every cluster anyway.
    let mut told_of_loss = true;
    let mut first = true;
    loop {
        match ctx.backend.connect().await {
            Err(error) => {
                ctx.metrics.engine_failed("connect");
                tracing::warn!(%error, "Docker does not answer, will be retried");
                if !std::mem::replace(&mut told_of_loss, true) {
                    wake_all(&clusters, &wake).await;
                }
            }
            Ok(()) => {
                waits.reset("");
                set_connected(&ctx, &health, true);
                listen(&ctx, &clusters, &wake, !first).await;
                first = false;
                told_of_loss = false;
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

/// One connection, until it ends.
async fn listen<B: Backend>(
    ctx: &Context<B>,
    clusters: &Store<K3sCluster>,
    wake: &mpsc::Sender<ObjectRef<K3sCluster>>,
    look_at_all: bool,
) {
    let mut events = pin!(ctx.backend.events());
    let mut subscribed = pin!(tokio::time::sleep(SUBSCRIBED));
    let mut looked = !look_at_all;
    loop {
        tokio::select! {
            () = &mut subscribed, if !looked => {
                looked = true;
                wake_all(clusters, wake).await;
            }
            event = events.next() => match event {
                Some(Ok(event)) => {
                    for cluster in woken_by(&event, clusters, &ctx.backoff) {
                        tracing::debug!(?event, %cluster, "wakes");
                        if wake.send(cluster).await.is_err() {
                            return;
                        }
                    }
                }
                Some(Err(error)) => {
                    ctx.metrics.engine_failed("events");
                    tracing::warn!(%error, "Docker's events ended");
                    return;
                }
                None => {
                    tracing::warn!("Docker's events ended");
                    return;
                }
            },
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
/// A cluster that waits after a failure is left to its back-off: its own failing tries cause
/// events, too. But one that waits for an image is told of every image that comes, and one that lists
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
            .filter(|cluster| !backoff.waits(cluster.metadata.uid.as_deref().unwrap_or_default()))
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
            owner: owner.map(Into::into),
        }
    }

    fn wakes(event: &EngineEvent) -> bool {
        !woken_by(event, &store(None), &BackOff::default()).is_empty()
    }

    #[test]
    fn containers_are_told_by_label_and_volumes_and_networks_by_name() {
        assert!(wakes(&event("container", "die", "any", Some(UID))));
        assert!(wakes(&event("volume", "destroy", "k3nest-team-dev-server-0-data-12345678", None)));
        assert!(wakes(&event("network", "disconnect", "k3nest-team-dev-12345678", None)));
        assert!(!wakes(&event("container", "die", "any", Some("another"))));
        assert!(!wakes(&event("volume", "destroy", "k3nest-team-dev-data-87654321", None)));
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
        let backoff = BackOff::default();
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
        let (backoff, pulled) = (BackOff::default(), event("image", "load", "rancher/k3s", None));
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
            let woken = woken_by(&event("image", action, name, None), &store, &BackOff::default());
            assert_eq!(!woken.is_empty(), expected, "{action} {name}");
        }
    }

    #[test]
    fn a_cluster_in_back_off_is_left_to_it() {
        let backoff = BackOff::default();
        backoff.failed(UID);
        assert!(woken_by(&event("container", "die", "any", Some(UID)), &store(None), &backoff).is_empty());
    }
}
