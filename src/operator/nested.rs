//! Watches on the Nodes of nested clusters: one that is Ready no longer, or that lost an image which
//! the cluster wants, wakes the cluster. So does an API that answers no longer: with it the load
//! balancer may be gone, and Docker's event of that was lost.
//!
//! One task for each cluster that a step found a way into, with the same credentials and address.
//! Kubelets report every five minutes and nothing of it is kept but a line for each Node, so that
//! only what concerns the cluster wakes it. Where the API is away, the watch is tried again with
//! back-off; the step and its own retries are not its business.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use futures::StreamExt;
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api,
    runtime::{
        WatchStreamExt,
        reflector::ObjectRef,
        watcher::{self, Event, watcher},
    },
};
use tokio::{sync::mpsc, task::AbortHandle};

use crate::{api::K3sCluster, k3s::Access, plan::image_name, reconcile::Outcome};

/// A watch that brings nothing for so long is dead: every kubelet reports twice in that time.
const SILENCE: Duration = Duration::from_secs(660);

/// How many Nodes a page of the first list holds, which bounds its memory.
const PAGE: u32 = 20;

/// The way to wake clusters; nobody is woken before the operator runs.
#[derive(Clone, Debug, Default)]
pub(super) struct Wake(Arc<OnceLock<mpsc::Sender<ObjectRef<K3sCluster>>>>);

impl Wake {
    /// From now on clusters are woken through `sender`.
    pub(super) fn through(&self, sender: mpsc::Sender<ObjectRef<K3sCluster>>) {
        // Set once, when the operator starts.
        let _ = self.0.set(sender);
    }

    /// Wakes `cluster`.
    pub(super) async fn up(&self, cluster: ObjectRef<K3sCluster>) {
        if let Some(sender) = self.0.get() {
            // Closed only when the operator ends.
            let _ = sender.send(cluster).await;
        }
    }
}

/// The watches, by uid of the cluster.
#[derive(Debug, Default)]
pub(super) struct Nested(Mutex<HashMap<String, Watch>>);

#[derive(Debug)]
struct Watch {
    way: Way,
    task: AbortHandle,
}

/// What a watch depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Way {
    access: Access,
    url: String,
    /// Full names of the images that the cluster wants.
    images: BTreeSet<String>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Nested {
    /// Watches the Nodes of `cluster` as its last step found its way in, unless that is done already.
    /// A step that found none leaves things as they are.
    pub(super) fn follow(&self, cluster: &K3sCluster, outcome: &Outcome, wake: &Wake) {
        let (Some(uid), Some(access), Some(url)) = (&cluster.metadata.uid, &outcome.access, &outcome.url)
        else {
            return;
        };
        let way = Way {
            access: access.clone(),
            url: url.clone(),
            images: cluster.spec.images.iter().map(|image| image_name(image)).collect(),
        };
        let mut watches = self.lock();
        if watches.get(uid).is_some_and(|watch| watch.way == way && !watch.task.is_finished()) {
            return;
        }
        let known = outcome.status.nodes.iter().map(|node| (node.name.clone(), Look::of_step(node.ready)));
        let nodes = Nodes { known: known.collect(), listed: BTreeSet::new() };
        let (wake, key) = (wake.clone(), ObjectRef::from_obj(cluster));
        let task = tokio::spawn(watch(way.clone(), nodes, wake, key)).abort_handle();
        watches.insert(uid.clone(), Watch { way, task });
    }

    /// Ends the watch of a cluster that goes.
    pub(super) fn forget(&self, uid: &str) {
        self.lock().remove(uid);
    }

    // A panic elsewhere leaves a map that is still whole.
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Watch>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Watches for ever.
async fn watch(way: Way, mut nodes: Nodes, wake: Wake, cluster: ObjectRef<K3sCluster>) {
    let client = match way.access.client(&way.url) {
        Ok(client) => client,
        Err(error) => {
            tracing::warn!(%cluster, %error, "its Nodes cannot be watched");
            return;
        }
    };
    let mut answers = true;
    loop {
        let config = watcher::Config::default().page_size(PAGE);
        let mut events = pin!(watcher(Api::<Node>::all(client.clone()), config).default_backoff());
        while let Ok(Some(event)) = tokio::time::timeout(SILENCE, events.next()).await {
            if wakes(
                event.map_err(|error| error.to_string()),
                &mut answers,
                &mut nodes,
                &way.images,
                &cluster,
            ) {
                wake.up(cluster.clone()).await;
            }
        }
    }
}

/// Whether what the watch brings matters to the cluster. `answers` is whether the API did so far: only
/// that it stops to is news.
fn wakes(
    event: Result<Event<Node>, String>,
    answers: &mut bool,
    nodes: &mut Nodes,
    wanted: &BTreeSet<String>,
    cluster: &ObjectRef<K3sCluster>,
) -> bool {
    match event {
        Ok(event) => {
            // A watch that begins has not asked yet.
            *answers |= !matches!(event, Event::Init);
            let changed = nodes.hear(event, wanted);
            if changed {
                tracing::debug!(%cluster, "its Nodes changed");
            }
            changed
        }
        Err(error) => {
            tracing::debug!(%cluster, error, "the watch on its Nodes failed, will be retried");
            std::mem::replace(answers, false)
        }
    }
}

/// What is kept of a Node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Look {
    ready: bool,
    /// Sizes of the wanted images that it has, by full name.
    images: BTreeMap<String, i64>,
}

impl Look {
    /// As a step saw it, which asks containerd itself about images.
    fn of_step(ready: bool) -> Self {
        Self { ready, images: BTreeMap::new() }
    }

