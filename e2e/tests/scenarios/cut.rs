//! Work that is cut short, and what comes after.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::harness::{
    Cluster, Finished, Nest, Story, command,
    command::PATIENCE,
    nest::nest,
    proxy::{Fate, Proxy, Request},
    within,
};

/// Applies `file`, and sends the process `signal` when it asks Docker for the change that `moment`
/// picks: that moment, not some time. Half of the time Docker hears of the request, half not.
fn apply_until(
    file: &str,
    signal: &'static str,
    moment: impl Fn(&Request) -> bool + Send + Sync + 'static,
) -> Finished {
    let pid = Arc::new(AtomicU32::new(0));
    let (target, heard) = (pid.clone(), rand::random::<bool>());
    let proxy = Proxy::with_rule(move |request| {
        if !request.changes() || !moment(request) {
            return Fate::Pass;
        }
        let pid = within(Duration::from_secs(5), "the process id", || match target.load(Ordering::SeqCst) {
            0 => Err("not yet".to_owned()),
            pid => Ok(pid),
        });
        command::send_signal(pid, signal);
        if heard { Fate::Pass } else { Fate::Cut }
    });
    let apply = Nest::new().env("DOCKER_HOST", &proxy.url()).start(&["apply", "-f", file]);
    pid.store(apply.pid(), Ordering::SeqCst);
    apply.wait(PATIENCE)
}

/// The `n`th change.
fn nth(n: usize) -> impl Fn(&Request) -> bool {
    let count = AtomicUsize::new(0);
    move |_| count.fetch_add(1, Ordering::SeqCst) + 1 == n
}

/// Ctrl-C and kill at one moment after the other; the last apply finishes what they left.
pub fn cut_short() {
    let story = Story::new("cut_short");
    let cluster = Cluster::new("cut");
    let file = cluster.write("");
    for (round, n) in [1, 3, 2, 4, 3, 5, 2].into_iter().enumerate() {
        let (signal, code) = if round % 2 == 0 { ("INT", 130) } else { ("KILL", 128 + 9) };
        let cut = apply_until(&file, signal, nth(n));
        if cut.code == 0 {
            story.tell(&format!("finished before change {n}"));
            break;
        }
        cut.exits(code);
        story.tell(&format!("SIG{signal} at change {n}; there are {} objects", cluster.all_objects().len()));
    }
    let finished = nest(&["apply", "-f", &file]).exits(0).complains("Ready at");
    story.tell(&format!("the next apply finished in {:.1?}", finished.took));
    // A container that asks the host something is left to its maker for a while, which may live.
    within(Duration::from_secs(20), "what the killed ones left to be cleared away", || {
        nest(&["apply", "-f", &file]).exits(0);
        match cluster.objects("container") {
            all if all.len() == 2 => Ok(()),
            all => Err(format!("{all:?}")),
        }
    });
    cluster.is_whole();
    nest(&["diff", "-f", &file]).exits(0).prints("no changes");

    // Waiting for readiness is interrupted like anything else.
    let mut waiting = Nest::new().start(&["apply", "-f", &cluster.write("servers: {args: [--debug]}")]);
    within(Duration::from_secs(30), "the server to be replaced", || {
        assert!(!waiting.has_ended(), "it ended by itself");
        let running = command::run(std::process::Command::new("docker").args([
            "ps",
            "-q",
            "--filter",
            &format!("name={}", cluster.node()),
        ]));
        let new = running.stdout.trim().to_owned();
        if new.is_empty() { Ok(()) } else { Err(format!("still {new}")) }
    });
    waiting.signal("INT");
    let waiting =
        waiting.wait(Duration::from_secs(10)).exits(130).complains("running the same command again");
    assert!(waiting.took < Duration::from_secs(40), "{waiting}");
    nest(&["apply", "-f", &file]).exits(0);
    cluster.is_whole();
    cluster.delete(&story);
}

/// Half of a cluster is deleted without a rest, whatever the half.
pub fn half_made() {
    let story = Story::new("half_made");
    type Moment = fn(&Request) -> bool;
    let moments: [(&str, Moment); 4] = [
        ("the first volume", |r| r.is("POST", "/volumes/create")),
        ("the network", |r| r.is("POST", "/networks/create")),
        ("the server's files", |r| r.is("PUT", "/containers/")),
        ("the start of a container", |r| r.is("POST", "/containers/") && r.path.ends_with("/start")),
    ];
    for (what, moment) in moments {
        let cluster = Cluster::new("half");
        apply_until(&cluster.write(""), "INT", moment).exits(130);
        // A probe that Docker is still removing may be there a moment longer, and one that was just
        // started until the next command.
        let half = cluster.all_objects().iter().filter(|(_, name)| !name.contains("-probe-")).count();
        if half > 0 {
            nest(&["get", "clusters"]).exits(0).prints(&cluster.name);
            cluster.delete(&story);
        }
        within(Duration::from_secs(30), "everything to be gone", || match cluster.all_objects() {
            left if left.is_empty() => Ok(()),
            left => {
                if left.iter().all(|(_, name)| name.contains("-probe-")) {
                    nest(&["delete", &cluster.name]);
                }
                Err(format!("{left:?}"))
            }
        });
        story.tell(&format!("stopped at {what}: {half} objects, all deleted"));
    }
}

/// A delete in the middle of an apply wins: the apply ends and leaves nothing behind it.
pub fn deleted_while_made() {
    let story = Story::new("deleted_while_made");
    for (what, role) in [("while objects are made", "record"), ("while k3s comes up", "loadbalancer")] {
        let cluster = Cluster::new("race");
        let apply = Nest::new().start(&["apply", "-f", &cluster.write("")]);
        let mut labels = cluster.labels();
        labels.push(format!("k3nest.dev/role={role}"));
        let kind = if role == "record" { "volume" } else { "container" };
        within(Duration::from_secs(30), &format!("its {role}"), || {
            let found = crate::harness::docker::labelled(kind, &labels);
            if found.is_empty() { Err("nothing yet".to_owned()) } else { Ok(()) }
        });
        nest(&["delete", &cluster.name]).exits(0);
        let apply = apply.wait(Duration::from_secs(60)).exits(4).complains("deleted");
        cluster.is_gone();
        story.tell(&format!("deleted {what}: apply ended after {:.1?}, and nothing is left", apply.took));
    }
}
