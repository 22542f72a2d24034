//! Settings of the operator: flags, each with an environment variable of the same meaning.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::Ipv4Net;

use crate::{
    api::validate::Policy,
    plan::{LOAD_BALANCER_IMAGE, NODE_IMAGE, Settings},
};

/// Settings of `k3nest operator`.
#[derive(clap::Args, Clone, Debug)]
pub struct OperatorArgs {
    /// Docker socket or URL, such as unix:///var/run/docker.sock
    #[arg(long, env = "DOCKER_HOST", value_name = "URL")]
    pub docker_host: Option<String>,

    /// Repository of node images where a cluster names none
    #[arg(long, env = "K3NEST_NODE_IMAGE", value_name = "REPOSITORY", default_value = NODE_IMAGE)]
    pub node_image: String,

    /// Image of load balancers where a cluster names none
    #[arg(long, env = "K3NEST_LOAD_BALANCER_IMAGE", value_name = "IMAGE", default_value = LOAD_BALANCER_IMAGE)]
    pub load_balancer_image: String,

    /// Ranges that clusters' networks are cut from, each a /24
    #[arg(
        long,
        env = "K3NEST_SUBNET_POOL",
        value_name = "CIDR",
        value_delimiter = ',',
        default_values_t = Settings::default().subnet_pool
    )]
    pub subnet_pool: Vec<Ipv4Net>,

    /// First and last port of the Docker host to publish APIs on [default: 16443-18442]
    #[arg(long, env = "K3NEST_API_PORTS", value_name = "LOW-HIGH", value_parser = port_range)]
    pub api_ports: Option<(u16, u16)>,

    /// Prefix of host paths that clusters may mount; none unless given. May be repeated
    #[arg(long, env = "K3NEST_ALLOW_HOST_PATH", value_name = "PATH", value_delimiter = ',')]
    pub allow_host_path: Vec<String>,

    /// Address under which Pods of the host cluster reach ports that clusters publish; the last
    /// resort where the operator finds no way by itself
    #[arg(long, env = "K3NEST_PUBLISH_ADDRESS", value_name = "ADDRESS")]
    pub publish_address: Option<Ipv4Addr>,

    /// How many clusters are worked on at once
    #[arg(long, env = "K3NEST_CONCURRENCY", value_name = "COUNT", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..))]
    pub concurrency: u16,

    /// Longest wait in seconds before a cluster that is in trouble is looked at again: the first is 1,
    /// and each in a row twice the one before
    #[arg(long, env = "K3NEST_LONGEST_RETRY", value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u16).range(1..))]
    pub longest_retry: u16,

    /// Where /healthz, /readyz and /metrics are served
    #[arg(long, env = "K3NEST_METRICS_ADDRESS", value_name = "ADDRESS:PORT", default_value = "0.0.0.0:8080")]
    pub metrics_address: SocketAddr,

    /// Address of the Node the operator runs on (the downward API's status.hostIP), by which it
    /// finds the container that this Node is
    #[arg(long, env = "HOST_IP", value_name = "ADDRESS")]
    pub host_ip: Option<IpAddr>,

    /// Namespace to watch; all unless given
    #[arg(long, env = "K3NEST_NAMESPACE", value_name = "NAMESPACE")]
    pub namespace: Option<String>,
}

impl OperatorArgs {
    /// What plans depend on.
    pub fn settings(&self) -> Settings {
        Settings {
            node_image: self.node_image.clone(),
            load_balancer_image: self.load_balancer_image.clone(),
            subnet_pool: self.subnet_pool.clone(),
            api_ports: self.api_ports.unwrap_or(Settings::default().api_ports),
            allowed_host_paths: self.allow_host_path.clone(),
            publish_address: self.publish_address,
        }
    }

    /// What a spec may ask for.
    pub fn policy(&self) -> Policy {
        Policy { allowed_host_paths: self.allow_host_path.clone() }
    }
}

fn port_range(text: &str) -> Result<(u16, u16), String> {
    let wrong = || format!("{text:?} is not a range of ports: write LOW-HIGH, such as 16443-18442");
    let (low, high) = text.split_once('-').ok_or_else(wrong)?;
    match (low.trim().parse(), high.trim().parse()) {
        (Ok(low), Ok(high)) if 0 < low && low <= high => Ok((low, high)),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        operator: OperatorArgs,
    }

    #[test]
    fn the_defaults_are_those_of_plan() {
        let args = Cli::parse_from(["k3nest"]).operator;
        assert_eq!(args.settings(), Settings::default());
        assert!(args.policy().allowed_host_paths.is_empty());
    }

    #[test]
    fn ranges_of_ports_are_read_and_nonsense_is_refused() {
        assert_eq!(port_range("16443-18442"), Ok((16443, 18442)));
        for bad in ["", "1", "2-1", "0-5", "1-70000", "a-b"] {
            assert!(port_range(bad).is_err(), "{bad}");
        }
    }
}
