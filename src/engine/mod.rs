//! Docker: the calls k3nest needs behind one trait, their implementation, what is observed and how
//! plans are executed.

mod docker;
mod error;
mod execute;
mod observe;

pub use docker::Docker;
#[cfg(test)]
pub(crate) use docker::engine_info;
pub use error::{EngineError, Result};
pub use execute::{Failure, Inside, Report, execute};
pub use observe::{observe, observe_all, owners};

use std::{future::Future, time::Duration};

use bytes::Bytes;
use futures::Stream;
use jiff::Timestamp;

use crate::plan::{Container, ContainerWant, EngineInfo, FileWant, Network, NetworkWant, Volume, VolumeWant};

/// Which objects a list call returns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Those that carry all of these labels (`key=value`).
    Labels(Vec<String>),
    /// All on the engine.
    Everything,
}

/// A Docker engine, as far as k3nest needs it.
///
/// Every call is bounded in time by the implementation and idempotent where its comment says so.
/// A trait, so that property tests can put a simulated engine with faults in its place.
pub trait Engine: Send + Sync + 'static {
    /// Whether the engine answers, which costs it nothing.
    fn ping(&self) -> impl Future<Output = Result<()>> + Send;

    /// Who the engine is.
    fn info(&self) -> impl Future<Output = Result<EngineInfo>> + Send;

    /// Containers, also those that stand still.
    fn list_containers(&self, scope: &Scope) -> impl Future<Output = Result<Vec<Container>>> + Send;

    /// The container with this whole id, as the list has it; None if it is not there.
    fn container(&self, id: &str) -> impl Future<Output = Result<Option<Container>>> + Send;

    /// Volumes.
    fn list_volumes(&self, scope: &Scope) -> impl Future<Output = Result<Vec<Volume>>> + Send;

    /// Networks.
    fn list_networks(&self, scope: &Scope) -> impl Future<Output = Result<Vec<Network>>> + Send;

    /// Facts of an image; None if it is not there.
    fn inspect_image(&self, reference: &str) -> impl Future<Output = Result<Option<ImageInfo>>> + Send;

    /// Pulls an image. `progress` hears of it in words. Waits as long as bytes come in.
    fn pull_image(&self, reference: &str, progress: &Progress) -> impl Future<Output = Result<()>> + Send;

    /// An image under this very reference, as the tar archive of `docker image save`. An error is
    /// the last item: what came before it is only a part.
    fn export_image(&self, reference: &str) -> impl Stream<Item = Result<Bytes>> + Send;

    /// Creates a network and returns it. One of the same name that exists already is returned
    /// instead, whoever owns it: look at its labels. Where two were made at once, the older stays.
    fn create_network(&self, want: &NetworkWant) -> impl Future<Output = Result<Network>> + Send;

    /// Creates a volume and returns it. One of the same name that exists already is returned
    /// instead, whoever owns it: look at its labels.
    fn create_volume(&self, want: &VolumeWant) -> impl Future<Output = Result<Volume>> + Send;

    /// Creates a container with both its networks and returns its id. Its name is the lock:
    /// [`EngineError::NameTaken`] if it exists.
    fn create_container(
        &self,
        want: &ContainerWant,
        command: &Command,
    ) -> impl Future<Output = Result<String>> + Send;

    /// Starts a container; fine if it runs.
    fn start_container(&self, id: &str) -> impl Future<Output = Result<()>> + Send;

    /// When a container was started last; None if it never was, or is not there.
    fn started(&self, id: &str) -> impl Future<Output = Result<Option<Timestamp>>> + Send;

    /// Stops a container, and kills it after `grace`; fine if it stands or is gone.
    fn stop_container(&self, id: &str, grace: Duration) -> impl Future<Output = Result<()>> + Send;

    /// Removes a container by force, with its anonymous volumes; fine if it is gone.
    fn remove_container(&self, id: &str) -> impl Future<Output = Result<()>> + Send;

    /// Removes a volume; fine if it is gone.
    fn remove_volume(&self, name: &str) -> impl Future<Output = Result<()>> + Send;

    /// Removes a network; fine if it is gone.
    fn remove_network(&self, id: &str) -> impl Future<Output = Result<()>> + Send;

    /// Writes files into a container, running or not, owned by root, making directories as needed.
    fn write_files(&self, id: &str, files: &[FileWant]) -> impl Future<Output = Result<()>> + Send;

    /// Reads a file of a container, running or not; None if file or container is not there.
    fn read_file(&self, id: &str, path: &str) -> impl Future<Output = Result<Option<Vec<u8>>>> + Send;

    /// Whether there is something at a path of a container, running or not; false if path or container is
    /// not there.
    fn has_path(&self, id: &str, path: &str) -> impl Future<Output = Result<bool>> + Send;

    /// The last lines a container wrote.
    fn logs(&self, id: &str, lines: usize) -> impl Future<Output = Result<String>> + Send;

    /// Runs a command in a running container, feeding it `input`, and waits for its end.
    fn exec<S>(
        &self,
        id: &str,
        command: &[&str],
        input: S,
    ) -> impl Future<Output = Result<ExecOutput>> + Send
    where
        S: Stream<Item = Bytes> + Send + Unpin + 'static;

    /// Runs a short-lived container of `want` to its end and returns what it wrote, removing it.
    fn run_once(&self, probe: &Probe) -> impl Future<Output = Result<String>> + Send;

    /// What happens to objects of ours, and of whom, until the connection ends: from `since` on, in
    /// the engine's own time, as far back as it remembers.
    fn events(&self, since: Timestamp) -> impl Stream<Item = Result<EngineEvent>> + Send;
}

/// Where progress of long calls goes, in words.
pub type Progress = dyn Fn(&str) + Send + Sync;

/// Facts of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageInfo {
    /// Its id.
    pub id: String,
    /// The paths it declares as volumes.
    pub volumes: Vec<String>,
    /// Names of the variables it sets.
    pub env: Vec<String>,
}

/// What a container runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Command {
    /// Replaces the image's entrypoint.
    pub entrypoint: Vec<String>,
    /// Arguments to it.
    pub args: Vec<String>,
}

/// A container that answers a question and goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Name.
    pub name: String,
    /// Image, which must be there.
    pub image: String,
    /// Shell command, for /bin/sh.
    pub script: String,
    /// Labels, so that one left behind is known as ours.
    pub labels: std::collections::BTreeMap<String, String>,
    /// What it looks at, read-only, and where. Docker makes one that went a moment ago anew: as it was, and
    /// empty.
    pub volumes: Vec<(VolumeWant, String)>,
}

/// What a command in a container did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecOutput {
    /// Its exit code.
    pub code: i64,
    /// Standard output and error, interleaved.
    pub output: String,
}

/// Something happened to an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineEvent {
    /// container, network, volume or image.
    pub kind: String,
    /// What happened, such as die or destroy.
    pub action: String,
    /// Name of the object, where the event has it.
    pub name: String,
    /// When, in the engine's time.
    pub at: Option<Timestamp>,
    /// uid of the cluster it belongs to. Volume and network events carry no labels: there it is
    /// None and the name tells.
    pub owner: Option<String>,
    /// What a container is in that cluster, in the words of its label.
    pub role: Option<String>,
    /// Id of the container that joined a network, or left it.
    pub container: Option<String>,
}
