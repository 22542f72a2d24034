//! The edge towards a host cluster: one acting controller, keyed by cluster.
//!
//! [`triggers`], [`engine_events`] and [`nested`] wake clusters, [`reconcile`] takes one of them a step
//! further (dereference → step → publish → status) under the identity that [`adoption`] finds,
//! [`cleanup`] sees deletions through, and [`server`] tells how it goes.

mod adoption;
mod args;
mod backend;
mod backoff;
mod cleanup;
mod context;
mod engine_events;
mod error;
pub mod install;
mod metrics;
mod nested;
mod publish;
mod published;
mod reconcile;
mod reference;
mod server;
mod status;
mod triggers;

pub use args::OperatorArgs;
pub use backend::{Backend, DockerBackend};
pub use backoff::BackOff;
pub use context::Context;
pub use error::{OperatorError, ReconcileError};
pub use metrics::Metrics;
pub use reconcile::{reconcile, retry};
pub use server::Health;

use std::{future::Future, sync::Arc, time::Duration};

use futures::StreamExt;
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client, ResourceExt, runtime::controller};
use tokio::sync::{mpsc, watch};

use crate::{engine::Docker, k3s::Network, reconcile::World};

/// Triggers of one cluster this close together are one.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// How long work under way may take after a signal. Whatever is cut off is finished by the next
/// operator.
const GRACE: Duration = Duration::from_secs(20);

/// Runs the operator until SIGTERM or SIGINT.
///
/// # Errors
/// Where it cannot start: no host cluster, a bad Docker address, or an address that cannot be
/// served on. A Docker engine that is away is waited for.
pub async fn run(args: OperatorArgs) -> Result<(), OperatorError> {
    let client = Client::try_default().await.map_err(OperatorError::Client)?;
    let instance = instance(&client).await?;
    let docker = Docker::connect(args.docker_host.as_deref())?;
    let world = World::new(docker, Network, Box::new(|words| tracing::info!("{words}")));
    let backend = DockerBackend::new(world, args.host_ip);
    run_with(client, backend, instance, &args, signalled()).await
}

/// Identity of the host cluster, and so of this operator.
async fn instance(client: &Client) -> Result<String, OperatorError> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let found = namespaces.get_metadata("kube-system").await;
    let found = found.map_err(|error| OperatorError::Instance(error::host_message(&error)))?;
    found.uid().ok_or_else(|| OperatorError::Instance("it has no uid".into()))
}

async fn run_with<B: Backend>(
    client: Client,
    backend: B,
    instance: String,
    args: &OperatorArgs,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), OperatorError> {
    let (stop, stopped) = watch::channel(false);
    let (health, metrics) = (Arc::new(Health::default()), Arc::new(Metrics::new()?));
    let (controller, clusters) = triggers::controller(&client, args.namespace.as_deref(), &metrics, &health);
    let ctx = Arc::new(Context::new(client, backend, instance, args, metrics.clone()));
    let (wake, woken) = mpsc::channel(engine_events::BUFFER);
    ctx.wake.through(wake.clone());
    ctx.know(clusters.clone());

    let server =
        server::serve(args.metrics_address, health.clone(), metrics, clusters.clone(), told(stopped.clone()))
            .await?;
    let server = tokio::spawn(server);
    let events = tokio::spawn(engine_events::follow(ctx.clone(), clusters, health, wake));
    tokio::spawn(async move {
        shutdown.await;
        tracing::info!("shutting down: work under way is finished first");
        stop.send_replace(true);
    });
    tracing::info!(version = env!("CARGO_PKG_VERSION"), instance = ctx.instance, "operator started");

    let woken = futures::stream::unfold(woken, |mut woken| async move { Some((woken.recv().await?, woken)) });
    let work = controller
        .with_config(controller::Config::default().concurrency(args.concurrency).debounce(DEBOUNCE))
        .reconcile_on(woken)
        .graceful_shutdown_on(told(stopped.clone()))
        .run(reconcile, retry, ctx)
        // Each error was logged where it was met, but for those of the controller's own.
        .for_each(|result| async move {
            if let Err(error @ (controller::Error::QueueError(_) | controller::Error::RunnerError(_))) =
                result
            {
                tracing::error!(%error, "the controller failed");
            }
        });
    let overtime = async {
        told(stopped).await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        () = work => tracing::info!("operator stopped"),
        () = overtime => tracing::warn!("operator stopped with work under way"),
    }
    events.abort();
    // Ends by itself once told; a scrape that hangs must not keep the process.
    let _ = tokio::time::timeout(Duration::from_secs(1), server).await;
    Ok(())
}

/// Waits until shutdown was asked for.
async fn told(mut stopped: watch::Receiver<bool>) {
    // An error means that the sender is gone, which comes to the same.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

/// Waits for SIGTERM or SIGINT.
async fn signalled() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
        }
        Err(error) => {
            tracing::warn!(%error, "SIGTERM cannot be received; SIGINT can");
            let _ = tokio::signal::ctrl_c().await;
        }
    }
}
