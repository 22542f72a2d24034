//! Calls that reach Docker late: a minute, in which the client's own bound may end, and so late that
//! whoever asked is gone and another has done the work.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    harness::{
        Story,
        proxy::{Fate, Gate, Proxy, Request},
    },
    lives::{ByHand, Kept, Life, PAIR, for_each},
};

/// How late.
const LATE: Duration = Duration::from_secs(60);

/// Lives that share out the calls that come a minute late, all at once: they wait, most of the time before
/// their nodes run.
const LIVES: usize = 7;

/// Questions that are asked at once are given up at once, and asked again: of those that come so soon after
/// one that is late, none is, since that would be hidden.
const TOGETHER: Duration = Duration::from_secs(1);

/// The command line.
pub fn cli() {
    by_a_minute(&Story::new("late_by_a_minute_cli"), ByHand::new);
}

/// The operator.
pub fn operator() {
    by_a_minute(&Story::new("late_by_a_minute_operator"), Kept::new);
}

/// Each kind of call comes a minute late once while a cluster is made, and once while it is removed, some
/// one after the other in one life. Questions are bounded to half of that, and asked again; changes are
/// given longer, and simply go on.
fn by_a_minute<L: Life>(story: &Story, new: impl Fn(&str) -> L + Sync) {
    let first = new("late");
    first.proxy().set_rule(|_| Fate::Pass);
    first.make(PAIR);
    let made = calls(first.proxy());
    let expected = first.seen();
    // What is still asked of the cluster that was made is no part of its removal.
    first.falls_silent();
    first.proxy().set_rule(|_| Fate::Pass);
    first.remove();
    let removed = calls(first.proxy());
    drop(first);
    story.tell(&format!("it is made by {}: {}", made.len(), made.join(", ")));
    story.tell(&format!("and removed by {}: {}", removed.len(), removed.join(", ")));

    // Dealt out from both ends, so that no life waits much longer than the others.
    let dealt =
        |calls: &[String], to: usize| calls.iter().skip(to).step_by(LIVES).cloned().collect::<Vec<_>>();
    let shares: Vec<_> =
        (0..LIVES).map(|life| (dealt(&made, life), dealt(&removed, LIVES - 1 - life))).collect();
    for_each(&shares, LIVES, |(made, removed)| {
        let (life, began) = (new("late"), Instant::now());
        let (came, went) = (Came::default(), Came::default());
        life.proxy().set_rule(late(made, &came));
        let mut complaints = life.make(PAIR);
        let ready = began.elapsed();
        all_came(made, &came);
        life.comes_to(&expected, || ());
        life.falls_silent();
        life.proxy().set_rule(late(removed, &went));
        complaints.extend(life.remove());
        all_came(removed, &went);
        life.cluster().is_gone();
        story.tell(&format!(
            "{made:?} late: Ready after {ready:.1?}; {removed:?} late: gone after {:.1?}; {complaints:?}",
            began.elapsed()
        ));
    });
}

/// Calls that have come late.
type Came = Arc<Mutex<BTreeSet<String>>>;

/// Lets each of `calls` come late once.
fn late(calls: &[String], came: &Came) -> impl Fn(&Request) -> Fate + Send + Sync + use<> {
    let (calls, came) = (calls.to_vec(), came.clone());
    let state = Mutex::new((Told::default(), None::<Instant>));
    move |request| {
        let mut state = state.lock().expect("no panic while it is held");
        let (told, asked) = &mut *state;
        let call = told.call(request);
        let is_hidden = !request.changes() && asked.is_some_and(|at| at.elapsed() < TOGETHER);
        let mut came = came.lock().expect("no panic while it is held");
        if is_hidden || !calls.contains(&call) || !came.insert(call) {
            return Fate::Pass;
        }
        if !request.changes() {
            *asked = Some(Instant::now());
        }
        Fate::Late(LATE)
    }
}

#[track_caller]
fn all_came(calls: &[String], came: &Came) {
    let came = came.lock().expect("no panic while it is held");
    // Whether a node has its data, and when it was started, is asked only of one that was started less than
    // a minute ago: in a life that other calls have made long, it may be of none.
    let of_young = ["HEAD /containers/*/archive", "GET /containers/*/json"];
    let must = calls.iter().filter(|call| !of_young.contains(&call.as_str()));
    let missing: Vec<&String> = must.filter(|call| !came.contains(*call)).collect();
    assert!(missing.is_empty(), "no call was {missing:?}");
}

