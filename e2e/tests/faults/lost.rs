//! Volumes are wiped: emptied, and removed. What can be made again is; what cannot is said, and
//! nothing is made in its place.

use std::{collections::BTreeMap, thread, time::Duration};

use super::{
    lives::Kept,
    patient::{Inside, Patient, container, empty, life, patience, spec, volumes},
};
use crate::{
    harness::{Cluster, Nest, Story, docker::docker, nest::node_image, pick::Scratch, proxy::Fate, within},
    tenant::Condition,
};

/// How soon it is seen that data is lost.
const SEEN: Duration = Duration::from_secs(30);

/// How long a recovery may take: three servers start one after the other.
const RECOVERED: Duration = Duration::from_secs(120);

const SERVERS: [&str; 3] = ["server-0", "server-1", "server-2"];

const RECOVER: &str = "k3nest.dev/recover";

/// Of one server, of most, of all; in the operator's clusters and in one of the command line's.
pub fn volumes_are_wiped() {
    let story = Story::new("lost_data");
    thread::scope(|scope| {
        scope.spawn(|| {
            only_server(&story);
            by_hand(&story);
        });
        three_servers(&story);
    });
}

fn three_servers(story: &Story) {
    let kept = Kept::new("lost3");
    let patient = Patient::born(story, &kept.tenant, 3, 1);
    let tenant = patient.tenant;

    patient.heals(story, "agent-0 emptied, docker kill", &["agent-0"], |p| {
        empty(tenant, &["agent-0"]);
        docker(&["kill", &p.container("agent-0")]).ok();
    });
    without_its_record(story, &patient);

    let founder = patient.inside.member_of(&patient.node("server-0"));
    patient.heals(story, "server-0 emptied, docker restart", &["server-0"], |p| {
        empty(tenant, &["server-0"]);
        docker(&["restart", "-t", "0", &p.container("server-0")]).ok();
    });
    assert_ne!(patient.inside.member_of(&patient.node("server-0")), founder, "the founder is a new member");
    let other = patient.inside.member_of(&patient.node("server-1"));
    patient.heals(story, "server-1 with its volumes removed", &["server-1"], |_| {
        kept.operator.held(|| remove(tenant, &["server-1"]));
    });
    assert_ne!(patient.inside.member_of(&patient.node("server-1")), other, "server-1 is a new member");

    let copy = Copy::of(story, &kept, &patient, "server-0");
    // A wish where nothing is lost is noted, and is not carried out when something is.
    annotate(&patient, "stale");
    within(patience(SEEN), "the wish to be noted", || record_has(tenant, "\"recoverNonce\":\"stale\""));
    let former = members(&patient);
    kept.operator.held(|| remove(tenant, &["server-0", "server-2"]));
    let condition = is_lost(story, &kept, "QuorumLost");
    let survivor = patient.node("server-1");
    assert!(condition.message.contains(&format!("go on with the data of {survivor}, run")), "{condition:?}");
    recovers(story, &patient, "again", &survivor, &former, |p| annotate(p, "again"));
    let former = members(&patient);

    kept.operator.held(|| {
        empty(tenant, &["server-1", "server-2"]);
        for which in ["server-1", "server-2"] {
            docker(&["kill", &patient.container(which)]).ok();
        }
    });
    annotate(&patient, "again");
    let condition = is_lost(story, &kept, "QuorumLost");
    let survivor = patient.node("server-0");
    assert!(condition.message.contains(&format!("go on with the data of {survivor}, run")), "{condition:?}");
    empty(tenant, &["server-0"]);
    docker(&["restart", "-t", "0", &patient.container("server-0")]).ok();
    annotate(&patient, "hopeless");
    // The next one remembers nothing, and does not wait as long as this one before it looks.
    kept.operator.victim.kill();
    is_lost(story, &kept, "DataLost");

    // It is of before a recovery, and all that there is: it is not discarded. The wish still lies there.
    recovers(story, &patient, "hopeless", &survivor, &former, |_| kept.operator.held(|| copy.put_back()));
    tenant.delete(story);
    kept.operator.ended_by_kills_only();
}

/// What lay in the volumes of a node.
struct Copy {
    volumes: Vec<String>,
    scratch: Scratch,
}

impl Copy {
    /// The node stands still meanwhile; that is mended as usual.
    fn of(story: &Story, kept: &Kept, patient: &Patient, which: &str) -> Self {
        let copy = Self { volumes: volumes(patient.tenant, which), scratch: Scratch::new() };
        patient.heals(story, &format!("docker stop of {which}, for a copy"), &[which], |p| {
            kept.operator.held(|| {
                docker(&["stop", "-t", "10", &p.container(which)]).ok();
                copy.run("cp -a /volumes/. /copy/");
            })
        });
        copy
    }

    fn put_back(&self) {
        self.run("cp -a /copy/. /volumes/");
    }

