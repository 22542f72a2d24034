//! The order of steps, over an engine whose calls end when the test says so.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures::Stream;
use jiff::Timestamp;
use tokio::sync::Semaphore;

use super::*;
use crate::{
    api::Role,
    engine::{EngineEvent, ExecOutput, ImageInfo, Probe},
    plan::{Container, ContainerState, EngineInfo, Network, NetworkWant, Step, Volume, VolumeWant},
};

/// Creates volumes, and remembers when it began and ended. Every creation waits for a permit.
#[derive(Clone)]
struct FakeEngine {
    log: Arc<Mutex<Vec<String>>>,
    permits: Arc<Semaphore>,
    labels: BTreeMap<String, String>,
    broken: Option<&'static str>,
}

impl FakeEngine {
    fn new(labels: BTreeMap<String, String>) -> Self {
        Self { log: Arc::default(), permits: Arc::new(Semaphore::new(0)), labels, broken: None }
    }

    fn note(&self, line: String) {
        self.log.lock().unwrap().push(line);
    }

    fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }
}

impl Engine for FakeEngine {
    async fn create_volume(&self, want: &VolumeWant) -> Result<Volume> {
        self.note(format!("+{}", want.name));
        self.permits.acquire().await.unwrap().forget();
        if self.broken == Some(&want.name) {
            return Err(EngineError::Refused {
                what: format!("create volume {}", want.name),
                message: "no".into(),
            });
        }
        self.note(format!("-{}", want.name));
        Ok(Volume { name: want.name.clone(), labels: self.labels.clone() })
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> Result<()> {
        self.note(format!("stop {id} {}", grace.as_secs()));
        Ok(())
    }

    async fn remove_container(&self, id: &str) -> Result<()> {
        self.note(format!("remove {id}"));
        Ok(())
    }

    async fn started(&self, _: &str) -> Result<Option<jiff::Timestamp>> {
        unimplemented!()
    }
    async fn ping(&self) -> Result<()> {
        unimplemented!()
    }
    async fn info(&self) -> Result<EngineInfo> {
        unimplemented!()
    }
    async fn list_containers(&self, _: &Scope) -> Result<Vec<Container>> {
        unimplemented!()
    }
    async fn container(&self, _: &str) -> Result<Option<Container>> {
        unimplemented!()
    }
    async fn list_volumes(&self, _: &Scope) -> Result<Vec<Volume>> {
        unimplemented!()
    }
    async fn list_networks(&self, _: &Scope) -> Result<Vec<Network>> {
        unimplemented!()
    }
    async fn inspect_image(&self, _: &str) -> Result<Option<ImageInfo>> {
        unimplemented!()
    }
    async fn pull_image(&self, _: &str, _: &Progress) -> Result<()> {
        unimplemented!()
    }
    fn export_image(&self, _: &str) -> impl Stream<Item = Result<Bytes>> + Send {
        futures::stream::empty()
    }
    async fn create_network(&self, _: &NetworkWant) -> Result<Network> {
        unimplemented!()
    }
    async fn create_container(&self, _: &ContainerWant, _: &Command) -> Result<String> {
        unimplemented!()
    }
    async fn start_container(&self, _: &str) -> Result<()> {
        unimplemented!()
    }
    async fn remove_volume(&self, _: &str) -> Result<()> {
        unimplemented!()
    }
    async fn remove_network(&self, _: &str) -> Result<()> {
        unimplemented!()
    }
    async fn write_files(&self, _: &str, _: &[FileWant]) -> Result<()> {
        unimplemented!()
    }
    async fn read_file(&self, _: &str, _: &str) -> Result<Option<Vec<u8>>> {
        unimplemented!()
    }
    async fn has_path(&self, _: &str, _: &str) -> Result<bool> {
        unimplemented!()
    }
    async fn logs(&self, _: &str, _: usize) -> Result<String> {
        unimplemented!()
    }
    async fn exec<S>(&self, _: &str, _: &[&str], _: S) -> Result<ExecOutput>
    where
        S: Stream<Item = Bytes> + Send + Unpin + 'static,
    {
        unimplemented!()
    }
    async fn run_once(&self, _: &Probe) -> Result<String> {
        unimplemented!()
    }
    fn events(&self, _since: jiff::Timestamp) -> impl Stream<Item = Result<EngineEvent>> + Send {
        futures::stream::empty()
    }
}

struct NoFiles;

impl Inside for NoFiles {
    async fn forget(&self, _node: &str) -> Result<()> {
        Ok(())
    }

