//! What should exist: spec, looked-up values and record → every network, volume and container,
//! wanted exactly.

mod balancer;
mod node;

use std::{collections::BTreeSet, net::Ipv4Addr};

use ipnet::Ipv4Net;

use super::{
    Desired, EngineInfo, Images, Input, Member, NetworkWant, Observed, Record, Sensitive,
    allocate::{ipv4, nth_address, shared_addresses},
};
use crate::api::{ApiSpec, Blocked, PortMapping, Protocol, Reason, Role, label};
use balancer::load_balancer;
use node::Node;

/// Port of the API inside the containers.
pub const API_PORT: u16 = 6443;

/// The pool of the control plane.
pub const SERVER_POOL: &str = "server";

/// The pool of `spec.agents`.
pub const AGENT_POOL: &str = "agent";

/// Everything that should exist for `input`.
///
/// `images` holds the images that are known to be there; `taken` the addresses of a joined network
/// that others have, needed only where a node gets its address now.
///
/// # Errors
/// Where it cannot exist: a downgrade, or no address left.
pub fn desired(
    input: &Input,
    engine: &EngineInfo,
    record: &Record,
    observed: &Observed,
    images: &Images,
    taken: &BTreeSet<Ipv4Addr>,
) -> Result<Desired, Blocked> {
    refuse_downgrade(input, record)?;
    refuse_own_port(input, record)?;
    let Members { servers, agents } = members(input, record, observed, taken)?;
    let mut want = Desired {
        record: record.clone(),
        network: network(input, record),
        volumes: Vec::new(),
        containers: Vec::new(),
    };
    let groups = [
        (Role::Server, &servers, input.spec.server_settings()),
        (Role::Agent, &agents, input.spec.agent_settings()),
    ];
    for (role, members, settings) in &groups {
        for member in *members {
            let node = Node { input, engine, record, member, role: *role, settings, servers: &servers };
            want.volumes.extend(node.volumes(images));
            want.containers.push(node.container(images, observed)?);
        }
    }
    want.containers.push(load_balancer(input, record, &servers, &agents));
    let mut seen = BTreeSet::new();
    want.volumes.retain(|volume| seen.insert(volume.name.clone()));
    Ok(want)
}

fn refuse_downgrade(input: &Input, record: &Record) -> Result<(), Blocked> {
    let (wanted, highest) =
        (version_numbers(&input.spec.version), record.highest_version.as_deref().and_then(version_numbers));
    match (wanted, highest) {
        (Some(wanted), Some(highest)) if wanted < highest => Err(Blocked::new(
            Reason::InvalidSpec,
            format!(
                "spec.version: {} is older than {}, which the cluster has run; Kubernetes cannot go back: write that version or a newer one",
                input.spec.version,
                record.highest_version.as_deref().unwrap_or_default()
            ),
        )),
        _ => Ok(()),
    }
}

/// A port that was picked for the API is not in the spec, so only here can it be seen to clash.
fn refuse_own_port(input: &Input, record: &Record) -> Result<(), Blocked> {
    let api = ipv4(input.spec.api.clone().unwrap_or_default().host_ip());
    let clash = input.forwards().iter().find(|forward| {
        let host_ip = forward.host_ip.as_deref().map_or(Ipv4Addr::UNSPECIFIED, ipv4);
        forward.host_port == record.api_port
            && forward.protocol == Protocol::Tcp
            && (host_ip == api || host_ip.is_unspecified() || api.is_unspecified())
    });
    match clash {
        None => Ok(()),
        Some(forward) => Err(Blocked::new(
            Reason::PortTaken,
            format!(
                "spec.loadBalancer.ports: hostPort {} is the port of this cluster's API; choose another one here or in spec.api.hostPort",
                forward.host_port
            ),
        )),
    }
}

/// The numbers of a version such as v1.36.1+k3s1, major to patch.
pub fn version_numbers(version: &str) -> Option<(u32, u32, u32)> {
    let mut numbers = version.strip_prefix('v')?.split(['.', '+', '-']).map(|n| n.parse().ok());
    Some((numbers.next()??, numbers.next()??, numbers.next()??))
}

fn network(input: &Input, record: &Record) -> Option<NetworkWant> {
    let recorded = &record.network;
    recorded.owned.then(|| {
        let subnet = recorded.subnet;
        let half = subnet.prefix_len() + 1;
        let mut labels = input.identity.labels(Role::Network);
        labels.insert(label::RECORD.into(), record.to_label());
        NetworkWant {
            name: recorded.name.clone(),
            subnet,
            gateway: nth_address(subnet, 1),
            ip_range: Ipv4Net::new(nth_address(subnet, 1 << (32 - half)), half).unwrap_or(subnet),
            labels,
        }
    })
}

/// The nodes of a cluster.
struct Members {
    servers: Vec<Member>,
    agents: Vec<Member>,
}

