//! The process is killed right after Docker has carried out the n-th change it asked for, before the
//! answer reaches it, for every n of creating and of deleting a cluster of one server and one agent.
//! Run again, it ends as an undisturbed one: nothing twice, nothing left behind.
//!
//! One life has both kills, at the n-th change of its creation and at the n-th of its deletion.
//! Changes run at once, so the n-th is not the same one each time, and how many there are varies by
//! a few; n grows until a life was not disturbed at all. What has to be the same is written down in
//! [`projection`].

use std::{collections::BTreeSet, time::Duration};

use crate::{
    harness::{
        Cluster, Nest, Story,
        command::PATIENCE,
        docker::docker,
        kubectl::Kubectl,
        projection::{self, difference},
        proxy::{Fate, Proxy, Request},
        victim::Victim,
        within,
    },
    lives::{Kept, for_every_n},
};

/// The cluster of these lives.
const SPEC: &str = "agents: {replicas: 1}";

/// What may be left of a killed process, and for how long: a container that asks the host something
/// is left to its maker, which may live, for ten seconds. Twice that and time to be busy.
const GRACE: Duration = Duration::from_secs(45);

/// Never.
const NOT_AT_ALL: usize = usize::MAX;

/// Kills `victim` right after Docker has carried out the `n`th change.
fn kill_at(n: usize, victim: &Victim) -> impl Fn(&Request) -> Fate + Send + Sync + use<> {
    let victim = victim.clone();
    move |request| {
        let victim = victim.clone();
        if request.change == Some(n) { Fate::then(move |_| victim.kill()) } else { Fate::Pass }
    }
}

/// A verb of the command line behind the proxy, killed after its `n`th change. How many changes it
/// asked for, and whether it was killed.
fn killed_verb(n: usize, args: &[&str]) -> (Vec<Request>, bool) {
    let victim = Victim::default();
    let proxy = Proxy::with_rule(kill_at(n, &victim));
    let started = Nest::new().env("DOCKER_HOST", &proxy.url()).start(args);
    victim.is(started.pid());
    let finished = started.wait(PATIENCE);
    let changes = proxy.requests().into_iter().filter(Request::changes).collect();
    match victim.kills() {
        0 => drop(finished.exits(0)),
        _ => drop(finished.exits(128 + 9)),
    }
    (changes, victim.kills() > 0)
}

/// The command line.
pub fn cli() {
    let story = Story::new("killed_at_every_call_cli");
    let life = |n: usize| -> (bool, String) {
        let cluster = Cluster::new(&format!("kill{}", n % 1000));
        let file = cluster.write(SPEC);
        let (made, killed) = killed_verb(n, &["apply", "-f", &file]);
        let half = cluster.all_objects().len();
        let mut nameless = Nameless::default();
        nameless.note(&cluster);
        let again = Nest::new().run(&["apply", "-f", &file]).exits(0).complains("Ready at");
        within(GRACE, "what the killed one left to be cleared away", || {
            let left = cluster.objects("container");
            if left.len() == 3 {
                return Ok(());
            }
            Nest::new().run(&["apply", "-f", &file]).exits(0);
            Err(format!("{left:?}"))
        });
        let seen = seen(&cluster, &cluster.kubectl());
        nameless.note(&cluster);
        let (removed, killed_again) = killed_verb(n, &["delete", &cluster.name]);
        let rest = cluster.all_objects().len();
        if rest > 0 {
            cluster.verb(&["delete"]).exits(0);
        }
        cluster.is_gone();
        nameless.are_gone();
        story.tell(&format!(
            "n = {n}: {}, {half} objects, again {:.1?}; deletion {}, {rest} objects left, all deleted",
            moment(n, &made, killed),
            again.took,
            moment(n, &removed, killed_again)
        ));
        (!killed && !killed_again, seen)
    };
    every_life_ends_alike(&story, life);
}

/// The operator, started again by what looks after it.
pub fn operator() {
    let story = Story::new("killed_at_every_call_operator");
    let life = |n: usize| -> (bool, String) {
        let kept = Kept::new(&format!("kill{}", n % 1000), Proxy::new());
        let Kept { tenant, operator, space: _ } = &kept;
        let changes =
            || operator.proxy.requests_of_rule().into_iter().filter(Request::changes).collect::<Vec<_>>();
        operator.proxy.set_rule(kill_at(n, &operator.victim));
        tenant.apply(SPEC);
        let took = tenant.is_ready();
        let (made, killed) = (changes(), operator.victim.kills());
        let mut nameless = Nameless::default();
        nameless.note(tenant);
        within(GRACE, "what the killed one left to be cleared away", || {
            let left = tenant.objects("container");
            if left.len() == 3 { Ok(()) } else { Err(format!("{left:?}")) }
        });
        let seen = seen(tenant, &tenant.kubectl());
        operator.proxy.set_rule(kill_at(n, &operator.victim));
        tenant.run(&["delete", "k3scluster", &tenant.name, "--timeout=100s"]).exits(0);
        let removed = changes();
        tenant.is_gone();
        nameless.are_gone();
        operator.ended_by_kills_only();
        let kills = operator.victim.kills();
        story.tell(&format!(
            "n = {n}: {}, Ready in {took:.1?}; deletion {}",
            moment(n, &made, killed > 0),
            moment(n, &removed, kills > killed)
        ));
        (kills == 0, seen)
    };
    every_life_ends_alike(&story, life);
}

/// Compares every life with one that nobody disturbed.
fn every_life_ends_alike(story: &Story, life: impl Fn(usize) -> (bool, String) + Sync) {
    let (undisturbed, expected) = life(NOT_AT_ALL);
    assert!(undisturbed);
    assert_eq!(expected.matches("\"k3nest.dev/role\": \"record\"").count(), 1, "{expected}");
    let last = for_every_n(|n| {
        let (undisturbed, seen) = life(n);
        let differences = difference(&seen, &expected);
        assert!(differences.is_empty(), "n = {n}: {differences:#?}");
        undisturbed
    });
    story.tell(&format!("{last} lives ended as an undisturbed one"));
}

/// What the cluster comes to, in Docker and inside.
fn seen(cluster: &Cluster, kubectl: &Kubectl) -> String {
    let format = r#"-o=jsonpath={range .items[*]}{.metadata.name} {.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}"#;
    let nodes = kubectl.run(&["get", "nodes", format]).ok().replace(&cluster.name, "NAME");
    projection::of(cluster) + "\nnodes:\n" + &nodes
}

/// The call after which it happened, in words.
fn moment(n: usize, changes: &[Request], killed: bool) -> String {
    let at = changes.iter().find(|request| request.change == Some(n));
    match at.filter(|_| killed) {
        Some(request) => format!("killed after {}", request.kind()),
        None => format!("undisturbed, {} changes", changes.len()),
    }
}

/// Volumes without a name that were seen in containers of a cluster.
#[derive(Default)]
struct Nameless(BTreeSet<String>);

impl Nameless {
    fn note(&mut self, cluster: &Cluster) {
        self.0.extend(projection::anonymous_volumes(cluster));
    }

    #[track_caller]
    fn are_gone(&self) {
        let left = self.0.iter().filter(|name| docker(&["volume", "inspect", name]).code == 0);
        let left: Vec<&String> = left.collect();
        assert!(left.is_empty(), "volumes without a name were left: {left:?}");
    }
}