/// The calls since the rule in force came, each once: first those that take longest when they are late.
fn calls(proxy: &Proxy) -> Vec<String> {
    let (requests, mut told) = (proxy.requests_of_rule(), Told::default());
    // Late subscriptions to events, and what keeps them up, are among those of `events_lost`.
    let requests = requests.iter().filter(|request| !request.is_listening());
    let all: BTreeSet<_> = requests.map(|request| (!request.changes(), told.call(request))).collect();
    all.into_iter().map(|(_, call)| call).collect()
}

/// Tells calls apart: by their kind, and where a probe makes the same, which comes first, by whose it is.
#[derive(Default)]
struct Told {
    /// Containers that files were written into.
    written: BTreeSet<String>,
}

impl Told {
    fn call(&mut self, request: &Request) -> String {
        let kind = request.kind();
        let container = request.bare_path().split('/').nth(2).unwrap_or_default();
        let is_probe = match kind.as_str() {
            "PUT /containers/*/archive" => {
                self.written.insert(container.to_owned());
                false
            }
            "POST /containers/create" => request.path.contains("-probe-"),
            // Everything else is told something before it starts.
            "POST /containers/*/start" => !self.written.contains(container),
            _ => false,
        };
        if is_probe { kind + " of a probe" } else { kind }
    }
}

/// A call that is still on its way when whoever made it has died.
struct Stale {
    method: &'static str,
    path: &'static str,
    /// Part of the path, or of its end.
    part: &'static str,
    /// Whether it is one of the deletion.
    removing: bool,
}

const STALE: [Stale; 9] = [
    stale("POST", "/containers/create", "-server-0-", false),
    stale("POST", "/containers/create", "-lb-", false),
    stale("POST", "/containers/", "/start", false),
    stale("PUT", "/containers/", "/archive", false),
    stale("POST", "/volumes/create", "", false),
    stale("POST", "/networks/create", "", false),
    stale("DELETE", "/containers/", "", true),
    stale("DELETE", "/volumes/", "-data-", true),
    stale("DELETE", "/networks/", "", true),
];

const fn stale(method: &'static str, path: &'static str, part: &'static str, removing: bool) -> Stale {
    Stale { method, path, part, removing }
}

/// The command line.
pub fn stale_cli() {
    stale_calls(&Story::new("stale_calls_cli"), ByHand::new);
}

/// The operator.
pub fn stale_operator() {
    stale_calls(&Story::new("stale_calls_operator"), Kept::new);
}

/// Docker gets a call of somebody who died meanwhile, after another has done the work: a creation
/// when all is Ready, a removal when the cluster was made again under its name. It changes nothing.
fn stale_calls<L: Life>(story: &Story, new: impl Fn(&str) -> L + Sync) {
    let first = new("stale");
    first.make(PAIR);
    let expected = first.seen();
    drop(first);
    for_each(&STALE, 3, |call| {
        let (life, gate) = (new("stale"), Gate::default());
        if call.removing {
            life.make(PAIR);
        }
        life.proxy().set_rule(hold(call, &gate));
        if call.removing {
            life.begin_removal()
        } else {
            life.begin(PAIR)
        };
        let what = format!("{} {}…{}", call.method, call.path, call.part);
        let held = life.proxy().hears(Duration::from_secs(60), &what, |request| call.is(request));
        life.die();
        if call.removing {
            life.remove();
        }
        life.make(PAIR);
        let answer = gate.open();
        life.falls_silent();
        life.make(PAIR);
        life.comes_to(&expected, || drop(life.make(PAIR)));
        life.remove();
        life.cluster().is_gone();
        story.tell(&format!("{}: Docker answered {answer:?}, and nothing changed", held.kind()));
    });
}

impl Stale {
    fn is(&self, request: &Request) -> bool {
        let probe = request.path.contains("-probe-");
        request.is(self.method, self.path) && request.path.contains(self.part) && !probe
    }
}

/// Holds the first request that is `call`.
fn hold(call: &Stale, gate: &Gate) -> impl Fn(&Request) -> Fate + Send + Sync + use<> {
    let call = Stale { ..*call };
    let (gate, held) = (gate.clone(), AtomicBool::new(false));
    move |request| {
        if call.is(request) && !held.swap(true, Ordering::SeqCst) {
            return Fate::Held(gate.clone());
        }
        Fate::Pass
    }
}