    fn run(&self, script: &str) {
        let volumes = self.volumes.iter().map(|name| format!("{name}:/volumes/{name}"));
        let mounts = volumes.chain([format!("{}:/copy", self.scratch.0.display())]);
        let mounts: Vec<String> = mounts.flat_map(|mount| ["-v".to_owned(), mount]).collect();
        let mounts: Vec<&str> = mounts.iter().map(String::as_str).collect();
        let image = node_image();
        let run = ["run", "--rm", "--entrypoint", "/bin/sh"];
        docker(&[&run, mounts.as_slice(), &[&image, "-c", script]].concat()).ok();
    }
}

/// The record is rebuilt from what the cluster's objects remember, and nothing else is touched.
fn without_its_record(story: &Story, patient: &Patient) {
    let tenant = patient.tenant;
    let untouched = || -> Vec<String> {
        tenant.fingerprint().into_iter().filter(|line| !line.contains("-record-")).collect()
    };
    let records = || -> Vec<String> {
        tenant.objects("volume").into_iter().filter(|name| name.contains("-record-")).collect()
    };
    let (before, record) = (untouched(), records());
    assert_eq!(record.len(), 1, "{record:?}");
    let former = docker(&["volume", "inspect", "--format", "{{.CreatedAt}}", &record[0]]).ok();
    docker(&["volume", "rm", &record[0]]).ok();
    within(patience(SEEN), "the record to be there again", || match records().as_slice() {
        [one] if docker(&["volume", "inspect", "--format", "{{.CreatedAt}}", one]).stdout != former => Ok(()),
        all => Err(format!("{all:?}")),
    });
    patient.heals(story, "its record's volume removed", &[], |_| ());
    record_has(tenant, "\"joined\":[0,1,2]").expect("every server is known to be a member");
    assert_eq!(untouched(), before);
}

/// The servers' names in etcd, by node.
fn members(patient: &Patient) -> BTreeMap<String, String> {
    let nodes = SERVERS.iter().map(|which| patient.node(which));
    nodes.map(|node| (node.clone(), patient.inside.member_of(&node))).collect()
}

/// The wish is carried out once `act` is done: the survivor's data is kept, and the others join it as new
/// members, by other names than their `former` ones.
fn recovers(
    story: &Story,
    patient: &Patient,
    wish: &str,
    survivor: &str,
    former: &BTreeMap<String, String>,
    act: impl FnOnce(&Patient),
) {
    let what = format!("{RECOVER}={wish}, with the data of {survivor}");
    patient.heals_within(story, &what, &SERVERS, patience(RECOVERED), act);
    within(patience(SEEN), "every node to speak to the recovered cluster", || {
        patient.inside.has_spoken_since(jiff::Timestamp::now() - jiff::SignedDuration::from_secs(15))
    });
    let now = members(patient);
    for (node, name) in &now {
        assert!(*node == survivor || former[node] != *name, "{node} is a new member: {former:?}, {now:?}");
    }
    record_has(patient.tenant, &format!("\"recoverNonce\":\"{wish}\"")).expect("noted");
}

fn annotate(patient: &Patient, wish: &str) {
    let tenant = patient.tenant;
    tenant.run(&["annotate", "--overwrite", "k3scluster", &tenant.name, &format!("{RECOVER}={wish}")]).ok();
}

