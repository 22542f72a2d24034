//! Two who apply the same spec at the same time, as an operator and its successor, or two people
//! at their shells: one cluster comes of it, and nothing twice.

use proptest::prelude::*;

use super::{
    faults::faults,
    lab::{Lab, cases, host, is_ready},
    projection::{difference, project},
    specs::{dev, draft, edit},
};
use crate::reconcile::step;

proptest! {
    #![proptest_config(cases(96))]

    #[test]
    fn two_appliers_make_one_cluster(
        first in draft(),
        edits in prop::collection::vec(edit(), 0..3),
        turns in prop::collection::vec(any::<bool>(), 1..40),
        accidents in faults(60),
    ) {
        // Given two appliers who take every step at the same time, edit by edit,
        let mut lab = Lab::new(host());
        lab.engine.arrange(accidents);
        let mut last = first;
        for edit in std::iter::once(None).chain(edits.iter().map(Some)) {
            last = edit.map_or(last.clone(), |edit| last.edited(edit));
            for _ in 0..4 {
                let request = lab.request(&last, &dev());
                let now = lab.now();
                let ends = lab.run_both(
                    step(&lab.world, &request, now),
                    step(&lab.world, &request, now),
                    &turns,
                );
                lab.wait(ends[0].as_ref().or(ends[1].as_ref()));
            }
        }

        // when one of them goes on alone,
        let outcome = lab.settle(&last, &dev());

        // (a probe that was left behind is given its time)
        lab.pass(std::time::Duration::from_mins(6));
        let outcome = outcome.and_then(|_| lab.settle(&last, &dev()));

        // then it is the cluster that one alone would have made.
        let outcome = outcome.ok_or_else(|| TestCaseError::fail("it never settles"))?;
        prop_assert!(is_ready(&outcome), "{:#?}", outcome.status.conditions);
        prop_assert_eq!(&lab.engine.docker().broken, &Vec::<String>::new());
        let mut alone = Lab::new(host());
        alone.settle(&last, &dev());
        let expected = project(&alone.engine.docker(), &dev(), &last);
        let projection = project(&lab.engine.docker(), &dev(), &last);
        prop_assert_eq!(difference(&projection, &expected), Vec::<String>::new());
    }
}