    fn command(&self, _: &ContainerWant) -> Command {
        Command::default()
    }
    async fn files(&self, _: &str, _: &ContainerWant) -> Result<Vec<FileWant>> {
        Ok(Vec::new())
    }
}

fn identity() -> Identity {
    Identity::standalone("ENGINE", "default", "dev")
}

fn labels() -> BTreeMap<String, String> {
    identity().labels(Role::Volume)
}

/// A plan of volumes, each with the volumes it comes after.
fn plan(steps: &[(&str, &[usize])]) -> Plan {
    let volume = |name: &str| Action::CreateVolume(VolumeWant { name: name.into(), labels: labels() });
    let steps = steps.iter().map(|(name, after)| Step { action: volume(name), after: after.to_vec() });
    Plan { steps: steps.collect(), ..Plan::default() }
}

async fn run(engine: FakeEngine, plan: Plan) -> Report {
    execute(&engine, &identity(), &plan, &NoFiles, &|_: &str| {}).await
}

#[tokio::test]
async fn independent_steps_run_at_once_and_dependent_ones_after() {
    // Given c after a and b, and d on its own
    let engine = FakeEngine::new(labels());
    let steps = plan(&[("a", &[]), ("b", &[]), ("c", &[0, 1]), ("d", &[])]);
    let running = tokio::spawn(run(engine.clone(), steps));
    // Then a, b and d begin before anything ends
    while engine.log().len() < 3 {
        tokio::task::yield_now().await;
    }
    let mut begun = engine.log();
    begun.sort();
    assert_eq!(begun, ["+a", "+b", "+d"]);
    // When they end
    engine.permits.add_permits(4);
    assert_eq!(running.await.unwrap(), Report { done: 4, failures: Vec::new() });
    // Then c follows both
    let log = engine.log();
    let at = |line: &str| log.iter().position(|l| l == line).unwrap();
    assert!(at("+c") > at("-a") && at("+c") > at("-b"), "{log:?}");
}

#[tokio::test]
async fn a_failure_holds_up_what_comes_after_it_and_nothing_else() {
    let mut engine = FakeEngine::new(labels());
    engine.broken = Some("a");
    engine.permits.add_permits(10);
    let steps = plan(&[("a", &[]), ("b", &[0]), ("c", &[1]), ("d", &[]), ("e", &[3])]);
    let report = run(engine.clone(), steps).await;
    assert_eq!(report.done, 2);
    assert_eq!(report.failures.iter().map(|f| f.action.as_str()).collect::<Vec<_>>(), ["create volume a"]);
    let mut begun: Vec<_> = engine.log().into_iter().filter(|line| line.starts_with('+')).collect();
    begun.sort();
    assert_eq!(begun, ["+a", "+d", "+e"]);
}

#[tokio::test]
async fn a_step_named_twice_as_a_predecessor_counts_once() {
    let engine = FakeEngine::new(labels());
    engine.permits.add_permits(10);
    assert_eq!(run(engine, plan(&[("a", &[]), ("b", &[0, 0])])).await.done, 2);
}

#[tokio::test]
async fn a_volume_of_somebody_else_is_no_success() {
    let other = Identity::standalone("ENGINE", "default", "other");
    let engine = FakeEngine::new(other.labels(Role::Volume));
    engine.permits.add_permits(10);
    let report = run(engine, plan(&[("a", &[])])).await;
    assert_eq!(report.failures[0].error, EngineError::NameTaken { kind: "volume", name: "a".into() });
}

#[tokio::test]
async fn a_volume_of_ours_that_says_something_else_is_read_first() {
    let engine = FakeEngine::new(identity().labels(Role::Data));
    engine.permits.add_permits(10);
    let report = run(engine, plan(&[("a", &[]), ("b", &[0])])).await;
    assert_eq!((report.done, report.failures.len()), (0, 1));
    assert!(matches!(report.failures[0].error, EngineError::Busy { .. }), "{report:?}");
}

#[tokio::test]
async fn only_a_graceful_removal_stops_first() {
    let engine = FakeEngine::new(labels());
    let remove =
        |id: &str, graceful| Action::RemoveContainer { id: id.into(), name: format!("dev-{id}"), graceful };
    let steps = vec![
        Step { action: remove("1", true), after: Vec::new() },
        Step { action: remove("2", false), after: vec![0] },
    ];
    run(engine.clone(), Plan { steps, ..Plan::default() }).await;
    assert_eq!(engine.log(), ["stop 1 30", "remove 1", "remove 2"]);
}

#[test]
fn a_taken_name_that_no_container_has_yet_is_being_made() {
    let held = |labels| Container {
        id: "1".into(),
        name: "dev".into(),
        image: "i".into(),
        state: ContainerState::Running,
        status: "Up".into(),
        labels,
        created: Timestamp::UNIX_EPOCH,
        networks: BTreeMap::new(),
        ports: Vec::new(),
    };
    let who = |containers: &[Container]| taken_name("dev", containers, &identity());
    assert!(matches!(who(&[]), EngineError::Busy { .. }));
    assert!(matches!(who(&[held(labels())]), EngineError::Busy { .. }));
    assert!(matches!(who(&[held(BTreeMap::new())]), EngineError::NameTaken { .. }));
}
