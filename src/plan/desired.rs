//! What should exist: spec, looked-up values and record → every network, volume and container,
//! wanted exactly.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use ipnet::Ipv4Net;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{
    BalancerConfig, ContainerKind, ContainerWant, Desired, EngineInfo, FileWant, Forward, Images, Input,
    InternalAccess, Member, Mount, MountSource, NetworkWant, Observed, Publish, Record, Sensitive,
    ServerConfig, VolumeWant,
    allocate::{ipv4, nth_address, shared_addresses},
    hash,
};
use crate::api::{
    ApiSpec, Blocked, EnvVar, NodeDefaults, NodeFile, PortMapping, PortTarget, Protocol, Reason, Role, label,
};

/// Volumes of every node: those that the image declares (k3s's package/Dockerfile), and the node
/// password's directory, which k3s needs again when a container is made anew.
const NODE_VOLUMES: [(&str, &str); 5] = [
    ("data", "/var/lib/rancher/k3s"),
    ("kubelet", "/var/lib/kubelet"),
    ("cni", "/var/lib/cni"),
    ("log", "/var/log"),
    ("node", "/etc/rancher/node"),
];

/// Port of the API inside the containers.
pub const API_PORT: u16 = 6443;

/// First port inside the load balancer's container for forwarded ports.
const FORWARD_BASE: u16 = 10000;

/// The pool of the control plane.
pub const SERVER_POOL: &str = "server";

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
    let servers = members(input, record, observed, taken)?;
    let mut want = Desired {
        record: record.clone(),
        network: network(input, record),
        volumes: Vec::new(),
        containers: Vec::new(),
    };
    for member in &servers {
        let server = Server { input, engine, record, member, node: input.spec.server_settings() };
        want.volumes.extend(server.volumes(images));
        want.containers.push(server.container(images)?);
    }
    want.containers.push(load_balancer(input, record, &servers));
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
        NetworkWant {
            name: recorded.name.clone(),
            subnet,
            gateway: nth_address(subnet, 1),
            ip_range: Ipv4Net::new(nth_address(subnet, 1 << (32 - half)), half).unwrap_or(subnet),
            labels: input.identity.labels(Role::Network),
        }
    })
}

/// The servers: those born already keep their addresses, the others get the lowest free ones.
fn members(
    input: &Input,
    record: &Record,
    observed: &Observed,
    taken: &BTreeSet<Ipv4Addr>,
) -> Result<Vec<Member>, Blocked> {
    let born = observed.members();
    if record.initialised && !born.iter().any(|m| m.pool == SERVER_POOL) {
        return Err(Blocked::new(
            Reason::DataLost,
            "no server's data volume is left, and the cluster is not started empty in its place; delete it and create it again, or restore the volumes",
        ));
    }
    let mut used: BTreeSet<Ipv4Addr> = born.iter().map(|m| m.address).chain([record.load_balancer]).collect();
    used.extend(taken);
    let subnet = record.network.subnet;
    let lower_half = 1u32 << (31 - subnet.prefix_len());
    let candidates: Vec<Ipv4Addr> = if record.network.owned {
        (3..lower_half).map(|n| nth_address(subnet, n)).collect()
    } else {
        shared_addresses(subnet, &input.identity.uid).collect()
    };
    (0..input.spec.servers.replicas)
        .map(|index| {
            if let Some(member) = born.iter().find(|m| m.pool == SERVER_POOL && m.index == index) {
                return Ok(member.clone());
            }
            let address = candidates.iter().copied().find(|a| !used.contains(a)).ok_or_else(|| {
                Blocked::new(
                    Reason::NetworkUnusable,
                    format!("network {} has no free address left", record.network.name),
                )
            })?;
            used.insert(address);
            Ok(Member { pool: SERVER_POOL.into(), index, address })
        })
        .collect()
}

/// One server on its way to a container.
struct Server<'a> {
    input: &'a Input,
    engine: &'a EngineInfo,
    record: &'a Record,
    member: &'a Member,
    node: NodeDefaults,
}

