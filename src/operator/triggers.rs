//! What wakes clusters from the host cluster's side: themselves, the Secrets and ConfigMaps that
//! they refer to, and what is published for them. Of others only metadata is watched, and nothing
//! of it is kept.

use std::{
    fmt::Debug,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use futures::{Stream, StreamExt};
use k8s_openapi::api::{
    core::v1::{ConfigMap, Secret, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, Client, Resource,
    core::{NamespaceResourceScope, PartialObjectMeta},
    runtime::{
        Controller, WatchStreamExt,
        reflector::{self, ObjectRef, Store},
        watcher,
    },
};
use serde::de::DeserializeOwned;

use super::{metrics::Metrics, published::cluster_of_secret, server::Health};
use crate::{
    api::{K3sCluster, label},
    plan::SourceKey,
};

/// How many objects a page of the first list holds, which bounds its memory.
const PAGE: u32 = 100;

/// A controller with every watch wired in, and the store of clusters.
pub(super) fn controller(
    client: &Client,
    namespace: Option<&str>,
    metrics: &Arc<Metrics>,
    health: &Arc<Health>,
) -> (Controller<K3sCluster>, Store<K3sCluster>) {
    let (store, writer) = reflector::store::<K3sCluster>();
    let health = health.clone();
    let clusters =
        watcher(scoped::<K3sCluster>(client, namespace), watcher::Config::default().page_size(PAGE))
            .modify(pruned)
            .default_backoff()
            .reflect(writer)
            // Seen here, since the store wakes only one of those who wait for it, and the controller
            // does.
            .inspect(move |event| {
                if matches!(event, Ok(watcher::Event::InitDone)) {
                    health.listed();
                }
            })
            .applied_objects()
            .predicate_filter(wanted_of, Default::default());
    let clusters = healthy(clusters, "K3sCluster", metrics);

    let all = watcher::Config::default().page_size(PAGE);
    let ours = all.clone().labels(label::OWNER);
    let controller = Controller::for_stream(clusters, store.clone());
    let by_secret = store.clone();
    let controller = controller
        .watches_stream(metadata::<Secret>(client, namespace, all.clone(), metrics), move |secret| {
            of_secret(&by_secret, &secret.metadata)
        });
    let by_config_map = store.clone();
    let controller =
        controller.watches_stream(metadata::<ConfigMap>(client, namespace, all, metrics), move |map| {
            referring(
                &by_config_map,
                &map.metadata,
                |key, name| matches!(key, SourceKey::ConfigMap { name: referred, .. } if referred == name),
            )
        });
    let (by_service, by_slice) = (store.clone(), store.clone());
    let controller = controller
        .watches_stream(metadata::<Service>(client, namespace, ours.clone(), metrics), move |service| {
            owner_of(&by_service, &service.metadata)
        })
        .watches_stream(metadata::<EndpointSlice>(client, namespace, ours, metrics), move |slice| {
            owner_of(&by_slice, &slice.metadata)
        });
    (controller, store)
}

/// What the operator never reads, and what can be large.
fn pruned(cluster: &mut K3sCluster) {
    cluster.metadata.managed_fields = None;
    if let Some(annotations) = &mut cluster.metadata.annotations {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
}

/// Changes when there is something new to do: our own reports wake nobody.
fn wanted_of(cluster: &K3sCluster) -> Option<u64> {
    let metadata = &cluster.metadata;
    let mut hasher = DefaultHasher::new();
    metadata.generation.hash(&mut hasher);
    metadata.finalizers.hash(&mut hasher);
    metadata.annotations.hash(&mut hasher);
    metadata.deletion_timestamp.is_some().hash(&mut hasher);
    Some(hasher.finish())
}

fn scoped<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

fn metadata<K>(
    client: &Client,
    namespace: Option<&str>,
    config: watcher::Config,
    metrics: &Arc<Metrics>,
) -> impl Stream<Item = Result<PartialObjectMeta<K>, watcher::Error>> + Send + 'static
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    K: Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let api: Api<PartialObjectMeta<K>> = scoped(client, namespace);
    let stream = watcher(api, config)
        .modify(|object| object.metadata.managed_fields = None)
        .default_backoff()
        .touched_objects();
    healthy(stream, K::kind(&()).into_owned(), metrics)
}

/// A watch that fails is logged, counted and retried with a back-off of its own (already around
/// `stream`). The error ends here: the controller would hold back all watches for it.
fn healthy<K: Send + 'static>(
    stream: impl Stream<Item = Result<K, watcher::Error>> + Send + 'static,
    kind: impl Into<String>,
    metrics: &Arc<Metrics>,
) -> impl Stream<Item = Result<K, watcher::Error>> + Send + 'static {
    let (kind, metrics) = (kind.into(), metrics.clone());
    stream.filter(move |item| {
        if let Err(error) = item {
            metrics.watch_failed(&kind);
            tracing::warn!(kind, %error, "a watch of the host cluster failed, will be retried");
        }
        std::future::ready(item.is_ok())
    })
}

