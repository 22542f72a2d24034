//! What Docker is asked for when a container is made.

use std::collections::{BTreeMap, HashMap};

use bollard::models::{
    ContainerCreateBody, DeviceRequest, EndpointIpamConfig, EndpointSettings, HostConfig,
    HostConfigLogConfig, Mount as DockerMount, MountBindOptions, MountBindOptionsPropagationEnum, MountType,
    MountVolumeOptions, NetworkingConfig, PortBinding, PortMap, ResourcesUlimits, RestartPolicy,
    RestartPolicyNameEnum,
};

use crate::{
    api::{HostAlias, Ulimit, label},
    engine::{Command, Probe},
    plan::{ContainerWant, Gpus, Limits, Mount, MountSource, Publish},
};

/// Seconds that Docker gives a container to stop by itself where nobody says otherwise, as when
/// dockerd goes down: time for k3s to close its database.
const STOP_SECONDS: i64 = 30;

/// The container of `want`, in its own network only.
pub(super) fn container(want: &ContainerWant, command: &Command) -> ContainerCreateBody {
    let ContainerWant {
        name: _,
        kind: _,
        image,
        hostname,
        env,
        labels,
        mounts,
        tmpfs,
        ports,
        limits: Limits { memory, millicores, gpus },
        ulimits,
        host_aliases,
        dns,
        network,
        address,
        guest: _,
        privileged,
        runtime,
    } = want;
    ContainerCreateBody {
        image: Some(image.clone()),
        hostname: Some(hostname.clone()),
        env: Some(env.iter().map(|(name, value)| format!("{name}={}", value.expose())).collect()),
        entrypoint: some_unless_empty(&command.entrypoint),
        cmd: some_unless_empty(&command.args),
        labels: Some(labels.clone().into_iter().collect()),
        exposed_ports: Some(ports.iter().map(port_key).collect()),
        // Not the image's: nginx asks for SIGQUIT, which waits until the last client has gone.
        stop_signal: Some("SIGTERM".into()),
        stop_timeout: Some(STOP_SECONDS),
        host_config: Some(HostConfig {
            mounts: Some(mounts.iter().map(|m| mount(m, labels)).collect()),
            tmpfs: Some(tmpfs.iter().map(|path| (path.clone(), String::new())).collect()),
            port_bindings: Some(port_bindings(ports)),
            network_mode: Some(network.clone()),
            restart_policy: Some(RestartPolicy {
                name: Some(RestartPolicyNameEnum::UNLESS_STOPPED),
                maximum_retry_count: None,
            }),
            privileged: Some(*privileged),
            userns_mode: privileged.then(|| "host".into()),
            runtime: runtime.clone(),
            memory: memory.map(saturated),
            // The sum of memory and swap: so no swap, which the kubelet would not know of.
            memory_swap: memory.map(saturated),
            nano_cpus: millicores.map(|millis| saturated(millis.saturating_mul(1_000_000))),
            device_requests: gpus.map(|gpus| vec![gpu_request(gpus)]),
            ulimits: (!ulimits.is_empty()).then(|| ulimits.iter().map(ulimit).collect()),
            extra_hosts: (!host_aliases.is_empty()).then(|| extra_hosts(host_aliases)),
            dns: (!dns.is_empty()).then(|| dns.iter().map(ToString::to_string).collect()),
            log_config: Some(logging()),
            auto_remove: Some(false),
            ..HostConfig::default()
        }),
        networking_config: Some(NetworkingConfig {
            endpoints_config: Some([(network.clone(), pinned(address))].into()),
        }),
        ..ContainerCreateBody::default()
    }
}

