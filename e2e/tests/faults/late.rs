//! Calls that reach Docker late: a minute, in which the client's own bound may end, and so late that
//! whoever asked is gone and another has done the work.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    harness::{
        Story,
        proxy::{Fate, Gate, Request},
    },
    lives::{ByHand, Kept, Life, PAIR, for_each},
};

/// How late.
const LATE: Duration = Duration::from_secs(60);

/// The cluster of the lives that wait a minute: many come up at once.
const ALONE: &str = "";

/// Lives at once: they wait.
const AT_ONCE: usize = 6;

/// The command line.
pub fn cli() {
    by_a_minute(&Story::new("late_by_a_minute_cli"), ByHand::new);
}

/// The operator.
pub fn operator() {
    by_a_minute(&Story::new("late_by_a_minute_operator"), Kept::new);
}

/// Each kind of call comes a minute late once, in a life of its own. Questions are bounded to half of
/// that, and asked again; changes are given longer, and simply go on.
fn by_a_minute<L: Life>(story: &Story, new: impl Fn(&str) -> L + Sync) {
    let first = new("late");
    first.proxy().set_rule(|_| Fate::Pass);
    first.make(ALONE);
    let expected = first.seen();
    first.remove();
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    // Late subscriptions to events, and what keeps them up, are among those of `events_lost`.
    let requests = first.proxy().requests_of_rule().into_iter().filter(|request| !request.is_listening());
    requests.for_each(|request| *kinds.entry(request.kind()).or_default() += 1);
    let kinds: Vec<String> = kinds.into_keys().collect();
    story.tell(&format!("{} kinds of calls: {}", kinds.len(), kinds.join(", ")));

    for_each(&kinds, AT_ONCE, |kind| {
        let (life, began) = (new("late"), Instant::now());
        let late = Arc::new(Mutex::new(None));
        let (wanted, once) = (kind.clone(), late.clone());
        life.proxy().set_rule(move |request| {
            let mut late = once.lock().expect("no panic while it is held");
            if request.kind() != wanted || late.is_some() {
                return Fate::Pass;
            }
            *late = Some(request.clone());
            Fate::Late(LATE)
        });
        let mut complaints = life.make(ALONE);
        let ready = began.elapsed();
        life.comes_to(&expected, || ());
        complaints.extend(life.remove());
        let late = late.lock().expect("no panic while it is held").clone();
        let late = late.unwrap_or_else(|| panic!("no call was {kind}"));
        life.cluster().is_gone();
        story.tell(&format!(
            "{late} late: Ready after {ready:.1?}, gone after {:.1?}, {complaints:?}",
            began.elapsed()
        ));
    });
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
