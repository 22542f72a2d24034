//! Whatever is edited, fails or is cut off: the cluster ends up as if it had been made that way,
//! with the data it had.

use proptest::prelude::*;

use super::{
    docker::Docker,
    faults::{Faults, faults},
    lab::{Lab, cases, host, is_ready},
    projection::{difference, project, record},
    specs::{Draft, Edit, VERSIONS, dev, draft, edit},
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

/// An edit, and how many steps are taken before the next.
type Act = (Edit, usize);

fn history(lab: &mut Lab, first: &Draft, acts: &[Act]) -> Result<Draft, TestCaseError> {
    let mut draft = first.clone();
    let mut born: Option<ForLife> = None;
    for act in std::iter::once(None).chain(acts.iter().map(Some)) {
        let steps = act.map_or(3, |(_, steps)| *steps);
        if let Some((edit, _)) = act {
            draft = draft.edited(edit);
        }
        for _ in 0..steps {
            let outcome = lab.step(&draft, &dev());
            lab.wait(outcome.as_ref());
            let now = for_life(&lab.engine.docker());
            if let (Some(born), Some(now)) = (&born, &now) {
                prop_assert_eq!(
                    (&born.etcd, &born.token, &born.subnet),
                    (&now.etcd, &now.token, &now.subnet)
                );
                if draft.api_port.is_none() && born.api_port != now.api_port {
                    prop_assert!(acts.iter().any(|(edit, _)| matches!(edit, Edit::ApiPort(Some(_)))));
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
        acts in prop::collection::vec((edit(), 0..4usize), 0..5),
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
