//! What is picked once and kept for life: subnet, API port, addresses in shared networks.
//!
//! Picks start at a place that depends on the cluster's uid, so that clusters made at the same
//! moment rarely want the same; where they do, Docker refuses the second, which picks again.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
};

use ipnet::Ipv4Net;

use super::{Container, GuestAddress, Input, InternalAccess, Network, Record, RecordedNetwork, hash};
use crate::api::{
    Blocked, Protocol, Reason,
    validate::{overlap, port_claims},
};

/// What else the Docker host has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// All containers of the engine.
    pub containers: Vec<Container>,
    /// All networks of the engine.
    pub networks: Vec<Network>,
    /// Ranges that the host itself routes, without the default route. Docker accepts a subnet that
    /// lies inside one and cuts the host off (tried).
    pub routes: Vec<Ipv4Net>,
    /// Ports that Docker refused although no container holds them.
    pub refused_ports: BTreeSet<u16>,
    /// Ranges that Docker refused although no network holds them.
    pub refused_subnets: Vec<Ipv4Net>,
}

/// The record of a new cluster.
///
/// # Errors
/// Where what the spec asks for is taken, naming by whom, or nothing is left to pick.
pub fn allocate(input: &Input, engine_id: &str, host: &HostFacts, salt: &str) -> Result<Record, Blocked> {
    let network = allocate_network(input, host)?;
    let load_balancer = if network.owned {
        nth_address(network.subnet, 2)
    } else {
        let joined = find_network(host, &network.name)?;
        pick_address(joined, &addresses_in(host, &network.name), &input.identity.uid)
            .ok_or_else(|| no_address(&network.name))?
    };
    Ok(Record {
        generation: 1,
        engine_id: engine_id.into(),
        load_balancer,
        api_port: allocate_port(input, host)?,
        guest: allocate_guest(input, host)?,
        network,
        node_image: input.settings.node_image.clone(),
        load_balancer_image: input.settings.load_balancer_image.clone(),
        initialised: false,
        servers: input.spec.servers.replicas,
        joined: BTreeSet::new(),
        recovery: None,
        recover_nonce: None,
        highest_version: None,
        salt: salt.into(),
        keeper: None,
        token_mac: input.token().map(|token| hash::mac(salt, token.expose())),
        spec: None,
    })
}

/// `record` with another API port, after Docker refused the one it has.
///
/// # Errors
/// Where the port is the user's choice, or none is free.
pub fn next_port(record: &Record, input: &Input, host: &HostFacts) -> Result<Record, Blocked> {
    let port = allocate_port(input, host)?;
    Ok(record.changed(|r| r.api_port = port))
}

/// `record` with another subnet, after Docker refused the one it has.
///
/// # Errors
/// Where the subnet is the user's choice, or none is free.
pub fn next_subnet(record: &Record, input: &Input, host: &HostFacts) -> Result<Record, Blocked> {
    let network = allocate_network(input, host)?;
    Ok(record.changed(|r| {
        r.load_balancer = nth_address(network.subnet, 2);
        r.network = network;
    }))
}

/// The place of the load balancer in the host cluster's network.
///
/// # Errors
/// Where that network is gone or full.
pub fn allocate_guest(input: &Input, host: &HostFacts) -> Result<Option<GuestAddress>, Blocked> {
    let InternalAccess::Join { network } = &input.internal else { return Ok(None) };
    let joined = find_network(host, network)?;
    // Another place than that of a node which lives in the same network.
    let seed = format!("{}/guest", input.identity.uid);
    let address =
        pick_address(joined, &addresses_in(host, network), &seed).ok_or_else(|| no_address(network))?;
    Ok(Some(GuestAddress { network: network.clone(), address }))
}

/// `record` with another place in the host cluster's network, if somebody else has the one it
/// names: Docker gives the address of a container that stands still to others.
///
/// # Errors
/// Where that network is gone or full.
pub fn next_guest(record: &Record, input: &Input, host: &HostFacts) -> Result<Option<Record>, Blocked> {
    let Some(guest) = &record.guest else { return Ok(None) };
    let taken = host.containers.iter().filter(|c| !input.identity.owns(&c.labels)).any(|c| {
        c.networks.get(&guest.network).is_some_and(|a| a.address.or(a.pinned) == Some(guest.address))
    });
    if !taken {
        return Ok(None);
    }
    let guest = allocate_guest(input, host)?;
    Ok(Some(record.changed(|r| r.guest = guest)))
}

