//! A quorum that was lost, and what comes of it.

use std::collections::BTreeMap;

use super::{
    faults::{Fault, Faults},
    lab::{Lab, is_ready, message, ready, reason},
    specs::{Draft, dev},
};
use crate::{
    api::{Phase, Role, label},
    plan::{ContainerState, Recover},
    reconcile::{Outcome, step},
};

const SERVERS: [&str; 3] = ["dev-server-0", "dev-server-1", "dev-server-2"];

fn three() -> Draft {
    Draft { servers: 3, agents: 1, ..Draft::default() }
}

fn lose(lab: &mut Lab, nodes: &[&str], volumes: bool) {
    let mut docker = lab.engine.docker();
    nodes.iter().for_each(|node| docker.lose_data(&dev().object_name(node), volumes));
}

/// Steps with a wish until all is well, or nothing goes on.
fn steps(lab: &mut Lab, draft: &Draft, wish: Option<&str>) -> Outcome {
    let mut last = None;
    for _ in 0..80 {
        let mut request = lab.request(draft, &dev());
        request.recover = wish.map(|nonce| Recover { nonce: nonce.into(), from: None });
        let now = lab.now();
        let outcome = lab.run(step(&lab.world, &request, now));
        lab.wait(outcome.as_ref());
        let Some(outcome) = outcome else { continue };
        lab.former.insert(dev().uid, outcome.status.clone());
        let ends = is_ready(&outcome) || outcome.status.phase == Phase::Failed;
        last = Some(outcome);
        if ends {
            break;
        }
    }
    last.expect("a step that was not cut off")
}

fn members(lab: &Lab) -> usize {
    let docker = lab.engine.docker();
    assert_eq!(docker.members.len(), 1, "one etcd");
    docker.members.values().map(|members| members.len()).sum()
}

/// However it is cut on the way.
#[test]
fn a_recovery_ends_with_all_servers_and_is_carried_out_once() {
    for cut in [None].into_iter().chain((0..24).map(Some)) {
        let draft = three();
        let mut lab = ready(&draft);
        lose(&mut lab, &[SERVERS[0], SERVERS[2]], cut.is_none_or(|cut| cut % 2 == 0));
        let outcome = steps(&mut lab, &draft, None);
        assert_eq!(reason(&outcome), "QuorumLost", "{}", message(&outcome));
        if let Some(cut) = cut {
            let fault = if cut % 3 == 0 { Fault::CutBefore } else { Fault::CutAfter };
            lab.engine.arrange(Faults::one(lab.engine.changes().len() + cut, fault));
        }
        let outcome = steps(&mut lab, &draft, Some("now"));
        assert_eq!(reason(&outcome), "Ready", "cut at {cut:?}: {}", message(&outcome));
        assert_eq!(members(&lab), 3, "cut at {cut:?}");
        assert_eq!(lab.engine.docker().broken, [""; 0]);

        // The wish still lies there.
        lose(&mut lab, &[SERVERS[0], SERVERS[1]], true);
        assert_eq!(reason(&steps(&mut lab, &draft, Some("now"))), "QuorumLost", "cut at {cut:?}");
        assert_eq!(reason(&steps(&mut lab, &draft, Some("again"))), "Ready", "cut at {cut:?}");
        assert_eq!(lab.engine.docker().broken, [""; 0]);
    }
}

/// As k3nest itself advises where no data is left. No server may discard what was put back.
#[test]
fn copies_of_before_a_recovery_are_recovered_from() {
    for restored in [3, 1] {
        let draft = three();
        let mut lab = ready(&draft);
        let data = |node: &str| dev().object_name(&format!("{node}-data"));
        let etcd = |lab: &Lab, node: &str| lab.engine.docker().volumes[&data(node)].etcd.clone();
        let copies = lab.engine.docker().volumes.clone();
        // As etcd's data has them.
        let nodes = lab.engine.docker().nodes.clone();
        lose(&mut lab, &[SERVERS[0], SERVERS[2]], false);
        assert_eq!(reason(&steps(&mut lab, &draft, Some("now"))), "Ready");
        lose(&mut lab, &SERVERS, true);
        assert_eq!(reason(&steps(&mut lab, &draft, None)), "DataLost");

        lab.engine.docker().nodes = nodes;
        for node in &SERVERS[..restored] {
            let of_node = |labels: &BTreeMap<_, _>| labels.get(label::NODE).is_some_and(|name| name == node);
            let own = copies.iter().filter(|(_, volume)| of_node(&volume.labels));
            lab.engine.docker().volumes.extend(own.map(|(name, volume)| (name.clone(), volume.clone())));
        }
        let outcome = steps(&mut lab, &draft, None);
        assert_eq!(reason(&outcome), "QuorumLost", "{}", message(&outcome));
        let kept = |node: &&str| etcd(&lab, node) == copies[&data(node)].etcd;
        assert!(SERVERS[..restored].iter().all(kept), "{restored}: discarded");
        let said = "but it is of before the last recovery";
        assert!(restored == 1 || message(&outcome).contains(said), "{}", message(&outcome));
        let outcome = steps(&mut lab, &draft, Some("again"));
        assert_eq!(reason(&outcome), "Ready", "{restored}: {}", message(&outcome));
        assert_eq!(members(&lab), 3);
        assert_eq!(lab.engine.docker().broken, [""; 0]);
    }
}