/// What a server's hash covers.
#[derive(Serialize)]
struct ServerInputs<'a> {
    image: &'a str,
    k3s: Value,
    tls_sans: Vec<String>,
    args: &'a [String],
    config: &'a Map<String, Value>,
    env: Vec<(&'a str, String)>,
    files: Vec<(&'a str, u32, String)>,
    volumes: Value,
}

impl Server<'_> {
    fn name(&self) -> String {
        self.input.identity.node_name(&self.member.pool, self.member.index)
    }

    fn volume_name(&self, what: &str) -> String {
        self.input.identity.object_name(&format!("{}-{what}", self.name()))
    }

    /// Mounts of the node's own volumes: the known ones and whatever else its image declares.
    fn own_mounts(&self, images: &Images) -> Vec<(String, String)> {
        let mut mounts: Vec<(String, String)> = NODE_VOLUMES
            .iter()
            .map(|(what, target)| (self.volume_name(what), (*target).to_owned()))
            .collect();
        let declared = images.get(&self.input.node_image(&self.record.node_image)).into_iter().flatten();
        for target in declared.filter(|t| !NODE_VOLUMES.iter().any(|(_, known)| known == t)) {
            if !self.node.volumes.iter().any(|v| v.target == *target) {
                // Named after the path, not counted: the next image may declare others before it.
                let path = hash::number(target) >> 32;
                mounts.push((self.volume_name(&format!("image-{path:08x}")), target.clone()));
            }
        }
        mounts
    }

    fn user_volume(&self, name: &str) -> String {
        self.input.identity.object_name(&format!("{}-vol-{name}", self.input.identity.name))
    }

    fn volumes(&self, images: &Images) -> Vec<VolumeWant> {
        let identity = &self.input.identity;
        let own = self.own_mounts(images).into_iter().map(|(name, target)| {
            let role = if target == NODE_VOLUMES[0].1 { Role::Data } else { Role::Volume };
            let mut labels = identity.labels(role);
            labels.extend(self.node_labels());
            labels.insert(label::ADDRESS.into(), self.member.address.to_string());
            labels.insert(label::TARGET.into(), target);
            VolumeWant { name, labels }
        });
        let user = self.node.volumes.iter().filter_map(|v| v.name.as_deref()).map(|name| VolumeWant {
            name: self.user_volume(name),
            labels: identity.labels(Role::UserVolume),
        });
        own.chain(user).collect()
    }

    fn node_labels(&self) -> BTreeMap<String, String> {
        [
            (label::NODE, self.name()),
            (label::POOL, self.member.pool.clone()),
            (label::INDEX, self.member.index.to_string()),
        ]
        .into_iter()
        .map(|(k, v)| (k.to_owned(), v))
        .collect()
    }

    fn container(&self, images: &Images) -> Result<ContainerWant, Blocked> {
        let input = self.input;
        let image = input.node_image(&self.record.node_image);
        let env = self.node.env.iter().map(|e| self.env(e)).collect::<Result<Vec<_>, _>>()?;
        let files = self.node.files.iter().map(|f| self.file(f)).collect::<Result<Vec<_>, _>>()?;
        let mut labels = input.identity.labels(Role::Server);
        labels.extend(self.node_labels());
        labels.insert(label::HASH.into(), self.hash(&image, &env, &files));

        let own = self.own_mounts(images).into_iter().map(|(name, target)| Mount {
            source: MountSource::Volume(name),
            target,
            read_only: false,
        });
        let user = self.node.volumes.iter().map(|v| Mount {
            source: match (&v.name, &v.host_path) {
                (Some(name), _) => MountSource::Volume(self.user_volume(name)),
                (None, path) => MountSource::Host(path.clone().unwrap_or_default()),
            },
            target: v.target.clone(),
            read_only: v.read_only,
        });
        Ok(ContainerWant {
            name: input.identity.object_name(&self.name()),
            hostname: self.name(),
            env,
            labels,
            mounts: own.chain(user).collect(),
            tmpfs: vec!["/run".into(), "/var/run".into()],
            ports: Vec::new(),
            network: self.record.network.name.clone(),
            address: self.member.address,
            guest: None,
            privileged: true,
            runtime: self.engine.node_runtime(),
            kind: ContainerKind::Server(Box::new(ServerConfig {
                node_name: self.name(),
                node_ip: self.member.address,
                flags: self.flags(),
                config: self.node.config.clone(),
                args: self.node.args.clone(),
                files,
                resolver: self.record.load_balancer,
                labels: self.node.labels.clone(),
                taints: self.node.taints.clone(),
            })),
            image,
        })
    }

    fn hash(&self, image: &str, env: &[(String, Sensitive<String>)], files: &[FileWant]) -> String {
        let secret = |text: &[u8]| hash::mac(&self.record.salt, text);
        hash::of(&ServerInputs {
            image,
            k3s: json!(self.input.spec.k3s.clone().unwrap_or_default()),
            tls_sans: self.input.user_sans(),
            args: &self.node.args,
            config: &self.node.config,
            env: env.iter().map(|(name, value)| (name.as_str(), secret(value.expose().as_bytes()))).collect(),
            files: files.iter().map(|f| (f.path.as_str(), f.mode, secret(f.content.expose()))).collect(),
            volumes: json!(self.node.volumes),
        })
    }

    fn env(&self, env: &EnvVar) -> Result<(String, Sensitive<String>), Blocked> {
        let value = match (&env.value, &env.value_from) {
            (Some(value), _) => value.clone(),
            (None, Some(source)) => {
                let bytes = self.input.values.get(source).ok_or_else(|| missing(&env.name))?;
                String::from_utf8(bytes.expose().clone()).map_err(|_| {
                    Blocked::new(
                        Reason::InvalidSpec,
                        format!("env {}: the value is not UTF-8 text", env.name),
                    )
                })?
            }
            (None, None) => String::new(),
        };
        Ok((env.name.clone(), Sensitive::new(value)))
    }

    fn file(&self, file: &NodeFile) -> Result<FileWant, Blocked> {
        let mode = file.mode.as_deref().and_then(|m| u32::from_str_radix(m, 8).ok()).unwrap_or(0o644);
        let content = match (&file.content, &file.content_from) {
            (Some(text), _) => text.clone().into_bytes(),
            (None, Some(source)) => {
                self.input.values.get(source).ok_or_else(|| missing(&file.path))?.expose().clone()
            }
            (None, None) => Vec::new(),
        };
        Ok(FileWant::new(&file.path, mode, content))
    }

    /// Keys of config.yaml that k3nest sets (https://docs.k3s.io/cli/server).
    fn flags(&self) -> Map<String, Value> {
        let spec = &self.input.spec;
        let k3s = spec.k3s.clone().unwrap_or_default();
        let mut flags = Map::new();
        let mut set = |key: &str, value: Value| flags.insert(key.to_owned(), value);
        if !self.record.initialised {
            set("cluster-init", json!(true));
        }
        set("node-name", json!(self.name()));
        set("node-ip", json!(self.member.address));
        set("tls-san", json!(self.input.sans(self.record)));
        set("write-kubeconfig-mode", json!("0600"));
        for (key, value) in [
            ("cluster-cidr", &k3s.cluster_cidr),
            ("service-cidr", &k3s.service_cidr),
            ("cluster-dns", &k3s.cluster_dns),
            ("cluster-domain", &k3s.cluster_domain),
        ] {
            if let Some(value) = value {
                set(key, json!(value));
            }
        }
        if let Some(backend) = k3s.flannel_backend {
            set("flannel-backend", json!(backend.as_str()));
        }
        if k3s.secrets_encryption == Some(true) {
            set("secrets-encryption", json!(true));
        }
        if !k3s.disable.is_empty() {
            set("disable", json!(k3s.disable));
        }
        // The kubelet of 1.35 and later refuses cgroup v1 unless told otherwise.
        if self.engine.cgroup_version == 1 && version_numbers(&spec.version).is_some_and(|v| v >= (1, 35, 0))
        {
            set("kubelet-arg", json!(["fail-cgroupv1=false"]));
        }
        flags
    }
}

