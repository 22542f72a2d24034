//! What can go wrong, and when: at the n-th change or the n-th call ever asked for, or during a run of
//! calls.

use std::{collections::BTreeMap, ops::Range};

use proptest::prelude::*;

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails and did nothing.
    Before,
    /// Docker answers that it failed by itself, and did nothing.
    Refused,
    /// It did what was asked, and the answer is an error.
    After,
    /// Whoever asked is gone before anything was done.
    CutBefore,
    /// Whoever asked is gone, and it was done.
    CutAfter,
}

/// The accidents of one history.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// By the number of the changing call, counted from the beginning of the world.
    pub at: BTreeMap<usize, Fault>,
    /// By the number of the call, of any kind, counted likewise.
    pub at_call: BTreeMap<usize, Fault>,
    /// Calls, of any kind, that Docker does not answer.
    pub away: Vec<Range<usize>>,
    /// Whether what is run in containers never ends.
    pub hanging: bool,
    /// How many turns each call waits, over and over: so concurrent calls overtake each other.
    pub delays: Vec<u8>,
}

impl Faults {
    /// One accident.
    pub fn one(at: usize, fault: Fault) -> Self {
        Self { at: [(at, fault)].into(), ..Self::default() }
    }

    /// One accident of a call of any kind.
    pub fn one_call(at: usize, fault: Fault) -> Self {
        Self { at_call: [(at, fault)].into(), ..Self::default() }
    }
}

/// One kind of accident.
pub fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        Just(Fault::Before),
        Just(Fault::Refused),
        Just(Fault::After),
        Just(Fault::CutBefore),
        Just(Fault::CutAfter)
    ]
}

/// A few accidents among the first `calls` changes.
pub fn faults(calls: usize) -> impl Strategy<Value = Faults> {
    let at = prop::collection::btree_map(0..calls, fault(), 0..6);
    let away = prop::collection::vec((0..calls * 4, 1..12usize), 0..2);
    let at_call = prop::collection::btree_map(0..calls * 4, fault(), 0..4);
    let delays = prop::collection::vec(0..4u8, 0..7);
    (at, at_call, away, delays).prop_map(|(at, at_call, away, delays)| {
        let away = away.into_iter().map(|(from, length)| from..from + length).collect();
        Faults { at, at_call, away, delays, hanging: false }
    })
}
