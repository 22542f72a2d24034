//! What CEL cannot say: rules over free-form content, over several fields, and those that depend
//! on the operator's settings.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::Problem;
use crate::api::{K3sClusterSpec, NodeDefaults, Protocol, inherit, owned_env, owned_file, owned_flag};

/// Settings that decide what a spec may ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Path prefixes of the Docker host that volumes may name. None: no host paths at all. The
    /// CLI allows `/`: its user holds the Docker socket already.
    pub allowed_host_paths: Vec<String>,
}

impl Policy {
    /// The CLI's: everything.
    pub fn unfenced() -> Self {
        Self { allowed_host_paths: vec!["/".into()] }
    }

    /// Whether `path` lies under an allowed prefix, whole components compared.
    fn allows(&self, path: &str) -> bool {
        self.allowed_host_paths.iter().any(|prefix| std::path::Path::new(path).starts_with(prefix))
    }
}

/// Everything wrong with `spec` that the CRD's schema does not find.
pub fn check_spec(spec: &K3sClusterSpec, policy: &Policy) -> Vec<Problem> {
    let mut problems = Vec::new();
    if let Some(defaults) = &spec.node_defaults {
        check_node("spec.nodeDefaults", defaults, policy, &mut problems);
    }
    check_node("spec.servers", &spec.servers.node, policy, &mut problems);
    check_node("spec.agents", &spec.agents.node, policy, &mut problems);
    check_memory("spec.servers", &spec.server_settings(), SERVER_MEMORY, &mut problems);
    check_memory("spec.agents", &spec.agent_settings(), AGENT_MEMORY, &mut problems);
    check_ranges(spec, &mut problems);
    check_room(spec, &mut problems);
    check_ports(spec, &mut problems);
    problems
}

fn check_node(at: &str, node: &NodeDefaults, policy: &Policy, problems: &mut Vec<Problem>) {
    for (i, arg) in node.args.iter().enumerate() {
        if let Some((flag, instead)) = owned_flag(arg) {
            problems.push(Problem::new(
                format!("{at}.args[{i}]"),
                format!("--{flag} is k3nest's own: {instead}"),
            ));
        }
    }
    for key in node.config.keys() {
        if let Some((flag, instead)) = owned_flag(key) {
            problems.push(Problem::new(
                format!("{at}.config.{key}"),
                format!("{flag} is k3nest's own: {instead}"),
            ));
        }
    }
    for (i, env) in node.env.iter().enumerate() {
        if let Some(instead) = owned_env(&env.name) {
            problems.push(Problem::new(
                format!("{at}.env[{i}].name"),
                format!("{} must not be set: {instead}", env.name),
            ));
        }
    }
    for (i, file) in node.files.iter().enumerate() {
        if let Some(instead) = owned_file(&file.path) {
            problems.push(Problem::new(
                format!("{at}.files[{i}].path"),
                format!("{} is k3nest's own: {instead}", file.path),
            ));
        }
    }
    for (i, volume) in node.volumes.iter().enumerate() {
        if let Some(path) = volume.host_path.as_deref().filter(|path| !policy.allows(path)) {
            let allowed = if policy.allowed_host_paths.is_empty() {
                "none is allowed".to_owned()
            } else {
                format!("allowed are those under {}", policy.allowed_host_paths.join(", "))
            };
            problems.push(Problem::new(
                format!("{at}.volumes[{i}].hostPath"),
                format!("{path} is refused: of host paths {allowed}; use name for a named volume, or have --allow-host-path of the operator extended"),
            ));
        }
    }
    for (key, value) in &node.labels {
        if !is_label_key(key) {
            problems.push(Problem::new(format!("{at}.labels"), format!("{key:?} is not a label key: write [prefix/]name with letters, digits, '-', '_' and '.', the name at most 63 characters")));
        }
        if !is_label_value(value) {
            problems.push(Problem::new(format!("{at}.labels.{key}"), format!("{value:?} is not a label value: at most 63 letters, digits, '-', '_' and '.', starting and ending with a letter or digit")));
        }
    }
    for key in node.labels.keys().filter(|key| is_node_own(key)) {
        problems.push(Problem::new(
            format!("{at}.labels.{key}"),
            "is set by the kubelet or by k3s, which would set it back; choose another key",
        ));
    }
    for (i, taint) in node.taints.iter().enumerate() {
        if !is_label_key(&taint.key) {
            problems.push(Problem::new(
                format!("{at}.taints[{i}].key"),
                format!(
                    "{:?} is not a taint key: write [prefix/]name with letters, digits, '-', '_' and '.'",
                    taint.key
                ),
            ));
        }
        if !taint.value.as_deref().is_none_or(is_label_value) {
            problems.push(Problem::new(format!("{at}.taints[{i}].value"), "must be at most 63 letters, digits, '-', '_' and '.', starting and ending with a letter or digit"));
        }
    }
}

