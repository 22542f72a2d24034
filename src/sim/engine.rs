//! The simulated Docker behind the product's traits, with the accidents that a test arranged.

use std::{
    future::{pending, poll_fn},
    sync::{Arc, Mutex, MutexGuard},
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use futures::Stream;
use jiff::Timestamp;

use super::{
    docker::Docker,
    faults::{Fault, Faults},
};
use crate::{
    engine::{
        Command, Engine, EngineError, EngineEvent, ExecOutput, ImageInfo, Probe, Progress, Result, Scope,
    },
    plan::{Container, ContainerWant, EngineInfo, FileWant, Network, NetworkWant, Volume, VolumeWant},
};

/// A handle to one Docker host; clones see the same.
#[derive(Clone, Debug, Default)]
pub struct SimEngine(Arc<Shared>);

/// The nested clusters on it.
#[derive(Clone, Debug)]
pub struct SimClusters(pub SimEngine);

#[derive(Debug, Default)]
struct Shared {
    docker: Mutex<Docker>,
    history: Mutex<History>,
}

/// What was asked so far.
#[derive(Debug, Default)]
struct History {
    faults: Faults,
    calls: usize,
    changes: Vec<String>,
    cut: bool,
}

impl SimEngine {
    pub fn new(docker: Docker) -> Self {
        let engine = Self::default();
        *engine.docker() = docker;
        engine
    }

    pub fn docker(&self) -> MutexGuard<'_, Docker> {
        self.0.docker.lock().unwrap()
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.0.history.lock().unwrap()
    }

    /// Arranges accidents in place of those arranged before.
    pub fn arrange(&self, faults: Faults) {
        self.history().faults = faults;
    }

    /// Every change that was asked for, in words.
    pub fn changes(&self) -> Vec<String> {
        self.history().changes.clone()
    }

    pub fn note(&self, change: String) {
        self.history().changes.push(change);
    }

    /// Whether whoever asked last is gone; says so once.
    pub fn take_cut(&self) -> bool {
        std::mem::take(&mut self.history().cut)
    }

    /// How many calls there were.
    pub fn calls(&self) -> usize {
        self.history().calls
    }

    /// Lets others go first for as many turns as was arranged. Returns the call's number.
    pub async fn pause(&self) -> usize {
        let (number, mut turns) = {
            let mut history = self.history();
            history.calls += 1;
            let delays = &history.faults.delays;
            (history.calls - 1, if delays.is_empty() { 0 } else { delays[history.calls % delays.len()] })
        };
        poll_fn(|context| {
            if turns == 0 {
                return Poll::Ready(());
            }
            turns -= 1;
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
        number
    }

    /// Waits for the call's turn. Returns the accident that it meets, if Docker is there at all.
    async fn arrive(&self, what: &str) -> Result<Option<Fault>> {
        let number = self.pause().await;
        let (away, fault, cut) = {
            let history = self.history();
            let away = history.faults.away.iter().any(|range| range.contains(&history.calls));
            (away, history.faults.at_call.get(&number).copied(), history.cut)
        };
        if cut {
            return pending().await;
        }
        if away {
            return Err(EngineError::Unavailable { what: what.into(), cause: "arranged".into() });
        }
        Ok(fault)
    }

    /// A call to a nested API with this `effect`, which meets the accidents of its number. Docker may be
    /// away meanwhile.
    pub async fn reach<T>(
        &self,
        effect: impl FnOnce(&mut Docker) -> std::result::Result<T, String>,
    ) -> std::result::Result<T, String> {
        let number = self.pause().await;
        let (fault, cut) = {
            let history = self.history();
            (history.faults.at_call.get(&number).copied(), history.cut)
        };
        if cut {
            return pending().await;
        }
        match fault {
            None => effect(&mut self.docker()),
            Some(Fault::Before | Fault::Refused) => Err("connection refused: arranged".into()),
            Some(Fault::After) => {
                effect(&mut self.docker())?;
                Err("timed out: arranged".into())
            }
            Some(cut) => {
                if cut == Fault::CutAfter {
                    let _ = effect(&mut self.docker());
                }
                self.history().cut = true;
                pending().await
            }
        }
    }

    async fn ask<T>(&self, what: &str, answer: impl FnOnce(&mut Docker) -> T) -> Result<T> {
        let fault = self.arrive(what).await?;
        self.meet(what, fault, |docker| Ok(answer(docker))).await
    }

    async fn change<T>(
        &self,
        what: String,
        effect: impl FnOnce(&mut Docker) -> Result<T> + Send,
    ) -> Result<T> {
        let fault = self.arrive(&what).await?;
        let fault_of_change = {
            let mut history = self.history();
            let number = history.changes.len();
            history.changes.push(what.clone());
            history.faults.at.get(&number).copied()
        };
        self.meet(&what, fault.or(fault_of_change), effect).await
    }

    /// Lets an accident happen to a call with this `effect`.
    async fn meet<T>(
        &self,
        what: &str,
        fault: Option<Fault>,
        effect: impl FnOnce(&mut Docker) -> Result<T>,
    ) -> Result<T> {
        let what = what.to_owned();
        match fault {
            None => effect(&mut self.docker()),
            Some(Fault::Before) => Err(EngineError::Unavailable { what, cause: "arranged".into() }),
            Some(Fault::Refused) => Err(EngineError::Refused { what, message: "arranged".into() }),
            Some(Fault::After) => {
                effect(&mut self.docker())?;
                Err(EngineError::TimedOut { what, seconds: 60 })
            }
            Some(cut) => {
                if cut == Fault::CutAfter {
                    let _ = effect(&mut self.docker());
                }
                self.history().cut = true;
                pending().await
            }
        }
    }
}

fn labels(scope: &Scope) -> Vec<String> {
    match scope {
        Scope::Labels(labels) => labels.clone(),
        Scope::Everything => Vec::new(),
    }
}

impl Engine for SimEngine {
    async fn ping(&self) -> Result<()> {
        self.ask("ping", |_| ()).await
    }

    async fn info(&self) -> Result<EngineInfo> {
        self.ask("info", |docker| docker.info.clone()).await
    }

    async fn list_containers(&self, scope: &Scope) -> Result<Vec<Container>> {
        self.ask("list containers", |docker| docker.list_containers(&labels(scope))).await
    }

    async fn container(&self, id: &str) -> Result<Option<Container>> {
        let all = self.ask("list containers", |docker| docker.list_containers(&[])).await?;
        Ok(all.into_iter().find(|container| container.id == id))
    }

    async fn list_volumes(&self, scope: &Scope) -> Result<Vec<Volume>> {
        self.ask("list volumes", |docker| docker.list_volumes(&labels(scope))).await
    }

    async fn list_networks(&self, scope: &Scope) -> Result<Vec<Network>> {
        self.ask("list networks", |docker| docker.list_networks(&labels(scope))).await
    }

    async fn inspect_image(&self, reference: &str) -> Result<Option<ImageInfo>> {
        let found = |docker: &mut Docker| docker.images.get(reference).filter(|i| i.present).cloned();
        let image = self.ask("inspect image", found).await?;
        Ok(image.map(|image| ImageInfo { id: reference.into(), volumes: image.volumes, env: Vec::new() }))
    }

    async fn pull_image(&self, reference: &str, _progress: &Progress) -> Result<()> {
        self.change(format!("pull image {reference}"), |docker| docker.pull(reference)).await
    }

    fn export_image(&self, _reference: &str) -> impl Stream<Item = Result<Bytes>> + Send {
        futures::stream::empty()
    }

    async fn create_network(&self, want: &NetworkWant) -> Result<Network> {
        self.change(format!("create network {}", want.name), |docker| docker.create_network(want)).await
    }

    async fn create_volume(&self, want: &VolumeWant) -> Result<Volume> {
        self.change(format!("create volume {}", want.name), |docker| Ok(docker.create_volume(want))).await
    }

    async fn create_container(&self, want: &ContainerWant, _command: &Command) -> Result<String> {
        self.change(format!("create container {}", want.name), |docker| docker.create_container(want)).await
    }

    async fn start_container(&self, id: &str) -> Result<()> {
        self.change(format!("start container {id}"), |docker| docker.start_container(id)).await
    }

    async fn started(&self, id: &str) -> Result<Option<Timestamp>> {
        let started =
            |docker: &mut Docker| docker.containers.values().find(|c| c.id == id).and_then(|c| c.started);
        self.ask("inspect container", started).await
    }

    async fn stop_container(&self, id: &str, _grace: Duration) -> Result<()> {
        let stop = |docker: &mut Docker| {
            docker.stop_container(id);
            Ok(())
        };
        self.change(format!("stop container {id}"), stop).await
    }

    async fn remove_container(&self, id: &str) -> Result<()> {
        let remove = |docker: &mut Docker| {
            docker.remove_container(id);
            Ok(())
        };
        self.change(format!("remove container {id}"), remove).await
    }

    async fn remove_volume(&self, name: &str) -> Result<()> {
        self.change(format!("remove volume {name}"), |docker| docker.remove_volume(name)).await
    }

    async fn remove_network(&self, id: &str) -> Result<()> {
        self.change(format!("remove network {id}"), |docker| docker.remove_network(id)).await
    }

    async fn write_files(&self, id: &str, files: &[FileWant]) -> Result<()> {
        self.change(format!("write files of {id}"), |docker| docker.write_files(id, files)).await
    }

    async fn read_file(&self, id: &str, path: &str) -> Result<Option<Vec<u8>>> {
        self.ask("read file", |docker| docker.read_file(id, path)).await
    }

    async fn has_path(&self, id: &str, path: &str) -> Result<bool> {
        self.ask("look for file", |docker| docker.has_path(id, path)).await
    }

    /// The worst a process could write: all it was told.
    async fn logs(&self, id: &str, _lines: usize) -> Result<String> {
        let talk = |docker: &mut Docker| {
            let container = docker.containers.values().find(|c| c.id == id);
            let env = container.iter().flat_map(|c| &c.want.env);
            let env: Vec<String> = env.map(|(k, v)| format!("{k}={}", v.expose())).collect();
            let token = docker.read_file(id, crate::k3s::TOKEN_PATH).unwrap_or_default();
            format!("fatal: token {}\nenvironment {}", String::from_utf8_lossy(&token), env.join(" "))
        };
        self.ask("logs", talk).await
    }

    async fn exec<S>(&self, _id: &str, _command: &[&str], _input: S) -> Result<ExecOutput>
    where
        S: Stream<Item = Bytes> + Send + Unpin + 'static,
    {
        let hangs = self.history().faults.hanging;
        if hangs {
            return pending().await;
        }
        Ok(ExecOutput::default())
    }

    /// In two changes, since whoever asked may be gone between them.
    async fn run_once(&self, probe: &Probe) -> Result<String> {
        let want = ContainerWant {
            name: probe.name.clone(),
            labels: probe.labels.clone(),
            image: probe.image.clone(),
            ..super::docker::bare_container()
        };
        let run = |docker: &mut Docker| docker.run_probe(&want);
        let id = self.change(format!("create container {}", want.name), run).await?;
        self.remove_container(&id).await?;
        Ok(self.docker().told(probe))
    }

    fn events(&self, _since: jiff::Timestamp) -> impl Stream<Item = Result<EngineEvent>> + Send {
        futures::stream::pending()
    }
}
