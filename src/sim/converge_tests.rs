//! Whatever is edited, fails or is cut off: the cluster ends up as if it had been made that way,
//! with the data it had.

use proptest::prelude::*;

use super::{
    docker::Docker,
    faults::{Faults, faults},
    lab::{Lab, cases, host, is_ready},
    projection::{difference, project, record},
    specs::{Draft, Edit, VERSIONS, dev, draft, edit},
    wounds::{Wound, wound},
};
use crate::api::label;

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

/// What happens, and how many steps are taken before the next.
#[derive(Clone, Debug)]
struct Act {
    edit: Option<Edit>,
    wound: Option<Wound>,
    steps: usize,
}

fn act() -> impl Strategy<Value = Act> {
    let what = (prop::option::of(edit()), prop::option::of(wound()), 0..4usize);
    what.prop_map(|(edit, wound, steps)| Act { edit, wound, steps })
}

/// Whether `wound` is one that k3nest can put right at this moment: data of a cluster that has others
/// to have it from, and a record that was written more than once.
fn can_be_healed(wound: &Wound, lab: &Lab, ready: bool) -> bool {
    let initialised = record(&lab.engine.docker(), &dev()).is_some_and(|record| record.initialised);
    match wound {
        Wound::RecordRemoved => initialised,
        wound => !wound.takes_data() || (ready && initialised),
    }
}

fn history(lab: &mut Lab, first: &Draft, acts: &[Act]) -> Result<Draft, TestCaseError> {
    let mut draft = first.clone();
    let mut born: Option<ForLife> = None;
    let mut ready = false;
    for act in std::iter::once(None).chain(acts.iter().map(Some)) {
        let steps = act.map_or(3, |act| act.steps);
        if let Some(edit) = act.and_then(|act| act.edit.as_ref()) {
            draft = draft.edited(edit);
        }
        if let Some(wound) = act.and_then(|act| act.wound.as_ref()).filter(|w| can_be_healed(w, lab, ready)) {
            wound.inflict(&mut lab.engine.docker(), &dev());
            ready = false;
        }
        for _ in 0..steps {
            let outcome = lab.step(&draft, &dev());
            ready = outcome.as_ref().is_some_and(is_ready);
            lab.wait(outcome.as_ref());
            let now = for_life(&lab.engine.docker());
            if let (Some(born), Some(now)) = (&born, &now) {
                prop_assert_eq!(
                    (&born.etcd, &born.token, &born.subnet),
                    (&now.etcd, &now.token, &now.subnet)
                );
                if draft.api_port.is_none() && born.api_port != now.api_port {
                    prop_assert!(acts.iter().any(|act| matches!(act.edit, Some(Edit::ApiPort(Some(_))))));
                }
            }
            born = now.or(born);
        }
    }
    Ok(draft)
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn every_history_ends_as_if_made_that_way(
        first in draft(),
        acts in prop::collection::vec(act(), 0..6),
        accidents in faults(60),
    ) {
        // Given a history of edits with accidents,
        let mut lab = Lab::new(host());
        lab.engine.arrange(accidents);
        let last = history(&mut lab, &first, &acts)?;

        // when time passes,
        let outcome = lab.settle(&last, &dev());

        // then the cluster is Ready, with the data it had,
        let outcome = outcome.ok_or_else(|| TestCaseError::fail("it never settles"))?;
        prop_assert!(is_ready(&outcome), "{:#?}", outcome.status.conditions);
        prop_assert_eq!(outcome.status.version.as_deref(), Some(VERSIONS[last.version]));
        prop_assert_eq!(&lab.engine.docker().broken, &Vec::<String>::new());

        // and as a new one would be (a probe that was left behind is given its time),
        lab.pass(std::time::Duration::from_mins(6));
        prop_assert_eq!(lab.settle(&last, &dev()).as_ref().map(is_ready), Some(true));
        let projection = project(&lab.engine.docker(), &dev(), &last);
        let expected = fresh(&last);
        prop_assert_eq!(difference(&projection, &expected), Vec::<String>::new());

        // and nothing is done any more.
        lab.engine.arrange(Faults::default());
        let changes = lab.engine.changes().len();
        let idle = lab.step(&last, &dev()).ok_or_else(|| TestCaseError::fail("cut"))?;
        prop_assert_eq!(idle.changes, 0);
        prop_assert_eq!(&lab.engine.changes()[changes..], &[] as &[String]);
    }
}
