//! The decisions, one by one: what exists is written down, and what is to be done is read off.

mod allocate;
mod desired;
mod diff;
mod lost;
mod removal;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::api::{Identity, Role};

pub const VERSION: &str = "v1.36.1+k3s1";
pub const NODE: &str = "rancher/k3s:v1.36.1-k3s1";
pub const SERVER: &str = "k3nest-default-dev-server-0-2f0c7a51";

pub fn identity() -> Identity {
    Identity {
        instance: "host-a".into(),
        uid: "2f0c7a51-0000-4000-8000-000000000001".into(),
        namespace: "default".into(),
        name: "dev".into(),
    }
}

/// A cluster of the smallest spec with `more` in it.
pub fn input(more: Value) -> Input {
    let mut spec = json!({"version": VERSION});
    if let (Some(spec), Some(more)) = (spec.as_object_mut(), more.as_object()) {
        spec.extend(more.clone());
    }
    Input {
        identity: identity(),
        spec: serde_json::from_value(spec).unwrap(),
        values: Values::default(),
        settings: Settings::default(),
        internal: InternalAccess::None,
    }
}

pub fn engine() -> EngineInfo {
    EngineInfo { id: "ENGINE-A".into(), cgroup_version: 2, ..EngineInfo::default() }
}

/// A record that leaves nothing to chance.
pub fn record() -> Record {
    Record {
        generation: 1,
        engine_id: "ENGINE-A".into(),
        network: RecordedNetwork {
            name: "k3nest-default-dev-2f0c7a51".into(),
            subnet: "10.112.7.0/24".parse().unwrap(),
            owned: true,
        },
        load_balancer: "10.112.7.2".parse().unwrap(),
        api_port: 16500,
        guest: None,
        node_image: NODE_IMAGE.into(),
        load_balancer_image: LOAD_BALANCER_IMAGE.into(),
        initialised: true,
        servers: 1,
        joined: [0].into(),
        recovery: None,
        recover_nonce: None,
        highest_version: Some(VERSION.into()),
        salt: "salt".into(),
        keeper: None,
        token_mac: None,
        spec: None,
    }
}

/// The record of a cluster that was never Ready.
pub fn new_record() -> Record {
    Record { initialised: false, joined: BTreeSet::new(), highest_version: None, ..record() }
}

pub fn images() -> Images {
    [(NODE.to_owned(), Vec::new()), (LOAD_BALANCER_IMAGE.to_owned(), Vec::new())].into()
}

pub fn now() -> Timestamp {
    "2026-01-01T12:00:00Z".parse().unwrap()
}

/// What is wanted of a cluster that was never Ready, and of one that was, with its data volume.
pub fn wanted(input: &Input, record: &Record) -> Desired {
    let none = BTreeSet::new();
    let before = Record { initialised: false, joined: BTreeSet::new(), ..record.clone() };
    let first = desired(input, &engine(), &before, &Observed::default(), &images(), &none).unwrap();
    let volumes = first.volumes.iter().map(volume).collect();
    let born = Observed { volumes, ..Observed::default() };
    desired(input, &engine(), record, &born, &images(), &none).unwrap()
}

pub fn volume(want: &VolumeWant) -> Volume {
    Volume { name: want.name.clone(), labels: want.labels.clone() }
}

pub fn container(want: &ContainerWant) -> Container {
    let place = Attachment { address: Some(want.address), pinned: Some(want.address) };
    Container {
        id: format!("id of {}", want.name),
        name: want.name.clone(),
        image: want.image.clone(),
        state: ContainerState::Running,
        status: "Up".into(),
        labels: want.labels.clone(),
        created: now() - jiff::SignedDuration::from_hours(1),
        networks: [(want.network.clone(), place)].into(),
        ports: Vec::new(),
    }
}

pub fn network(want: &NetworkWant, id: &str, age: i64) -> Network {
    Network {
        id: id.into(),
        name: want.name.clone(),
        labels: want.labels.clone(),
        subnet: Some(want.subnet),
        gateway: Some(want.gateway),
        ip_range: Some(want.ip_range),
        created: now() - jiff::SignedDuration::from_secs(age),
    }
}

/// A network that others made.
pub fn foreign_network(name: &str, subnet: Option<&str>) -> Network {
    Network {
        id: format!("id of {name}"),
        name: name.into(),
        labels: BTreeMap::new(),
        subnet: subnet.map(|s| s.parse().unwrap()),
        gateway: None,
        ip_range: None,
        created: now(),
    }
}

/// A world that is as wanted.
pub fn settled(want: &Desired) -> Observed {
    let record = volume(&want.record.volume(&identity()));
    Observed {
        containers: want.containers.iter().map(container).collect(),
        volumes: want.volumes.iter().map(volume).chain([record]).collect(),
        networks: want.network.iter().map(|n| network(n, "net", 3600)).collect(),
        loaded: want.containers.iter().find_map(|c| match &c.kind {
            ContainerKind::LoadBalancer(config) => Some(config.fingerprint()),
            ContainerKind::Node(_) => None,
        }),
        nodes: None,
        data: Some(all_there(want)),
    }
}

/// Data volumes with data.
pub fn all_there(want: &Desired) -> BTreeMap<String, NodeData> {
    let there = NodeData { token: true, etcd: true, ..NodeData::default() };
    let volumes = want.volumes.iter().map(volume).filter(|v| v.role() == Some(Role::Data));
    volumes.map(|v| (v.name, there)).collect()
}

/// A plan as people read it: each step, and what it comes after.
pub fn text(plan: &Plan) -> Vec<String> {
    let line = |step: &Step| match step.after.as_slice() {
        [] => step.action.to_string(),
        after => format!("{} after {after:?}", step.action),
    };
    plan.steps.iter().map(line).collect()
}
