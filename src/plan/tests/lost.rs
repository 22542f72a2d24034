//! What was lost: data of one server, of most, of all; a container's place; a configuration.

use serde_json::json;

use super::*;
use crate::api::{Identity, Reason, STANDALONE, label};

const SERVERS: [&str; 3] = [
    "k3nest-default-dev-server-0-2f0c7a51",
    "k3nest-default-dev-server-1-2f0c7a51",
    "k3nest-default-dev-server-2-2f0c7a51",
];
const AGENT: &str = "k3nest-default-dev-agent-0-2f0c7a51";

fn three() -> Record {
    Record { servers: 3, joined: [0, 1, 2].into(), ..record() }
}

fn world(record: &Record) -> (Desired, Observed) {
    let want = wanted(&input(json!({"servers": {"replicas": 3}, "agents": {"replicas": 1}})), record);
    let observed = settled(&want);
    (want, observed)
}

fn plan(want: &Desired, observed: &Observed) -> Plan {
    diff(&identity(), want, observed, &images(), now())
}

fn data<'a>(observed: &'a mut Observed, node: &str) -> &'a mut NodeData {
    let name = format!("k3nest-default-{node}-data-2f0c7a51");
    observed.data.as_mut().unwrap().get_mut(&name).unwrap()
}

/// The container and the data of `node` are gone.
fn lose(observed: &mut Observed, node: &str) {
    observed.containers.retain(|c| c.labels.get(label::NODE).map(String::as_str) != Some(node));
    *data(observed, node) = NodeData::default();
}

fn nodes(names: &[(&str, bool)]) -> Option<BTreeMap<String, bool>> {
    Some(names.iter().map(|(name, ready)| ((*name).to_owned(), *ready)).collect())
}

fn blocked(plan: &Plan) -> (Reason, &str) {
    plan.blocked.as_ref().map(|b| (b.reason, b.message.as_str())).unwrap()
}

#[test]
fn a_server_that_stands_still_starts_once_its_data_was_seen() {
    let (want, mut observed) = world(&three());
    observed.containers.iter_mut().find(|c| c.name == SERVERS[1]).unwrap().state = ContainerState::Exited;
    let there = observed.data.take();
    let before = plan(&want, &observed);
    assert!(before.steps.is_empty() && before.depends_on_data, "{:?}", text(&before));
    observed.data = there;
    assert_eq!(text(&plan(&want, &observed)), [format!("start container {}", SERVERS[1])]);
}

#[test]
fn one_of_three_without_data_joins_as_a_new_member() {
    for node in ["dev-server-0", "dev-server-1", "dev-agent-0"] {
        let (want, mut observed) = world(&three());
        lose(&mut observed, node);
        let name = format!("k3nest-default-{node}-2f0c7a51");
        let run = format!("run container {name} ({NODE})");
        // Nothing before it is known whether the cluster knows its Node,
        let asks = plan(&want, &observed);
        assert!(asks.steps.is_empty() && asks.depends_on_nodes && asks.recheck.is_some());
        // which is forgotten where it does,
        observed.nodes = nodes(&[("dev-server-2", true), (node, false)]);
        assert_eq!(
            text(&plan(&want, &observed)),
            [format!("forget Node {node}"), format!("{run} after [0]")]
        );
        // and where not, nothing is to be forgotten.
        observed.nodes = nodes(&[("dev-server-2", true)]);
        assert_eq!(text(&plan(&want, &observed)), [run]);
        let again = want.nodes().find(|(c, _)| c.name == name).unwrap().1;
        assert!(!again.founds() && again.flags.contains_key("server"), "{node} joins");
    }
}

#[test]
fn an_emptied_volume_is_as_good_as_none() {
    for (state, name, node) in [
        (ContainerState::Restarting, SERVERS[0], "dev-server-0"),
        (ContainerState::Exited, SERVERS[2], "dev-server-2"),
        (ContainerState::Restarting, AGENT, "dev-agent-0"),
    ] {
        let (want, mut observed) = world(&three());
        observed.containers.iter_mut().find(|c| c.name == name).unwrap().state = state;
        *data(&mut observed, node) = NodeData { token: node.contains("server"), ..NodeData::default() };
        observed.nodes = nodes(&[(node, false)]);
        assert_eq!(
            text(&plan(&want, &observed)),
            [
                format!("remove container {name}"),
                format!("forget Node {node} after [0]"),
                format!("run container {name} ({NODE}) after [0, 1]"),
            ]
        );
    }
}

