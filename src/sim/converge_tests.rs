//! Whatever is edited, fails or is cut off: the cluster ends up as if it had been made that way,
//! with the data it had; or it says what it has lost, and loses no more.

use proptest::{prelude::*, test_runner::TestCaseResult};

use super::{
    docker::Docker,
    faults::{Fault, Faults, faults},
    lab::{Lab, MAX_STEPS, cases, half, host, is_ready, message, reason},
    losses::{Loss, knows_members},
    projection::{difference, leftovers, others, project, record},
    specs::{Draft, Edit, VERSIONS, dev, draft, edit},
    wounds::{Wound, wound},
};
use crate::{api::label, plan::Recover, reconcile::Outcome};

/// What must stay for the life of a cluster: its data, its token, its subnet.
#[derive(Debug, PartialEq)]
struct ForLife {
    etcd: String,
    token: Vec<u8>,
    subnet: String,
    api_port: u16,
}

fn for_life(docker: &Docker) -> Option<ForLife> {
    let record = record(docker, &dev())?;
    let ours = docker.volumes.values().filter(|v| v.labels.get(label::OWNER) == Some(&dev().uid));
    let mut etcds = ours.filter_map(|v| v.etcd.clone());
    let etcd = etcds.next()?;
    assert!(etcds.all(|other| other == etcd), "a cluster has two etcds");
    let subnet = record.network.subnet.to_string();
    record.initialised.then_some(ForLife {
        etcd: etcd.id,
        token: etcd.token,
        subnet,
        api_port: record.api_port,
    })
}

/// A cluster made without any accident.
fn fresh(draft: &Draft) -> String {
    let mut lab = Lab::new(host());
    lab.settle(draft, &dev()).unwrap();
    let docker = lab.engine.docker();
    project(&docker, &dev(), draft)
}

/// What happens, which is something at least, and how many steps are taken before the next, fewer if it is
/// Ready or says what it has lost.
#[derive(Clone, Debug)]
struct Act {
    edit: Option<Edit>,
    wound: Option<Wound>,
    wish: bool,
    steps: usize,
}

fn act() -> impl Strategy<Value = Act> {
    let steps = prop_oneof![2 => 0..4usize, 1 => Just(40)];
    let (edit, wound) = (edit().prop_map(Some), wound().prop_map(Some));
    let what = prop_oneof![
        6 => (edit.clone(), Just(None)),
        6 => (Just(None), wound.clone()),
        6 => (edit, wound),
        1 => (Just(None), Just(None)),
    ];
    (what, prop::bool::weighted(0.1), steps).prop_map(|((edit, wound), wish, steps)| {
        let wish = wish || (edit.is_none() && wound.is_none());
        Act { edit, wound, wish, steps }
    })
}

/// One history of a cluster.
struct Walk {
    lab: Lab,
    draft: Draft,
    /// Whether the API's port was ever asked for.
    moves: bool,
    born: Option<ForLife>,
    /// Whether the last step found it Ready, and nothing has happened since.
    ready: bool,
    /// Whether the record was lost before it knew every server as a member. What is remembered counts all
    /// of them, so that too few seem to be left rather than too many.
    guesses: bool,
}

impl Walk {
    fn new(first: &Draft, accidents: Faults) -> Self {
        let lab = Lab::new(host());
        lab.engine.arrange(accidents);
        let moves = first.api_port.is_some();
        Self { lab, draft: first.clone(), moves, born: None, ready: false, guesses: false }
    }

    fn take(&mut self, act: &Act) -> TestCaseResult {
        if let Some(edit) = &act.edit {
            self.draft = self.draft.edited(edit);
            self.moves |= self.draft.api_port.is_some();
            self.ready = false;
        }
        if act.wound.as_ref().is_some_and(Wound::takes_data) {
            self.steps(40)?;
        }
        if let Some(wound) = act.wound.as_ref().filter(|wound| self.can_be_told(wound)) {
            let known = record(&self.lab.engine.docker(), &dev()).is_some_and(|r| knows_members(&r));
            self.guesses |= *wound == Wound::RecordRemoved && !known;
            wound.inflict(&mut self.lab.engine.docker(), &dev());
            self.ready = false;
        }
        if act.wish {
            self.wish();
        }
        self.steps(act.steps)
    }

    /// Whether what `wound` does is something that k3nest can know of at this moment: a loss of data where
    /// everything was well, and of a record that was written more than once.
    fn can_be_told(&self, wound: &Wound) -> bool {
        let initialised = record(&self.lab.engine.docker(), &dev()).is_some_and(|record| record.initialised);
        match wound {
            Wound::RecordRemoved => initialised,
            wound => !wound.takes_data() || (self.ready && initialised),
        }
    }