fn missing(what: &str) -> Blocked {
    Blocked::new(
        Reason::ReferenceMissing,
        format!("{what}: its source was not looked up; this is a bug of k3nest"),
    )
}

/// What the load balancer's hash covers.
#[derive(Serialize)]
struct BalancerInputs<'a> {
    image: &'a str,
    ports: Vec<(Ipv4Addr, u16, u16, Protocol)>,
    guest: Option<String>,
}

fn load_balancer(input: &Input, record: &Record, servers: &[Member]) -> ContainerWant {
    let image = input.load_balancer_image(&record.load_balancer_image);
    let addresses: Vec<Ipv4Addr> = servers.iter().map(|m| m.address).collect();
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
            PortTarget::Servers | PortTarget::All => addresses.clone(),
        };
        forwards.push(Forward { listen, protocol: port.protocol, port: port.port, to });
    }

    let name = format!("{}-lb", input.identity.name);
    let mut labels = input.identity.labels(Role::LoadBalancer);
    let forwarded = forwards.iter().map(|f| f.port).collect::<Vec<_>>();
    labels.insert(
        label::HASH.into(),
        hash::of(&(
            BalancerInputs {
                image: &image,
                ports: ports.iter().map(|p| (p.host_ip, p.host_port, p.port, p.protocol)).collect(),
                guest: record.guest.as_ref().map(|g| format!("{}/{}", g.network, g.address)),
            },
            forwarded,
        )),
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
        kind: ContainerKind::LoadBalancer(BalancerConfig { servers: addresses, forwards }),
    }
}

impl Input {
    /// Full reference of the nodes' image, of the repository `default` where the spec names none. The tag is the version with "+" as "-", since a tag
    /// cannot hold a plus.
    pub fn node_image(&self, default: &str) -> String {
        let repository = self.spec.image.as_deref().unwrap_or(default);
        if repository.contains('@') {
            repository.to_owned()
        } else {
            format!("{repository}:{}", self.spec.version.replace('+', "-"))
        }
    }

    /// Reference of the load balancer's image; `default` where the spec names none.
    fn load_balancer_image(&self, default: &str) -> String {
        let own = self.spec.load_balancer.as_ref().and_then(|lb| lb.image.clone());
        own.unwrap_or_else(|| default.to_owned())
    }

    /// The ports that the user wants forwarded.
    pub fn forwards(&self) -> &[PortMapping] {
        self.spec.load_balancer.as_ref().map(|lb| lb.ports.as_slice()).unwrap_or_default()
    }

    /// The token, where it comes from a Secret.
    pub fn token(&self) -> Option<&Sensitive<Vec<u8>>> {
        self.values.0.get(&self.spec.token_secret_ref.as_ref()?.into())
    }

    /// Names and addresses that the user wants in the API's certificate.
    fn user_sans(&self) -> Vec<String> {
        let ApiSpec { host, tls_sans, .. } = self.spec.api.clone().unwrap_or_default();
        host.into_iter().chain(tls_sans).collect()
    }

    /// Everything that the API's certificate names: only what stays as it is for life.
    fn sans(&self, record: &Record) -> Vec<String> {
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
