//! What a cluster comes to in Docker, without what differs between two of one spec: two clusters
//! that were made in different ways are the same if their projections are.
//!
//! Written down are names, labels (so roles and hashes), images, commands, mounts, networks, ports and
//! states. Dropped are ids, times, addresses, picked ports, secrets and generations of the record, and the
//! names that tests pick. Everything else of ours counts, each object as often as it is there: what
//! was made twice or left behind shows. Volumes without a name count by the container that has them.

use serde_json::{Map, Value, json};

use super::{Cluster, docker::docker};

/// Labels of ours. The load balancer's hash is left out: it covers ports and addresses that were
/// picked. So are copies of the record on what was made by it: they say how it was then.
const LABELS: &str = "k3nest.dev/";

/// The projection of `cluster`, as text that can be compared and read.
pub fn of(cluster: &Cluster) -> String {
    let all = |kind: &str| inspected(cluster, kind);
    let (containers, networks, volumes) = (all("container"), all("network"), all("volume"));
    let uid = containers.iter().find_map(|c| c["Config"]["Labels"]["k3nest.dev/owner"].as_str());
    let uid = uid.unwrap_or("no container, so no uid").to_owned();
    let records: Vec<Value> = volumes.iter().filter_map(record).collect();
    let picked: Vec<u64> = records.iter().filter_map(|record| record["apiPort"].as_u64()).collect();
    let mut text = serde_json::to_string_pretty(&json!({
        "containers": sorted(containers.iter().map(|c| container(c, &picked))),
        "networks": sorted(networks.iter().map(network)),
        "volumes": sorted(volumes.iter().map(volume)),
    }))
    .expect("plain data");
    for record in &records {
        for (field, word) in [("/network/subnet", "SUBNET"), ("/guest/address", "GUEST")] {
            let Some(address) = record.pointer(field).and_then(Value::as_str) else { continue };
            text = text.replace(address, word);
            let prefix = address.rsplit_once('.').map(|(prefix, _)| format!("{prefix}."));
            text = text.replace(&prefix.expect("an IPv4 address"), &format!("{word}."));
        }
        text = text.replace(record["salt"].as_str().expect("a salt"), "SALT");
        text = text.replace(&format!("-record-{}", record["generation"]), "-record-N");
    }
    text = text.replace(&uid, "UID").replace(&uid[..8], "SUFFIX");
    // A namespace of one scenario may be named after its cluster.
    if cluster.namespace != "default" {
        text = text.replace(&cluster.namespace, "NAMESPACE");
    }
    text.replace(&cluster.name, "NAME")
}

/// The lines that only one of two projections has.
pub fn difference(is: &str, should_be: &str) -> Vec<String> {
    let only = |sign: char, a: &str, b: &str| {
        let mut there: Vec<&str> = b.lines().collect();
        let mut missing = Vec::new();
        for line in a.lines() {
            match there.iter().position(|known| *known == line) {
                Some(at) => drop(there.swap_remove(at)),
                None => missing.push(format!("{sign} {}", line.trim())),
            }
        }
        missing
    };
    [only('+', is, should_be), only('-', should_be, is)].concat()
}

/// What Docker says of every object of a kind. One that goes meanwhile is left out.
fn inspected(cluster: &Cluster, kind: &str) -> Vec<Value> {
    let names = cluster.objects(kind);
    if names.is_empty() {
        return Vec::new();
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let found = docker(&[&[kind, "inspect"], names.as_slice()].concat());
    serde_json::from_str(&found.stdout).expect("docker prints JSON")
}

fn container(c: &Value, picked: &[u64]) -> Value {
    let (config, host) = (&c["Config"], &c["HostConfig"]);
    let mounts = list(&c["Mounts"]).into_iter().map(|mount| {
        let name = name(&mount["Name"]).or_else(|| name(&mount["Source"])).unwrap_or_default();
        let name = if is_anonymous(&name) { "ANONYMOUS".to_owned() } else { name };
        json!([mount["Destination"], mount["Type"], name, mount["RW"]])
    });
    let ports = entries(&host["PortBindings"]).into_iter().flat_map(|(port, bindings)| {
        let to = list(&bindings).into_iter();
        to.map(move |to| match to["HostPort"].as_str().and_then(|port| port.parse().ok()) {
            Some(number) if picked.contains(&number) => json!([port, to["HostIp"], "PICKED"]),
            number => json!([port, to["HostIp"], number]),
        })
    });
    let networks = entries(&c["NetworkSettings"]["Networks"]).into_iter();
    let networks = networks.map(|(name, place)| json!([name, place["IPAMConfig"]["IPv4Address"]]));
    json!({
        "name": c["Name"],
        "labels": labels(&config["Labels"]),
        "state": c["State"]["Status"],
        "image": config["Image"],
        "hostname": config["Hostname"],
        "entrypoint": config["Entrypoint"],
        "command": config["Cmd"],
        "privileged": host["Privileged"],
        "restart": host["RestartPolicy"]["Name"],
        "tmpfs": host["Tmpfs"],
        "limits": [host["Memory"], host["NanoCpus"]],
        "mounts": sorted(mounts),
        "ports": sorted(ports),
        "networks": sorted(networks),
    })
}

fn network(n: &Value) -> Value {
    let containers = entries(&n["Containers"]).into_iter().map(|(_, guest)| guest["Name"].clone());
    json!({
        "name": n["Name"],
        "labels": labels(&n["Labels"]),
        "driver": n["Driver"],
        "ranges": n["IPAM"]["Config"],
        "containers": sorted(containers),
    })
}

fn volume(v: &Value) -> Value {
    json!({"name": v["Name"], "labels": labels(&v["Labels"]), "driver": v["Driver"], "options": v["Options"]})
}

fn record(v: &Value) -> Option<Value> {
    serde_json::from_str(v["Labels"]["k3nest.dev/record"].as_str()?).ok()
}

fn labels(all: &Value) -> Value {
    let balancer = all["k3nest.dev/role"] == "loadbalancer";
    let ours = entries(all).into_iter().filter(|(key, _)| key.starts_with(LABELS));
    let is_record = all["k3nest.dev/role"] == "record";
    let ours = ours.filter(|(key, _)| !(balancer && key == "k3nest.dev/hash"));
    let ours = ours.filter(|(key, _)| is_record || key != "k3nest.dev/record");
    let parsed = ours.map(|(key, value)| match key.as_str() {
        "k3nest.dev/record" => {
            let mut record: Value = serde_json::from_str(value.as_str().unwrap_or_default()).unwrap_or(value);
            if let Some(fields) = record.as_object_mut() {
                fields.remove("generation");
                fields.remove("apiPort");
            }
            (key, record)
        }
        _ => (key, value),
    });
    Value::Object(parsed.collect::<Map<_, _>>())
}

/// Whether Docker has made up this name of a volume.
pub fn is_anonymous(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn name(value: &Value) -> Option<String> {
    value.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

fn list(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

fn entries(value: &Value) -> Vec<(String, Value)> {
    value.as_object().cloned().unwrap_or_default().into_iter().collect()
}

fn sorted(values: impl Iterator<Item = Value>) -> Vec<Value> {
    let mut values: Vec<Value> = values.collect();
    values.sort_by_key(Value::to_string);
    values
}
