use serde_json::json;

use super::*;
use crate::api::{Blocked, Reason, label};

const FULL: &str = r#"{
    "image": "registry.example.com/k3s",
    "nodeDefaults": {"args": ["--debug"], "env": [{"name": "HTTP_PROXY", "value": "http://proxy"}]},
    "servers": {
        "args": ["--kubelet-arg=max-pods=50"],
        "config": {"etcd-expose-metrics": true},
        "env": [{"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "s", "key": "env"}}}],
        "files": [{"path": "/etc/a", "mode": "0600", "contentFrom": {"configMapKeyRef": {"name": "c", "key": "a"}}}],
        "volumes": [{"target": "/data", "name": "data"}, {"target": "/host", "hostPath": "/srv", "readOnly": true}],
        "labels": {"example.com/a": "b"},
        "taints": [{"key": "own", "effect": "NoSchedule"}]
    },
    "k3s": {"clusterCIDR": "10.50.0.0/16", "flannelBackend": "host-gw", "disable": ["traefik"], "secretsEncryption": true},
    "api": {"hostIP": "0.0.0.0", "hostPort": 16500, "host": "dev.example.com", "tlsSANs": ["10.1.1.1"]},
    "loadBalancer": {"ports": [
        {"hostPort": 8443, "port": 443}, {"hostPort": 8080, "port": 80, "hostIP": "127.0.0.1"},
        {"hostPort": 5353, "port": 30053, "protocol": "UDP"}
    ]}
}"#;

fn full() -> Input {
    let secret = SourceKey::Secret { name: "s".into(), key: "env".into() };
    let map = SourceKey::ConfigMap { name: "c".into(), key: "a".into() };
    let values = [(secret, Sensitive::new(b"hidden".to_vec())), (map, Sensitive::new(b"text".to_vec()))];
    Input { values: Values(values.into()), ..input(serde_json::from_str(FULL).unwrap()) }
}

fn hashes(want: &Desired) -> Vec<(&str, &str)> {
    want.containers.iter().map(|c| (c.name.as_str(), c.labels[label::HASH].as_str())).collect()
}

fn hash_of(more: serde_json::Value) -> String {
    let want = wanted(&input(more), &record());
    hashes(&want).iter().map(|(_, hash)| *hash).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_smallest_cluster() {
    insta::assert_debug_snapshot!(wanted(&input(json!({})), &record()));
}

#[test]
fn a_cluster_with_everything() {
    insta::assert_debug_snapshot!(wanted(&full(), &record()));
}

/// A changed hash replaces every node of every user at the next release: only on purpose.
#[test]
fn hashes_are_what_they_were() {
    let (small, full) = (wanted(&input(json!({})), &record()), wanted(&full(), &record()));
    insta::assert_debug_snapshot!((hashes(&small), hashes(&full)));
}

#[test]
fn what_is_kept_in_step_on_live_nodes_rolls_nothing() {
    let live = json!({"servers": {"labels": {"a": "b"}, "taints": [{"key": "k", "effect": "NoExecute"}]}});
    assert_eq!(hash_of(live), hash_of(json!({})));
}

#[test]
fn what_was_never_initialised_and_what_was_have_one_hash() {
    let input = input(json!({}));
    let before = wanted(&input, &Record { initialised: false, highest_version: None, ..record() });
    assert_eq!(hashes(&before), hashes(&wanted(&input, &record())));
}

#[test]
fn only_the_first_server_of_a_new_cluster_makes_one() {
    let flags = |initialised| {
        let want = wanted(&input(json!({})), &Record { initialised, ..record() });
        match &want.containers[0].kind {
            ContainerKind::Node(config) => config.flags.contains_key("cluster-init"),
            ContainerKind::LoadBalancer(_) => panic!("the server comes first"),
        }
    };
    assert!(flags(false));
    assert!(!flags(true));
}

#[test]
fn an_edit_rolls_what_it_concerns_and_nothing_else() {
    let rolls = |more: serde_json::Value| {
        let (a, b) = (wanted(&input(json!({})), &record()), wanted(&input(more), &record()));
        let pairs = a.containers.iter().zip(&b.containers);
        let changed = pairs.filter(|(a, b)| a.labels[label::HASH] != b.labels[label::HASH]);
        changed.map(|(a, _)| if a.name == SERVER { "server" } else { "balancer" }).collect::<Vec<_>>()
    };
    for (edit, expected) in [
        (json!({"version": "v1.36.2+k3s1"}), vec!["server"]),
        (json!({"servers": {"args": ["--debug"]}}), vec!["server"]),
        (json!({"api": {"tlsSANs": ["x"]}}), vec!["server"]),
        (json!({"api": {"hostIP": "0.0.0.0"}}), vec!["balancer"]),
        (json!({"loadBalancer": {"ports": [{"hostPort": 8080, "port": 80}]}}), vec!["balancer"]),
        (json!({"loadBalancer": {"image": "nginx:1"}}), vec!["balancer"]),
        (json!({"paused": true}), vec![]),
    ] {
        assert_eq!(rolls(edit.clone()), expected, "{edit}");
    }
}

#[test]
fn what_else_an_image_declares_gets_a_volume_named_after_its_path() {
    let images: Images = [(NODE.to_owned(), vec!["/opt".into(), "/var/log".into(), "/srv".into()])].into();
    let none = BTreeSet::new();
    let before = Record { initialised: false, ..record() };
    let want = desired(&input(json!({})), &engine(), &before, &Observed::default(), &images, &none).unwrap();
    let extra: Vec<String> = want.containers[0]
        .mounts
        .iter()
        .filter(|m| ["/opt", "/srv"].contains(&m.target.as_str()))
        .map(|m| format!("{:?} at {}", m.source, m.target))
        .collect();
    insta::assert_debug_snapshot!(extra);
}

fn refused(input: &Input, record: &Record, observed: &Observed) -> Blocked {
    desired(input, &engine(), record, observed, &images(), &BTreeSet::new()).unwrap_err()
}

#[test]
fn what_cannot_be_is_said() {
    let none = Observed::default();
    let older = refused(&input(json!({"version": "v1.35.9+k3s1"})), &record(), &none);
    assert_eq!(older.reason, Reason::InvalidSpec);
    assert!(older.message.contains("v1.35.9+k3s1 is older than v1.36.1+k3s1"), "{older}");

    let own = json!({"loadBalancer": {"ports": [{"hostPort": 16500, "port": 80}]}});
    assert_eq!(refused(&input(own), &record(), &none).reason, Reason::PortTaken);
}

#[test]
fn a_native_operator_gets_in_at_the_gateway_of_our_own_network_only() {
    let ports = |record: &Record| {
        let input = Input { internal: InternalAccess::Gateway, ..input(json!({})) };
        let want = wanted(&input, record);
        want.containers[1].ports.iter().map(|p| p.host_ip.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(ports(&record()), ["127.0.0.1", "10.112.7.1"]);
    let joined = RecordedNetwork { owned: false, ..record().network };
    assert_eq!(ports(&Record { network: joined, ..record() }), ["127.0.0.1"]);
}

/// An address is for life: who has been born keeps it, and nobody gets one that others have.
#[test]
fn addresses_of_nodes() {
    let address = |record: &Record, observed: &Observed, taken: &[&str]| {
        let taken = taken.iter().map(|t| t.parse().unwrap()).collect();
        let want = desired(&input(json!({})), &engine(), record, observed, &images(), &taken).unwrap();
        want.containers[0].address.to_string()
    };
    let new = Record { initialised: false, ..record() };
    let none = Observed::default();
    assert_eq!(address(&new, &none, &[]), "10.112.7.3");

    let joined = Record { network: RecordedNetwork { owned: false, ..new.network.clone() }, ..new.clone() };
    let first = address(&joined, &none, &[]);
    assert_ne!(address(&joined, &none, &[&first]), first);

    let mut born = Observed::default();
    let data = wanted(&input(json!({})), &new).volumes.into_iter().find(|v| v.name.contains("data")).unwrap();
    born.volumes.push(volume(&data));
    born.volumes[0].labels.insert(label::ADDRESS.into(), "10.112.7.99".into());
    assert_eq!(address(&new, &born, &["10.112.7.99"]), "10.112.7.99");
}
