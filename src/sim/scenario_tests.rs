//! Accidents that a property meets too rarely, each arranged once.

use std::time::Duration;

use super::{
    docker::Docker,
    faults::{Fault, Faults},
    lab::{Lab, foreign_network, host, is_ready, message, ready, reason, settled},
    projection::record,
    specs::{Draft, Place, SHARED_NETWORK, dev},
    wounds::Wound,
};
use crate::{
    api::{K3sClusterStatus, Phase, Role, condition, label},
    plan::{Attachment, ContainerState, Network},
    reconcile::step,
};

const SERVER: &str = "dev-server-0";
const BALANCER: &str = "dev-lb";

fn remove(docker: &mut Docker, what: &str) {
    let id = docker.containers[&dev().object_name(what)].id.clone();
    docker.remove_container(&id);
}

#[test]
fn containers_that_went_away_come_back_with_their_data() {
    for lost in [&[SERVER][..], &[BALANCER], &[SERVER, BALANCER]] {
        let mut lab = ready(&Draft::default());
        for what in lost {
            remove(&mut lab.engine.docker(), what);
        }
        assert_eq!(settled(&mut lab, &Draft::default()), "Ready", "{lost:?}");
        assert_eq!(lab.engine.docker().broken, [""; 0]);
    }
}

#[test]
fn a_container_that_was_stopped_by_hand_is_started_and_not_replaced() {
    let mut lab = ready(&Draft::default());
    let id = lab.engine.docker().containers[&dev().object_name(SERVER)].id.clone();
    lab.engine.docker().stop_container(&id);
    assert_eq!(settled(&mut lab, &Draft::default()), "Ready");
    assert_eq!(lab.engine.docker().containers[&dev().object_name(SERVER)].id, id);
}

#[test]
fn lost_data_is_said_and_never_replaced_by_an_empty_cluster() {
    let mut lab = ready(&Draft::default());
    remove(&mut lab.engine.docker(), SERVER);
    lab.engine.docker().volumes.remove(&dev().object_name("dev-server-0-data"));
    assert_eq!(settled(&mut lab, &Draft::default()), "DataLost");
    assert_eq!(lab.engine.docker().broken, [""; 0]);
    assert_eq!(lab.delete(&dev()), Ok(()));
}

/// What a newer version knew of a cluster, an older one does not.
#[test]
fn a_record_that_cannot_be_read_stops_all_action() {
    let draft = Draft::default();
    let mut lab = ready(&draft);
    {
        let mut docker = lab.engine.docker();
        let own = docker.volumes.iter().find(|(_, v)| v.labels.contains_key(label::RECORD));
        let (name, mut volume) = own.map(|(name, volume)| (name.clone(), volume.clone())).unwrap();
        volume.labels.insert(label::RECORD.into(), "{}".into());
        docker.volumes.insert(format!("{name}-of-another-version"), volume);
    }
    remove(&mut lab.engine.docker(), SERVER);
    let made = lab.engine.changes().len();
    assert_eq!(settled(&mut lab, &draft), "RecordUnreadable");
    assert_eq!(lab.engine.changes().len(), made);
    assert_eq!(lab.delete(&dev()), Ok(()));
}

/// A container knows its network by id: where that is gone, starting it is of no use.
/// Also if its API was away before, so that the last report is of nodes that nobody could ask.
#[test]
fn a_cluster_of_which_nothing_is_left_is_not_begun_anew() {
    let draft = Draft::default();
    let mut lab = ready(&draft);
    remove(&mut lab.engine.docker(), SERVER);
    let _ = lab.step(&draft, &dev());
    {
        let mut docker = lab.engine.docker();
        docker.containers.clear();
        docker.volumes.clear();
        docker.networks.retain(|network| !dev().owns(&network.labels));
    }
    for _ in 0..3 {
        let outcome = lab.step(&draft, &dev()).unwrap();
        assert_eq!(reason(&outcome), "DataLost", "{}", message(&outcome));
        let status = &outcome.status;
        assert_eq!((&status.servers_ready, &status.endpoint), (&Some("0/1".into()), &None));
        assert!(status.nodes.is_empty() && status.version.is_some(), "{status:?}");
        lab.wait(Some(&outcome));
    }
    assert!(lab.engine.docker().volumes.is_empty());
}

