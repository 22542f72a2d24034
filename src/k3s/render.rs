//! Everything that k3s and its load balancer are told: commands and files.

use serde_json::{Map, Value, json};

use crate::{
    engine::Command,
    plan::{API_PORT, BalancerConfig, ContainerKind, ContainerWant, FileWant, Limits, NodeConfig, Sensitive},
};

/// The cluster's token in a server. In the data volume, so that it outlives the container and is
/// found again by whoever makes the next one.
pub const TOKEN_PATH: &str = "/var/lib/rancher/k3s/k3nest/token";

/// The token as k3s itself keeps it (https://docs.k3s.io/cli/token).
pub const K3S_TOKEN_PATH: &str = "/var/lib/rancher/k3s/server/token";

/// The administrator's kubeconfig as k3s writes it (https://docs.k3s.io/cluster-access).
pub const KUBECONFIG_PATH: &str = "/etc/rancher/k3s/k3s.yaml";

/// The database of a server's etcd member. It and the log say that a server has its data; the file `name`
/// beside them does not, since k3s writes it before it joins (pkg/etcd/etcd.go).
pub const ETCD_DATABASE_PATH: &str = "/var/lib/rancher/k3s/server/db/etcd/member/snap/db";

/// The directory of the log of a server's etcd member, which etcd puts there with its first file in it.
pub const ETCD_LOG_PATH: &str = "/var/lib/rancher/k3s/server/db/etcd/member/wal";

/// What k3s leaves in a server's etcd data when the member was removed. It never is one again.
pub const ETCD_TOMBSTONE_PATH: &str = "/var/lib/rancher/k3s/server/db/etcd/tombstone";

/// The recovery that a server was part of last, as its entrypoint notes it.
pub const EPOCH_PATH: &str = "/var/lib/rancher/k3s/k3nest/epoch";

const CONFIG_PATH: &str = "/etc/rancher/k3s/config.yaml";
const ENTRYPOINT_PATH: &str = "/etc/k3nest/entrypoint.sh";
const RESOLV_PATH: &str = "/etc/k3nest/resolv.conf";
const NODE_CONF_PATH: &str = "/etc/k3nest/node.conf";
/// What a load balancer runs with.
pub const NGINX_PATH: &str = "/etc/nginx/k3nest.conf";

/// The fingerprint of the configuration that a load balancer has loaded. Written after nginx took
/// it over: a cut between the two is seen as one that is still to be loaded.
pub const LOADED_PATH: &str = "/etc/nginx/k3nest.loaded";

/// Makes a running nginx load its configuration (https://nginx.org/en/docs/control.html). Not by
/// `docker kill -s HUP`, after which Docker takes the container for stopped by hand (moby 43204).
pub const RELOAD: [&str; 5] = ["nginx", "-c", NGINX_PATH, "-s", "reload"];

/// Runs in a node before k3s.
const ENTRYPOINT: &str = include_str!("entrypoint.sh");

/// What `want` runs.
pub fn command(want: &ContainerWant) -> Command {
    let text = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
    match &want.kind {
        ContainerKind::Node(config) => {
            let mut args = text(&[ENTRYPOINT_PATH, config.role.as_str()]);
            args.extend(config.args.iter().cloned());
            Command { entrypoint: text(&["/bin/sh"]), args }
        }
        ContainerKind::LoadBalancer(_) => {
            Command { entrypoint: text(&["nginx"]), args: text(&["-c", NGINX_PATH, "-g", "daemon off;"]) }
        }
    }
}

/// Files of a node.
pub fn node_files(config: &NodeConfig, limits: &Limits, token: &Sensitive<Vec<u8>>) -> Vec<FileWant> {
    let mut files = vec![
        FileWant::new(ENTRYPOINT_PATH, 0o755, ENTRYPOINT),
        FileWant::new(NODE_CONF_PATH, 0o644, node_conf(config, limits)),
        FileWant::new(CONFIG_PATH, 0o600, config_yaml(config)),
        FileWant::new(
            RESOLV_PATH,
            0o644,
            format!("nameserver {}\noptions timeout:2 attempts:3\n", config.resolver),
        ),
        FileWant { path: TOKEN_PATH.into(), mode: 0o600, content: token.clone() },
    ];
    files.extend(config.files.iter().cloned());
    files
}

/// Files of a load balancer.
pub fn balancer_files(config: &BalancerConfig) -> Vec<FileWant> {
    vec![FileWant::new(NGINX_PATH, 0o644, nginx_conf(config)), loaded_mark(config)]
}

/// Says that `config` is loaded.
fn loaded_mark(config: &BalancerConfig) -> FileWant {
    FileWant::new(LOADED_PATH, 0o644, config.fingerprint())
}

/// What the entrypoint is told, as assignments of a shell.
fn node_conf(config: &NodeConfig, limits: &Limits) -> String {
    let mut conf = String::from("# Written by k3nest at every start.\n");
    if let Some(bytes) = limits.memory {
        conf.push_str(&format!("K3NEST_MEMORY={bytes}\n"));
    }
    if let Some(cores) = limits.whole_cores() {
        conf.push_str(&format!("K3NEST_CPUS={cores}\n"));
    }
    if !config.peers.is_empty() {
        let peers: Vec<String> = config.peers.iter().map(ToString::to_string).collect();
        conf.push_str(&format!("K3NEST_PEERS=\"{}\"\n", peers.join(" ")));
    }
    let begins = &config.begins;
    if begins.with_data {
        conf.push_str("K3NEST_DATA=kept\n");
    }
    if let Some(epoch) = &begins.epoch {
        conf.push_str(&format!("K3NEST_EPOCH={epoch}\n"));
    }
    if begins.resets {
        conf.push_str("K3NEST_RESET=1\n");
    }
    conf
}