#[test]
fn a_server_that_never_joined_is_not_missed() {
    let record = Record { servers: 3, joined: [0].into(), ..record() };
    let (want, mut observed) = world(&record);
    lose(&mut observed, "dev-server-1");
    lose(&mut observed, "dev-server-2");
    observed.nodes = nodes(&[("dev-server-0", true)]);
    assert_eq!(plan(&want, &observed).steps.len(), 2);
}

#[test]
fn two_of_three_without_data_are_said_with_who_survives() {
    let (want, mut observed) = world(&three());
    lose(&mut observed, "dev-server-0");
    lose(&mut observed, "dev-server-2");
    let plan = plan(&want, &observed);
    let (reason, message) = blocked(&plan);
    assert_eq!((reason, plan.steps.len()), (Reason::QuorumLost, 0));
    for part in [
        "1 of 3 servers",
        "dev-server-0, dev-server-2 lost",
        "the data of dev-server-1",
        "run kubectl annotate --overwrite k3c dev -n default k3nest.dev/recover=",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
    let by_hand = Identity { instance: STANDALONE.into(), ..identity() };
    assert_eq!(recovery_command(&by_hand, None), "k3nest cluster recover dev -n default");
    let from = recovery_command(&by_hand, Some("dev-server-1"));
    assert_eq!(from, "k3nest cluster recover dev -n default --from dev-server-1");
}

/// A record that was made again counts servers that had yet to join.
#[test]
fn while_the_api_answers_no_quorum_is_lost() {
    let (want, mut observed) = world(&three());
    lose(&mut observed, "dev-server-1");
    lose(&mut observed, "dev-server-2");
    assert!(plan(&want, &observed).depends_on_nodes, "the API is asked first");
    observed.nodes = nodes(&[("dev-server-0", true)]);
    assert_eq!(diff(&identity(), &want, &observed, &images(), now()).blocked, None);
    let noted = recover(&identity(), &three(), &observed, &wish(None)).unwrap();
    assert_eq!((noted.recover_nonce.as_deref(), noted.recovery), (Some("now"), None));
}

#[test]
fn without_any_data_nothing_is_made() {
    for single in [true, false] {
        let (want, mut observed) = match single {
            true => {
                let want = wanted(&input(json!({})), &record());
                let observed = settled(&want);
                (want, observed)
            }
            false => world(&three()),
        };
        // Emptied,
        let servers = if single { 1 } else { 3 };
        observed.containers.iter_mut().for_each(|c| c.state = ContainerState::Restarting);
        (0..servers).for_each(|n| *data(&mut observed, &format!("dev-server-{n}")) = NodeData::default());
        assert_eq!(blocked(&plan(&want, &observed)).0, Reason::DataLost);
        // or removed.
        observed.containers.clear();
        observed.volumes.retain(|v| v.role() == Some(Role::Record));
        assert_eq!(blocked(&plan(&want, &observed)).0, Reason::DataLost);
    }
}

/// Kubernetes says who was Ready; whether etcd had taken others as members by then, nobody says.
#[test]
fn data_of_servers_that_were_never_ready_is_not_said_to_be_lost() {
    let record = Record { servers: 3, joined: [0].into(), ..record() };
    let (want, mut observed) = world(&record);
    lose(&mut observed, "dev-server-0");
    let plan = plan(&want, &observed);
    let (reason, message) = blocked(&plan);
    assert_eq!(reason, Reason::QuorumLost);
    assert!(message.contains("2 of 3 servers have their data, but none of them was Ready"), "{message}");
    assert!(plan.depends_on_nodes, "the API is asked first");
    let mut answers = observed.clone();
    answers.nodes = nodes(&[("dev-server-0", false), ("dev-server-1", true), ("dev-server-2", true)]);
    assert_eq!(diff(&identity(), &want, &answers, &images(), now()).blocked, None);
    let recovered = recover(&identity(), &record, &observed, &wish(Some("dev-server-2"))).unwrap();
    assert_eq!(recovered.recovery.unwrap().survivor, 2);
}

/// A reset that fails again and again is not the end.
#[test]
fn a_recovery_may_be_begun_again_from_another_server() {
    let (_, mut observed) = world(&three());
    let under_way =
        Record { recovery: Some(Recovery { epoch: "e1".into(), survivor: 0 }), joined: [].into(), ..three() };
    let recover = |observed: &Observed, from: &str| {
        recover(&identity(), &under_way, observed, &wish(Some(from))).map(|r| r.recovery.unwrap())
    };
    assert_eq!(recover(&observed, "dev-server-2").unwrap().survivor, 2);
    assert_eq!(recover(&observed, "dev-server-0").unwrap().epoch, "e1", "it is under way");
    lose(&mut observed, "dev-server-0");
    assert_eq!(recover(&observed, "dev-server-1").unwrap().survivor, 1);
}

#[test]
fn data_of_before_the_last_recovery_is_told_from_that_of_who_has_yet_to_join() {
    let recovery = Some(Recovery { epoch: "e2".into(), survivor: 1 });
    let of = |joined: &[u32]| Record {
        recovery: recovery.clone(),
        joined: joined.iter().copied().collect(),
        ..three()
    };
    let table: [(&str, Record, [&str; 3], &[u32]); 6] = [
        ("all as they should be", of(&[0, 1, 2]), ["e2", "e2", "e2"], &[]),
        ("copies of all", of(&[0, 1, 2]), ["e1", "", "e1"], &[0, 1, 2]),
        ("a copy of one", of(&[0, 1, 2]), ["e1", "e2", "e2"], &[0]),
        ("a record made again while they join", of(&[0, 1, 2]), ["e1", "e2", ""], &[]),
        ("they have yet to join", of(&[1]), ["e1", "e2", ""], &[]),
        ("no recovery ever", three(), ["", "", ""], &[]),
    ];
    for (name, record, epochs, outgrown) in table {
        let epoch = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let epochs = (0..).zip(epochs.map(epoch)).collect();
        assert_eq!(record.outgrown(&epochs), outgrown.iter().copied().collect(), "{name}");
    }
}

#[test]
fn a_record_of_another_version_is_not_overlooked() {
    let (_, mut observed) = world(&three());
    assert_eq!(observed.unreadable_record(), None);
    let volume = observed.volumes.iter().find(|v| v.role() == Some(Role::Record)).unwrap();
    let mut newer = volume.clone();
    newer.name = "newer".into();
    newer.labels.insert(label::RECORD.into(), "{\"words\":\"of another\"}".into());
    observed.volumes.push(newer);
    assert_eq!(observed.unreadable_record(), Some("newer"));
}

fn wish(from: Option<&str>) -> Recover {
    Recover { nonce: "now".into(), from: from.map(Into::into) }
}

#[test]
fn a_recovery_keeps_the_data_that_was_written_last() {
    let five = Record { servers: 5, joined: (0..5).collect(), ..record() };
    let want = wanted(&input(json!({"servers": {"replicas": 5}})), &five);
    let mut observed = settled(&want);
    for node in ["dev-server-1", "dev-server-2", "dev-server-4"] {
        lose(&mut observed, node);
    }
    let at = |seconds| Some(Timestamp::from_second(seconds).unwrap());
    data(&mut observed, "dev-server-0").written = at(1000);
    data(&mut observed, "dev-server-3").written = at(2000);
    let recover = |wish: &Recover| recover(&identity(), &five, &observed, wish);
    let recovered = recover(&wish(None)).unwrap();
    assert_eq!(recovered.recovery.as_ref().unwrap().survivor, 3);
    assert_eq!(recovered.voters(), [3].into());
    assert_eq!(recover(&wish(Some("dev-server-0"))).unwrap().recovery.unwrap().survivor, 0);
    let refused = recover(&wish(Some("dev-server-1"))).unwrap_err();
    assert!(refused.message.contains("write dev-server-0 or dev-server-3"), "{refused}");
}

/// What lies there may be of no use to etcd, which nobody but a person can say.
#[test]
fn who_names_a_survivor_is_believed_where_the_api_does_not_answer() {
    let (_, mut observed) = world(&three());
    let recover = |observed: &Observed, from| recover(&identity(), &three(), observed, &wish(from)).unwrap();
    assert_eq!(recover(&observed, Some("dev-server-1")).recovery.unwrap().survivor, 1);
    assert_eq!(recover(&observed, None).recovery, None);
    // Not while it may be about to answer: then the wish is not even noted.
    for (name, state, status) in [
        (SERVERS[0], ContainerState::Exited, ""),
        (SERVERS[2], ContainerState::Running, "Up 12 seconds"),
        ("k3nest-default-dev-lb-2f0c7a51", ContainerState::Exited, ""),
    ] {
        let mut starts = observed.clone();
        let container = starts.containers.iter_mut().find(|c| c.name == name).unwrap();
        (container.state, container.status) = (state, status.into());
        assert_eq!(recover(&starts, Some("dev-server-1")), three(), "{name}");
    }
    observed.nodes = nodes(&[("dev-server-0", true)]);
    assert_eq!(recover(&observed, Some("dev-server-1")).recovery, None);
}

/// Fewer of them may be members than the record knows of.
#[test]
fn a_quorum_that_answers_is_not_said_to_be_lost() {
    let (want, mut observed) = world(&three());
    lose(&mut observed, "dev-server-0");
    lose(&mut observed, "dev-server-2");
    let before = plan(&want, &observed);
    assert_eq!(blocked(&before).0, Reason::QuorumLost);
    assert!(before.depends_on_nodes, "the API is asked first");
    observed.nodes = nodes(&[("dev-server-1", true)]);
    assert_eq!(plan(&want, &observed).blocked, None);
}

#[test]
fn a_record_that_was_lost_is_written_before_anything_is_judged() {
    let (want, mut observed) = world(&three());
    observed.volumes.retain(|v| v.role() != Some(Role::Record));
    for node in ["dev-server-0", "dev-server-1"] {
        lose(&mut observed, node);
    }
    let record = "create volume k3nest-default-dev-record-1-2f0c7a51";
    assert_eq!(text(&plan(&want, &observed)), [record]);
    // Where nothing is left of its nodes, nothing is made.
    observed.volumes.clear();
    observed.containers.clear();
    assert_eq!(blocked(&plan(&want, &observed)).0, Reason::DataLost);
    // Who founded it is told first.
    let (want, mut observed) = world(&three());
    observed.volumes.retain(|v| v.role() != Some(Role::Record));
    assert_eq!(text(&plan(&want, &observed)), [format!("tell node {}", SERVERS[0]), record.to_owned()]);
}

/// A wish that lies around must not be carried out when the quorum is lost some day.
#[test]
fn a_wish_where_nothing_is_lost_is_noted_and_forgotten() {
    let (_, mut observed) = world(&three());
    lose(&mut observed, "dev-server-1");
    let noted = recover(&identity(), &three(), &observed, &wish(None)).unwrap();
    assert_eq!((noted.recover_nonce.as_deref(), &noted.recovery), (Some("now"), &None));
    assert_eq!(noted.joined, three().joined);
}

#[test]
fn a_recovery_stops_all_servers_before_its_survivor_starts_alone() {
    let (_, mut observed) = world(&three());
    *data(&mut observed, "dev-server-0") = NodeData::default();
    *data(&mut observed, "dev-server-2") = NodeData::default();
    for container in observed.containers.iter_mut().filter(|c| c.name != AGENT) {
        container.state = ContainerState::Exited;
    }
    observed.loaded = None;
    let record = recover(&identity(), &three(), &observed, &wish(None)).unwrap();
    let (want, _) = world(&record);
    let steps = text(&plan(&want, &observed));
    insta::assert_snapshot!(steps.join("\n"));
    let told = |n: usize| want.nodes().find(|(c, _)| c.name == SERVERS[n]).unwrap().1.clone();
    assert!(told(1).begins.resets && told(1).begins.with_data && told(1).peers.is_empty());
    // k3s refuses to reset the membership of a server that is told to join one.
    assert!(!told(1).flags.contains_key("server") && !told(1).founds());
    assert!(!told(0).begins.resets && told(0).begins.epoch == told(1).begins.epoch);

    // Once the survivor was Ready the others join it, as new members.
    let record = record.changed(|r| r.joined = [1].into());
    let (want, mut observed) = world(&record);
    lose(&mut observed, "dev-server-0");
    lose(&mut observed, "dev-server-2");
    observed.nodes = nodes(&[("dev-server-0", false), ("dev-server-1", true), ("dev-server-2", false)]);
    assert_eq!(plan(&want, &observed).steps.len(), 4);
}

#[test]
fn who_is_out_of_its_network_is_made_anew() {
    let balancer = "k3nest-default-dev-lb-2f0c7a51";
    for name in [SERVERS[0], SERVERS[2], AGENT, balancer] {
        let (want, mut observed) = world(&three());
        observed.containers.iter_mut().find(|c| c.name == name).unwrap().networks.clear();
        let steps = text(&plan(&want, &observed));
        assert_eq!(steps.len(), 2, "{steps:?}");
        assert_eq!(steps[0], format!("remove container {name}"));

        // Also at another address than its own,
        let (want, mut observed) = world(&three());
        let container = observed.containers.iter_mut().find(|c| c.name == name).unwrap();
        let elsewhere = Attachment { address: Some("10.112.7.200".parse().unwrap()), pinned: None };
        container.networks.values_mut().for_each(|place| *place = elsewhere);
        assert_eq!(plan(&want, &observed).steps.len(), 2);
    }
}

/// All servers are to be replaced, one after the other: while one is made anew for another reason, or
/// comes up, no other is taken down.
#[test]
fn nobody_is_rolled_while_too_few_others_stay() {
    let (want, _) = world(&three());
    let stale = |change: &dyn Fn(&mut Observed)| {
        let mut observed = settled(&want);
        for container in observed.containers.iter_mut().filter(|c| c.role() == Some(Role::Server)) {
            container.labels.insert(label::HASH.into(), "former".into());
        }
        observed.nodes = nodes(&[("dev-server-0", true), ("dev-server-1", true), ("dev-server-2", true)]);
        change(&mut observed);
        let steps = text(&plan(&want, &observed)).into_iter().filter(|step| step.starts_with("remove"));
        steps.map(|step| SERVERS.iter().position(|name| step.contains(name)).unwrap()).collect::<Vec<_>>()
    };
    let server = |o: &mut Observed, n: usize, f: &dyn Fn(&mut Container)| {
        f(o.containers.iter_mut().find(|c| c.name == SERVERS[n]).unwrap());
    };
    assert_eq!(stale(&|_| {}), [0], "one at a time");
    assert_eq!(stale(&|o| server(o, 2, &|c| c.networks.clear())), [2], "it is out of the majority already");
    assert_eq!(stale(&|o| server(o, 2, &|c| c.state = ContainerState::Exited)), [2]);
    assert_eq!(stale(&|o| o.nodes = nodes(&[("dev-server-0", true), ("dev-server-2", true)])), [1]);
    let two_down = |o: &mut Observed| {
        o.nodes = nodes(&[("dev-server-2", true)]);
        server(o, 1, &|c| c.state = ContainerState::Exited);
    };
    assert_eq!(stale(&two_down), [1], "the one that comes up may be of the majority");
    assert_eq!(stale(&|o| o.nodes = None), [0; 0]);
}

#[test]
fn a_load_balancer_without_its_configuration_is_made_anew_when_it_fails() {
    let (want, mut observed) = world(&three());
    observed.loaded = None;
    let plan_for = |state: ContainerState, observed: &mut Observed| {
        observed.containers.iter_mut().find(|c| c.role() == Some(Role::LoadBalancer)).unwrap().state = state;
        text(&plan(&want, observed))
            .iter()
            .map(|s| s.split(' ').next().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(plan_for(ContainerState::Running, &mut observed), ["reload"]);
    assert_eq!(plan_for(ContainerState::Restarting, &mut observed), ["remove", "run"]);
    assert_eq!(plan_for(ContainerState::Exited, &mut observed), ["start"]);
}

#[test]
fn the_founder_is_told_not_to_found_again_before_the_record_says_so() {
    let (want, mut observed) = world(&three());
    observed.volumes.retain(|v| v.role() != Some(Role::Record));
    let before = Record { generation: 0, ..new_record() };
    observed.volumes.push(volume(&before.volume(&identity())));
    assert_eq!(
        text(&plan(&want, &observed)),
        [
            format!("tell node {}", SERVERS[0]),
            "create volume k3nest-default-dev-record-1-2f0c7a51 after [0]".to_owned(),
            "remove volume k3nest-default-dev-record-0-2f0c7a51 after [1]".to_owned(),
        ]
    );
}

#[test]
fn a_record_that_was_pruned_is_remembered_by_what_was_made_by_it() {
    let (_, mut observed) = world(&three());
    observed.volumes.retain(|v| v.role() != Some(Role::Record));
    assert_eq!(observed.record(), None);
    let remembered = observed.remembered().unwrap();
    assert_eq!((remembered.api_port, remembered.network), (record().api_port, record().network));
    observed.containers.clear();
    assert!(observed.remembered().is_some(), "the network knows it, too");
}