fn no_address(network: &str) -> Blocked {
    Blocked::new(
        Reason::NetworkUnusable,
        format!("network {network} has no free address left; remove containers from it or use a larger one"),
    )
}

fn find_network<'a>(host: &'a HostFacts, name: &str) -> Result<&'a Network, Blocked> {
    let found = host.networks.iter().filter(|n| n.name == name).min_by_key(|n| n.created);
    match found {
        Some(network) if network.subnet.is_some() => Ok(network),
        Some(_) => Err(Blocked::new(
            Reason::NetworkUnusable,
            format!(
                "spec.network.name: network {name} has no configured subnet, so addresses cannot be pinned; create it with docker network create --subnet"
            ),
        )),
        None => Err(Blocked::new(
            Reason::NetworkUnusable,
            format!(
                "spec.network.name: Docker has no network {name}; create it, or leave spec.network out for an own one"
            ),
        )),
    }
}

/// Refuses to act on a cluster whose joined network is gone, or can no longer have its addresses: what is
/// removed could not be made again, and what is started could not start.
///
/// # Errors
/// Where `networks`, which are all of the engine, lack it.
pub fn check_joined(input: &Input, record: &Record, networks: &[Network]) -> Result<(), Blocked> {
    let Some(name) = input.spec.network.as_ref().and_then(|n| n.name.as_ref()) else { return Ok(()) };
    let subnet = record.network.subnet;
    let again = format!("docker network create --subnet {subnet} {name}");
    let problem = match networks.iter().filter(|n| n.name == *name).min_by_key(|n| n.created) {
        None => format!("Docker has no network {name} any more; make it again with {again}"),
        Some(found) if found.subnet.is_none_or(|range| !range.contains(&record.load_balancer)) => format!(
            "network {name} no longer has the cluster's addresses, which are in {subnet}; remove it and make it again with {again}"
        ),
        Some(_) => return Ok(()),
    };
    Err(Blocked::new(
        Reason::NetworkUnusable,
        format!("spec.network.name: {problem}. Nothing is done to the cluster until then; its data is kept"),
    ))
}

fn allocate_network(input: &Input, host: &HostFacts) -> Result<RecordedNetwork, Blocked> {
    let wanted = input.spec.network.as_ref();
    if let Some(name) = wanted.and_then(|n| n.name.clone()) {
        let subnet = find_network(host, &name)?.subnet.unwrap_or_default();
        return Ok(RecordedNetwork { name, subnet, owned: false });
    }
    let name = input.identity.object_name(&input.identity.name);
    if let Some(subnet) = wanted.and_then(|n| n.subnet.as_deref()).and_then(|s| s.parse().ok()) {
        return match holder_of(subnet, host) {
            None => Ok(RecordedNetwork { name, subnet, owned: true }),
            Some(holder) => Err(Blocked::new(
                Reason::SubnetUnavailable,
                format!(
                    "spec.network.subnet: {subnet} overlaps {holder}; choose another range, or leave it out to have a free one picked"
                ),
            )),
        };
    }
    let pool: Vec<Ipv4Net> =
        input.settings.subnet_pool.iter().filter_map(|range| range.subnets(24).ok()).flatten().collect();
    let own = input.own_ranges();
    rotated(&pool, hash::number(&input.identity.uid))
        .find(|subnet| holder_of(*subnet, host).is_none() && !own.iter().any(|range| overlap(*range, *subnet)))
        .map(|subnet| RecordedNetwork { name, subnet, owned: true })
        .ok_or_else(|| {
            Blocked::new(
                Reason::SubnetUnavailable,
                format!(
                    "no /24 is free in {:?}; remove unused Docker networks, or set --subnet-pool to a range that the Docker host does not route",
                    input.settings.subnet_pool
                ),
            )
        })
}

