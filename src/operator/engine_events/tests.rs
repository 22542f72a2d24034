//! Who is woken by what, and when a stream is believed no longer.

use kube::runtime::{reflector, watcher};

use super::*;
use crate::{
    api::{ADOPT_ANNOTATION, K3sClusterSpec, set_condition},
    operator::DockerBackend,
    reconcile::World,
    sim::{
        engine::{SimClusters, SimEngine},
        faults::Faults,
        lab::{Lab, host},
        specs::{Draft, Place, SHARED_NETWORK, dev},
    },
};

const UID: &str = "12345678-9abc-4def-8000-000000000000";

fn store(reason: Option<Reason>) -> Store<K3sCluster> {
    let (store, mut writer) = reflector::store();
    let spec: K3sClusterSpec =
        serde_json::from_value(serde_json::json!({"version": "v1.36.1+k3s1"})).unwrap();
    let mut cluster = K3sCluster::new("dev", spec);
    cluster.metadata.namespace = Some("team".into());
    cluster.metadata.uid = Some(UID.into());
    if let Some(reason) = reason {
        let status = cluster.status.get_or_insert_default();
        let now = jiff::Timestamp::UNIX_EPOCH;
        set_condition(&mut status.conditions, condition::READY, Some(false), reason, "", None, now);
    }
    writer.apply_watcher_event(&watcher::Event::Apply(cluster));
    store
}

fn event(kind: &str, action: &str, name: &str, owner: Option<&str>) -> EngineEvent {
    EngineEvent {
        kind: kind.into(),
        action: action.into(),
        name: name.into(),
        at: None,
        owner: owner.map(Into::into),
        role: None,
        container: None,
    }
}

fn backend(engine: &SimEngine, host_ip: Option<&str>) -> DockerBackend<SimEngine, SimClusters> {
    let world = World::new(engine.clone(), SimClusters(engine.clone()), Box::new(|_| {}));
    DockerBackend::new(world, host_ip.map(|address| address.parse().unwrap()))
}

fn wakes(event: &EngineEvent) -> bool {
    !woken_by(event, &store(None), &BackOff::up_to(LONGEST_AWAY)).is_empty()
}

#[test]
fn containers_are_told_by_label_and_volumes_and_networks_by_name() {
    assert!(wakes(&event("container", "die", "any", Some(UID))));
    assert!(wakes(&event("volume", "destroy", "k3nest-team-dev-server-0-data-12345678", None)));
    assert!(wakes(&event("network", "disconnect", "k3nest-team-dev-12345678", None)));
    assert!(!wakes(&event("container", "die", "any", Some("another"))));
    assert!(!wakes(&event("volume", "destroy", "k3nest-team-dev-data-87654321", None)));
}

