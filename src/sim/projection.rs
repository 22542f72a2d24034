//! What a world looks like without ids, times, addresses and picks: two clusters of one spec are
//! the same if their projections are.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{
    docker::{Docker, SimContainer, SimVolume},
    k3s::SimNode,
    lab::{Lab, host},
    specs::{Draft, dev},
};
use crate::{
    api::{Identity, Role, label},
    plan::{ContainerState, MountSource, Network, Record},
};

/// Everything that is not `identity`'s, to the last byte.
pub fn others(
    docker: &Docker,
    identity: &Identity,
) -> (Vec<SimContainer>, BTreeMap<String, SimVolume>, Vec<Network>) {
    let containers = docker.containers.values().filter(|c| !identity.owns(&c.want.labels)).cloned().collect();
    let volumes = docker.volumes.iter().filter(|(_, v)| !identity.owns(&v.labels));
    let networks = docker.networks.iter().filter(|n| !identity.owns(&n.labels)).cloned().collect();
    (containers, volumes.map(|(n, v)| (n.clone(), v.clone())).collect(), networks)
}

/// Whether anything of `identity` exists.
pub fn leftovers(docker: &Docker, identity: &Identity) -> Vec<String> {
    let containers = docker.containers.values().filter(|c| identity.owns(&c.want.labels));
    let volumes = docker.volumes.iter().filter(|(_, v)| identity.owns(&v.labels) || v.anonymous);
    let networks = docker.networks.iter().filter(|n| identity.owns(&n.labels));
    containers
        .map(|c| c.want.name.clone())
        .chain(volumes.map(|(name, _)| name.clone()))
        .chain(networks.map(|n| n.name.clone()))
        .collect()
}

/// The newest record of a cluster.
pub fn record(docker: &Docker, identity: &Identity) -> Option<Record> {
    let ours = docker.volumes.values().filter(|v| identity.owns(&v.labels));
    ours.filter_map(|v| Record::from_labels(&v.labels)).max_by_key(|r| r.generation)
}

/// Everything of `identity` that its spec decides, as text that can be compared and read: a line for each
/// fact, which says whose it is.
pub fn project(docker: &Docker, identity: &Identity, draft: &Draft) -> String {
    let Some(record) = record(docker, identity) else { return "nothing".into() };
    let containers: BTreeMap<&str, Value> = docker
        .containers
        .values()
        .filter(|c| identity.owns(&c.want.labels))
        .map(|c| (c.want.name.as_str(), container(c)))
        .collect();
    let volumes: BTreeMap<&str, Value> = docker
        .volumes
        .iter()
        .filter(|(name, v)| identity.owns(&v.labels) && !is_spare(docker, name, v))
        .map(|(name, v)| (name.as_str(), json!({"labels": labels(&v.labels), "nodes": nodes(docker, v)})))
        .collect();
    let networks = docker.networks.iter().filter(|n| identity.owns(&n.labels));
    let networks: Vec<Value> =
        networks.map(|n| json!({"name": n.name, "subnet": n.subnet, "labels": labels(&n.labels)})).collect();
    let records = docker
        .volumes
        .values()
        .filter(|v| identity.owns(&v.labels) && v.labels.contains_key(label::RECORD))
        .count();
    let remembered = json!({
        "records": records,
        "initialised": record.initialised,
        "joined": record.joined,
        "highest": record.highest_version,
        "spec": record.spec,
        "network owned": record.network.owned,
        "guest": record.guest.is_some(),
    });
    let all = json!({
        "record": remembered, "containers": containers, "volumes": volumes, "networks": networks,
    });
    let mut text = lines("", &all).join("\n");
    let subnet = record.network.subnet.network().to_string();
    text = text.replace(subnet.trim_end_matches('0'), "SUBNET.");
    if draft.api_port.is_none() {
        text = text.replace(&record.api_port.to_string(), "PICKED");
    }
    text
}

/// The lines that only one of two projections has. No line is there twice, since it says where its fact
/// is: what one of several nodes lacks is missed, though the others have the same.
pub fn difference(is: &str, should_be: &str) -> Vec<String> {
    let only = |sign: char, a: &str, b: &str| {
        let there: BTreeSet<&str> = b.lines().collect();
        let missing = a.lines().filter(|line| !there.contains(line));
        missing.map(|line| format!("{sign} {line}")).collect::<Vec<_>>()
    };
    [only('+', is, should_be), only('-', should_be, is)].concat()
}