type Metadata = k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Clusters that refer to a Secret, and the one whose kubeconfig it is or would be.
fn of_secret(store: &Store<K3sCluster>, secret: &Metadata) -> Vec<ObjectRef<K3sCluster>> {
    let mut found = referring(
        store,
        secret,
        |key, name| matches!(key, SourceKey::Secret { name: referred, .. } if referred == name),
    );
    let published = secret.name.as_deref().and_then(cluster_of_secret).zip(secret.namespace.as_deref());
    if let Some((name, namespace)) = published {
        let cluster = ObjectRef::new(name).within(namespace);
        if store.get(&cluster).is_some() && !found.contains(&cluster) {
            found.push(cluster);
        }
    }
    found
}

/// Clusters in the namespace of `object` with a reference that `matches` its name.
fn referring(
    store: &Store<K3sCluster>,
    object: &Metadata,
    matches: impl Fn(&SourceKey, &str) -> bool,
) -> Vec<ObjectRef<K3sCluster>> {
    let Some(name) = object.name.as_deref() else { return Vec::new() };
    store
        .state_filter(|cluster| {
            cluster.metadata.namespace == object.namespace
                && SourceKey::all(&cluster.spec).iter().any(|(_, key)| matches(key, name))
        })
        .iter()
        .map(|cluster| ObjectRef::from_obj(cluster.as_ref()))
        .collect()
}

/// The cluster that an object of ours says it belongs to.
fn owner_of(store: &Store<K3sCluster>, object: &Metadata) -> Option<ObjectRef<K3sCluster>> {
    let name = object.labels.as_ref()?.get(label::NAME)?;
    let cluster = ObjectRef::new(name).within(object.namespace.as_deref()?);
    store.get(&cluster).map(|cluster| ObjectRef::from_obj(cluster.as_ref()))
}

#[cfg(test)]
mod tests {
    use kube::ResourceExt;
    use serde_json::json;

    use super::*;

    fn store(spec: serde_json::Value) -> Store<K3sCluster> {
        let (store, mut writer) = reflector::store();
        let mut cluster = K3sCluster::new("dev", serde_json::from_value(spec).unwrap());
        cluster.metadata.namespace = Some("team".into());
        writer.apply_watcher_event(&watcher::Event::Apply(cluster));
        store
    }

    fn named(namespace: &str, name: &str) -> Metadata {
        Metadata { name: Some(name.into()), namespace: Some(namespace.into()), ..Metadata::default() }
    }

    #[test]
    fn secrets_wake_those_who_refer_to_them_and_the_one_they_are_published_for() {
        let store = store(json!({
            "version": "v1.36.1+k3s1", "tokenSecretRef": {"name": "token", "key": "t"},
        }));
        assert_eq!(of_secret(&store, &named("team", "token")).len(), 1);
        assert_eq!(of_secret(&store, &named("team", "dev-kubeconfig")).len(), 1);
        assert!(of_secret(&store, &named("team", "other")).is_empty());
        assert!(of_secret(&store, &named("elsewhere", "token")).is_empty());
        assert!(of_secret(&store, &named("elsewhere", "dev-kubeconfig")).is_empty());
    }

    #[test]
    fn a_report_wakes_nobody_and_an_annotation_does() {
        let store = store(json!({"version": "v1.36.1+k3s1"}));
        let cluster = store.state()[0].as_ref().clone();
        let mut reported = cluster.clone();
        reported.status = Some(Default::default());
        assert_eq!(wanted_of(&cluster), wanted_of(&reported));
        let mut annotated = cluster.clone();
        annotated.annotations_mut().insert("k3nest.dev/abandon".into(), "true".into());
        assert_ne!(wanted_of(&cluster), wanted_of(&annotated));
    }
}