/// Every node: those born already keep their addresses, the others get the lowest free ones.
fn members(
    input: &Input,
    record: &Record,
    observed: &Observed,
    taken: &BTreeSet<Ipv4Addr>,
) -> Result<Members, Blocked> {
    let born = observed.members();
    refuse_fewer(input, record, &born)?;
    let mut used: BTreeSet<Ipv4Addr> = born.iter().map(|m| m.address).chain([record.load_balancer]).collect();
    used.extend(taken);
    let subnet = record.network.subnet;
    let lower_half = 1u32 << (31 - subnet.prefix_len());
    let candidates: Vec<Ipv4Addr> = if record.network.owned {
        (3..lower_half).map(|n| nth_address(subnet, n)).collect()
    } else {
        shared_addresses(subnet, &input.identity.uid).collect()
    };
    let mut member = |pool: &str, index: u32| {
        if let Some(member) = born.iter().find(|m| m.pool == pool && m.index == index) {
            return Ok(member.clone());
        }
        let address = candidates.iter().copied().find(|a| !used.contains(a)).ok_or_else(|| {
            Blocked::new(
                Reason::NetworkUnusable,
                format!("network {} has no free address left for {pool} {index}", record.network.name),
            )
        })?;
        used.insert(address);
        Ok(Member { pool: pool.into(), index, address })
    };
    let mut pool = |name: &str, replicas: u32| {
        (0..replicas).map(|index| member(name, index)).collect::<Result<Vec<_>, Blocked>>()
    };
    Ok(Members {
        servers: pool(SERVER_POOL, input.spec.servers.replicas)?,
        agents: pool(AGENT_POOL, input.spec.agents.replicas)?,
    })
}

/// Nodes that exist are not taken away, nor servers added: both need more than a container. The
/// API server refuses such an edit already; a file that the CLI applies is only judged here.
fn refuse_fewer(input: &Input, record: &Record, born: &[Member]) -> Result<(), Blocked> {
    let count = |pool: &str| {
        let indices = born.iter().filter(|m| m.pool == pool).map(|m| m.index + 1);
        indices.max().unwrap_or_default()
    };
    let agents = count(AGENT_POOL);
    // Volumes that were lost are no wish for fewer servers, nor to have them again one for more.
    let servers = match record.servers {
        servers if record.initialised && servers > 0 => servers,
        _ => count(SERVER_POOL),
    };
    let wanted = &input.spec;
    let refused = if servers > wanted.servers.replicas
        || (record.initialised && (1..wanted.servers.replicas).contains(&servers))
    {
        (
            "servers",
            servers,
            "the number of servers cannot be changed after creation by this version of k3nest",
        )
    } else if agents > wanted.agents.replicas {
        (
            "agents",
            agents,
            "agents can be added to a living cluster, but not yet taken away by this version of k3nest",
        )
    } else {
        return Ok(());
    };
    let (group, exist, why) = refused;
    Err(Blocked::new(
        Reason::InvalidSpec,
        format!("spec.{group}.replicas: the cluster has {exist} {group}, and {why}; write {exist}"),
    ))
}

impl Input {
    /// Full reference of the nodes' image, of the repository `default` where the spec names none.
    /// The tag is the version with "+" as "-", since a tag cannot hold a plus.
    pub fn node_image(&self, default: &str) -> String {
        let repository = self.spec.image.as_deref().unwrap_or(default);
        if repository.contains('@') {
            repository.to_owned()
        } else {
            format!("{repository}:{}", self.spec.version.replace('+', "-"))
        }
    }

    /// Reference of the load balancer's image; `default` where the spec names none.
    pub(super) fn load_balancer_image(&self, default: &str) -> String {
        let own = self.spec.load_balancer.as_ref().and_then(|lb| lb.image.clone());
        own.unwrap_or_else(|| default.to_owned())
    }

    /// The ports that the user wants forwarded.
    pub fn forwards(&self) -> &[PortMapping] {
        self.spec.load_balancer.as_ref().map(|lb| lb.ports.as_slice()).unwrap_or_default()
    }

    /// The name servers that the user wants asked.
    pub(super) fn name_servers(&self) -> Vec<Ipv4Addr> {
        let servers = self.spec.dns.iter().flat_map(|dns| &dns.servers);
        servers.filter_map(|server| server.parse().ok()).collect()
    }

    /// The token, where it comes from a Secret.
    pub fn token(&self) -> Option<&Sensitive<Vec<u8>>> {
        self.values.0.get(&self.spec.token_secret_ref.as_ref()?.into())
    }

    /// Names and addresses that the user wants in the API's certificate.
    pub(super) fn user_sans(&self) -> Vec<String> {
        let ApiSpec { host, tls_sans, .. } = self.spec.api.clone().unwrap_or_default();
        host.into_iter().chain(tls_sans).collect()
    }

    /// Everything that the API's certificate names: only what stays as it is for life.
    pub(super) fn sans(&self, record: &Record) -> Vec<String> {
        let host = self.identity.service_host();
        let mut names = vec![
            self.identity.service_name(),
            format!("{}.{}", self.identity.service_name(), self.identity.namespace),
            host,
            "localhost".to_owned(),
            "127.0.0.1".to_owned(),
            record.load_balancer.to_string(),
        ];
        for name in self.user_sans() {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }
}