/// The survivor was told to reset; once it was Ready it is told not to, since Docker restarts it as it was
/// told last: on a copy it would found a cluster of its own, beside the others or in their place.
#[test]
fn a_survivor_never_resets_again_by_itself() {
    let draft = three();
    let mut lab = ready(&draft);
    let data = dev().object_name("dev-server-1-data");
    let copy = lab.engine.docker().volumes[&data].clone();
    lose(&mut lab, &[SERVERS[0], SERVERS[2]], false);
    assert_eq!(reason(&steps(&mut lab, &draft, Some("now"))), "Ready");
    let member = |lab: &Lab| lab.engine.docker().members.values().next().cloned();
    let before = member(&lab);
    {
        let mut docker = lab.engine.docker();
        let id = docker.containers[&dev().object_name(SERVERS[1])].id.clone();
        docker.stop_container(&id);
        docker.volumes.insert(data, copy);
        docker.start_container(&id).expect("it was started before");
    }
    assert_eq!(member(&lab), before, "it made itself the only member");
    // Without its data it is a new member; k3s ends until its name is free.
    let id = lab.engine.docker().containers[&dev().object_name(SERVERS[1])].id.clone();
    lab.engine.docker().stop_container(&id);
    let outcome = steps(&mut lab, &draft, None);
    assert_eq!(reason(&outcome), "Ready", "{}", message(&outcome));
    assert_eq!(members(&lab), 3);
    assert_eq!(lab.engine.docker().broken, [""; 0]);
}

/// One that is put back beside two that are well is a new member, like one without data.
#[test]
fn a_copy_of_before_a_recovery_does_not_keep_its_server_away() {
    let draft = three();
    let mut lab = ready(&draft);
    let data = dev().object_name("dev-server-0-data");
    let copy = lab.engine.docker().volumes[&data].clone();
    lose(&mut lab, &[SERVERS[0], SERVERS[2]], false);
    assert_eq!(reason(&steps(&mut lab, &draft, Some("now"))), "Ready");
    let id = lab.engine.docker().containers[&dev().object_name(SERVERS[0])].id.clone();
    lab.engine.docker().stop_container(&id);
    lab.engine.docker().volumes.insert(data, copy);
    let outcome = steps(&mut lab, &draft, None);
    assert_eq!(reason(&outcome), "Ready", "{}", message(&outcome));
    assert_eq!(members(&lab), 3);
    assert_eq!(lab.engine.docker().broken, [""; 0]);
}

/// Docker restarts it again and again: for a moment it runs each time.
#[test]
fn a_server_without_data_is_not_taken_for_one_with_data_while_it_is_about_to_stop() {
    let mut lab = ready(&Draft::default());
    lose(&mut lab, &SERVERS[..1], false);
    assert_eq!(reason(&steps(&mut lab, &Draft::default(), None)), "DataLost");
    {
        let mut docker = lab.engine.docker();
        let now = docker.now;
        let server = docker.containers.get_mut(&dev().object_name(SERVERS[0])).expect("there");
        assert_eq!(server.want.kind.role(), Role::Server);
        (server.state, server.started) = (ContainerState::Running, Some(now));
    }
    assert_eq!(reason(&steps(&mut lab, &Draft::default(), None)), "DataLost");
}

/// Record, network and containers are gone, and the founder with its volumes: what the others have is
/// not joined to a second etcd.
#[test]
fn where_only_volumes_are_left_no_other_cluster_is_founded() {
    let draft = three();
    let mut lab = ready(&draft);
    lose(&mut lab, &SERVERS[..1], true);
    {
        let mut docker = lab.engine.docker();
        docker.containers.retain(|_, container| !dev().owns(&container.want.labels));
        docker.networks.retain(|network| !dev().owns(&network.labels));
        docker.volumes.retain(|_, v| !(dev().owns(&v.labels) && v.labels.contains_key(label::RECORD)));
    }
    let outcome = steps(&mut lab, &draft, None);
    assert!(is_ready(&outcome), "{}", message(&outcome));
    assert_eq!(members(&lab), 3);
    assert_eq!(lab.engine.docker().broken, [""; 0]);
}