fn record_has(cluster: &Cluster, text: &str) -> Result<(), String> {
    let records = cluster.objects("volume").into_iter().filter(|name| name.contains("-record-"));
    let found: Vec<String> = records
        .map(|name| {
            docker(&["volume", "inspect", "--format", r#"{{index .Labels "k3nest.dev/record"}}"#, &name])
                .stdout
        })
        .collect();
    if found.iter().any(|record| record.contains(text)) {
        Ok(())
    } else {
        Err(format!("no {text} in {found:?}"))
    }
}

/// The containers and the volumes of nodes are gone.
fn remove(cluster: &Cluster, nodes: &[&str]) {
    for which in nodes {
        let volumes = volumes(cluster, which);
        docker(&["rm", "-f", "-v", &container(cluster, which)]).ok();
        let names: Vec<&str> = volumes.iter().map(String::as_str).collect();
        docker(&[&["volume", "rm"], names.as_slice()].concat()).ok();
    }
}

/// It is said that data is lost, and for the time of two retries nothing is made.
#[track_caller]
fn is_lost(story: &Story, kept: &Kept, reason: &str) -> Condition {
    let tenant = &kept.tenant;
    let condition = tenant.becomes("Ready", "False", reason, patience(SEEN));
    assert_eq!(tenant.object()["status"]["phase"], "Failed");
    assert_eq!(tenant.condition("Stalled").status, "True");
    let before = tenant.all_objects();
    kept.operator.proxy.set_rule(|_| Fate::Pass);
    let requests = within(patience(SEEN), "two more looks at it", || {
        let all = kept.operator.proxy.requests_of_rule();
        let looks = all.iter().filter(|request| request.is("GET", "/info")).count();
        if looks >= 2 { Ok(all) } else { Err(format!("{looks} looks")) }
    });
    // What looks into volumes is no part of the cluster.
    let is_probe = |path: &str| path.starts_with("/containers/create") && path.contains("-probe-");
    let made = |request: &&crate::harness::proxy::Request| {
        request.changes() && request.bare_path().ends_with("/create") && !is_probe(&request.path)
    };
    // By name or by ID; those of probes may have been created before the rule was set.
    let nodes = tenant.objects("container").into_iter().filter(|name| !name.contains("-probe-"));
    let nodes: Vec<String> = nodes
        .flat_map(|name| {
            let id = docker(&["inspect", "--format", "{{.Id}}", &name]).stdout.trim().to_owned();
            [name, id]
        })
        .collect();
    let started = |request: &&crate::harness::proxy::Request| {
        let of = |node: &String| request.bare_path().ends_with(&format!("/containers/{node}/start"));
        request.changes() && nodes.iter().any(of)
    };
    let done = requests.iter().filter(|request| made(request) || started(request));
    let done: Vec<String> = done.map(ToString::to_string).collect();
    assert!(done.is_empty(), "{done:?}");
    let after = tenant.all_objects().into_iter().filter(|(_, name)| !name.contains("-probe-"));
    assert_eq!(
        after.collect::<Vec<_>>(),
        before.into_iter().filter(|(_, name)| !name.contains("-probe-")).collect::<Vec<_>>()
    );
    assert_eq!(tenant.condition("Ready").reason, reason);
    story.tell(&format!("{}: {reason}: {}", tenant.name, condition.message));
    condition
}

/// What was the only server's data never comes back as an empty cluster.
fn only_server(story: &Story) {
    let kept = Kept::new("lost1");
    let patient = Patient::born(story, &kept.tenant, 1, 0);
    let tenant = patient.tenant;
    let name = patient.container("server-0");
    let copy = Copy::of(story, &kept, &patient, "server-0");
    let wipe = || {
        empty(tenant, &["server-0"]);
        docker(&["restart", "-t", "0", &name]).ok();
        is_lost(story, &kept, "DataLost");
    };
    wipe();
    patient.heals(story, "its volumes put back", &["server-0"], |_| copy.put_back());
    wipe();
    let data = volumes(tenant, "server-0")
        .into_iter()
        .find(|name| name.contains("-data-"))
        .expect("its data volume");
    let mount = format!("{data}:/wiped");
    let found = docker(&[
        "run",
        "--rm",
        "-v",
        &mount,
        "--entrypoint",
        "/bin/sh",
        &node_image(),
        "-c",
        "ls -A /wiped/server/db 2>&1 || true",
    ]);
    assert!(found.stdout.contains("No such file"), "a server has begun in the empty volume: {found}");
    assert!(docker(&["logs", "--tail", "5", &name]).stderr.contains("Not starting k3s"));
    kept.operator.held(|| remove(tenant, &["server-0"]));
    is_lost(story, &kept, "DataLost");
    assert!(life(&name).is_empty());
    tenant.delete(story);
    kept.operator.ended_by_kills_only();
}

/// The same by the verb, in a cluster of the command line's.
fn by_hand(story: &Story) {
    let cluster = Cluster::new("lost");
    cluster.apply(&spec(3, 0)).exits(0);
    let inside = Inside::prepare(cluster.kubectl(), 3, 0);
    remove(&cluster, &["server-0", "server-1"]);
    let survivor = format!("{}-server-2", cluster.name);
    let objects = cluster.all_objects();
    let refused = Nest::new().run(&["apply", "-f", &cluster.write(&spec(3, 0))]);
    assert_ne!(refused.code, 0, "{refused}");
    let refused = refused.complains("1 of 3 servers").complains(&format!("the data of {survivor}"));
    let lost = format!("{}-server-0", cluster.name);
    let recover = ["cluster", "recover", &cluster.name];
    let wrong = Nest::new().run(&[&recover[..], &["--from", &lost]].concat());
    assert_ne!(wrong.code, 0, "{wrong}");
    wrong.complains(&format!("write {survivor}"));
    assert_eq!(cluster.all_objects(), objects, "something was made before the recovery, {refused}");
    story.tell(&format!("{}: refused: {}", cluster.name, refused.stderr.trim()));
    let recovered = Nest::new().start(&recover).wait(patience(RECOVERED)).exits(0);
    inside.nodes_are_well(&Default::default()).expect("k3nest said so");
    within(patience(SEEN), "the workload to run again", || inside.works(""));
    story.tell(&format!("{}: k3nest cluster recover: Ready after {:.1?}", cluster.name, recovered.took));
    let lives = || -> Vec<String> { cluster.objects("container").iter().map(|name| life(name)).collect() };
    let before = lives();
    Nest::new().run(&recover).exits(0).complains("nothing is given up");
    assert_eq!(lives(), before, "a recovery of what is well");
    let paused = cluster.write(&(spec(3, 0) + "\npaused: true"));
    Nest::new().run(&["cluster", "recover", "-f", &paused]).exits(2).complains("write spec.paused: false");
    let file = cluster.write(&spec(3, 0));
    cluster.delete(story);
    Nest::new().run(&["cluster", "recover", "-f", &file]).exits(4).complains("not found");
    cluster.is_gone();
}