#[test]
fn a_network_that_was_pruned_takes_its_containers_along() {
    for cut in 0..12 {
        let mut lab = ready(&Draft::default());
        {
            let mut docker = lab.engine.docker();
            let ids: Vec<String> = docker.containers.values().map(|c| c.id.clone()).collect();
            ids.iter().for_each(|id| docker.stop_container(id));
            docker.networks.retain(|n| !dev().owns(&n.labels));
        }
        let begun = lab.engine.changes().len();
        lab.engine.arrange(Faults::one(begun + cut, Fault::CutAfter));
        assert_eq!(settled(&mut lab, &Draft::default()), "Ready", "cut at {cut}");
        assert_eq!(lab.engine.docker().broken, [""; 0]);
    }
}

#[test]
fn of_two_networks_of_one_name_the_older_stays() {
    let mut lab = Lab::new(host());
    lab.engine.arrange(Faults::one(6, Fault::CutAfter));
    while lab.engine.docker().networks.iter().all(|n| !dev().owns(&n.labels)) {
        lab.step(&Draft::default(), &dev());
    }
    let first = lab.engine.docker().networks.iter().find(|n| dev().owns(&n.labels)).cloned().unwrap();
    lab.pass(Duration::from_secs(1));
    let second = Network { id: "second".into(), created: lab.now(), ..first.clone() };
    lab.engine.docker().networks.insert(0, second);

    assert_eq!(settled(&mut lab, &Draft::default()), "Ready");
    let left: Vec<String> =
        lab.engine.docker().networks.iter().filter(|n| dev().owns(&n.labels)).map(|n| n.id.clone()).collect();
    assert_eq!(left, [first.id]);
}

/// The subnet is found taken only when the network is made; a node must not have its address by then.
#[test]
fn a_subnet_that_docker_refuses_is_picked_anew() {
    let picked = record(&ready(&Draft::default()).engine.docker(), &dev()).unwrap().network.subnet;
    for cut in 0..14 {
        let mut lab = Lab::new(host());
        lab.engine.docker().busy_ranges.push(picked);
        lab.engine.arrange(Faults::one(cut, Fault::CutAfter));
        assert_eq!(settled(&mut lab, &Draft::default()), "Ready", "cut at {cut}");
        assert_ne!(record(&lab.engine.docker(), &dev()).unwrap().network.subnet, picked);
    }
}

#[test]
fn a_port_that_the_host_holds_is_picked_anew_or_said() {
    let picked = record(&ready(&Draft::default()).engine.docker(), &dev()).unwrap().api_port;
    // Picked: another one, as long as nobody uses the cluster.
    let mut lab = Lab::new(host());
    lab.engine.docker().busy_ports.insert(picked);
    assert_eq!(settled(&mut lab, &Draft::default()), "Ready");
    assert_ne!(record(&lab.engine.docker(), &dev()).unwrap().api_port, picked);

    // Wanted: said.
    let draft = Draft { api_port: Some(26443), ..Draft::default() };
    let mut lab = Lab::new(host());
    lab.engine.docker().busy_ports.insert(26443);
    assert_eq!(settled(&mut lab, &draft), "PortTaken");
    lab.engine.docker().busy_ports.clear();
    assert_eq!(settled(&mut lab, &draft), "Ready");
}