/// The second goes before the first, which has begun anew, is a member: it never will be.
#[test]
fn two_that_are_lost_one_after_the_other_are_reported_and_recovered() {
    for pass in [0, 90] {
        let draft = three();
        let mut lab = ready(&draft);
        lab.pass(std::time::Duration::from_mins(30));
        lab.engine.docker().boot_millis = 600_000;
        lose(&mut lab, &SERVERS[..1], true);
        lab.step(&draft, &dev());
        assert_eq!(members(&lab), 2, "it was forgotten, and has yet to join");
        lab.pass(std::time::Duration::from_secs(pass));
        lose(&mut lab, &SERVERS[1..2], true);
        lab.engine.docker().boot_millis = 1000;
        let outcome = steps(&mut lab, &draft, None);
        assert_eq!(reason(&outcome), "QuorumLost", "after {pass} s: {}", message(&outcome));
        let outcome = steps(&mut lab, &draft, Some("now"));
        assert_eq!(reason(&outcome), "Ready", "after {pass} s: {}", message(&outcome));
        assert_eq!(members(&lab), 3);
        assert_eq!(lab.engine.docker().broken, [""; 0]);
    }
}

fn records(lab: &Lab) -> Vec<String> {
    let docker = lab.engine.docker();
    let ours = docker.volumes.iter().filter(|(_, v)| dev().owns(&v.labels));
    ours.filter(|(_, v)| v.labels.contains_key(label::RECORD)).map(|(name, _)| name.clone()).collect()
}

/// Whether the wish was noted is lost with the record, as `docker volume prune` takes both.
#[test]
fn a_wish_that_lies_there_is_not_carried_out_for_want_of_a_record() {
    let draft = three();
    let mut lab = ready(&draft);
    assert_eq!(reason(&steps(&mut lab, &draft, Some("stale"))), "Ready");
    lose(&mut lab, &[SERVERS[0], SERVERS[2]], true);
    for name in records(&lab) {
        lab.engine.docker().volumes.remove(&name);
    }
    let outcome = steps(&mut lab, &draft, Some("stale"));
    assert_eq!(reason(&outcome), "QuorumLost", "{}", message(&outcome));
    assert_eq!(reason(&steps(&mut lab, &draft, Some("stale"))), "QuorumLost");
    assert_eq!(reason(&steps(&mut lab, &draft, Some("again"))), "Ready");
    assert_eq!(members(&lab), 3);
}

/// As after an apply that did not wait until it was Ready.
#[test]
fn a_cluster_that_was_never_seen_ready_is_not_founded_beside_itself() {
    let draft = three();
    let mut lab = ready(&draft);
    let unseen = crate::plan::Record {
        initialised: false,
        joined: Default::default(),
        highest_version: None,
        ..super::projection::record(&lab.engine.docker(), &dev()).unwrap()
    };
    for name in records(&lab) {
        lab.engine.docker().volumes.remove(&name);
    }
    let volume = unseen.volume(&dev());
    let made = crate::engine::Engine::create_volume(&lab.engine, &volume);
    lab.run(made).unwrap().unwrap();
    lose(&mut lab, &SERVERS[..1], true);
    let outcome = steps(&mut lab, &draft, None);
    assert!(is_ready(&outcome), "{}", message(&outcome));
    assert_eq!(members(&lab), 3, "one etcd");
    assert_eq!(lab.engine.docker().broken, [""; 0]);
}

/// A node that runs on after its volumes were emptied is replaced for another reason: its name is taken
/// until the cluster has forgotten it.
#[test]
fn what_is_replaced_without_its_data_is_forgotten_first() {
    let draft = three();
    let mut lab = ready(&draft);
    let name = dev().object_name("dev-agent-0");
    {
        let mut docker = lab.engine.docker();
        let own: Vec<String> = docker.containers[&name].volumes.values().cloned().collect();
        own.iter().for_each(|volume| docker.volumes.get_mut(volume).unwrap().files.clear());
        let agent = docker.containers.get_mut(&name).unwrap();
        agent.want.labels.insert(label::HASH.into(), "former".into());
    }
    lab.pass(std::time::Duration::from_mins(5));
    let forgotten = lab.engine.docker().nodes.clone();
    lab.step(&draft, &dev());
    let docker = lab.engine.docker();
    assert!(forgotten.values().any(|nodes| nodes.contains_key("dev-agent-0")));
    assert!(!docker.nodes.values().any(|nodes| nodes.contains_key("dev-agent-0")), "{:?}", docker.nodes);
}

/// A copy of k3s's own data lacks what k3nest has beside it.
#[test]
fn a_server_without_its_token_is_started_anew_with_it() {
    let draft = Draft::default();
    let mut lab = ready(&draft);
    let name = dev().object_name(SERVERS[0]);
    {
        let mut docker = lab.engine.docker();
        let data = docker.volumes.get_mut(&dev().object_name("dev-server-0-data")).unwrap();
        let token = data.files.remove("/k3nest/token").expect("every node has it there");
        data.files.insert("/server/token".into(), token);
        docker.containers.get_mut(&name).unwrap().state = ContainerState::Restarting;
    }
    let outcome = steps(&mut lab, &draft, None);
    assert!(is_ready(&outcome), "{}", message(&outcome));
    assert_eq!(lab.engine.docker().broken, [""; 0]);
}
