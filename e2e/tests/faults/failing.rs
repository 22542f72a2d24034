//! Every call fails once, reads too: with status 500, with its connection cut before Docker hears of
//! it, and cut after Docker has carried it out.
//!
//! Calls are told by their number. A life in which each of a hundred calls fails alone would make
//! hundreds of lives, so some distant ones fail in one: in life g, those whose number leaves g when
//! divided by [`GROUPS`]. Every number fails in every way so, and at the end every kind of call that
//! an undisturbed life makes must have failed in every way. Each single number in each way, one
//! accident in one history, is what src/sim/every_call_tests.rs goes through.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Instant,
};

use crate::{
    harness::{
        Story,
        proxy::{Fate, Request},
    },
    lives::{ByHand, Kept, Life, PAIR, for_each},
};

/// How many lives it takes until each call has failed in one way.
const GROUPS: usize = 9;

/// Lives at once: most of it is waiting for the next try.
const AT_ONCE: usize = 6;

/// The ways to fail.
const WAYS: [&str; 3] = ["status 500", "cut before", "cut after"];

/// The command line.
pub fn cli() {
    every_call_fails(&Story::new("every_call_fails_once_cli"), ByHand::new);
}

/// The operator.
pub fn operator() {
    every_call_fails(&Story::new("every_call_fails_once_operator"), Kept::new);
}

/// Kinds of calls, with the way in which they failed.
type Failed = Arc<Mutex<BTreeSet<(&'static str, String)>>>;

fn fail(way: &'static str, group: usize, calls: usize, failed: &Failed) -> impl Fn(&Request) -> Fate + use<> {
    let failed = failed.clone();
    move |request| {
        if request.number > calls || request.number % GROUPS != group {
            return Fate::Pass;
        }
        failed.lock().expect("no panic while it is held").insert((way, request.kind()));
        match way {
            "status 500" => Fate::Answer(500, "an accident was arranged".into()),
            "cut before" => Fate::Cut,
            _ => Fate::CutAfter,
        }
    }
}

fn every_call_fails<L: Life>(story: &Story, new: impl Fn(&str) -> L + Sync) {
    // Given what an undisturbed life asks for,
    let first = new("fail");
    first.proxy().set_rule(|_| Fate::Pass);
    assert_eq!(first.make(PAIR), [""; 0]);
    let expected = first.seen();
    let made = first.proxy().requests_of_rule();
    first.proxy().set_rule(|_| Fate::Pass);
    assert_eq!(first.remove(), [""; 0]);
    let removed = first.proxy().requests_of_rule();
    story.tell(&format!("undisturbed: {} calls make it, {} remove it", made.len(), removed.len()));
    let kinds: BTreeSet<String> = made.iter().chain(&removed).map(Request::kind).collect();
    let (made, removed) = (made.len(), removed.len());
    drop(first);

    // when each of these calls fails in each way,
    let failed = Failed::default();
    let lives: Vec<(&str, usize)> = (0..GROUPS).flat_map(|group| WAYS.map(|way| (way, group))).collect();
    for_each(&lives, AT_ONCE, |&(way, group)| {
        let (began, life) = (Instant::now(), new(&format!("fail{group}")));
        life.proxy().set_rule(fail(way, group, made, &failed));
        let complaints = life.make(PAIR);
        let took = began.elapsed();
        // then the cluster is as an undisturbed one,
        life.comes_to(&expected, || ());
        life.proxy().set_rule(fail(way, group, removed, &failed));
        let more = life.remove();
        // and goes.
        life.cluster().is_gone();
        story.tell(&format!(
            "{way}, group {group}: Ready in {took:.1?}, {} complaints, such as {:?}; gone after {:.1?}",
            complaints.len() + more.len(),
            complaints.iter().chain(&more).last(),
            began.elapsed()
        ));
    });
    let failed = failed.lock().expect("no panic while it is held").clone();
    let spared: Vec<(&str, &String)> = kinds
        .iter()
        .flat_map(|kind| WAYS.map(|way| (way, kind)))
        .filter(|(way, kind)| !failed.contains(&(*way, (*kind).clone())))
        .collect();
    assert!(spared.is_empty(), "these never failed: {spared:?}");
    story.tell(&format!("{} kinds of calls failed in each of {} ways", kinds.len(), WAYS.len()));
}