/// k3s's config.yaml: what k3nest sets, and the user's. Flags that may be given several times are
/// added up; what k3nest owns the user cannot set (see [`crate::api::owned_flag`]).
fn config_yaml(config: &NodeConfig) -> String {
    let mut merged: Map<String, Value> = config.flags.clone();
    merged.insert("token-file".into(), json!(TOKEN_PATH));
    merged.insert("resolv-conf".into(), json!(RESOLV_PATH));
    let taints: Vec<String> = config
        .taints
        .iter()
        .map(|t| format!("{}={}:{}", t.key, t.value.as_deref().unwrap_or_default(), t.effect.as_str()))
        .collect();
    if !taints.is_empty() {
        merged.insert("node-taint".into(), json!(taints));
    }
    for (key, value) in &config.config {
        let key = key.trim_end_matches('+');
        match (merged.get_mut(key), value) {
            (Some(Value::Array(ours)), Value::Array(theirs)) => ours.extend(theirs.iter().cloned()),
            (Some(Value::Array(ours)), one) => ours.push(one.clone()),
            _ => drop(merged.insert(key.to_owned(), value.clone())),
        }
    }
    // A map of JSON values always serialises.
    serde_saphyr::to_string(&merged).unwrap_or_default()
}

/// nginx as a load balancer of the transport layer.
///
/// Addresses are pinned, so upstreams need no resolver. The servers on port 53 hand the nodes'
/// questions to Docker's own resolver, which only answers inside the container (127.0.0.11): so
/// nodes and Pods resolve whatever the Docker host resolves.
fn nginx_conf(config: &BalancerConfig) -> String {
    let mut conf = String::from(
        "# Written by k3nest at every start.\n\
         include /etc/nginx/modules-enabled/*.conf;\n\
         worker_processes 2;\n\
         worker_rlimit_nofile 65536;\n\
         error_log /dev/stderr warn;\n\
         pid /run/nginx.pid;\n\
         events {\n    worker_connections 8192;\n}\n\
         stream {\n    access_log off;\n    proxy_connect_timeout 2s;\n    proxy_socket_keepalive on;\n",
    );
    let mut server = |name: &str, listen: String, port: u16, to: &[std::net::Ipv4Addr], timeout: &str| {
        // A port that leads to agents, of which there are none. nginx refuses empty upstreams.
        if to.is_empty() {
            return;
        }
        conf.push_str(&format!("    upstream {name} {{\n"));
        for address in to {
            conf.push_str(&format!("        server {address}:{port} max_fails=2 fail_timeout=5s;\n"));
        }
        conf.push_str(&format!(
            "    }}\n    server {{\n        listen {listen};\n        proxy_timeout {timeout};\n        proxy_pass {name};\n    }}\n"
        ));
    };
    // Watches and exec sessions may be silent for hours.
    server("api", format!("{API_PORT} so_keepalive=on"), API_PORT, &config.servers, "12h");
    for forward in &config.forwards {
        let (udp, timeout) = match forward.protocol {
            crate::api::Protocol::Tcp => (" so_keepalive=on", "12h"),
            crate::api::Protocol::Udp => (" udp", "60s"),
        };
        let name = format!("port_{}", forward.listen);
        server(&name, format!("{}{udp}", forward.listen), forward.port, &forward.to, timeout);
    }
    for listen in ["53 udp", "53"] {
        conf.push_str(&format!(
            "    server {{\n        listen {listen};\n        proxy_timeout 10s;\n        proxy_pass 127.0.0.11:53;\n    }}\n"
        ));
    }
    conf.push_str("}\n");
    conf
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::{Protocol, Role, TaintEffect},
        plan::{Begins, Forward, Limits},
    };

    #[test]
    fn config_yaml_adds_up_lists() {
        let object = |value: Value| value.as_object().cloned().unwrap();
        let config = NodeConfig {
            role: Role::Server,
            node_name: "dev-server-0".into(),
            node_ip: "10.112.0.3".parse().unwrap(),
            flags: object(
                json!({"cluster-init": true, "kubelet-arg": ["fail-cgroupv1=false"], "tls-san": ["a", "127.0.0.1"]}),
            ),
            config: object(
                json!({"kubelet-arg+": ["max-pods=50"], "debug": true, "kube-apiserver-arg": "v=2"}),
            ),
            args: vec![],
            files: vec![],
            resolver: "10.112.0.2".parse().unwrap(),
            labels: Default::default(),
            taints: vec![crate::api::NodeTaint {
                key: "a/b".into(),
                value: None,
                effect: TaintEffect::NoSchedule,
            }],
            peers: vec!["10.112.0.4".parse().unwrap(), "10.112.0.5".parse().unwrap()],
            begins: Begins { with_data: true, epoch: Some("1f2e".into()), resets: true },
        };
        insta::assert_snapshot!(config_yaml(&config));
        let limits = Limits { memory: Some(1 << 30), millicores: Some(1500), gpus: None };
        insta::assert_snapshot!(node_conf(&config, &limits));
    }

    #[test]
    fn nginx_conf_forwards_tcp_and_udp() {
        let (a, b) = ("10.112.0.3".parse().unwrap(), "10.112.0.4".parse().unwrap());
        insta::assert_snapshot!(nginx_conf(&BalancerConfig {
            servers: vec![a, b],
            forwards: vec![
                Forward { listen: 10000, protocol: Protocol::Tcp, port: 30080, to: vec![a] },
                Forward { listen: 10001, protocol: Protocol::Udp, port: 30053, to: vec![a, b] },
                Forward { listen: 10002, protocol: Protocol::Tcp, port: 80, to: vec![] },
            ],
        }));
    }
}
