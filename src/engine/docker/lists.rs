//! What exists, translated into plain data.

use std::{
    collections::{BTreeMap, HashMap},
    net::Ipv4Addr,
};

use bollard::{
    models::{
        ContainerSummary, EndpointSettings, Network as DockerNetwork, PortSummary, PortSummaryTypeEnum,
        SystemInfo, SystemInfoCgroupVersionEnum, Volume as DockerVolume,
    },
    query_parameters::{ListContainersOptionsBuilder, ListNetworksOptionsBuilder, ListVolumesOptionsBuilder},
};
use jiff::Timestamp;

use super::{Docker, failure::Call, limits};
use crate::{
    api::Protocol,
    engine::{Result, Scope},
    plan::{Attachment, Container, ContainerState, EngineInfo, HostPort, Network, Volume},
};

pub(super) type Filters = HashMap<String, Vec<String>>;

pub(super) async fn ping(docker: &Docker) -> Result<()> {
    let call = Call::new("ask", "Docker", "whether it is there");
    docker.call(&call, limits::QUESTION, |client| async move { client.ping().await.map(drop) }).await
}

pub(super) async fn info(docker: &Docker) -> Result<EngineInfo> {
    let call = Call::new("ask", "Docker", "who it is");
    let info = docker.call(&call, limits::QUESTION, |client| async move { client.info().await }).await?;
    Ok(engine(info))
}

pub(crate) fn engine(info: SystemInfo) -> EngineInfo {
    let mut runtimes: Vec<_> = info.runtimes.unwrap_or_default().into_keys().collect();
    runtimes.sort();
    let positive = |number: Option<i64>| number.and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0);
    let pairs = info.driver_status.unwrap_or_default().into_iter();
    // As in name=seccomp,profile=builtin.
    let name =
        |option: String| option.split(',').find_map(|part| Some(part.strip_prefix("name=")?.to_owned()));
    EngineInfo {
        id: info.id.unwrap_or_default(),
        cgroup_version: if info.cgroup_version == Some(SystemInfoCgroupVersionEnum::_2) { 2 } else { 1 },
        runtimes,
        system: info.operating_system.unwrap_or_default(),
        kernel: info.kernel_version.unwrap_or_default(),
        cpus: positive(info.ncpu),
        memory: positive(info.mem_total),
        root: info.docker_root_dir.unwrap_or_default(),
        time: info.system_time.and_then(|time| time.parse().ok()),
        driver: info.driver.unwrap_or_default(),
        driver_status: pairs
            .filter_map(|pair| {
                let mut words = pair.into_iter();
                Some((words.next()?, words.next()?))
            })
            .collect(),
        security: info.security_options.unwrap_or_default().into_iter().filter_map(name).collect(),
    }
}

pub(super) async fn containers(docker: &Docker, scope: &Scope) -> Result<Vec<Container>> {
    containers_with(docker, &filters(scope)).await
}

/// The container with this whole id.
pub(super) async fn container_of(docker: &Docker, id: &str) -> Result<Option<Container>> {
    let filters = [("id".to_owned(), vec![id.to_owned()])].into();
    // Docker's filter also finds ids that begin so.
    Ok(containers_with(docker, &filters).await?.into_iter().find(|container| container.id == id))
}

async fn containers_with(docker: &Docker, filters: &Filters) -> Result<Vec<Container>> {
    let options = ListContainersOptionsBuilder::new().all(true).filters(filters).build();
    let call = Call::new("list", "containers", "");
    let list = docker
        .call(&call, limits::QUESTION, |client| async move { client.list_containers(Some(options)).await })
        .await?;
    Ok(list.into_iter().map(container).collect())
}

pub(super) async fn volumes(docker: &Docker, scope: &Scope) -> Result<Vec<Volume>> {
    let options = ListVolumesOptionsBuilder::new().filters(&filters(scope)).build();
    let call = Call::new("list", "volumes", "");
    let list = docker
        .call(&call, limits::QUESTION, |client| async move { client.list_volumes(Some(options)).await })
        .await?;
    Ok(list.volumes.unwrap_or_default().into_iter().map(volume).collect())
}