fn saturated(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// As `docker run --gpus` asks: of whichever driver has the capability.
fn gpu_request(gpus: Gpus) -> DeviceRequest {
    let count = match gpus {
        Gpus::All => -1,
        Gpus::Count(count) => i64::from(count),
    };
    DeviceRequest {
        count: Some(count),
        capabilities: Some(vec![vec!["gpu".into()]]),
        ..DeviceRequest::default()
    }
}

fn ulimit(limit: &Ulimit) -> ResourcesUlimits {
    let Ulimit { name, soft, hard } = limit.clone();
    ResourcesUlimits { name: Some(name), soft: Some(soft), hard: Some(hard) }
}

fn extra_hosts(aliases: &[HostAlias]) -> Vec<String> {
    let lines = aliases.iter().flat_map(|alias| alias.hostnames.iter().map(move |name| (name, &alias.ip)));
    lines.map(|(name, ip)| format!("{name}:{ip}")).collect()
}

/// A container in the host's network that runs a script once.
pub(super) fn probe(probe: &Probe) -> ContainerCreateBody {
    let Probe { name: _, image, script, labels, volumes } = probe;
    let mounts = volumes.iter().map(|(volume, target)| DockerMount {
        target: Some(target.clone()),
        read_only: Some(true),
        ..volume_mount(&volume.name, volume.labels.clone().into_iter().collect())
    });
    ContainerCreateBody {
        image: Some(image.clone()),
        entrypoint: Some(vec!["/bin/sh".into(), "-c".into(), script.clone()]),
        // An empty command replaces the image's.
        cmd: Some(Vec::new()),
        labels: Some(labels.clone().into_iter().collect()),
        host_config: Some(HostConfig {
            network_mode: Some("host".into()),
            mounts: Some(mounts.collect()),
            restart_policy: Some(RestartPolicy {
                name: Some(RestartPolicyNameEnum::NO),
                maximum_retry_count: None,
            }),
            log_config: Some(logging()),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    }
}

/// A place in a network, at an address for good.
pub(super) fn pinned(address: &std::net::Ipv4Addr) -> EndpointSettings {
    EndpointSettings {
        ipam_config: Some(EndpointIpamConfig {
            ipv4_address: Some(address.to_string()),
            ..EndpointIpamConfig::default()
        }),
        ..EndpointSettings::default()
    }
}

/// A node's log can grow for years: bounded to 30 MB. Named, since `docker logs` and ours need a
/// driver that can be read, whatever the engine's default is.
fn logging() -> HostConfigLogConfig {
    HostConfigLogConfig {
        typ: Some("json-file".into()),
        config: Some([("max-size".into(), "10m".into()), ("max-file".into(), "3".into())].into()),
    }
}

fn some_unless_empty(words: &[String]) -> Option<Vec<String>> {
    (!words.is_empty()).then(|| words.to_vec())
}

fn mount(mount: &Mount, container: &BTreeMap<String, String>) -> DockerMount {
    let Mount { source, target, read_only } = mount;
    let common =
        DockerMount { target: Some(target.clone()), read_only: Some(*read_only), ..DockerMount::default() };
    match source {
        // Docker makes a volume that is not there. Should one have gone since the plan was made, its
        // successor is at least known as the cluster's, and goes with it.
        MountSource::Volume(name) => DockerMount {
            target: common.target,
            read_only: common.read_only,
            ..volume_mount(name, owner(container))
        },
        MountSource::Host(path) => DockerMount {
            typ: Some(MountType::BIND),
            source: Some(path.clone()),
            bind_options: Some(MountBindOptions {
                // Mounts made in the container never reach the host, nor the other way.
                propagation: Some(MountBindOptionsPropagationEnum::RPRIVATE),
                ..MountBindOptions::default()
            }),
            ..common
        },
    }
}

/// A volume, made with `labels` if it is not there.
fn volume_mount(name: &str, labels: HashMap<String, String>) -> DockerMount {
    DockerMount {
        typ: Some(MountType::VOLUME),
        source: Some(name.to_owned()),
        volume_options: Some(MountVolumeOptions { labels: Some(labels), ..MountVolumeOptions::default() }),
        ..DockerMount::default()
    }
}

fn owner(labels: &BTreeMap<String, String>) -> HashMap<String, String> {
    [label::INSTANCE, label::OWNER, label::NAME, label::NAMESPACE]
        .into_iter()
        .filter_map(|key| Some((key.to_owned(), labels.get(key)?.clone())))
        .collect()
}

fn port_key(publish: &Publish) -> String {
    format!("{}/{}", publish.port, publish.protocol.as_str())
}

/// By port of the container, which may be published more than once.
fn port_bindings(ports: &[Publish]) -> PortMap {
    let mut bindings = PortMap::new();
    for publish in ports {
        bindings.entry(port_key(publish)).or_default().get_or_insert_default().push(PortBinding {
            host_ip: Some(publish.host_ip.to_string()),
            host_port: Some(publish.host_port.to_string()),
        });
    }
    bindings
}
