//! What every reconciliation shares.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use kube::{
    Api, Client, ResourceExt,
    runtime::{
        events::{Recorder, Reporter},
        reflector::Store,
    },
};

use super::{
    args::OperatorArgs,
    backend::Backend,
    backoff::BackOff,
    metrics::Metrics,
    nested::{Nested, Wake},
};
use crate::{
    api::{FIELD_MANAGER, Identity, K3sCluster, K3sClusterStatus, validate::Policy},
    plan::Settings,
};

/// What every reconciliation shares.
pub struct Context<B> {
    /// The host cluster.
    pub client: Client,
    /// Docker and the nested clusters.
    pub backend: B,
    /// Identity of this operator: uid of the host cluster's kube-system namespace.
    pub instance: String,
    /// What plans depend on.
    pub settings: Settings,
    /// What a spec may ask for.
    pub policy: Policy,
    /// Waits of clusters in trouble.
    pub backoff: BackOff,
    /// Counters and gauges.
    pub metrics: Arc<Metrics>,
    pub(super) recorder: Recorder,
    pub(super) written: Written,
    pub(super) wake: Wake,
    pub(super) nested: Nested,
    clusters: OnceLock<Store<K3sCluster>>,
}

impl<B: Backend> Context<B> {
    /// Puts together what reconciliations share.
    pub fn new(
        client: Client,
        backend: B,
        instance: String,
        args: &OperatorArgs,
        metrics: Arc<Metrics>,
    ) -> Self {
        let reporter =
            Reporter { controller: "k3nest-operator".into(), instance: std::env::var("POD_NAME").ok() };
        Self {
            recorder: Recorder::new(client.clone(), reporter),
            client,
            backend,
            instance,
            settings: args.settings(),
            policy: args.policy(),
            backoff: BackOff::up_to(Duration::from_secs(args.longest_retry.into())),
            metrics,
            written: Written::default(),
            wake: Wake::default(),
            nested: Nested::default(),
            clusters: OnceLock::new(),
        }
    }

    /// Brings the clusters that this API server has, as its watch keeps them.
    pub fn know(&self, clusters: Store<K3sCluster>) {
        // A second one would say the same.
        let _ = self.clusters.set(clusters);
    }

    pub(super) fn clusters_known(&self) -> Option<&Store<K3sCluster>> {
        self.clusters.get()
    }

    /// Who `cluster` is by itself, which in Docker is somebody else where it adopts.
    pub fn identity(&self, cluster: &K3sCluster) -> Identity {
        Identity {
            instance: self.instance.clone(),
            uid: cluster.uid().unwrap_or_default(),
            namespace: namespace(cluster),
            name: cluster.name_any(),
        }
    }

    pub(super) fn clusters(&self, cluster: &K3sCluster) -> Api<K3sCluster> {
        Api::namespaced(self.client.clone(), &namespace(cluster))
    }

    /// The report as it stands: what the watch brought, or what was written since.
    pub(super) fn former(&self, cluster: &K3sCluster) -> K3sClusterStatus {
        self.written.former(cluster)
    }
}

/// The namespace of `cluster`, which is a namespaced kind and so always has one.
pub(super) fn namespace(cluster: &K3sCluster) -> String {
    cluster.namespace().unwrap_or_default()
}

/// Whole seconds, as conditions carry them, so that a report compares equal to itself read back.
pub(super) fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

/// Field manager of everything the operator writes.
pub(super) const MANAGER: &str = FIELD_MANAGER;

/// Reports that were written and that the watch has not brought back yet. Without it a
/// reconciliation that follows closely would take an old report for the former one, and send its
/// transitions a second time.
#[derive(Debug, Default)]
pub(super) struct Written(Mutex<HashMap<String, (u64, K3sClusterStatus)>>);

impl Written {
    /// Remembers the report of `after`, as the API server returned it.
    pub(super) fn remember(&self, after: &K3sCluster) {
        let (Some(uid), Some(version)) = (after.uid(), version(after)) else { return };
        self.lock().insert(uid, (version, after.status.clone().unwrap_or_default()));
    }

    /// Forgets a cluster that is gone.
    pub(super) fn forget(&self, uid: &str) {
        self.lock().remove(uid);
    }

    fn former(&self, seen: &K3sCluster) -> K3sClusterStatus {
        let in_store = || seen.status.clone().unwrap_or_default();
        let Some(uid) = seen.uid() else { return in_store() };
        let mut written = self.lock();
        match written.get(&uid) {
            Some((newer, status)) if version(seen).is_none_or(|seen| seen < *newer) => status.clone(),
            Some(_) => {
                written.remove(&uid);
                in_store()
            }
            None => in_store(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, (u64, K3sClusterStatus)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Resource versions of one object grow, and compare as numbers (Kubernetes API concepts).
fn version(cluster: &K3sCluster) -> Option<u64> {
    cluster.metadata.resource_version.as_deref()?.parse().ok()
}
