//! Deletion at bad moments: half-way up, and while a node crashes again and again.

use std::{thread, time::Duration};

use crate::{
    harness::Story,
    space::Space,
    tenant::{READY, Tenant},
};

/// Three clusters are deleted at moments picked at random while they come up, and a fourth and fifth
/// go with their namespace.
pub fn while_creation_is_half_done() {
    let story = Story::new("deletion_half_done");
    let space = Space::new("half");
    let moments: Vec<Duration> =
        [0..800, 800..3000, 3000..9000].map(|range| Duration::from_millis(rand::random_range(range))).into();
    thread::scope(|scope| {
        for (i, moment) in moments.iter().enumerate() {
            let (space, story) = (&space, &story);
            scope.spawn(move || {
                let tenant = Tenant::new(&format!("half-{i}"), space);
                tenant.apply("");
                thread::sleep(*moment);
                let objects = tenant.all_objects().len();
                story.tell(&format!("{} is deleted after {moment:.1?} with {objects} objects", tenant.name));
                tenant.delete(story);
            });
        }
    });
    assert_eq!(space.objects(), Vec::<String>::new());

    let (first, second) = (Tenant::new("first", &space), Tenant::new("second", &space));
    first.apply("");
    second.apply("paused: true");
    let seen = crate::harness::eventually("the network of one cluster", || match first.objects("network") {
        none if none.is_empty() => Err("none".into()),
        _ => Ok(space.objects().len()),
    });
    space.delete();
    story.tell(&format!("the namespace went, and {seen} objects with it"));
}

/// A node that k3s leaves at once: a condition says so with its last words, and deletion is as
/// quick as ever.
pub fn of_a_node_that_crash_loops() {
    let story = Story::new("deletion_crash_loop");
    let space = Space::new("crash");
    let tenant = Tenant::new("crash", &space);
    tenant.apply("servers: {args: [--no-such-flag=1]}");
    let ready = tenant.becomes("Ready", "False", "NodeCrashLooping", READY);
    assert!(ready.message.contains("no-such-flag"), "{ready:?}");
    story.tell(&ready.message);
    // Between two crashes the container runs: that is no news.
    for _ in 0..10 {
        let object = tenant.object();
        let node = &object["status"]["nodes"][0];
        assert!(node["message"].as_str().is_some_and(|text| text.contains("no-such-flag")), "{node}");
        assert_eq!(tenant.condition("Ready").reason, "NodeCrashLooping");
        thread::sleep(Duration::from_millis(500));
    }
    tenant.delete(&story);
}