    fn of(node: &Node, wanted: &BTreeSet<String>) -> Self {
        let status = node.status.iter();
        let conditions = status.clone().flat_map(|status| status.conditions.iter().flatten());
        let images = status.flat_map(|status| status.images.iter().flatten());
        let named = images.flat_map(|image| {
            let size = image.size_bytes.unwrap_or_default();
            image.names.iter().flatten().map(move |name| (name, size))
        });
        Self {
            ready: conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True"),
            images: named
                .filter(|(name, _)| wanted.contains(*name))
                .map(|(name, size)| (name.clone(), size))
                .collect(),
        }
    }

    /// Whether there may be something to do after this look became `next`. An image that has come
    /// was brought.
    fn matters(&self, next: &Self) -> bool {
        let kept = |(name, size): (&String, &i64)| next.images.get(name) == Some(size);
        self.ready != next.ready || !self.images.iter().all(kept)
    }
}

/// The Nodes of a cluster.
#[derive(Debug, Default)]
struct Nodes {
    known: HashMap<String, Look>,
    /// Those that a list under way has named so far.
    listed: BTreeSet<String>,
}

impl Nodes {
    /// Takes note of `event`; whether it matters to the cluster.
    fn hear(&mut self, event: Event<Node>, wanted: &BTreeSet<String>) -> bool {
        match event {
            Event::Init => {
                self.listed.clear();
                false
            }
            Event::InitApply(node) => {
                self.listed.extend(node.metadata.name.clone());
                self.look(&node, wanted)
            }
            Event::InitDone => {
                let before = self.known.len();
                let listed = std::mem::take(&mut self.listed);
                self.known.retain(|name, _| listed.contains(name));
                self.known.len() != before
            }
            Event::Apply(node) => self.look(&node, wanted),
            Event::Delete(node) => node.metadata.name.is_some_and(|name| self.known.remove(&name).is_some()),
        }
    }

    fn look(&mut self, node: &Node, wanted: &BTreeSet<String>) -> bool {
        let look = Look::of(node, wanted);
        let Some(name) = node.metadata.name.clone() else { return false };
        match self.known.insert(name, look.clone()) {
            Some(former) => former.matters(&look),
            None => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const APP: &str = "docker.io/library/app:dev";

    fn node(ready: &str, heartbeat: &str, images: &[(&str, i64)]) -> Node {
        let images: Vec<_> =
            images.iter().map(|(name, size)| json!({"names": [name], "sizeBytes": size})).collect();
        serde_json::from_value(json!({
            "metadata": {"name": "dev-server-0"},
            "status": {
                "conditions": [{"type": "Ready", "status": ready, "lastHeartbeatTime": heartbeat}],
                "images": images,
            },
        }))
        .unwrap()
    }

    fn hear(nodes: &mut Nodes, event: Event<Node>) -> bool {
        nodes.hear(event, &[APP.to_owned()].into())
    }

    #[test]
    fn only_what_concerns_the_cluster_wakes_it() {
        let (early, late) = ("2026-01-01T00:00:00Z", "2026-01-01T00:05:00Z");
        let known = [("dev-server-0".to_owned(), Look::of_step(true))].into();
        let mut nodes = Nodes { known, ..Nodes::default() };
        // Given a list that says what the step has seen
        assert!(!hear(&mut nodes, Event::Init));
        assert!(!hear(&mut nodes, Event::InitApply(node("True", early, &[]))));
        assert!(!hear(&mut nodes, Event::InitDone));
        // Then what the step brought wakes nobody, nor do heartbeats and other images
        assert!(!hear(&mut nodes, Event::Apply(node("True", early, &[(APP, 5)]))));
        assert!(!hear(&mut nodes, Event::Apply(node("True", late, &[(APP, 5)]))));
        assert!(!hear(&mut nodes, Event::Apply(node("True", late, &[(APP, 5), ("other:1", 1)]))));
        // But another image of that name does, and one that is gone
        assert!(hear(&mut nodes, Event::Apply(node("True", late, &[(APP, 6)]))));
        assert!(hear(&mut nodes, Event::Apply(node("True", late, &[]))));
        assert!(!hear(&mut nodes, Event::Apply(node("True", late, &[]))));
        // And readiness, once for each change
        assert!(hear(&mut nodes, Event::Apply(node("Unknown", late, &[]))));
        assert!(!hear(&mut nodes, Event::Apply(node("False", late, &[]))));
        assert!(hear(&mut nodes, Event::Apply(node("True", late, &[]))));
    }

    #[test]
    fn an_api_that_answers_no_longer_wakes_the_cluster_once() {
        let (mut nodes, mut answers, cluster) = (Nodes::default(), true, ObjectRef::new("dev"));
        let mut hears = |event: Result<Event<Node>, &str>| {
            wakes(event.map_err(str::to_owned), &mut answers, &mut nodes, &BTreeSet::new(), &cluster)
        };
        assert!(hears(Err("connection refused")));
        assert!(!hears(Ok(Event::Init)));
        assert!(!hears(Err("connection refused")));
        assert!(!hears(Ok(Event::Init)));
        assert!(!hears(Ok(Event::InitDone)));
        assert!(hears(Err("connection refused")));
    }

    #[test]
    fn nodes_that_come_and_go_wake_the_cluster_also_unseen() {
        let mut nodes = Nodes::default();
        let known = node("True", "2026-01-01T00:00:00Z", &[]);
        assert!(hear(&mut nodes, Event::Apply(known.clone())));
        assert!(hear(&mut nodes, Event::Delete(known.clone())));
        assert!(!hear(&mut nodes, Event::Delete(known.clone())));
        assert!(hear(&mut nodes, Event::Apply(known)));
        hear(&mut nodes, Event::Init);
        assert!(hear(&mut nodes, Event::InitDone), "it went while nobody looked");
    }
}