/// Once people use it, the port is theirs: taken while the load balancer stood still, it is waited
/// for.
#[test]
fn the_port_of_a_cluster_in_use_never_moves() {
    let mut lab = ready(&Draft::default());
    let port = record(&lab.engine.docker(), &dev()).unwrap().api_port;
    remove(&mut lab.engine.docker(), BALANCER);
    lab.engine.docker().busy_ports.insert(port);
    assert_eq!(settled(&mut lab, &Draft::default()), "PortTaken");
    lab.engine.docker().busy_ports.clear();
    assert_eq!(settled(&mut lab, &Draft::default()), "Ready");
    assert_eq!(record(&lab.engine.docker(), &dev()).unwrap().api_port, port);
}

/// A port that another container holds is refused before the load balancer is replaced.
#[test]
fn moving_the_api_to_a_taken_port_leaves_it_where_it_is() {
    let mut lab = ready(&Draft::default());
    {
        let mut docker = lab.engine.docker();
        let port = crate::plan::Publish {
            host_ip: "0.0.0.0".parse().unwrap(),
            host_port: 26443,
            port: 80,
            protocol: crate::api::Protocol::Tcp,
        };
        docker.containers.get_mut("somebody").unwrap().want.ports = vec![port];
    }
    let changes = lab.engine.changes().len();
    let draft = Draft { api_port: Some(26443), ..Draft::default() };
    assert_eq!(settled(&mut lab, &draft), "PortTaken");
    assert_eq!(lab.engine.changes()[changes..], [""; 0]);
    assert_eq!(lab.engine.docker().containers[&dev().object_name(BALANCER)].state, ContainerState::Running);
}

#[test]
fn forwarding_the_picked_port_of_the_api_is_refused() {
    let lab = ready(&Draft::default());
    let port = record(&lab.engine.docker(), &dev()).unwrap().api_port;
    let mut request = lab.request(&Draft::default(), &dev());
    request.spec.load_balancer =
        serde_json::from_value(serde_json::json!({"ports": [{"hostPort": port, "port": 80}]})).unwrap();
    let outcome = lab.run(step(&lab.world, &request, lab.now())).unwrap();
    assert_eq!((reason(&outcome), outcome.changes), ("PortTaken", 0));
}

/// While the load balancer stands still, Docker gives its address in the shared network away.
#[test]
fn a_guest_whose_place_was_taken_gets_another() {
    let draft = Draft { internal: 1, ..Draft::default() };
    let mut lab = ready(&draft);
    let guest = record(&lab.engine.docker(), &dev()).unwrap().guest.unwrap().address;
    {
        let mut docker = lab.engine.docker();
        let id = docker.containers[&dev().object_name(BALANCER)].id.clone();
        docker.stop_container(&id);
        docker.containers.get_mut("somebody").unwrap().want.address = guest;
        let seen = docker.list_containers(&[]).into_iter().find(|c| c.name == "somebody").unwrap();
        assert_eq!(seen.networks[SHARED_NETWORK], Attachment { address: Some(guest), pinned: Some(guest) });
    }
    assert_eq!(settled(&mut lab, &draft), "Ready");
    assert_ne!(record(&lab.engine.docker(), &dev()).unwrap().guest.unwrap().address, guest);
}

#[test]
fn a_taken_subnet_that_was_asked_for_is_said() {
    let draft = Draft { place: Place::Subnet, ..Draft::default() };
    let mut lab = Lab::new(host());
    foreign_network(&mut lab.engine.docker(), "other", "10.200.0.0/16");
    assert_eq!(settled(&mut lab, &draft), "SubnetUnavailable");
    lab.engine.docker().networks.retain(|n| n.name != "other");
    assert_eq!(settled(&mut lab, &draft), "Ready");
}

#[test]
fn another_engine_is_left_alone() {
    let mut lab = ready(&Draft::default());
    lab.engine.docker().info.id = "ENGINE-B".into();
    let changes = lab.engine.changes().len();
    assert_eq!(settled(&mut lab, &Draft::default()), "EngineMismatch");
    lab.former.clear();
    assert_eq!(settled(&mut lab, &Draft::default()), "EngineMismatch");
    assert_eq!(lab.engine.changes().len(), changes);
}

