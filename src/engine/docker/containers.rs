//! The life of a container.

use std::time::Duration;

use bollard::{
    models::{ContainerCreateBody, NetworkConnectRequest},
    query_parameters::{
        CreateContainerOptionsBuilder, InspectContainerOptions, RemoveContainerOptionsBuilder,
        StartContainerOptions, StopContainerOptionsBuilder,
    },
};

use jiff::Timestamp;

use super::{Docker, create, failure::Call, limits, networks::gone};
use crate::{
    engine::{Command, EngineError, Result},
    plan::ContainerWant,
};

/// Creates a container and joins it to both its networks.
///
/// Before API 1.44 a container is created in one network only and joins the second in another
/// call. If that fails, or if this future is dropped in between, the container is removed: nobody
/// may find and start one that lacks a network.
pub(super) async fn create(docker: &Docker, want: &ContainerWant, command: &Command) -> Result<String> {
    let id = create_from(docker, &want.name, create::container(want, command)).await?;
    let Some(guest) = &want.guest else { return Ok(id) };

    let unfinished = RemoveOnDrop::new(docker, &id);
    let call = Call::new("join", "container", &want.name);
    let request = NetworkConnectRequest {
        container: id.clone(),
        endpoint_config: Some(create::pinned(&guest.address)),
    };
    let joined =
        docker
            .call(&call, limits::CHANGE, |client| async move {
                client.connect_network(&guest.network, request).await
            })
            .await;
    match joined {
        Ok(()) => {
            unfinished.keep();
            Ok(id)
        }
        Err(error) => {
            unfinished.remove().await;
            Err(error)
        }
    }
}

/// Creates a container called `name`.
pub(super) async fn create_from(docker: &Docker, name: &str, body: ContainerCreateBody) -> Result<String> {
    let options = CreateContainerOptionsBuilder::new().name(name).build();
    let call = Call::new("create", "container", name);
    let created =
        docker
            .call(&call, limits::CHANGE, |client| async move {
                client.create_container(Some(options), body).await
            })
            .await?;
    Ok(created.id)
}

/// Starts a container; fine if it runs.
pub(super) async fn start(docker: &Docker, id: &str) -> Result<()> {
    let call = Call::new("start", "container", id);
    docker
        .call(&call, limits::CHANGE, |client| async move {
            client.start_container(id, None::<StartContainerOptions>).await
        })
        .await
}

/// When a container was started last. One that never was has a time in the year 1.
pub(super) async fn started(docker: &Docker, id: &str) -> Result<Option<Timestamp>> {
    let call = Call::new("inspect", "container", id);
    let inspected = docker
        .call(&call, limits::QUESTION, |client| async move {
            client.inspect_container(id, None::<InspectContainerOptions>).await
        })
        .await;
    let state = match inspected {
        Ok(container) => container.state.unwrap_or_default(),
        Err(EngineError::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let started = state.started_at.and_then(|time| time.parse::<Timestamp>().ok());
    Ok(started.filter(|time| *time > Timestamp::UNIX_EPOCH))
}

/// Stops a container; fine if it stands or is gone.
pub(super) async fn stop(docker: &Docker, id: &str, grace: Duration) -> Result<()> {
    let seconds = i32::try_from(grace.as_secs()).unwrap_or(i32::MAX);
    let options = StopContainerOptionsBuilder::new().t(seconds).build();
    let call = Call::new("stop", "container", id);
    let limit = grace + limits::STOP_MARGIN;
    gone(
        docker
            .call(&call, limit, |client| async move { client.stop_container(id, Some(options)).await })
            .await,
    )
}

/// Removes a container by force, with its anonymous volumes; fine if it is gone.
pub(super) async fn remove(docker: &Docker, id: &str) -> Result<()> {
    let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
    let call = Call::new("remove", "container", id);
    gone(
        docker
            .call(
                &call,
                limits::CHANGE,
                |client| async move { client.remove_container(id, Some(options)).await },
            )
            .await,
    )
}

/// Removes a container unless it is told to keep it, also if the work on it is cancelled.
pub(super) struct RemoveOnDrop(Option<(Docker, String)>);

impl RemoveOnDrop {
    /// Watches over the container `id`.
    pub(super) fn new(docker: &Docker, id: &str) -> Self {
        Self(Some((docker.clone(), id.to_owned())))
    }

    /// Lets it live.
    pub(super) fn keep(mut self) {
        self.0 = None;
    }

    /// Removes it now. Should even that fail, the log says so; the container carries the labels of
    /// its owner and goes with the next plan.
    pub(super) async fn remove(mut self) {
        if let Some((docker, id)) = &self.0 {
            remove_and_log(docker, id).await;
        }
        self.0 = None;
    }
}

impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        let (Some((docker, id)), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) else {
            return;
        };
        runtime.spawn(async move { remove_and_log(&docker, &id).await });
    }
}

async fn remove_and_log(docker: &Docker, id: &str) {
    if let Err(error) = remove(docker, id).await {
        tracing::warn!(%error, "a container could not be cleaned up");
    }
}