/// Below this k3s itself does not come up (https://docs.k3s.io/installation/requirements).
const SERVER_MEMORY: u64 = 512 << 20;
const AGENT_MEMORY: u64 = 256 << 20;

/// `node` with everything inherited: which field is at fault only its group can tell.
fn check_memory(at: &str, node: &NodeDefaults, least: u64, problems: &mut Vec<Problem>) {
    let memory = node.resources.as_ref().and_then(|r| r.memory.as_ref());
    if let Some(memory) = memory.filter(|m| m.units().is_some_and(|bytes| bytes < least)) {
        let group = at.trim_start_matches("spec.").trim_end_matches('s');
        let message =
            format!("{memory} is too little: k3s needs at least {}Mi for each {group}", least >> 20);
        problems.push(Problem::new(format!("{at}.resources.memory"), message));
    }
}

/// Pinned addresses lie in the lower half of the subnet, of which three are not for nodes.
fn check_room(spec: &K3sClusterSpec, problems: &mut Vec<Problem>) {
    let subnet = spec.network.as_ref().and_then(|n| n.subnet.as_deref()).and_then(|s| s.parse().ok());
    let prefix = subnet.map_or(24, |s: Ipv4Net| s.prefix_len());
    let room = (1u32 << 31u8.saturating_sub(prefix)).saturating_sub(3);
    let nodes = spec.servers.replicas.saturating_add(spec.agents.replicas);
    let own = spec.network.as_ref().is_none_or(|n| n.name.is_none());
    if own && nodes > room {
        problems.push(Problem::new(
            "spec.network.subnet",
            format!("a /{prefix} has room for {room} nodes, and {nodes} are wanted; write a larger range, such as 172.30.0.0/20"),
        ));
    }
}

/// k3s's own defaults (https://docs.k3s.io/networking/basic-network-options).
const CLUSTER_CIDR: &str = "10.42.0.0/16";
const SERVICE_CIDR: &str = "10.43.0.0/16";

fn check_ranges(spec: &K3sClusterSpec, problems: &mut Vec<Problem>) {
    let k3s = spec.k3s.clone().unwrap_or_default();
    let range = |text: &str| text.parse::<Ipv4Net>().ok();
    let cluster = ("spec.k3s.clusterCIDR", k3s.cluster_cidr.as_deref().unwrap_or(CLUSTER_CIDR));
    let service = ("spec.k3s.serviceCIDR", k3s.service_cidr.as_deref().unwrap_or(SERVICE_CIDR));
    let subnet = spec.network.as_ref().and_then(|n| n.subnet.as_deref()).map(|s| ("spec.network.subnet", s));

    let all: Vec<_> = subnet.into_iter().chain([cluster, service]).collect();
    for (i, (field, text)) in all.iter().enumerate() {
        for (other_field, other_text) in &all[i + 1..] {
            if let (Some(a), Some(b)) = (range(text), range(other_text))
                && overlap(a, b)
            {
                problems.push(Problem::new(
                    *field,
                    format!("{a} overlaps {other_field} ({b}); choose ranges that are apart"),
                ));
            }
        }
    }
    if let (Some(dns), Some(service)) =
        (k3s.cluster_dns.as_deref().and_then(|d| d.parse::<std::net::Ipv4Addr>().ok()), range(service.1))
        && !service.contains(&dns)
    {
        problems.push(Problem::new(
            "spec.k3s.clusterDNS",
            format!("{dns} is outside the Service range {service}; choose an address inside it"),
        ));
    }
    if k3s.cluster_dns.is_none()
        && k3s.service_cidr.as_deref().and_then(range).is_some_and(|s| s.prefix_len() > 27)
    {
        problems
            .push(Problem::new("spec.k3s.serviceCIDR", "is too small: a range of at least /27 is needed"));
    }
}