#[test]
fn an_older_version_and_another_token_are_refused() {
    let newer = Draft { version: 2, given_token: true, ..Draft::default() };
    let mut lab = ready(&newer);
    let changes = lab.engine.changes().len();
    assert_eq!(settled(&mut lab, &Draft { version: 1, ..newer.clone() }), "InvalidSpec");

    let mut request = lab.request(&newer, &dev());
    let values = &mut request.values.as_mut().unwrap().0;
    values.values_mut().for_each(|v| *v = crate::plan::Sensitive::new(b"another".to_vec()));
    let outcome = lab.run(step(&lab.world, &request, lab.now())).unwrap();
    assert_eq!(reason(&outcome), "TokenChanged");
    assert_eq!(lab.engine.changes().len(), changes);
}

/// The next image declares another volume before the one that the last declared.
#[test]
fn what_an_image_keeps_stays_at_its_path() {
    let mut lab = ready(&Draft::default());
    let srv = |lab: &Lab| lab.engine.docker().containers[&dev().object_name(SERVER)].volumes["/srv"].clone();
    let before = srv(&lab);
    let draft = Draft { repository: 1, ..Draft::default() };
    assert_eq!(settled(&mut lab, &draft), "Ready");
    assert_eq!(srv(&lab), before);
}

#[test]
fn a_probe_that_was_left_behind_goes() {
    let mut lab = Lab::new(host());
    lab.engine.arrange(Faults::one(2, Fault::CutBefore));
    settled(&mut lab, &Draft::default());
    lab.pass(Duration::from_mins(6));
    assert_eq!(settled(&mut lab, &Draft::default()), "Ready");
    let probes =
        lab.engine.docker().list_containers(&[]).into_iter().filter(|c| c.role() == Some(Role::Probe));
    assert_eq!(probes.count(), 0);
}

/// What was written in the meantime wins over what was remembered since the step began.
#[test]
fn a_record_is_never_replaced_by_an_older_generation() {
    let draft = Draft::default();
    let mut overtaken = 0;
    for turns in 1..60 {
        let mut lab = Lab::new(host());
        lab.step(&draft, &dev());
        lab.pass(Duration::from_secs(3));
        lab.engine.arrange(Faults { delays: vec![1], ..Faults::default() });
        let request = lab.request(&draft, &dev());
        let changed = lab.request(&Draft { api_port: Some(26443), ..draft.clone() }, &dev());
        let now = lab.now();
        // One is overtaken after some turns by another that changes the port, and goes on.
        let order: Vec<bool> = (0..2000).map(|turn| turn < turns).collect();
        let ends = lab.run_both(step(&lab.world, &request, now), step(&lab.world, &changed, now), &order);
        let record = record(&lab.engine.docker(), &dev()).unwrap();
        if ends[1].as_ref().is_some_and(is_ready) {
            overtaken += 1;
            assert_eq!((record.api_port, record.initialised), (26443, true), "after {turns} turns");
        }
    }
    assert!(overtaken > 0);
}

/// Nothing was seen, so nothing else is said.
#[test]
fn while_docker_is_away_what_was_known_of_a_cluster_stands() {
    let draft = Draft::default();
    let mut lab = ready(&draft);
    let before = lab.step(&draft, &dev()).unwrap().status;
    lab.engine.arrange(Faults { away: std::iter::once(0..usize::MAX).collect(), ..Faults::default() });
    for _ in 0..2 {
        let outcome = lab.step(&draft, &dev()).unwrap();
        assert_eq!(reason(&outcome), "EngineUnavailable");
        assert!(message(&outcome).contains(crate::reconcile::WAITING), "{}", message(&outcome));
        let status = outcome.status;
        assert_eq!(status.phase, Phase::Updating);
        let host = |status: &K3sClusterStatus| {
            let found = status.conditions.iter().find(|c| c.type_ == condition::HOST_COMPATIBLE);
            found.map(|c| (c.status.clone(), c.reason.clone(), c.message.clone()))
        };
        assert_eq!(host(&status), host(&before));
        let rest = K3sClusterStatus { phase: before.phase, conditions: before.conditions.clone(), ..status };
        assert_eq!(rest, before);
    }
}

