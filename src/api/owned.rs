//! What k3nest says to k3s itself, and so refuses in `args` and `config`, with the field to use
//! instead.

/// A flag of k3s that k3nest owns, and what a user writes instead. Names without dashes, as in
/// config.yaml (https://docs.k3s.io/cli/server, https://docs.k3s.io/cli/agent).
const OWNED: &[(&str, &str)] = &[
    ("token", "use spec.tokenSecretRef"),
    ("token-file", "use spec.tokenSecretRef"),
    ("agent-token", "k3nest joins nodes itself; leave it out"),
    ("agent-token-file", "k3nest joins nodes itself; leave it out"),
    ("server", "k3nest joins nodes itself; leave it out"),
    ("cluster-init", "k3nest uses it once by itself; leave it out"),
    ("cluster-reset", "k3nest recovers clusters itself; leave it out"),
    ("cluster-reset-restore-path", "k3nest recovers clusters itself; leave it out"),
    ("datastore-endpoint", "every cluster has embedded etcd; leave it out"),
    ("datastore-cafile", "every cluster has embedded etcd; leave it out"),
    ("datastore-certfile", "every cluster has embedded etcd; leave it out"),
    ("datastore-keyfile", "every cluster has embedded etcd; leave it out"),
    ("disable-etcd", "every server runs etcd; leave it out"),
    ("disable-apiserver", "every server runs the API; leave it out"),
    ("disable-agent", "every server is a node too; use spec.servers.taints to keep Pods away"),
    ("node-name", "node names are <cluster>-<pool>-<index>; leave it out"),
    ("with-node-id", "node names are <cluster>-<pool>-<index>; leave it out"),
    ("node-ip", "addresses are pinned by k3nest; use spec.network.subnet to choose the range"),
    ("advertise-address", "addresses are pinned by k3nest; leave it out"),
    ("bind-address", "use spec.api.hostIP for the address on the Docker host"),
    ("https-listen-port", "use spec.api.hostPort for the port on the Docker host"),
    ("advertise-port", "use spec.api.hostPort for the port on the Docker host"),
    ("tls-san", "use spec.api.tlsSANs"),
    ("tls-san-security", "only named addresses are served; use spec.api.tlsSANs to name more"),
    ("write-kubeconfig", "k3nest reads the kubeconfig where k3s puts it; leave it out"),
    ("write-kubeconfig-mode", "k3nest reads the kubeconfig where k3s puts it; leave it out"),
    ("data-dir", "the data directory is a volume of its own; use volumes for more room"),
    ("config", "use the field config"),
    ("resolv-conf", "k3nest gives nodes a resolver that works; leave it out"),
    ("node-label", "use the field labels"),
    ("node-taint", "use the field taints"),
    ("cluster-cidr", "use spec.k3s.clusterCIDR"),
    ("service-cidr", "use spec.k3s.serviceCIDR"),
    ("cluster-dns", "use spec.k3s.clusterDNS"),
    ("cluster-domain", "use spec.k3s.clusterDomain"),
    ("flannel-backend", "use spec.k3s.flannelBackend"),
    ("secrets-encryption", "use spec.k3s.secretsEncryption"),
    ("disable", "use spec.k3s.disable"),
    ("rootless", "node containers are privileged; leave it out"),
    ("docker", "nodes run containerd; leave it out"),
    ("container-runtime-endpoint", "nodes run k3s's containerd; leave it out"),
];

/// One-letter forms of owned flags.
const SHORT: &[(&str, &str)] = &[
    ("t", "token"),
    ("s", "server"),
    ("d", "data-dir"),
    ("c", "config"),
    ("o", "write-kubeconfig"),
    ("i", "node-ip"),
];

/// What to do instead of writing `flag` (with or without dashes and value), if k3nest owns it.
/// A trailing `+`, with which config.yaml appends, is ignored.
pub fn owned_flag(flag: &str) -> Option<(&'static str, &'static str)> {
    let name = flag.trim_start_matches('-');
    let name = name.split('=').next().unwrap_or(name).trim_end_matches('+').trim();
    let name = SHORT.iter().find(|(short, _)| *short == name).map_or(name, |(_, long)| long);
    OWNED.iter().find(|(owned, _)| *owned == name).copied()
}

/// Environment variables of a node that would say what k3nest says, or that break k3s in a
/// container, and why.
pub fn owned_env(name: &str) -> Option<&'static str> {
    match name {
        "K3S_TOKEN" | "K3S_TOKEN_FILE" | "K3S_AGENT_TOKEN" | "K3S_AGENT_TOKEN_FILE" => {
            Some("use spec.tokenSecretRef")
        }
        "K3S_URL" => Some("k3nest joins nodes itself; leave it out"),
        "K3S_NODE_NAME" => Some("node names are <cluster>-<pool>-<index>; leave it out"),
        "K3S_KUBECONFIG_OUTPUT" | "K3S_KUBECONFIG_MODE" => {
            Some("k3nest reads the kubeconfig where k3s puts it; leave it out")
        }
        "K3S_CONFIG_FILE" => Some("use the field config"),
        "K3S_DATA_DIR" => Some("the data directory is a volume of its own; leave it out"),
        "K3S_RESOLV_CONF" => Some("k3nest gives nodes a resolver that works; leave it out"),
        // k3s switches to the systemd cgroup driver if it sees it (k3s issues 5462 and 5851).
        "INVOCATION_ID" => Some(
            "it would make k3s use the systemd cgroup driver, which a container does not have; leave it out",
        ),
        _ => None,
    }
}

/// Paths that k3nest writes itself, and what to use instead.
pub fn owned_file(path: &str) -> Option<&'static str> {
    match path {
        "/etc/rancher/k3s/config.yaml" => Some("use the field config"),
        "/etc/rancher/k3s/k3s.yaml" => Some("k3s writes it; leave it out"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owned_flags_are_found_in_every_spelling() {
        for spelling in ["--token=x", "-token", "token", "-t=x", "token+", "--token"] {
            assert_eq!(owned_flag(spelling).map(|(name, _)| name), Some("token"), "{spelling}");
        }
        for free in [
            "--kubelet-arg=max-pods=50",
            "--token-x",
            "--tls-sanx",
            "debug",
            "--kube-apiserver-arg=token-auth-file=x",
        ] {
            assert_eq!(owned_flag(free), None, "{free}");
        }
    }
}