/// Whether two ranges share an address.
pub(crate) fn overlap(a: Ipv4Net, b: Ipv4Net) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

/// A port of the Docker host that a spec asks for, and the field that does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortClaim {
    /// The field.
    pub field: String,
    /// Address of the Docker host.
    pub host_ip: Ipv4Addr,
    /// Port of the Docker host.
    pub host_port: u16,
    /// Protocol.
    pub protocol: Protocol,
}

impl PortClaim {
    fn new(field: String, host_ip: Option<&str>, host_port: u16, protocol: Protocol) -> Self {
        let host_ip = host_ip.and_then(|ip| ip.parse().ok()).unwrap_or(Ipv4Addr::UNSPECIFIED);
        Self { field, host_ip, host_port, protocol }
    }

    fn clashes(&self, other: &Self) -> bool {
        let same_address =
            self.host_ip == other.host_ip || self.host_ip.is_unspecified() || other.host_ip.is_unspecified();
        self.host_port == other.host_port && self.protocol == other.protocol && same_address
    }
}

/// The groups of nodes of a spec, with everything inherited.
fn groups(spec: &K3sClusterSpec) -> [(&'static str, u32, NodeDefaults); 2] {
    [
        ("spec.servers", spec.servers.replicas, spec.server_settings()),
        ("spec.agents", spec.agents.replicas, spec.agent_settings()),
    ]
}

/// Every port of the Docker host that `spec` names.
pub(crate) fn port_claims(spec: &K3sClusterSpec) -> Vec<PortClaim> {
    let api = spec.api.clone().unwrap_or_default();
    let own = api
        .host_port
        .map(|port| PortClaim::new("spec.api.hostPort".into(), Some(api.host_ip()), port, Protocol::Tcp));
    let forwarded = spec.load_balancer.iter().flat_map(|lb| &lb.ports).enumerate().map(|(i, p)| {
        let field = format!("spec.loadBalancer.ports[{i}].hostPort");
        PortClaim::new(field, p.host_ip.as_deref(), p.host_port, p.protocol)
    });
    let mut claims: Vec<PortClaim> = own.into_iter().chain(forwarded).collect();
    for (at, _, node) in groups(spec).iter().filter(|(_, replicas, _)| *replicas > 0) {
        claims.extend(node.ports.iter().enumerate().map(|(i, p)| {
            let field = format!("{at}.ports[{i}].hostPort");
            PortClaim::new(field, p.host_ip.as_deref(), p.host_port, p.protocol)
        }));
    }
    claims
}

fn check_ports(spec: &K3sClusterSpec, problems: &mut Vec<Problem>) {
    for (at, replicas, node) in groups(spec) {
        if replicas > 1 && !node.ports.is_empty() {
            problems.push(Problem::new(
                format!("{at}.ports"),
                format!("a port of the Docker host can be published by one node, and {at}.replicas is {replicas}; use spec.loadBalancer.ports instead"),
            ));
        }
    }
    let claims = port_claims(spec);
    for (i, claim) in claims.iter().enumerate() {
        if let Some(former) = claims[..i].iter().find(|former| former.clashes(claim)) {
            problems.push(Problem::new(
                claim.field.clone(),
                format!("{} is {} already; give one of the two another port", claim.host_port, former.field),
            ));
        }
    }
}

impl K3sClusterSpec {
    /// Settings of the servers with everything inherited.
    pub fn server_settings(&self) -> NodeDefaults {
        inherit(self.node_defaults.as_ref(), &self.servers.node)
    }

    /// Settings of the agents with everything inherited.
    pub fn agent_settings(&self) -> NodeDefaults {
        inherit(self.node_defaults.as_ref(), &self.agents.node)
    }
}

/// Labels by which Kubernetes and k3s know a Node
/// (https://kubernetes.io/docs/reference/labels-annotations-taints/).
fn is_node_own(key: &str) -> bool {
    let own = [
        "kubernetes.io/hostname",
        "kubernetes.io/os",
        "kubernetes.io/arch",
        "node.kubernetes.io/instance-type",
        "node-role.kubernetes.io/control-plane",
        "node-role.kubernetes.io/etcd",
        "node-role.kubernetes.io/master",
    ];
    own.contains(&key.strip_prefix("beta.").unwrap_or(key))
}

fn is_name(text: &str, max: usize) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= max
        && edge(text.chars().next())
        && edge(text.chars().next_back())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

fn is_label_value(text: &str) -> bool {
    text.is_empty() || is_name(text, 63)
}

fn is_label_key(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => is_name(prefix, 253) && prefix == prefix.to_lowercase() && is_name(name, 63),
        None => is_name(text, 63),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn problems(mut spec: serde_json::Value, policy: &Policy) -> Vec<String> {
        spec["version"] = json!("v1.36.1+k3s1");
        let spec = serde_json::from_value(spec).unwrap();
        check_spec(&spec, policy).iter().map(Problem::to_string).collect()
    }

    #[test]
    fn owned_flags_name_the_field_to_use() {
        let found = problems(
            json!({"servers": {"args": ["--tls-san=x"], "config": {"node-label+": ["a=b"]}}}),
            &Policy::unfenced(),
        );
        assert_eq!(
            found,
            [
                "spec.servers.args[0]: --tls-san is k3nest's own: use spec.api.tlsSANs",
                "spec.servers.config.node-label+: node-label is k3nest's own: use the field labels",
            ]
        );
    }

    #[test]
    fn host_paths_need_an_allowed_prefix_of_whole_components() {
        let spec = |path: &str| json!({"servers": {"volumes": [{"target": "/data", "hostPath": path}]}});
        let policy = Policy { allowed_host_paths: vec!["/srv/ci".into()] };
        assert!(problems(spec("/srv/ci/x"), &policy).is_empty());
        assert!(problems(spec("/srv/ci"), &policy).is_empty());
        assert_eq!(problems(spec("/srv/cicd"), &policy).len(), 1);
        assert_eq!(problems(spec("/"), &Policy { allowed_host_paths: vec![] }).len(), 1);
        assert!(problems(spec("/"), &Policy::unfenced()).is_empty());
    }

    #[test]
    fn ports_of_the_host_are_asked_for_once() {
        let port = |host_port: u16, ip: &str| json!({"hostPort": host_port, "hostIP": ip, "port": 80});
        let found = problems(
            json!({
                "api": {"hostPort": 8000},
                "loadBalancer": {"ports": [port(8000, "0.0.0.0"), port(8001, "127.0.0.1")]},
                "servers": {"replicas": 3, "ports": [port(8002, "0.0.0.0")]},
                "agents": {"replicas": 1, "ports": [port(8001, "0.0.0.0"), port(8003, "0.0.0.0")]},
            }),
            &Policy::unfenced(),
        );
        assert_eq!(
            found,
            [
                "spec.servers.ports: a port of the Docker host can be published by one node, and spec.servers.replicas is 3; use spec.loadBalancer.ports instead",
                "spec.loadBalancer.ports[0].hostPort: 8000 is spec.api.hostPort already; give one of the two another port",
                "spec.agents.ports[0].hostPort: 8001 is spec.loadBalancer.ports[1].hostPort already; give one of the two another port",
            ]
        );
    }

    #[test]
    fn inherited_memory_is_judged_for_the_group_that_gets_it() {
        let found = problems(
            json!({"nodeDefaults": {"resources": {"memory": "300Mi"}}, "agents": {"replicas": 1}}),
            &Policy::unfenced(),
        );
        assert_eq!(
            found,
            ["spec.servers.resources.memory: 300Mi is too little: k3s needs at least 512Mi for each server"]
        );
    }

    #[test]
    fn a_subnet_must_have_room_for_every_node() {
        let spec = json!({"network": {"subnet": "172.30.0.0/26"}, "agents": {"replicas": 29}});
        assert_eq!(
            problems(spec, &Policy::unfenced()),
            [
                "spec.network.subnet: a /26 has room for 29 nodes, and 30 are wanted; write a larger range, such as 172.30.0.0/20"
            ]
        );
    }

    #[test]
    fn ranges_must_be_apart() {
        let found = problems(
            json!({"network": {"subnet": "10.42.7.0/24"}, "k3s": {"clusterDNS": "10.44.0.10"}}),
            &Policy::unfenced(),
        );
        assert_eq!(
            found,
            [
                "spec.network.subnet: 10.42.7.0/24 overlaps spec.k3s.clusterCIDR (10.42.0.0/16); choose ranges that are apart",
                "spec.k3s.clusterDNS: 10.44.0.10 is outside the Service range 10.43.0.0/16; choose an address inside it",
            ]
        );
    }
}