/// Who has addresses of `subnet`, in words.
fn holder_of(subnet: Ipv4Net, host: &HostFacts) -> Option<String> {
    let network = host.networks.iter().find(|n| n.subnet.is_some_and(|s| overlap(s, subnet)));
    let route = host.routes.iter().find(|r| overlap(**r, subnet));
    let refused = host.refused_subnets.iter().find(|r| overlap(**r, subnet));
    network
        .map(|n| format!("Docker network {}", n.name))
        .or_else(|| route.map(|r| format!("the Docker host's own route to {r}")))
        .or_else(|| refused.map(|r| format!("{r}, which Docker refused")))
}

/// Who of others holds `port` of the Docker host, in words.
fn container_with(port: u16, protocol: Protocol, input: &Input, host: &HostFacts) -> Option<String> {
    let holds = |c: &&Container| c.ports.iter().any(|p| p.port == port && p.protocol == protocol);
    let holder = host.containers.iter().filter(|c| !input.identity.owns(&c.labels)).find(holds)?;
    Some(format!("container {}", holder.name))
}

/// Whether Docker's `message` names the port.
pub fn names_port(message: &str, port: u16) -> bool {
    message.split(|c: char| !c.is_ascii_digit()).any(|number| number.parse() == Ok(port))
}

/// What it means that Docker refused a port that the spec asks for, in the words `message`: which
/// field asks for it, and who has it.
pub fn port_taken(input: &Input, host: &HostFacts, message: &str) -> Option<Blocked> {
    let claim = port_claims(&input.spec).into_iter().find(|claim| names_port(message, claim.host_port))?;
    let holder = container_with(claim.host_port, claim.protocol, input, host)
        .unwrap_or_else(|| "a process of the Docker host".into());
    Some(Blocked::new(
        Reason::PortTaken,
        format!(
            "{}: {} is in use by {holder}; stop what uses it, or choose another port",
            claim.field, claim.host_port
        ),
    ))
}

fn allocate_port(input: &Input, host: &HostFacts) -> Result<u16, Blocked> {
    let holder = |port: u16| {
        container_with(port, Protocol::Tcp, input, host)
            .or_else(|| host.refused_ports.contains(&port).then(|| "a process of the Docker host".to_owned()))
    };
    if let Some(port) = input.spec.api.as_ref().and_then(|api| api.host_port) {
        return match holder(port) {
            None => Ok(port),
            Some(holder) => Err(Blocked::new(
                Reason::PortTaken,
                format!(
                    "spec.api.hostPort: {port} is in use by {holder}; choose another port, or leave it out to have a free one picked"
                ),
            )),
        };
    }
    let claimed: BTreeSet<u16> = port_claims(&input.spec).iter().map(|claim| claim.host_port).collect();
    let (first, last) = input.settings.api_ports;
    let range: Vec<u16> = (first..=last).collect();
    rotated(&range, hash::number(&input.identity.uid))
        .find(|port| !claimed.contains(port) && holder(*port).is_none())
        .ok_or_else(|| {
            Blocked::new(
                Reason::PortTaken,
                format!("no port from {first} to {last} is free for the API; widen --api-ports"),
            )
        })
}

/// The items of `all`, beginning at a place that `seed` decides.
fn rotated<T: Copy>(all: &[T], seed: u64) -> impl Iterator<Item = T> + '_ {
    let start = if all.is_empty() { 0 } else { (seed % all.len() as u64) as usize };
    all[start..].iter().chain(&all[..start]).copied()
}

/// Address `n` of a range, counted from its network address.
pub(crate) fn nth_address(subnet: Ipv4Net, n: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(subnet.network()).wrapping_add(n))
}

/// Addresses of the network called `network` that are not to be pinned: those that any container
/// has or was given, the gateway's, and the part that Docker gives out by itself.
pub fn addresses_in(host: &HostFacts, network: &str) -> BTreeSet<Ipv4Addr> {
    let given = host.containers.iter().filter_map(|c| c.networks.get(network));
    let mut taken: BTreeSet<Ipv4Addr> = given.flat_map(|a| [a.address, a.pinned]).flatten().collect();
    for network in host.networks.iter().filter(|n| n.name == network) {
        let first = network.subnet.map(|subnet| nth_address(subnet, 1));
        taken.extend(network.gateway.or(first));
        let given_out = network.ip_range.filter(|range| Some(*range) != network.subnet);
        taken.extend(given_out.iter().flat_map(|range| {
            (u32::from(range.network())..=u32::from(range.broadcast())).map(Ipv4Addr::from)
        }));
    }
    taken
}

