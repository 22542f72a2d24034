//! Health and metrics over HTTP. Nothing is asked for the sake of a probe: what is served is what
//! the operator's work brought to light.

use std::{
    future::Future,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{
    Router,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use kube::runtime::reflector::Store;

use super::{error::OperatorError, metrics::Metrics};
use crate::api::K3sCluster;

/// What /readyz tells.
#[derive(Debug, Default)]
pub struct Health {
    listed: AtomicBool,
    engine: AtomicBool,
}

impl Health {
    /// The first list of clusters is there.
    pub(super) fn listed(&self) {
        self.listed.store(true, Ordering::Relaxed);
    }

    /// Docker's events are being received, or not any more.
    pub(super) fn engine(&self, connected: bool) {
        self.engine.store(connected, Ordering::Relaxed);
    }

    /// Why the operator is not ready, if it is not.
    pub fn unready(&self) -> Option<&'static str> {
        match (self.listed.load(Ordering::Relaxed), self.engine.load(Ordering::Relaxed)) {
            (false, _) => Some(
                "the host cluster's K3sClusters are not listed yet: is the CRD installed, and the operator allowed to list them?",
            ),
            (true, false) => Some("Docker does not answer: is its socket mounted, and Docker running?"),
            (true, true) => None,
        }
    }
}

/// Serves until `shutdown`.
///
/// # Errors
/// Where the address cannot be had.
pub(super) async fn serve(
    address: SocketAddr,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    clusters: Store<K3sCluster>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<impl Future<Output = ()> + Send, OperatorError> {
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .map_err(|cause| OperatorError::Server { address, cause })?;
    let app = router(health, metrics, clusters);
    Ok(async move {
        if let Err(error) = axum::serve(listener, app).with_graceful_shutdown(shutdown).await {
            tracing::error!(%error, "health and metrics are not served any more");
        }
    })
}

fn router(health: Arc<Health>, metrics: Arc<Metrics>, clusters: Store<K3sCluster>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(move || std::future::ready(readyz(&health))))
        .route("/metrics", get(move || std::future::ready(metrics_text(&metrics, &clusters))))
}

fn readyz(health: &Health) -> Response {
    match health.unready() {
        None => "ok\n".into_response(),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

fn metrics_text(metrics: &Metrics, clusters: &Store<K3sCluster>) -> Response {
    let clusters = clusters.state();
    match metrics.text(clusters.iter().map(AsRef::as_ref)) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_means_that_both_sides_answer() {
        let health = Health::default();
        health.engine(true);
        assert!(health.unready().unwrap().contains("K3sClusters"));
        health.listed();
        assert_eq!(health.unready(), None);
        health.engine(false);
        assert!(health.unready().unwrap().contains("Docker"));
    }
}