pub(super) async fn networks(docker: &Docker, scope: &Scope) -> Result<Vec<Network>> {
    networks_with(docker, &filters(scope)).await
}

pub(super) async fn networks_with(docker: &Docker, filters: &Filters) -> Result<Vec<Network>> {
    let options = ListNetworksOptionsBuilder::new().filters(filters).build();
    let call = Call::new("list", "networks", "");
    let list = docker
        .call(&call, limits::QUESTION, |client| async move { client.list_networks(Some(options)).await })
        .await?;
    Ok(list.into_iter().map(network).collect())
}

fn filters(scope: &Scope) -> Filters {
    match scope {
        Scope::Labels(labels) => [("label".to_owned(), labels.clone())].into(),
        Scope::Everything => Filters::new(),
    }
}

fn container(summary: ContainerSummary) -> Container {
    let networks = summary.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
    let mut ports: Vec<_> = summary.ports.unwrap_or_default().iter().filter_map(host_port).collect();
    ports.sort();
    Container {
        id: summary.id.unwrap_or_default(),
        // Names of links are longer paths; the container's own is the one without a second slash.
        name: summary
            .names
            .unwrap_or_default()
            .iter()
            .filter_map(|name| name.strip_prefix('/'))
            .find(|name| !name.contains('/'))
            .unwrap_or_default()
            .to_owned(),
        image: summary.image.unwrap_or_default(),
        state: ContainerState::parse(&summary.state.map(|state| state.to_string()).unwrap_or_default()),
        status: summary.status.unwrap_or_default(),
        labels: labels(summary.labels),
        created: Timestamp::from_second(summary.created.unwrap_or_default()).unwrap_or(Timestamp::UNIX_EPOCH),
        networks: networks.into_iter().map(|(name, endpoint)| (name, attachment(&endpoint))).collect(),
        ports,
    }
}

fn attachment(endpoint: &EndpointSettings) -> Attachment {
    let parse = |text: &Option<String>| text.as_deref().and_then(|address| address.parse::<Ipv4Addr>().ok());
    Attachment {
        address: parse(&endpoint.ip_address),
        pinned: endpoint.ipam_config.as_ref().and_then(|config| parse(&config.ipv4_address)),
    }
}

/// A port that is published on IPv4; the IPv6 twin that Docker lists beside it says nothing new.
fn host_port(port: &PortSummary) -> Option<HostPort> {
    Some(HostPort {
        ip: port.ip.as_deref()?.parse().ok()?,
        port: port.public_port?,
        protocol: match port.typ? {
            PortSummaryTypeEnum::TCP => Protocol::Tcp,
            PortSummaryTypeEnum::UDP => Protocol::Udp,
            _ => return None,
        },
    })
}

pub(super) fn volume(volume: DockerVolume) -> Volume {
    Volume { name: volume.name, labels: labels(Some(volume.labels)) }
}

fn network(network: DockerNetwork) -> Network {
    let ranges = network.ipam.and_then(|ipam| ipam.config).unwrap_or_default();
    let range = ranges
        .into_iter()
        .find(|range| range.subnet.as_deref().is_some_and(|subnet| !subnet.contains(':')))
        .unwrap_or_default();
    Network {
        id: network.id.unwrap_or_default(),
        name: network.name.unwrap_or_default(),
        labels: labels(network.labels),
        subnet: range.subnet.and_then(|subnet| subnet.parse().ok()),
        // Older engines write it with the length of the prefix.
        gateway: range.gateway.and_then(|gateway| gateway.split('/').next()?.parse().ok()),
        ip_range: range.ip_range.and_then(|range| range.parse().ok()),
        created: network.created.and_then(|created| created.parse().ok()).unwrap_or(Timestamp::UNIX_EPOCH),
    }
}

fn labels(labels: Option<HashMap<String, String>>) -> BTreeMap<String, String> {
    labels.unwrap_or_default().into_iter().collect()
}