    /// Somebody asks for a recovery, with need or without.
    fn wish(&mut self) {
        let nonce = self.lab.wish.as_ref().map_or(0, |wish| wish.nonce.len()) + 1;
        self.lab.wish = Some(Recover { nonce: "n".repeat(nonce), from: None });
        self.ready = false;
    }

    fn steps(&mut self, most: usize) -> TestCaseResult {
        for _ in 0..most {
            let ends = |o: &Outcome| is_ready(o) || Loss::said(reason(o)) != Loss::Nothing;
            if self.step()?.as_ref().is_some_and(ends) {
                break;
            }
        }
        Ok(())
    }

    /// One step, after which everything holds that always must.
    fn step(&mut self) -> Result<Option<Outcome>, TestCaseError> {
        let outcome = self.lab.step(&self.draft, &dev());
        self.ready = outcome.as_ref().is_some_and(is_ready);
        self.guesses &= !self.ready;
        let now = for_life(&self.lab.engine.docker());
        if let (Some(born), Some(now)) = (&self.born, &now) {
            prop_assert_eq!((&born.etcd, &born.token, &born.subnet), (&now.etcd, &now.token, &now.subnet));
            prop_assert!(self.moves || born.api_port == now.api_port, "the port of the API moved");
        }
        self.born = now.or(self.born.take());
        if let Some(outcome) = &outcome {
            let said = Loss::said(reason(outcome));
            let guessed = self.guesses && said == Loss::Quorum;
            prop_assert!(
                said == Loss::Nothing || said == self.loss() || guessed,
                "{:?}, and it says: {}",
                self.loss(),
                message(outcome)
            );
        }
        self.lab.wait(outcome.as_ref());
        Ok(outcome)
    }

    fn loss(&self) -> Loss {
        let of = |born: &ForLife| Loss::of(&self.lab.engine.docker(), &dev(), &born.etcd);
        self.born.as_ref().map_or(Loss::Nothing, of)
    }

    /// Steps until it is Ready, or says what it has lost.
    fn settle(&mut self) -> Result<Outcome, TestCaseError> {
        let mut last = None;
        for _ in 0..MAX_STEPS {
            last = self.step()?.or(last);
            let ends = |o: &Outcome| o.recheck.is_none() || Loss::said(reason(o)) != Loss::Nothing;
            if let Some(outcome) = last.as_ref().filter(|outcome| ends(outcome)) {
                return Ok(outcome.clone());
            }
        }
        let last = last.as_ref().map(message);
        Err(TestCaseError::fail(format!("{:?}, and it never settles: {last:?}", self.loss())))
    }
}

/// Whatever comes of `first`, by `acts` and with `accidents`.
fn ends_as_if_made_that_way(first: &Draft, acts: &[Act], accidents: Faults) -> TestCaseResult {
    // Given a history of edits and wounds with accidents,
    let mut walk = Walk::new(first, accidents);
    let before = others(&walk.lab.engine.docker(), &dev());
    walk.steps(3)?;
    for act in acts {
        walk.take(act)?;
    }

    // when time passes,
    let mut outcome = walk.settle()?;

    // then a loss is said, and a quorum comes back when somebody asks for it,
    if Loss::said(reason(&outcome)) == Loss::Quorum {
        walk.wish();
        outcome = walk.settle()?;
    }
    if walk.loss() == Loss::Data {
        prop_assert_eq!(Loss::said(reason(&outcome)), Loss::Data, "it says: {}", message(&outcome));
    } else {
        ends_ready(&mut walk, &outcome)?;
    }

    // nothing is done any more,
    walk.lab.engine.arrange(Faults::default());
    let changes = walk.lab.engine.changes().len();
    let there = leftovers(&walk.lab.engine.docker(), &dev());
    let idle = walk.step()?.ok_or_else(|| TestCaseError::fail("cut"))?;
    // (where data is lost, volumes are looked into again)
    let made = walk.lab.engine.changes()[changes..].to_vec();
    prop_assert!(made.is_empty() || !is_ready(&idle), "{made:?}");
    prop_assert_eq!(leftovers(&walk.lab.engine.docker(), &dev()), there);
    prop_assert_eq!(&walk.lab.engine.docker().broken, &Vec::<String>::new());

    // and it goes without a trace, and others never noticed.
    prop_assert_eq!(walk.lab.delete(&dev()), Ok(()));
    prop_assert_eq!(leftovers(&walk.lab.engine.docker(), &dev()), Vec::<String>::new());
    prop_assert_eq!(others(&walk.lab.engine.docker(), &dev()), before);
    Ok(())
}

