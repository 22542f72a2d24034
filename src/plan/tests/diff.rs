use std::time::Duration;

use serde_json::json;

use super::*;

fn plan(want: &Desired, observed: &Observed) -> Plan {
    diff(&identity(), want, observed, &images(), now())
}

/// The plan for the smallest cluster after `change` was made to a world that was as wanted.
fn after(change: impl FnOnce(&mut Observed)) -> Plan {
    let want = wanted(&input(json!({})), &record());
    let mut observed = settled(&want);
    change(&mut observed);
    plan(&want, &observed)
}

fn server(observed: &mut Observed) -> &mut Container {
    observed.containers.iter_mut().find(|c| c.name == SERVER).unwrap()
}

fn ago(seconds: i64) -> Timestamp {
    now() - jiff::SignedDuration::from_secs(seconds)
}

#[test]
fn as_wanted_there_is_nothing_to_do() {
    assert!(after(|_| {}).is_settled());
}

#[test]
fn from_nothing_the_record_comes_first_and_containers_last() {
    let want = wanted(&input(json!({})), &new_record());
    insta::assert_snapshot!(text(&plan(&want, &Observed::default())).join("\n"));
}

#[test]
fn without_images_they_are_pulled_and_nothing_is_run_yet() {
    let want = wanted(&input(json!({})), &record());
    let plan = diff(&identity(), &want, &settled(&want), &Images::new(), now());
    assert!(plan.is_settled(), "what runs needs no image");

    let mut observed = settled(&want);
    observed.containers.clear();
    let plan = diff(&identity(), &want, &observed, &Images::new(), now());
    assert_eq!(text(&plan), [format!("pull image {NODE}"), format!("pull image {LOAD_BALANCER_IMAGE}")]);
}

#[test]
fn each_state_of_a_container_has_its_verdict() {
    let run = format!("run container {SERVER} ({NODE})");
    let remove = format!("remove container {SERVER}");
    let replace = vec![remove, format!("{run} after [0]")];
    let keep = Vec::new();
    let cases = [
        (ContainerState::Running, true, 3600, keep.clone()),
        (ContainerState::Restarting, true, 3600, keep.clone()),
        (ContainerState::Paused, true, 3600, keep.clone()),
        (ContainerState::Exited, true, 3600, vec![format!("start container {SERVER}")]),
        (ContainerState::Created, true, 11, replace.clone()),
        (ContainerState::Created, false, 9, keep.clone()),
        (ContainerState::Dead, true, 1, replace.clone()),
        (ContainerState::Removing, false, 1, keep),
        (ContainerState::Running, false, 3600, replace.clone()),
        (ContainerState::Restarting, false, 3600, replace.clone()),
        (ContainerState::Exited, false, 3600, replace),
    ];
    for (state, same_hash, age, expected) in cases {
        let plan = after(|observed| {
            let container = server(observed);
            (container.state, container.created) = (state, ago(age));
            if !same_hash {
                container.labels.insert(crate::api::label::HASH.into(), "another".into());
            }
        });
        let waits =
            matches!(state, ContainerState::Removing) || (state == ContainerState::Created && age < 10);
        assert_eq!(text(&plan), expected, "{state:?}, same: {same_hash}, {age} s old");
        assert_eq!(plan.recheck, waits.then_some(Duration::from_secs(1)), "{state:?}");
    }
}

#[test]
fn only_a_running_container_gets_time_to_stop() {
    for (state, expected) in [(ContainerState::Running, true), (ContainerState::Exited, false)] {
        let plan = after(|observed| {
            let container = server(observed);
            container.state = state;
            container.labels.insert(crate::api::label::HASH.into(), "another".into());
        });
        assert!(
            matches!(&plan.steps[0].action, Action::RemoveContainer { graceful, .. } if *graceful == expected)
        );
    }
}

#[test]
fn a_missing_container_is_run() {
    let plan = after(|observed| observed.containers.retain(|c| c.name != SERVER));
    assert_eq!(text(&plan), [format!("run container {SERVER} ({NODE})")]);
}

#[test]
fn a_missing_volume_is_made_and_an_extra_one_stays() {
    let plan = after(|observed| {
        observed.volumes.retain(|v| !v.name.contains("kubelet"));
        observed.volumes.push(Volume { name: "old".into(), labels: identity().labels(Role::UserVolume) });
    });
    assert_eq!(text(&plan), ["create volume k3nest-default-dev-server-0-kubelet-2f0c7a51"]);
}

#[test]
fn containers_that_nothing_wants_go_but_a_probe_at_work() {
    let extra = |role: Role, age: i64| {
        let want = wanted(&input(json!({})), &record());
        let labels = identity().labels(role);
        Container {
            name: format!("{role:?} {age}"),
            labels,
            created: ago(age),
            ..container(&want.containers[0])
        }
    };
    let plan = after(|observed| {
        observed.containers.extend([extra(Role::Server, 1), extra(Role::Probe, 10), extra(Role::Probe, 301)]);
    });
    assert_eq!(text(&plan), ["remove container Server 1", "remove container Probe 301"]);
}

#[test]
fn the_next_record_is_written_before_the_last_goes() {
    let want = wanted(&input(json!({})), &record());
    let next = record().changed(|r| r.api_port = 17000);
    let changed = Desired { record: next, ..want.clone() };
    assert_eq!(
        text(&plan(&changed, &settled(&want))),
        [
            "create volume k3nest-default-dev-record-2-2f0c7a51",
            "remove volume k3nest-default-dev-record-1-2f0c7a51 after [0]",
        ]
    );
}

#[test]
fn the_newest_record_counts_and_older_ones_go() {
    let older = record();
    let newer = record().changed(|r| r.initialised = false);
    let mut observed = Observed::default();
    observed.volumes.extend([&newer, &older].map(|r| volume(&r.volume(&identity()))));
    let broken = Volume { name: "broken".into(), labels: identity().labels(Role::Record) };
    observed.volumes.push(broken);
    assert_eq!(observed.record(), Some(newer.clone()));

    let plan = after(|o| o.volumes.push(volume(&Record { generation: 0, ..record() }.volume(&identity()))));
    assert_eq!(text(&plan), ["remove volume k3nest-default-dev-record-0-2f0c7a51"]);
}

#[test]
fn of_two_networks_the_younger_goes() {
    let want = wanted(&input(json!({})), &record());
    let plan = after(|observed| {
        observed.networks.insert(0, network(want.network.as_ref().unwrap(), "younger", 10));
    });
    assert!(matches!(&plan.steps[0].action, Action::RemoveNetwork { id, .. } if id == "younger"));
    assert_eq!(plan.steps.len(), 1);
}

#[test]
fn containers_of_a_lost_network_go_before_it_comes_back() {
    let plan = after(|observed| {
        observed.networks.clear();
        observed.containers.iter_mut().for_each(|c| c.state = ContainerState::Exited);
    });
    insta::assert_snapshot!(text(&plan).join("\n"));
}

#[test]
fn a_joined_network_is_neither_made_nor_removed() {
    let joined = RecordedNetwork { name: "shared".into(), owned: false, ..record().network };
    let want = wanted(&input(json!({})), &Record { network: joined, ..record() });
    let mut observed = settled(&want);
    assert!(plan(&want, &observed).is_settled());
    observed.containers.clear();
    assert!(!text(&plan(&want, &observed)).iter().any(|step| step.contains("network")));
}

#[test]
fn the_same_inputs_give_the_same_plan() {
    let want = wanted(&input(json!({})), &record());
    let lost = Observed { containers: Vec::new(), ..settled(&want) };
    assert_eq!(plan(&want, &lost), plan(&want, &lost));
}