/// An address of a network that others use, too, and that is not among `taken`.
pub fn pick_address(network: &Network, taken: &BTreeSet<Ipv4Addr>, seed: &str) -> Option<Ipv4Addr> {
    shared_addresses(network.subnet?, seed).find(|address| !taken.contains(address))
}

/// Addresses to pin in a network that others use, too, best first. Docker gives out from the bottom
/// up: so from the upper half, beginning at a place that `seed` decides, then from the lower one
/// downwards.
pub(crate) fn shared_addresses(subnet: Ipv4Net, seed: &str) -> impl Iterator<Item = Ipv4Addr> {
    let (first, last) = (u32::from(subnet.network()) + 2, u32::from(subnet.broadcast()) - 1);
    let middle = first.midpoint(last);
    let upper: Vec<u32> = (middle..=last).rev().collect();
    let start = (hash::number(seed) % upper.len().max(1) as u64) as usize;
    let rotated: Vec<u32> = upper[start..].iter().chain(&upper[..start]).copied().collect();
    rotated.into_iter().chain((first..middle).rev()).map(Ipv4Addr::from)
}

/// The ranges in the text of a Linux `/proc/net/route`, without the default route.
pub fn parse_routes(table: &str) -> Vec<Ipv4Net> {
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            let (_interface, destination) = (fields.next()?, fields.next()?);
            let mask = fields.nth(5)?;
            // The kernel prints network byte order as a host integer.
            let number =
                |hex: &str| u32::from_str_radix(hex, 16).ok().map(|n| Ipv4Addr::from(n.swap_bytes()));
            Ipv4Net::with_netmask(number(destination)?, number(mask)?).ok()
        })
        .filter(|net| net.prefix_len() > 0)
        .collect()
}

impl Input {
    /// Ranges that Pods and Services of this cluster use.
    fn own_ranges(&self) -> Vec<Ipv4Net> {
        let k3s = self.spec.k3s.clone().unwrap_or_default();
        [
            k3s.cluster_cidr.unwrap_or_else(|| "10.42.0.0/16".into()),
            k3s.service_cidr.unwrap_or_else(|| "10.43.0.0/16".into()),
        ]
        .iter()
        .filter_map(|text| text.parse().ok())
        .collect()
    }
}

/// The IPv4 form of an address that the schema has checked; loopback for what it let pass.
pub(crate) fn ipv4(text: &str) -> Ipv4Addr {
    match text.parse() {
        Ok(IpAddr::V4(address)) => address,
        _ => Ipv4Addr::LOCALHOST,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_read_as_the_kernel_prints_them() {
        let table = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
             eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
             docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n\
             eth0\t0000000A\t00000000\t0001\t0\t0\t0\t000000FF\t0\t0\t0\n";
        assert_eq!(parse_routes(table), ["172.17.0.0/16".parse().unwrap(), "10.0.0.0/8".parse().unwrap()]);
    }

    #[test]
    fn addresses_in_shared_networks_avoid_what_docker_gives_out() {
        let network = Network {
            id: "n".into(),
            name: "n".into(),
            labels: Default::default(),
            subnet: Some("10.0.0.0/24".parse().unwrap()),
            gateway: Some("10.0.0.1".parse().unwrap()),
            ip_range: Some("10.0.0.128/25".parse().unwrap()),
            created: jiff::Timestamp::UNIX_EPOCH,
        };
        let mut host = HostFacts { networks: vec![network.clone()], ..HostFacts::default() };
        let pick =
            |host: &HostFacts| pick_address(&host.networks[0], &addresses_in(host, "n"), "uid").unwrap();
        assert_eq!(pick(&host), "10.0.0.127".parse::<Ipv4Addr>().unwrap());

        host.networks[0].ip_range = None;
        let first = pick(&host);
        assert!(first >= "10.0.0.128".parse::<Ipv4Addr>().unwrap(), "{first}");
        host.networks[0].gateway = Some(first);
        assert_ne!(pick(&host), first);
    }
}