/// Ready, with all data, and as a new cluster would be.
fn ends_ready(walk: &mut Walk, outcome: &Outcome) -> TestCaseResult {
    prop_assert!(is_ready(outcome), "{:?}: {:#?}", walk.loss(), outcome.status.conditions);
    prop_assert_eq!(outcome.status.version.as_deref(), Some(VERSIONS[walk.draft.version]));
    // A probe that was left behind is given its time.
    walk.lab.pass(std::time::Duration::from_mins(6));
    prop_assert!(is_ready(&walk.settle()?));
    let projection = project(&walk.lab.engine.docker(), &dev(), &walk.draft);
    prop_assert_eq!(difference(&projection, &fresh(&walk.draft)), Vec::<String>::new());
    // A server whose etcd has members that nobody knows of is one loss from none.
    let docker = walk.lab.engine.docker();
    let members: Vec<usize> = docker.members.values().map(std::collections::BTreeSet::len).collect();
    prop_assert_eq!(members, vec![walk.draft.servers as usize]);
    Ok(())
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    prop::collection::vec(act(), 1..7)
}

/// Accidents while it is made, or for longer.
fn accidents() -> impl Strategy<Value = Faults> {
    prop_oneof![faults(60), faults(200)]
}

proptest! {
    #![proptest_config(half(cases(256), false))]

    #[test]
    fn every_history_ends_as_if_made_that_way(first in draft(), acts in acts(), accidents in accidents()) {
        ends_as_if_made_that_way(&first, &acts, accidents)?;
    }
}

proptest! {
    #![proptest_config(half(cases(256), true))]

    /// The other half of them, for another processor.
    #[test]
    fn so_does_every_other_history(first in draft(), acts in acts(), accidents in accidents()) {
        ends_as_if_made_that_way(&first, &acts, accidents)?;
    }
}

/// What walks have found, written down: their seeds say something else once walks are drawn differently.
#[test]
fn so_do_histories_that_once_did_not() {
    let act = |edit, wound, steps| Act { edit, wound, wish: false, steps };
    let wound = |wound| act(None, Some(wound), 0);
    let (one, three) = (Draft::default(), Draft { servers: 3, ..Draft::default() });
    // Most servers are lost, and the record before anybody has looked.
    let lost = vec![wound(Wound::MostLost(0, true)), wound(Wound::RecordRemoved)];
    // Docker goes away while a network is made anew whose record is gone.
    let homeless = vec![
        act(None, None, 3),
        act(None, None, 40),
        act(Some(Edit::Args(1)), None, 40),
        wound(Wound::NetworkRemoved),
        wound(Wound::RecordRemoved),
    ];
    let away = Faults {
        at: [(26, Fault::CutAfter), (30, Fault::Before)].into(),
        away: std::iter::once(85..96).collect(),
        delays: vec![0, 1, 0, 0, 0, 0],
        ..Faults::default()
    };
    // Servers are started anew one by one, and some starts fail.
    let at = [(0, Fault::CutBefore), (5, Fault::Before), (23, Fault::CutBefore), (35, Fault::Before)].into();
    let at_call = [(25, Fault::Before), (57, Fault::Before)].into();
    let starts = Faults { at, at_call, ..Faults::default() };
    // The record goes while servers join, before it knows them all.
    let joins = Draft { given_token: true, agents: 1, ..three.clone() };
    let unknown = vec![act(Some(Edit::Agents(1, 0)), Some(Wound::RecordRemoved), 0)];
    let at = [(7, Fault::CutAfter), (16, Fault::Before), (35, Fault::Before)].into();
    let overtaken = Faults { at, delays: vec![3, 1, 0, 1, 3], ..Faults::default() };
    // All data is lost, and then the record.
    let all = vec![act(None, Some(Wound::AllLost(false)), 1), wound(Wound::RecordRemoved)];
    // The same while they are replaced, and somebody asks for a recovery of what is said to be lost.
    let kept = Draft { keep_spec: true, ..three.clone() };
    let replaced = vec![
        act(Some(Edit::Upgrade(1)), None, 3),
        act(Some(Edit::Agents(1, 0)), Some(Wound::RecordRemoved), 0),
    ];
    let histories = [
        (&three, lost, Faults::default()),
        (&one, all, Faults::default()),
        (&one, homeless, away),
        (&three, vec![wound(Wound::NetworkRemoved)], starts),
        (&joins, unknown, overtaken),
        (&kept, replaced, Faults::one(44, Fault::CutBefore)),
    ];
    for (first, acts, accidents) in histories {
        ends_as_if_made_that_way(first, &acts, accidents)
            .unwrap_or_else(|e| panic!("{first:?}, {acts:?}: {e}"));
    }
}
