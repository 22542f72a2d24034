//! Every call fails once, reads too: with status 500, with its connection cut before Docker hears of
//! it, and cut after Docker has carried it out.
//!
//! Calls are told by their kind and their number among those of their kind, up to the number of an
//! undisturbed life: what is tried again after a failure then moves no other call. A life in which
//! each of a hundred calls fails alone would make hundreds of lives, so some distant ones fail in one,
//! spread over [`GROUPS`] lives for each way. At the end every kind of call of an undisturbed life must
//! have failed in every way, and nearly every single one. Each single call in each way, one accident in
//! one history, is what src/sim/every_call_tests.rs goes through.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
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
const GROUPS: usize = 6;

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

/// Looks that do not get through, by number.
const LOOKS: [usize; 7] = [0, 3, 4, 6, 7, 8, 11];

/// A verb that has begun outlives calls that fail on the way: it tries again by itself.
pub fn verbs_go_on() {
    let story = Story::new("verbs_go_on");
    let life = ByHand::new("goon");
    // Some looks at volumes, once something was changed. Neighbours are among them: a step and the look
    // behind it take turns.
    let some_looks = || {
        let (looks, changes) = (AtomicUsize::new(0), AtomicUsize::new(0));
        move |request: &Request| {
            changes.fetch_add(usize::from(request.changes()), Ordering::SeqCst);
            let counts = request.is("GET", "/volumes") && changes.load(Ordering::SeqCst) > 0;
            let cut = counts && LOOKS.contains(&looks.fetch_add(1, Ordering::SeqCst));
            if cut { Fate::Cut } else { Fate::Pass }
        }
    };
    life.proxy().set_rule(some_looks());
    assert_eq!(life.make(PAIR), [""; 0]);
    life.proxy().set_rule(some_looks());
    assert_eq!(life.remove(), [""; 0]);
    story.tell("apply and delete saw it through with some looks at volumes cut");
}

/// How many calls of each kind there are.
type Counts = BTreeMap<String, usize>;

/// Calls that have failed: the way, whether of the creation or the deletion, the kind and the number.
type Failed = Arc<Mutex<BTreeSet<(&'static str, &'static str, String, usize)>>>;

fn counts(requests: &[Request]) -> Counts {
    let mut counts = Counts::new();
    requests.iter().for_each(|request| *counts.entry(request.kind()).or_default() += 1);
    counts
}

/// Lets the calls of `counts` that are `group`'s fail in this way.
fn fail(
    (way, group): (&'static str, usize),
    stage: &'static str,
    counts: &Counts,
    failed: &Failed,
) -> impl Fn(&Request) -> Fate + Send + Sync + use<> {
    let (counts, failed, seen) = (counts.clone(), failed.clone(), Mutex::new(Counts::new()));
    move |request| {
        let kind = request.kind();
        let mut seen = seen.lock().expect("no panic while it is held");
        let number = seen.entry(kind.clone()).or_default();
        *number += 1;
        let Some(place) = counts.keys().position(|known| *known == kind) else { return Fate::Pass };
        if *number > counts[&kind] || (place + *number) % GROUPS != group {
            return Fate::Pass;
        }
        failed.lock().expect("no panic while it is held").insert((way, stage, kind, *number));
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
    // What is still asked of the cluster that was made is no part of its removal.
    first.falls_silent();
    first.proxy().set_rule(|_| Fate::Pass);
    assert_eq!(first.remove(), [""; 0]);
    let removed = first.proxy().requests_of_rule();
    story.tell(&format!("undisturbed: {} calls make it, {} remove it", made.len(), removed.len()));
    let (made, removed) = (counts(&made), counts(&removed));
    drop(first);

    // when each of these calls fails in each way,
    let failed = Failed::default();
    let lives: Vec<(&str, usize)> = (0..GROUPS).flat_map(|group| WAYS.map(|way| (way, group))).collect();
    for_each(&lives, AT_ONCE, |&(way, group)| {
        let (began, life) = (Instant::now(), new(&format!("fail{group}")));
        life.proxy().set_rule(fail((way, group), "made", &made, &failed));
        let complaints = life.make(PAIR);
        let took = began.elapsed();
        // then the cluster is as an undisturbed one,
        life.comes_to(&expected, || ());
        life.proxy().set_rule(fail((way, group), "removed", &removed, &failed));
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
    let all = |stage: &'static str, counts: &Counts| {
        let each = counts.clone().into_iter().flat_map(|(kind, n)| (1..=n).map(move |i| (kind.clone(), i)));
        let each = each.flat_map(move |(kind, i)| WAYS.map(|way| (way, stage, kind.clone(), i)));
        each.collect::<BTreeSet<_>>()
    };
    let wanted: BTreeSet<_> = all("made", &made).union(&all("removed", &removed)).cloned().collect();
    let spared: Vec<_> =
        wanted.difference(&failed).filter(|call| !is_further_poll(&call.2, call.3)).collect();
    // How often some calls are made depends on what comes together in one step; each is made once.
    let never: Vec<_> = spared.iter().filter(|call| call.3 == 1).collect();
    assert!(never.is_empty(), "these never failed: {never:?}");
    assert!(spared.len() * 50 <= wanted.len(), "too many of {} never failed: {spared:?}", wanted.len());
    story.tell(&format!(
        "{} failures in {} ways; spared, since they did not come: {spared:?}",
        failed.len(),
        WAYS.len()
    ));
}

/// Whether it is among those that are asked again and again while a node comes up, so that its number says
/// how fast that was: what it has written, and, of one that was started less than a minute ago, whether it has
/// its data and when that was. A life of many failures may be too slow for those.
fn is_further_poll(kind: &str, number: usize) -> bool {
    match kind {
        "GET /containers/*/archive" => number > 1,
        "HEAD /containers/*/archive" | "GET /containers/*/json" => true,
        _ => false,
    }
}
