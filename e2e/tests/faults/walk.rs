//! A random walk on real Docker: fifteen edits of a cluster, each with something that happens to it or
//! to the operator meanwhile. In the end it is as a new one of the last spec.
//!
//! What is done comes from a seed, which is printed and which [`SEED`] repeats; when it is done, as
//! Docker and Kubernetes go on meanwhile, cannot be. The same walks, many more of them and with every
//! accident at every call, are those of src/sim/converge_tests.rs.
//!
//! No edit sets environment or files: they go into a node's hash by way of its cluster's own salt, so
//! that two clusters never have the same one. The simulation has them.

use std::{
    collections::BTreeMap,
    fmt,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use rand::{Rng, RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use super::{
    draft::{Draft, Edit, Ports},
    lives::{Kept, Life},
    patient::{Inside, container, empty, in_place, life, patience, started_at},
};
use crate::harness::{
    Story,
    docker::docker,
    pick,
    proxy::{Fate, Request},
    within,
};

/// Repeats what a run has printed.
const SEED: &str = "K3NEST_E2E_SEED";

/// Edits, and as many faults.
const ACTS: usize = 15;

/// How long all of it may take, whoever else uses the machine.
const BOUND: Duration = Duration::from_secs(12 * 60);

/// From then on nothing is waited for between acts, so that the end comes in time: but for what must be
/// well before a server's data goes.
const HURRY: Duration = Duration::from_secs(5 * 60);

/// How long an act may wait for the cluster to be Ready, on a machine that does nothing else.
const READY: Duration = Duration::from_secs(120);

/// How long the n-th request after an edit is waited for, of which there may be fewer.
const REQUESTS: Duration = Duration::from_secs(8);

/// What no fault may take away.
const WRITTEN: &str = "written-first";

/// What happens. Numbers choose among the containers that are there.
#[derive(Clone, Debug)]
enum Fault {
    Killed(usize),
    Removed(usize),
    Restarted(usize),
    Disconnected(usize),
    NetworkRemoved,
    Unconfigured,
    RecordRemoved,
    /// With others that have its data, once they are well.
    Emptied(u32),
    OperatorKilled,
    EventsDropped,
    /// So many calls in a row.
    CallsFail(Way, usize),
}

#[derive(Clone, Copy, Debug)]
enum Way {
    Status500,
    CutBefore,
    CutAfter,
}

/// An edit, the number of requests to Docker after which something happens, and whether all is waited
/// for before the next.
#[derive(Debug)]
struct Act {
    edit: Edit,
    requests: usize,
    fault: Fault,
    waits: bool,
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { edit, requests, fault, waits } = self;
        let then = if *waits { ", then Ready" } else { "" };
        write!(f, "{edit:?}, after {requests} requests {fault:?}{then}")
    }
}

fn a_fault(rng: &mut impl Rng) -> Fault {
    let n = rng.random_range(0..12);
    match rng.random_range(0..13) {
        0 => Fault::Killed(n),
        1 => Fault::Removed(n),
        2 => Fault::Restarted(n),
        3 => Fault::Disconnected(n),
        4 => Fault::NetworkRemoved,
        5 => Fault::Unconfigured,
        6 => Fault::RecordRemoved,
        7 => Fault::Emptied(rng.random_range(0..3)),
        8 | 9 => Fault::OperatorKilled,
        10 => Fault::EventsDropped,
        _ => {
            let ways = [Way::Status500, Way::CutBefore, Way::CutAfter];
            Fault::CallsFail(*ways.choose(rng).expect("three"), rng.random_range(1..4))
        }
    }
}

fn an_act(rng: &mut impl Rng, draft: &Draft, ports: &Ports) -> Act {
    Act {
        edit: draft.an_edit(rng, ports),
        requests: rng.random_range(0..30),
        fault: a_fault(rng),
        waits: rng.random_bool(0.4),
    }
}

/// The walk.
pub fn at_random() {
    let story = Story::new("random_walk");
    let seed = std::env::var(SEED).ok().map(|text| text.parse().expect("K3NEST_E2E_SEED is a number"));
    let seed: u64 = seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    story.tell(&format!("{SEED}={seed}"));
    let began = Instant::now();
    let mut rng = StdRng::seed_from_u64(seed);
    let ports = Ports { api: pick::port(), forwarded: [pick::port(), pick::port()] };
    let first = Draft::first(&mut rng);
    let (mut acts, mut last) = (Vec::new(), first.clone());
    for _ in 0..ACTS {
        let act = an_act(&mut rng, &last, &ports);
        last = last.edited(&act.edit);
        acts.push(act);
    }
    let kept = Kept::new("walk");

    // Given a cluster of the last spec, and nothing that happened to it,
    last.apply(&kept.tenant);
    let took = kept.tenant.is_ready();
    kept.falls_silent();
    let expected = kept.seen();
    kept.tenant.delete(&story);
    story.tell(&format!("the last spec, made at once: Ready after {took:.1?}: {last:?}"));

    // when one becomes that by edits and accidents,
    first.apply(&kept.tenant);
    let took = kept.tenant.is_ready();
    kept.kubectl().run(&["create", "configmap", WRITTEN, "--from-literal=by=e2e"]).ok();
    story.tell(&format!("the first: Ready after {took:.1?}: {first:?}"));
    let mut draft = first;
    for (n, act) in acts.iter().enumerate() {
        draft = draft.edited(&act.edit);
        act.happens(&kept, &draft, began);
        story.tell(&format!("{}: {act}", n + 1));
    }

    // then it comes to the same, with what was written.
    within(left(began), "the cluster to be Ready", || is_well(&kept));
    kept.comes_to(&expected, || ());
    kept.kubectl().run(&["get", "configmap", WRITTEN]).ok();
    kept.operator.ended_by_kills_only();
    kept.tenant.delete(&story);
    let took = began.elapsed();
    story.tell(&format!("as made at once; {took:.0?} for all of it"));
    assert!(took < BOUND, "{took:.0?}");
}

/// What is left of [`BOUND`].
fn left(began: Instant) -> Duration {
    BOUND.saturating_sub(began.elapsed())
}

/// What it reports is of the spec as it is, its containers are in their places, and every node has
/// spoken since it was started.
fn is_well(kept: &Kept) -> Result<(), String> {
    let tenant = &kept.tenant;
    let object = tenant.object();
    let (generation, seen) = (&object["metadata"]["generation"], &object["status"]["observedGeneration"]);
    let ready = tenant.condition("Ready");
    if generation != seen || ready.status != "True" {
        return Err(format!("generation {seen} of {generation}, {ready:?}"));
    }
    in_place(tenant)?;
    let nodes: Vec<String> =
        tenant.objects("container").into_iter().filter(|name| !name.contains("-lb-")).collect();
    let servers = nodes.iter().filter(|name| name.contains("-server-")).count();
    let mut started = BTreeMap::new();
    for container in &nodes {
        let node =
            docker(&["inspect", "--format", r#"{{index .Config.Labels "k3nest.dev/node"}}"#, container]);
        let life = life(container);
        started.insert(node.result()?.trim().to_owned(), started_at(&life).ok_or(life)?);
    }
    Inside::of(tenant.kubectl(), servers, nodes.len() - servers).nodes_are_well(&started)
}

impl Act {
    fn happens(&self, kept: &Kept, draft: &Draft, began: Instant) {
        let ready = || patience(READY).min(left(began));
        if matches!(self.fault, Fault::Emptied(_)) && draft.servers > 1 {
            // The others have its data once they are well.
            within(ready(), "the cluster to be Ready before a server's data goes", || is_well(kept));
        }
        kept.operator.proxy.set_rule(|_| Fate::Pass);
        draft.apply(&kept.tenant);
        let deadline = Instant::now() + REQUESTS;
        while kept.operator.proxy.requests_of_rule().len() < self.requests && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(20));
        }
        self.fault.happens(kept, draft);
        if self.waits && began.elapsed() < HURRY {
            within(ready(), &format!("Ready after {self}"), || is_well(kept));
        }
    }
}

impl Fault {
    fn happens(&self, kept: &Kept, draft: &Draft) {
        let tenant = &kept.tenant;
        let containers = tenant.objects("container");
        let nth = |n: &usize| containers.get(n % containers.len().max(1)).map_or("none", String::as_str);
        let networks = tenant.objects("network");
        let network = networks.first().map_or("none", String::as_str);
        // What is not there at this moment cannot be hurt.
        match self {
            Self::Killed(n) => drop(docker(&["kill", nth(n)])),
            Self::Removed(n) => drop(docker(&["rm", "-f", "-v", nth(n)])),
            Self::Restarted(n) => drop(docker(&["restart", "-t", "0", nth(n)])),
            Self::Disconnected(n) => drop(docker(&["network", "disconnect", "-f", network, nth(n)])),
            Self::NetworkRemoved => kept.operator.held(|| {
                for name in &containers {
                    docker(&["network", "disconnect", "-f", network, name]);
                }
                docker(&["network", "rm", network]);
            }),
            Self::Unconfigured => {
                let balancer = container(tenant, "lb");
                docker(&["exec", &balancer, "rm", "/etc/nginx/k3nest.conf"]);
                docker(&["restart", "-t", "0", &balancer]);
            }
            Self::RecordRemoved => {
                for name in tenant.objects("volume").iter().filter(|name| name.contains("-record-")) {
                    docker(&["volume", "rm", name]);
                }
            }
            Self::Emptied(n) if draft.servers > *n && draft.servers > 1 => {
                let which = format!("server-{n}");
                empty(tenant, &[&which]);
                docker(&["restart", "-t", "0", &container(tenant, &which)]);
            }
            // Of an only server that would be the end.
            Self::Emptied(_) => drop(docker(&["kill", &container(tenant, "server-0")])),
            Self::OperatorKilled => kept.operator.victim.kill(),
            Self::EventsDropped => drop(kept.operator.proxy.drop_streams(Request::is_events)),
            Self::CallsFail(way, many) => {
                let (way, many, failed) = (*way, *many, AtomicUsize::new(0));
                kept.operator.proxy.set_rule(move |_| {
                    if failed.fetch_add(1, Ordering::SeqCst) >= many {
                        return Fate::Pass;
                    }
                    match way {
                        Way::Status500 => Fate::Answer(500, "an accident was arranged".into()),
                        Way::CutBefore => Fate::Cut,
                        Way::CutAfter => Fate::CutAfter,
                    }
                });
            }
        }
    }
}
