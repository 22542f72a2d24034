//! The load balancer: its ports, what it forwards, and what its hash covers.

use std::net::Ipv4Addr;

use serde::Serialize;

use super::API_PORT;
use crate::{
    api::{PortMapping, PortTarget, Protocol, Role, label},
    plan::{
        BalancerConfig, ContainerKind, ContainerWant, Forward, Input, InternalAccess, Limits, Member,
        Publish, Record,
        allocate::{ipv4, nth_address},
        hash,
    },
};

/// First port inside the load balancer's container for forwarded ports.
const FORWARD_BASE: u16 = 10000;

/// What the load balancer's hash covers: what a running container cannot be given anew. Where it
/// forwards to is not among it, since nginx takes that over while it runs.
#[derive(Serialize)]
struct BalancerInputs<'a> {
    image: &'a str,
    ports: Vec<(Ipv4Addr, u16, u16, Protocol)>,
    guest: Option<String>,
    dns: &'a [Ipv4Addr],
}

pub(super) fn load_balancer(
    input: &Input,
    record: &Record,
    servers: &[Member],
    agents: &[Member],
) -> ContainerWant {
    let image = input.load_balancer_image(&record.load_balancer_image);
    let addresses = |members: &[Member]| members.iter().map(|m| m.address).collect::<Vec<Ipv4Addr>>();
    let (servers, agents) = (addresses(servers), addresses(agents));
    let api = input.spec.api.clone().unwrap_or_default();
    let publish = |host_ip, host_port, port, protocol| Publish { host_ip, host_port, port, protocol };

    let mut ports = vec![publish(ipv4(api.host_ip()), record.api_port, API_PORT, Protocol::Tcp)];
    if input.internal == InternalAccess::Gateway && record.network.owned && api.host_ip() != "0.0.0.0" {
        let gateway = nth_address(record.network.subnet, 1);
        ports.push(publish(gateway, record.api_port, API_PORT, Protocol::Tcp));
    }
    let mut wanted: Vec<&PortMapping> = input.forwards().iter().collect();
    wanted.sort_by_key(|p| (p.host_port, p.protocol));
    let mut forwards = Vec::new();
    for (listen, port) in (FORWARD_BASE..).zip(wanted) {
        let host_ip = port.host_ip.as_deref().map_or(Ipv4Addr::UNSPECIFIED, ipv4);
        ports.push(publish(host_ip, port.host_port, listen, port.protocol));
        let to = match port.to {
            PortTarget::Servers => servers.clone(),
            PortTarget::Agents => agents.clone(),
            PortTarget::All => [&servers[..], &agents].concat(),
        };
        forwards.push(Forward { listen, protocol: port.protocol, port: port.port, to });
    }

    let name = format!("{}-lb", input.identity.name);
    let mut labels = input.identity.labels(Role::LoadBalancer);
    let dns = input.name_servers();
    labels.insert(label::RECORD.into(), record.to_label());
    labels.insert(
        label::HASH.into(),
        hash::of(&BalancerInputs {
            image: &image,
            ports: ports.iter().map(|p| (p.host_ip, p.host_port, p.port, p.protocol)).collect(),
            guest: record.guest.as_ref().map(|g| format!("{}/{}", g.network, g.address)),
            dns: &dns,
        }),
    );
    ContainerWant {
        name: input.identity.object_name(&name),
        hostname: name,
        image,
        env: Vec::new(),
        labels,
        mounts: Vec::new(),
        tmpfs: Vec::new(),
        ports,
        network: record.network.name.clone(),
        address: record.load_balancer,
        guest: record.guest.clone(),
        privileged: false,
        runtime: None,
        limits: Limits::default(),
        ulimits: Vec::new(),
        host_aliases: Vec::new(),
        dns,
        kind: ContainerKind::LoadBalancer(BalancerConfig { servers, forwards }),
    }
}