/// The leaves below `path`, each with the way to it.
fn lines(path: &str, value: &Value) -> Vec<String> {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            fields.iter().flat_map(|(key, value)| lines(&format!("{path}/{key}"), value)).collect()
        }
        Value::Array(items) if !items.is_empty() => {
            items.iter().enumerate().flat_map(|(n, item)| lines(&format!("{path}/{n}"), item)).collect()
        }
        leaf => vec![format!("{path}: {leaf}")],
    }
}

/// Records are counted, and volumes that nobody mounts any more may stay: they may hold data.
fn is_spare(docker: &Docker, name: &str, volume: &SimVolume) -> bool {
    let role = volume.labels.get(label::ROLE).and_then(|r| Role::parse(r));
    let mounted = docker.containers.values().any(|c| c.volumes.values().any(|v| v == name));
    role == Some(Role::Record) || (!mounted && role != Some(Role::Data))
}

fn labels(all: &BTreeMap<String, String>) -> BTreeMap<&String, &String> {
    all.iter()
        .filter(|(key, _)| ![label::HASH, label::RECORD, label::EPOCH].contains(&key.as_str()))
        .collect()
}

fn nodes(docker: &Docker, volume: &SimVolume) -> Value {
    let nodes = volume.etcd.iter().flat_map(|e| docker.nodes.get(&e.id)).flatten();
    let facts = nodes.map(|(name, node)| {
        let SimNode { version, password: _, reported: _, labels, taints } = node;
        (name.clone(), json!({"version": version, "labels": labels, "taints": taints}))
    });
    Value::Object(facts.collect())
}

fn container(c: &SimContainer) -> Value {
    let mounts: Vec<String> = c
        .want
        .mounts
        .iter()
        .map(|m| match &m.source {
            MountSource::Volume(name) => format!("{name}:{}:{}", m.target, m.read_only),
            MountSource::Host(path) => format!("host {path}:{}:{}", m.target, m.read_only),
        })
        .collect();
    let env: Vec<String> = c.want.env.iter().map(|(k, v)| format!("{k}={}", v.expose())).collect();
    let ports: Vec<String> = c.want.ports.iter().map(|p| format!("{p:?}")).collect();
    let files: BTreeMap<&String, Value> = c
        .files
        .iter()
        .filter(|(path, _)| !path.ends_with("k3s.yaml"))
        .map(|(path, (mode, content))| (path, json!([mode, text(path, content)])))
        .collect();
    json!({
        "running": c.state == ContainerState::Running,
        "image": c.want.image,
        "hostname": c.want.hostname,
        "labels": labels(&c.want.labels),
        "network": c.want.network,
        "address": c.want.address,
        "guest": c.want.guest.as_ref().map(|g| &g.network),
        "privileged": c.want.privileged,
        "tmpfs": c.want.tmpfs,
        "mounts": mounts,
        "env": env,
        "ports": ports,
        "files": files,
    })
}

/// Without the lines that hold at the first start only: of a new cluster, and of a new Node.
fn text(path: &str, content: &[u8]) -> Value {
    let text = String::from_utf8_lossy(content).into_owned();
    if path.ends_with("node.conf") {
        let begins = ["K3NEST_PEERS", "K3NEST_DATA", "K3NEST_EPOCH", "K3NEST_RESET"];
        return text.lines().filter(|line| !begins.iter().any(|key| line.starts_with(key))).collect();
    }
    if !path.ends_with("config.yaml") {
        return json!(text);
    }
    let mut config: BTreeMap<String, Value> = serde_saphyr::from_str(&text).unwrap_or_default();
    config.remove("cluster-init");
    config.remove("server");
    config.remove("node-taint");
    json!(config)
}

/// Two others have what it lost.
#[test]
fn what_one_of_three_servers_lost_is_a_difference() {
    let draft = Draft { servers: 3, labels: [0].into(), taint: true, ..Draft::default() };
    let mut lab = Lab::new(host());
    lab.settle(&draft, &dev()).unwrap();
    let whole = project(&lab.engine.docker(), &dev(), &draft);
    assert_eq!(difference(&whole, &whole), [""; 0]);

    for what in ["labels", "taints"] {
        let mut docker = lab.engine.docker().clone();
        let nodes = docker.nodes.values_mut().next().unwrap();
        assert_eq!(nodes.len(), 3);
        let node = nodes.get_mut("dev-server-1").unwrap();
        if what == "labels" {
            node.labels.clear()
        } else {
            node.taints.clear()
        }
        let found = difference(&project(&docker, &dev(), &draft), &whole);
        let of_one = |line: &String| line.contains(&format!("/nodes/dev-server-1/{what}"));
        assert!(!found.is_empty() && found.iter().all(of_one), "{found:#?}");
    }
}
