//! Events that do not come: the stream is dropped, held up, or dead without a word, and the container
//! of an agent is removed meanwhile. The operator finds out, long before Kubernetes misses the Node.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{
    harness::{
        Story,
        docker::remove_container,
        proxy::{Fate, Request},
        within,
    },
    lives::{Kept, Life, PAIR, for_each},
};

/// Within this time of a new stream whatever was missed is acted on.
const SEEN: Duration = Duration::from_secs(5);

/// How long Docker is away from the operator.
const AWAY: Duration = Duration::from_secs(4);

/// How late a subscription reaches Docker: longer than everything is looked at before, and not so long that
/// the scenario beside this one makes 256 events meanwhile, which is all that Docker remembers.
const LATE: Duration = Duration::from_secs(4);

/// How long a stream that is dead without a word may be believed; after 40 seconds the Node is missed.
const BELIEVED: Duration = Duration::from_secs(75);

/// What becomes of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accident {
    /// It ends, and no call gets through for a while.
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
    let life = Kept::new(&format!("{accident:?}").to_lowercase());
    life.make(PAIR);
    life.falls_silent();
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
    if accident == Accident::Late {
        life.operator.listens();
        life.falls_silent();
    }
    remove_container(&life.cluster().container("agent"));
    if matches!(accident, Accident::Away | Accident::Refused) {
        thread::sleep(AWAY.saturating_sub(began.elapsed()));
        life.proxy().set_rule(|_| Fate::Pass);
    }
    let heard = match accident {
        // Nothing has to be heard for that.
        Accident::Frozen => began + BELIEVED,
        Accident::Late => life.operator.listens().at + LATE,
        _ => life.operator.listens().at,
    };
    let acted = within(BELIEVED, "the agent to be made again", || {
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
