//! A Docker host that does what the scenario says, and remembers what it was asked.

use std::{collections::BTreeMap, sync::Mutex, time::Duration};

use futures::Stream;
use jiff::Timestamp;
use k3nest::{
    api::{Identity, Phase, Reason, condition, set_condition},
    engine::{EngineError, EngineEvent},
    k3s::Access,
    operator::Backend,
    plan::{Acting, Container, InternalAccess, Keeper, Sensitive, Volume},
    reconcile::{Import, Outcome, Removal, Request},
};

/// What must never be seen outside the kubeconfig Secret.
pub const KEY: &str = "PRIVATE-KEY-OF-THE-ADMINISTRATOR";

/// The engine, unless a test says otherwise.
pub const ENGINE: &str = "ENGINE-A";

/// What the engine is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// Everything works, and every address answers.
    Fine,
    /// No address of the API is reached from Pods.
    Firewalled,
    /// Docker does not answer.
    Away,
    /// Something is still there after a removal.
    Sticky,
    /// Something in Docker is in use.
    Busy,
}

pub struct FakeBackend {
    pub scenario: Mutex<Scenario>,
    pub steps: Mutex<Vec<Request>>,
    pub removals: Mutex<Vec<Identity>>,
    /// Which engine it is.
    pub engine: Mutex<String>,
    /// The records on it, and who else has something there.
    pub records: Mutex<Vec<Volume>>,
    pub owners: Mutex<Vec<Identity>>,
    /// Who has adopted something there, by owner.
    pub keepers: Mutex<BTreeMap<String, Keeper>>,
    /// What happens during each step.
    pub meanwhile: Mutex<Option<Box<dyn Fn() + Send>>>,
}

impl FakeBackend {
    pub fn new(scenario: Scenario) -> Self {
        Self {
            scenario: Mutex::new(scenario),
            steps: Mutex::default(),
            removals: Mutex::default(),
            engine: Mutex::new(ENGINE.into()),
            records: Mutex::default(),
            owners: Mutex::default(),
            keepers: Mutex::default(),
            meanwhile: Mutex::default(),
        }
    }

    fn is(&self, scenario: Scenario) -> bool {
        *self.scenario.lock().unwrap() == scenario
    }

    fn away(&self) -> Result<(), EngineError> {
        match self.is(Scenario::Away) {
            true => Err(EngineError::Unavailable { what: "ping".into(), cause: "no such file".into() }),
            false => Ok(()),
        }
    }
}

impl Backend for FakeBackend {
    async fn step(&self, request: &Request, now: Timestamp) -> Outcome {
        self.steps.lock().unwrap().push(request.clone());
        self.meanwhile.lock().unwrap().iter().for_each(|happens| happens());
        let mut status = request.former.clone();
        status.engine_id.get_or_insert_with(|| ENGINE.into());
        let (ready, reason, message) = match &request.values {
            Ok(_) if self.is(Scenario::Away) => {
                (None, Reason::EngineUnavailable, "Docker is away".to_owned())
            }
            Ok(_) if self.is(Scenario::Busy) => {
                (Some(false), Reason::Progressing, "another container has its pinned address".to_owned())
            }
            Ok(_) => (Some(true), Reason::Ready, "every node is Ready".to_owned()),
            Err(blocked) => (Some(false), blocked.reason, blocked.message.clone()),
        };
        let mut set = |type_, value| {
            set_condition(&mut status.conditions, type_, value, reason, &message, request.generation, now);
        };
        set(condition::READY, ready);
        set(condition::AVAILABLE, ready);
        set(condition::STALLED, Some(ready == Some(false) && reason != Reason::Progressing));
        let up = ready == Some(true);
        status.phase = if up { Phase::Running } else { Phase::Failed };
        status.endpoint = up.then(|| "https://127.0.0.1:16443".to_owned());
        let access = up.then(|| Access {
            ca: "CA".into(),
            certificate: "CERTIFICATE".into(),
            key: Sensitive::new(KEY.into()),
            server_name: request.identity.service_host(),
        });
        Outcome {
            status,
            access,
            internal_candidates: vec![([10, 112, 0, 1].into(), 16443), ([10, 112, 0, 9].into(), 6443)],
            url: None,
            imports: Vec::new(),
            initialised: up,
            changes: 0,
            recheck: self.is(Scenario::Busy).then_some(Duration::from_millis(400)),
            held_up: self.is(Scenario::Busy),
            coming_up: None,
        }
    }

    async fn import(&self, _import: Import) -> (usize, usize) {
        (0, 0)
    }

    async fn remove(&self, acting: &Acting) -> Result<Removal, EngineError> {
        if let Some(keeper) = self.keepers.lock().unwrap().get(&acting.identity.uid)
            && acting.adopter.as_ref().map(|adopter| &adopter.keeper) != Some(keeper)
        {
            return Ok(Removal::Kept(keeper.clone()));
        }
        self.removals.lock().unwrap().push(acting.identity.clone());
        self.away()?;
        Ok(match self.is(Scenario::Sticky) {
            true => Removal::Remaining(vec!["volume k3nest-team-dev-data-12345678".into()]),
            false => Removal::Gone,
        })
    }

    async fn ping(&self) -> Result<(), EngineError> {
        self.away()
    }

    async fn engine_id(&self) -> Result<String, EngineError> {
        self.away().map(|()| self.engine.lock().unwrap().clone())
    }

    async fn records(&self) -> Result<Vec<Volume>, EngineError> {
        self.away().map(|()| self.records.lock().unwrap().clone())
    }

    async fn owners(&self, uid: &str) -> Result<Vec<Identity>, EngineError> {
        let owners = self.owners.lock().unwrap();
        self.away().map(|()| owners.iter().filter(|owner| owner.uid == uid).cloned().collect())
    }

    async fn container(&self, _id: &str) -> Result<Option<Container>, EngineError> {
        self.away().map(|()| None)
    }

    async fn internal(&self) -> Result<InternalAccess, EngineError> {
        self.away().map(|()| InternalAccess::Gateway)
    }

    async fn handshake(&self, _access: &Access, url: &str) -> Result<(), String> {
        // The first candidate is closed to Pods, the second is open.
        match url.contains("10.112.0.9") && !self.is(Scenario::Firewalled) {
            true => Ok(()),
            false => Err("connection refused".into()),
        }
    }

    async fn connect(&self) -> Result<Timestamp, EngineError> {
        self.away().map(|()| Timestamp::UNIX_EPOCH)
    }

    fn events(&self, _since: Timestamp) -> impl Stream<Item = Result<EngineEvent, EngineError>> + Send {
        futures::stream::pending()
    }
}