/// How a stream ends that brings these, each after so many seconds, and then nothing; with the
/// time up to which all was heard, in seconds.
async fn heard_of(these: Vec<(u64, EngineEvent)>, from: i64) -> (End, i64, u64) {
    let at = |second: i64| Timestamp::from_second(second).unwrap();
    let (wake, _woken) = mpsc::channel(BUFFER);
    let coming = futures::stream::iter(these).then(|(pause, event)| async move {
        tokio::time::sleep(Duration::from_secs(pause)).await;
        Ok(event)
    });
    let (began, mut heard) = (Instant::now(), at(from));
    let events = coming.chain(futures::stream::pending());
    let (backend, backoff) = (backend(&SimEngine::default(), None), BackOff::up_to(LONGEST_AWAY));
    let end = hear(&backend, events, &mut heard, &store(None), &backoff, &wake).await;
    (end, heard.as_second(), began.elapsed().as_secs())
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_died_without_a_word_is_asked_for_again_from_where_it_was() {
    let dies = |second| EngineEvent {
        at: Timestamp::from_second(second).ok(),
        ..event("container", "die", "any", Some(UID))
    };
    let (end, heard, took) = heard_of(vec![(20, dies(1100)), (29, dies(1210))], 1000).await;
    assert!(matches!(end, End::Silent), "{end:?}");
    assert_eq!((heard, took), (1210, 20 + 29 + SILENCE.as_secs()));
    let (_, heard, _) = heard_of(Vec::new(), 1000).await;
    assert_eq!(heard, 1000);
}

/// The network's name does not tell whose container it was.
#[tokio::test]
async fn who_left_a_network_of_others_is_asked_for() {
    let guest = (Draft { internal: 1, ..Draft::default() }, Some("172.30.0.2"));
    let joined = (Draft { place: Place::Joined, ..Draft::default() }, None);
    for (draft, host_ip) in [guest, joined] {
        let mut lab = Lab::new(host());
        lab.settle(&draft, &dev()).expect("an end");
        let id = |name: &str| lab.engine.docker().containers[name].id.clone();
        let (own, other) = (id(&dev().object_name("dev-lb")), id("somebody"));
        let (store, mut writer) = reflector::store();
        let mut cluster = K3sCluster::new("dev", serde_json::from_value(draft.spec()).unwrap());
        cluster.metadata.uid = Some(dev().uid);
        writer.apply_watcher_event(&watcher::Event::Apply(cluster));
        let (backend, backoff) = (backend(&lab.engine, host_ip), BackOff::up_to(LONGEST_AWAY));
        backend.connect().await.unwrap();

        for (network, container, woken, asked) in [
            (SHARED_NETWORK, own.as_str(), 1, 1),
            (SHARED_NETWORK, other.as_str(), 0, 1),
            (SHARED_NETWORK, "gone", 0, 1),
            ("bridge", own.as_str(), 0, 0),
        ] {
            let (wake, mut heard) = mpsc::channel(BUFFER);
            let left = EngineEvent {
                container: Some(container.into()),
                ..event("network", "disconnect", network, None)
            };
            let (events, calls) = (futures::stream::iter([Ok(left)]), lab.engine.calls());
            hear(&backend, events, &mut Timestamp::UNIX_EPOCH.clone(), &store, &backoff, &wake).await;
            drop(wake);
            let mut count = 0;
            while heard.recv().await.is_some() {
                count += 1;
            }
            assert_eq!(
                (count, lab.engine.calls() - calls),
                (woken, asked),
                "{draft:?} {network} {container}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_docker_that_is_silent_because_it_hangs_is_lost() {
    let (engine, clusters, backoff) = (SimEngine::default(), store(None), BackOff::up_to(LONGEST_AWAY));
    let (wake, _woken) = mpsc::channel(BUFFER);
    // It answers the first two questions.
    engine.arrange(Faults { away: std::iter::once(3..usize::MAX).collect(), ..Faults::default() });
    let (backend, began, mut heard) = (backend(&engine, None), Instant::now(), Timestamp::UNIX_EPOCH);
    let listens = listen(&backend, &mut heard, &clusters, &backoff, &wake);
    let end = tokio::time::timeout(SILENCE * 10, listens).await.expect("an end");
    assert!(matches!(end, End::Lost(Some(EngineError::Unavailable { .. }))), "{end:?}");
    assert_eq!(began.elapsed().as_secs(), SILENCE.as_secs() * 3);
}

#[test]
fn objects_of_a_former_uid_wake_the_cluster_that_adopts_them() {
    let (store, mut writer) = reflector::store();
    let mut cluster = K3sCluster::new("dev", K3sClusterSpec::default());
    cluster.metadata.namespace = Some("team".into());
    cluster.metadata.uid = Some(UID.into());
    let former = "87654321-9abc-4def-8000-000000000000";
    cluster.metadata.annotations = Some([(ADOPT_ANNOTATION.to_owned(), former.to_owned())].into());
    writer.apply_watcher_event(&watcher::Event::Apply(cluster));
    let backoff = BackOff::up_to(LONGEST_AWAY);
    let woken = |event: &EngineEvent| woken_by(event, &store, &backoff).len();
    for uid in [former, UID] {
        assert_eq!(woken(&event("container", "die", "any", Some(uid))), 1, "{uid}");
        let name = format!("k3nest-team-dev-data-{}", &uid[..8]);
        assert_eq!(woken(&event("volume", "destroy", &name, None)), 1, "{name}");
    }
    assert_eq!(woken(&event("container", "die", "any", Some("another"))), 0);
    // Its waits are kept by the resource.
    backoff.failed(UID);
    assert_eq!(woken(&event("container", "die", "any", Some(former))), 0);
}

#[test]
fn what_k3nest_itself_does_all_the_time_wakes_nobody() {
    assert!(!wakes(&event("container", "exec_start: sh", "any", Some(UID))));
    assert!(!wakes(&event("volume", "mount", "k3nest-team-dev-12345678", None)));
    for action in ["start", "die", "destroy"] {
        let of = |role: Role| EngineEvent {
            role: Some(role.as_str().into()),
            ..event("container", action, "any", Some(UID))
        };
        assert!(!wakes(&of(Role::Probe)), "{action}");
        assert!(wakes(&of(Role::Agent)), "{action}");
    }
}

#[test]
fn an_image_wakes_those_who_wait_for_one() {
    let (backoff, pulled) = (BackOff::up_to(LONGEST_AWAY), event("image", "load", "rancher/k3s", None));
    backoff.failed(UID);
    assert_eq!(woken_by(&pulled, &store(Some(Reason::ImageUnavailable)), &backoff).len(), 1);
    assert!(woken_by(&pulled, &store(Some(Reason::Ready)), &backoff).is_empty());
}

#[test]
fn an_image_wakes_those_who_list_it() {
    let (store, mut writer) = reflector::store();
    let spec = serde_json::json!({"version": "v1.36.1+k3s1", "images": ["app:dev"]});
    let mut cluster = K3sCluster::new("dev", serde_json::from_value(spec).unwrap());
    cluster.metadata.uid = Some(UID.into());
    writer.apply_watcher_event(&watcher::Event::Apply(cluster));
    for (action, name, expected) in [
        ("tag", "app:dev", true),
        ("tag", "docker.io/library/app:dev", true),
        ("tag", "app:other", false),
        ("pull", "app", true),
        ("pull", "other", false),
        ("load", "sha256:1f", true),
        ("import", "sha256:1f", true),
        ("untag", "sha256:1f", true),
        ("delete", "sha256:1f", true),
        ("save", "sha256:1f", false),
    ] {
        let woken = woken_by(&event("image", action, name, None), &store, &BackOff::up_to(LONGEST_AWAY));
        assert_eq!(!woken.is_empty(), expected, "{action} {name}");
    }
}

#[test]
fn a_cluster_in_back_off_is_left_to_it() {
    let backoff = BackOff::up_to(LONGEST_AWAY);
    backoff.failed(UID);
    assert!(woken_by(&event("container", "die", "any", Some(UID)), &store(None), &backoff).is_empty());
}
