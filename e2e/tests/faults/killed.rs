//! The process is killed right after Docker has carried out the n-th change it asked for, before the
//! answer reaches it, for every n of creating and of deleting a cluster of one server and one agent.
//! Run again, it ends as an undisturbed one: nothing twice, nothing left behind.
//!
//! One life has both kills, at the n-th change of its creation and at the n-th of its deletion.
//! Changes run at once, so the n-th is not the same one each time, and how many there are varies by
//! a few; n grows until a life was not disturbed at all. What has to be the same is written down in
//! [`projection`].

use std::time::Duration;

use crate::{
    harness::{
        Cluster, Nest, Story,
        command::PATIENCE,
        projection,
        proxy::{Fate, Request},
        victim::Victim,
        within,
    },
    lives::{ByHand, Kept, Life, PAIR, for_every_n},
};

/// What may be left of a killed process, and for how long: a container that asks the host something
/// is left to its maker, which may live, for ten seconds. Twice that and time to be busy.
const GRACE: Duration = Duration::from_secs(45);

/// Kills `victim` right after Docker has carried out the `n`th change.
fn kill_at(n: usize, victim: &Victim) -> impl Fn(&Request) -> Fate + Send + Sync + use<> {
    let victim = victim.clone();
    move |request| {
        let victim = victim.clone();
        if request.change == Some(n) { Fate::then(move |_| victim.kill()) } else { Fate::Pass }
    }
}

/// What became of one life.
struct Told {
    undisturbed: bool,
    seen: String,
    words: String,
}

/// The command line.
pub fn cli() {
    every_life_ends_alike(&Story::new("killed_at_every_call_cli"), |n| {
        let life = ByHand::new(&format!("kill{n}"));
        let file = life.cluster().write(PAIR);
        let made = killed_verb(n, &life, &["apply", "-f", &file]);
        let half = life.cluster().all_objects().len();
        assert_eq!(life.make(PAIR), [""; 0]);
        has_three_containers(life.cluster(), || drop(life.make(PAIR)));
        let seen = life.seen();
        let removed = killed_verb(n, &life, &["delete", &life.cluster().name]);
        let left = life.cluster().all_objects().len();
        assert_eq!(life.remove(), [""; 0]);
        Told {
            undisturbed: made.is_none() && removed.is_none(),
            seen,
            words: format!("{} with {half} objects; deletion {}, {left} left", words(&made), words(&removed)),
        }
    });
}

/// A verb of the command line, killed after its `n`th change; after which that was.
fn killed_verb(n: usize, life: &ByHand, args: &[&str]) -> Option<Request> {
    let victim = Victim::default();
    life.proxy().set_rule(kill_at(n, &victim));
    let started = Nest::new().env("DOCKER_HOST", &life.proxy().url()).start(args);
    victim.is(started.pid());
    let finished = started.wait(PATIENCE);
    let killed = nth_change(n, life);
    finished.exits(if killed.is_some() { 128 + 9 } else { 0 });
    assert_eq!(victim.kills(), usize::from(killed.is_some()));
    life.proxy().set_rule(|_| Fate::Pass);
    killed
}

fn nth_change(n: usize, life: &impl Life) -> Option<Request> {
    life.proxy().requests_of_rule().into_iter().find(|request| request.change == Some(n))
}

/// The operator, started again by what looks after it.
pub fn operator() {
    every_life_ends_alike(&Story::new("killed_at_every_call_operator"), |n| {
        let life = Kept::new(&format!("kill{n}"));
        life.proxy().set_rule(kill_at(n, &life.operator.victim));
        life.make(PAIR);
        has_three_containers(life.cluster(), || ());
        let made = nth_change(n, &life).filter(|_| life.operator.victim.kills() == 1);
        let seen = life.seen();
        life.proxy().set_rule(kill_at(n, &life.operator.victim));
        life.remove();
        life.operator.ended_by_kills_only();
        let kills = life.operator.victim.kills();
        let removed = nth_change(n, &life).filter(|_| kills > usize::from(made.is_some()));
        Told {
            undisturbed: kills == 0,
            seen,
            words: format!("{}; deletion {}", words(&made), words(&removed)),
        }
    });
}

/// Compares every life with one that nobody disturbed.
fn every_life_ends_alike(story: &Story, life: impl Fn(usize) -> Told + Sync) {
    let undisturbed = life(0);
    assert!(undisturbed.undisturbed);
    let expected = undisturbed.seen;
    assert_eq!(expected.matches("\"k3nest.dev/role\": \"record\"").count(), 1, "{expected}");
    let last = for_every_n(|n| {
        let told = life(n);
        story.tell(&format!("n = {n}: {}", told.words));
        let differences = projection::difference(&told.seen, &expected);
        assert!(differences.is_empty(), "n = {n}: {differences:#?}");
        told.undisturbed
    });
    story.tell(&format!("all of {last} lives ended as an undisturbed one"));
}

/// What a maker who died has left goes after a while.
#[track_caller]
fn has_three_containers(cluster: &Cluster, look_again: impl Fn()) {
    within(GRACE, "what the killed one left to be cleared away", || {
        let left = cluster.objects("container");
        if left.len() == 3 {
            return Ok(());
        }
        look_again();
        Err(format!("{left:?}"))
    });
}

fn words(killed_at: &Option<Request>) -> String {
    killed_at.as_ref().map_or("undisturbed".into(), |request| format!("killed after {}", request.kind()))
}
