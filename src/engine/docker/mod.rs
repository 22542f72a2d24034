//! Docker itself, over its HTTP API, as [`super::Engine`].
//!
//! One file for each concern; this one only says which call does what, and within which time.

mod connection;
mod containers;
mod create;
mod events;
mod exec;
mod failure;
mod files;
mod images;
mod limits;
mod lists;
mod networks;
mod once;

#[cfg(test)]
pub(crate) use lists::engine as engine_info;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::Stream;
use jiff::Timestamp;

use self::connection::Connection;
use super::{Command, Engine, EngineEvent, ExecOutput, ImageInfo, Probe, Progress, Result, Scope};
use crate::plan::{Container, ContainerWant, EngineInfo, FileWant, Network, NetworkWant, Volume, VolumeWant};

/// A Docker engine at an address. Cheap to clone; every call opens a connection of its own, so that
/// no call waits behind another.
#[derive(Clone)]
pub struct Docker {
    connection: Arc<Connection>,
}

impl Docker {
    /// The engine at `host` (`unix://` or a path, `tcp://`, `http://`), else at the environment's
    /// `DOCKER_HOST`, else at /var/run/docker.sock.
    ///
    /// Connects at the first call and not before: an operator must be able to start, and to report,
    /// while Docker is away. Ask [`Engine::info`] to know whether it answers. The version of the API
    /// is agreed on then, and again after a connection failed, since the engine that comes back may
    /// be another one.
    ///
    /// # Errors
    /// For an address that no connection could ever be made to.
    pub fn connect(host: Option<&str>) -> Result<Self> {
        let host = host.map(str::to_owned).or_else(|| std::env::var("DOCKER_HOST").ok());
        Ok(Self { connection: Arc::new(Connection::new(host.as_deref())?) })
    }

    /// The address, for people.
    pub fn host(&self) -> &str {
        self.connection.host()
    }
}

impl Engine for Docker {
    async fn ping(&self) -> Result<()> {
        lists::ping(self).await
    }

    async fn info(&self) -> Result<EngineInfo> {
        lists::info(self).await
    }

    async fn list_containers(&self, scope: &Scope) -> Result<Vec<Container>> {
        lists::containers(self, scope).await
    }

    async fn container(&self, id: &str) -> Result<Option<Container>> {
        lists::container_of(self, id).await
    }

    async fn list_volumes(&self, scope: &Scope) -> Result<Vec<Volume>> {
        lists::volumes(self, scope).await
    }

    async fn list_networks(&self, scope: &Scope) -> Result<Vec<Network>> {
        lists::networks(self, scope).await
    }

    async fn inspect_image(&self, reference: &str) -> Result<Option<ImageInfo>> {
        images::inspect(self, reference).await
    }

    async fn pull_image(&self, reference: &str, progress: &Progress) -> Result<()> {
        images::pull(self, reference, progress).await
    }

    fn export_image(&self, reference: &str) -> impl Stream<Item = Result<Bytes>> + Send {
        images::export(self, reference)
    }

    async fn create_network(&self, want: &NetworkWant) -> Result<Network> {
        networks::create(self, want).await
    }

    async fn create_volume(&self, want: &VolumeWant) -> Result<Volume> {
        networks::create_volume(self, want).await
    }

    async fn create_container(&self, want: &ContainerWant, command: &Command) -> Result<String> {
        containers::create(self, want, command).await
    }

    async fn start_container(&self, id: &str) -> Result<()> {
        containers::start(self, id).await
    }

    async fn started(&self, id: &str) -> Result<Option<jiff::Timestamp>> {
        containers::started(self, id).await
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> Result<()> {
        containers::stop(self, id, grace).await
    }

    async fn remove_container(&self, id: &str) -> Result<()> {
        containers::remove(self, id).await
    }

    async fn remove_volume(&self, name: &str) -> Result<()> {
        networks::remove_volume(self, name).await
    }

    async fn remove_network(&self, id: &str) -> Result<()> {
        networks::remove(self, id).await
    }

    async fn write_files(&self, id: &str, files: &[FileWant]) -> Result<()> {
        files::write(self, id, files).await
    }

    async fn read_file(&self, id: &str, path: &str) -> Result<Option<Vec<u8>>> {
        files::read(self, id, path).await
    }

    async fn has_path(&self, id: &str, path: &str) -> Result<bool> {
        files::is_there(self, id, path).await
    }

    async fn logs(&self, id: &str, lines: usize) -> Result<String> {
        exec::logs(self, id, lines).await
    }

    async fn exec<S>(&self, id: &str, command: &[&str], input: S) -> Result<ExecOutput>
    where
        S: Stream<Item = Bytes> + Send + Unpin + 'static,
    {
        exec::exec(self, id, command, input).await
    }

    async fn run_once(&self, probe: &Probe) -> Result<String> {
        once::run(self, probe).await
    }

    fn events(&self, since: Timestamp) -> impl Stream<Item = Result<EngineEvent>> + Send {
        events::events(self, since)
    }
}
