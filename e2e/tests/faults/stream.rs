//! Events that do not come: the stream is dropped, held up, or dead without a word, and the container
//! of an agent is removed meanwhile. The operator finds out, long before Kubernetes misses the Node.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{
    harness::{
        Story,
        docker::{Foreign, remove_container},
        pick,
        proxy::{Fate, Request},
        within,
    },
    lives::{Kept, Life, PAIR, for_each},
};

/// Within this time of a new stream whatever was missed is acted on.
const SEEN: Duration = Duration::from_secs(5);

/// How long new streams are refused.
const REFUSED: Duration = Duration::from_secs(4);

/// How long Docker is away from the operator: then the cluster's own tries, each twice as long after the
/// last, give or take a fifth, are at 26 to 38 seconds and at 51 to 77, and Docker is looked for every five.
const AWAY: Duration = Duration::from_secs(39);

/// The operator's wait between two tries may grow as it does by default.
const LONGEST_RETRY: (&str, &str) = ("K3NEST_LONGEST_RETRY", "60");

/// How long before Docker is back the agent is removed: Kubernetes misses the Node 30 seconds after that at
/// the earliest.
const BEFORE: Duration = Duration::from_secs(9);

/// How late a subscription reaches Docker: longer than everything is looked at before, and not so long that
/// the scenario beside this one makes 256 events meanwhile, which is all that Docker remembers.
const LATE: Duration = Duration::from_secs(4);

/// How long a stream that is dead without a word may be believed: 30 seconds, on a machine that is busy.
const BELIEVED: Duration = Duration::from_secs(34);

/// How long an event may be on its way to the operator.
const HEARD: Duration = Duration::from_secs(1);

/// When the agent is removed meanwhile: so late that Docker still remembers it, beside a scenario that makes
/// many events, and that Kubernetes does not miss the Node before the test is over.
const DEAD: Duration = Duration::from_secs(27);

/// How long to look for what the operator does, late or not.
const PATIENCE: Duration = Duration::from_secs(75);

/// What becomes of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accident {
    /// It ends, and no call gets through for so long that the cluster's own next try is far.
    Away,
    /// It ends, and only new streams are refused for a while.
    Refused,
    /// It ends, and Docker hears late of the next one, after everything was looked at.
    Late,
    /// Nothing comes any more, and nobody is told.
    Frozen,
}

/// A cluster of its own for each accident.
pub fn lost() {
    let story = Story::new("events_lost");
    let accidents = [Accident::Frozen, Accident::Late, Accident::Away, Accident::Refused];
    for_each(&accidents, 2, |accident| meets(&story, *accident));
}

fn meets(story: &Story, accident: Accident) {
    let life = Kept::with(&format!("{accident:?}").to_lowercase(), &[LONGEST_RETRY]);
    life.make(PAIR);
    life.falls_silent();
    if accident == Accident::Frozen {
        // Silence counts from an event on, whosesoever it is.
        drop(Foreign::volume(&pick::name("event")));
        thread::sleep(HEARD);
    }
    let began = Instant::now();
    match accident {
        Accident::Away => life.proxy().set_rule(|_| Fate::Cut),
        Accident::Refused => life.proxy().set_rule(|r| if r.is_events() { Fate::Cut } else { Fate::Pass }),
        Accident::Late => {
            life.proxy().set_rule(|r| if r.is_events() { Fate::Late(LATE) } else { Fate::Pass })
        }
        Accident::Frozen => life.proxy().set_rule(|_| Fate::Pass),
    }
    let streams = match accident {
        Accident::Frozen => life.proxy().freeze_streams(Request::is_events),
        _ => life.proxy().drop_streams(Request::is_events),
    };
    assert_eq!(streams, 1, "streams of events");
    let until = |moment: Duration| thread::sleep(moment.saturating_sub(began.elapsed()));
    match accident {
        Accident::Late => {
            life.operator.listens();
            life.falls_silent();
        }
        Accident::Frozen => until(DEAD),
        Accident::Away => until(AWAY - BEFORE),
        Accident::Refused => {}
    }
    remove_container(&life.cluster().container("agent"));
    let removed = Instant::now();
    match accident {
        Accident::Away => until(AWAY),
        Accident::Refused => until(REFUSED),
        Accident::Late | Accident::Frozen => {}
    }
    if matches!(accident, Accident::Away | Accident::Refused) {
        life.proxy().set_rule(|_| Fate::Pass);
    }
    let listens = life.operator.listens().at;
    let heard = match accident {
        Accident::Frozen => {
            let believed = listens - began;
            assert!((DEAD..BELIEVED).contains(&believed), "the dead stream was believed for {believed:?}");
            listens.max(removed)
        }
        Accident::Late => listens + LATE,
        _ => listens,
    };
    let acted = within(PATIENCE, "the agent to be made again", || {
        let requests = life.proxy().requests();
        let made = requests.into_iter().find(|r| r.at > began && r.is("POST", "/containers/create"));
        made.ok_or_else(|| "nothing".to_owned())
    });
    // Looking at everything while streams are refused may be earlier still.
    let took = acted.at.saturating_duration_since(heard);
    story.tell(&format!(
        "{accident:?}: acted {took:.1?} after it was to be heard, {:.1?} after the accident",
        acted.at - began
    ));
    assert!(took < SEEN, "{accident:?}: {took:?}");
    life.make(PAIR);
    life.remove();
}