/// A Node lies in etcd as it was when its container went down.
#[test]
fn a_node_whose_container_was_started_again_is_ready_once_its_kubelet_has_spoken() {
    let draft = Draft::default();
    let mut lab = ready(&draft);
    lab.pass(Duration::from_mins(5));
    let boot = {
        let mut docker = lab.engine.docker();
        let id = docker.containers[&dev().object_name(SERVER)].id.clone();
        docker.stop_container(&id);
        docker.start_container(&id).unwrap();
        Duration::from_millis(docker.boot_millis as u64)
    };
    lab.pass(boot);
    let outcome = lab.step(&draft, &dev()).unwrap();
    assert_eq!(reason(&outcome), "WaitingForNodes");
    assert!(message(&outcome).contains("since its container was started"), "{}", message(&outcome));
    lab.pass(boot + Duration::from_secs(1));
    assert!(is_ready(&lab.step(&draft, &dev()).unwrap()));
}

#[test]
fn a_cluster_that_does_not_come_up_is_looked_at_less_often_and_still_waited_for() {
    let draft = Draft::default();
    let mut lab = Lab::new(host());
    lab.engine.docker().boot_millis = 3_600_000;
    let mut now = lab.step(&draft, &dev()).unwrap();
    while now.coming_up.is_none() {
        lab.wait(Some(&now));
        now = lab.step(&draft, &dev()).unwrap();
    }
    assert!(now.recheck < Some(Duration::from_secs(1)), "{:?}", now.recheck);
    lab.pass(Duration::from_mins(5));
    let later = lab.step(&draft, &dev()).unwrap();
    assert_eq!((later.recheck, later.coming_up.is_some()), (Some(Duration::from_secs(10)), true));
}

/// A server that was to join and had not yet: where it begins anew, its image is known, too.
#[test]
fn a_daemon_that_was_killed_while_servers_joined() {
    let draft = Draft { servers: 3, ..Draft::default() };
    for steps in 1..6 {
        let mut lab = Lab::new(host());
        lab.engine.arrange(Faults { delays: vec![0, 1], ..Faults::one(6, Fault::Before) });
        for _ in 0..steps {
            let outcome = lab.step(&draft, &dev());
            lab.wait(outcome.as_ref());
        }
        Wound::DaemonKilled.inflict(&mut lab.engine.docker(), &dev());
        assert_eq!(settled(&mut lab, &draft), "Ready", "killed after {steps} steps");
        assert_eq!(lab.engine.docker().broken, [""; 0]);
    }
}

/// The first two servers that are back agree: neither is taken away because Docker's answer to its start
/// was lost.
#[test]
fn a_server_that_was_started_though_the_answer_was_lost_stays() {
    let draft = Draft { servers: 3, ..Draft::default() };
    for (failed, lost) in (0..6).flat_map(|failed| (4..16).map(move |more| (failed, failed + more))) {
        let mut lab = ready(&draft);
        Wound::NetworkRemoved.inflict(&mut lab.engine.docker(), &dev());
        let begun = lab.engine.changes().len();
        let at = [(begun + failed, Fault::Before), (begun + lost, Fault::After)].into();
        lab.engine.arrange(Faults { at, delays: vec![1], ..Faults::default() });
        assert_eq!(settled(&mut lab, &draft), "Ready", "{failed} failed, answer {lost} lost");
        assert_eq!(lab.engine.docker().broken, [""; 0], "{failed} failed, answer {lost} lost");
    }
}
