//! Two host clusters with one Docker: what one has adopted, the other leaves alone, also where both have a
//! resource for it.

use super::{
    lab::{Lab, host, is_ready, message, reason},
    projection::leftovers,
    specs::{Draft, dev},
};
use crate::{
    plan::{Adopter, Keeper},
    reconcile::{Outcome, Removal, remove},
};

const FIRST: &str = "adopter-1";
const SECOND: &str = "adopter-2";

fn adopter(uid: &str, from: Option<&str>) -> Adopter {
    let keeper = Keeper { instance: "host-b".into(), uid: uid.into() };
    Adopter { keeper, from: from.map(str::to_owned) }
}

impl Lab {
    fn removal(&self, adopter: Option<&Adopter>) -> Removal {
        self.run(remove(&self.world, &dev(), adopter)).expect("nobody cuts it off").expect("Docker answers")
    }

    fn changes_of(&mut self, act: impl FnOnce(&mut Self) -> Outcome) -> (Outcome, usize) {
        let before = self.engine.changes().len();
        let outcome = act(self);
        (outcome, self.engine.changes().len() - before)
    }
}

#[test]
fn the_first_owner_keeps_away_from_what_was_adopted() {
    // Given a cluster that another host cluster has adopted as it is,
    let (mut lab, draft) = (Lab::new(host()), Draft { internal: 2, ..Draft::default() });
    lab.settle(&draft, &dev()).unwrap();
    let first = adopter(FIRST, None);
    let (adopted, changes) = lab.changes_of(|lab| lab.adopting_step(&draft, &dev(), &first));
    assert!(is_ready(&adopted), "{}", message(&adopted));
    assert_eq!(changes, 2, "the record alone is written anew");

    // when the first owner comes back, it is told, and neither changes nor removes anything,
    let (outcome, changes) = lab.changes_of(|lab| lab.step(&draft, &dev()).unwrap());
    assert_eq!((reason(&outcome), changes), ("AdoptionConflict", 0));
    assert!(message(&outcome).contains(FIRST), "{}", message(&outcome));
    assert_eq!(lab.removal(None), Removal::Kept(first.keeper.clone()));

    // nor does another, until it says from whom it takes it over,
    let (outcome, _) = lab.changes_of(|lab| lab.adopting_step(&draft, &dev(), &adopter(SECOND, None)));
    assert_eq!(reason(&outcome), "AdoptionConflict");
    let second = adopter(SECOND, Some(FIRST));
    assert!(is_ready(&lab.adopting_step(&draft, &dev(), &second)));
    assert_eq!(reason(&lab.adopting_step(&draft, &dev(), &first)), "AdoptionConflict");
    assert_eq!(lab.removal(Some(&first)), Removal::Kept(second.keeper.clone()));

    // and with the last one it goes.
    assert_eq!(lab.removal(Some(&second)), Removal::Gone);
    assert_eq!(leftovers(&lab.engine.docker(), &dev()), [""; 0]);
}

#[test]
fn an_adopted_cluster_that_lost_its_record_is_its_keepers() {
    let (mut lab, draft) = (Lab::new(host()), Draft { internal: 2, ..Draft::default() });
    lab.settle(&draft, &dev()).unwrap();
    let first = adopter(FIRST, None);
    lab.adopting_step(&draft, &dev(), &first);
    let records = |lab: &Lab| -> Vec<String> {
        lab.engine.docker().volumes.keys().filter(|name| name.contains("-record-")).cloned().collect()
    };
    for name in records(&lab) {
        lab.engine.docker().volumes.remove(&name);
    }
    let outcome = lab.adopting_step(&draft, &dev(), &first);
    assert!(is_ready(&outcome), "{}", message(&outcome));
    assert_eq!(reason(&lab.step(&draft, &dev()).unwrap()), "AdoptionConflict");
}
