//! A node, server or agent: its volumes, its container, and what its hash covers.

use std::{collections::BTreeMap, net::Ipv4Addr};

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{API_PORT, version_numbers};
use crate::{
    api::{
        Blocked, EnvVar, HostAlias, NodeDefaults, NodeFile, NodePort, NodeResources, Quantity, Reason, Role,
        Ulimit, label,
    },
    plan::{
        Begins, ContainerKind, ContainerWant, EngineInfo, FileWant, Gpus, Images, Input, Limits, Member,
        Mount, MountSource, NodeConfig, Observed, Publish, Record, Sensitive, VolumeWant, allocate::ipv4,
        hash,
    },
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

/// One node on its way to a container.
pub(super) struct Node<'a> {
    pub input: &'a Input,
    pub engine: &'a EngineInfo,
    pub record: &'a Record,
    pub member: &'a Member,
    /// [`Role::Server`] or [`Role::Agent`].
    pub role: Role,
    /// With everything inherited.
    pub settings: &'a NodeDefaults,
    /// Every server of the cluster.
    pub servers: &'a [Member],
}

/// What a node's hash covers. Labels and taints are kept on the live Node instead; how it joins is
/// none of the user's inputs.
#[derive(Serialize)]
struct NodeInputs<'a> {
    image: &'a str,
    /// Of servers alone: agents are not told.
    #[serde(skip_serializing_if = "Option::is_none")]
    control_plane: Option<(Value, Vec<String>)>,
    args: &'a [String],
    config: &'a Map<String, Value>,
    env: Vec<(&'a str, String)>,
    files: Vec<(&'a str, u32, String)>,
    volumes: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    resources: Option<Value>,
    ports: &'a [NodePort],
    ulimits: &'a [Ulimit],
    host_aliases: &'a [HostAlias],
    runtime: Option<&'a str>,
    dns: Vec<Ipv4Addr>,
}

impl Node<'_> {
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
            if !self.settings.volumes.iter().any(|v| v.target == *target) {
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

    pub fn volumes(&self, images: &Images) -> Vec<VolumeWant> {
        let identity = &self.input.identity;
        let own = self.own_mounts(images).into_iter().map(|(name, target)| {
            let role = if target == NODE_VOLUMES[0].1 { Role::Data } else { Role::Volume };
            let mut labels = identity.labels(role);
            labels.extend(self.node_labels());
            labels.insert(label::ADDRESS.into(), self.member.address.to_string());
            labels.insert(label::TARGET.into(), target);
            VolumeWant { name, labels }
        });
        let user = self.settings.volumes.iter().filter_map(|v| v.name.as_deref()).map(|name| VolumeWant {
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

    pub fn container(&self, images: &Images, observed: &Observed) -> Result<ContainerWant, Blocked> {
        let input = self.input;
        let image = input.node_image(&self.record.node_image);
        let (env, files, hash) = if self.knows_its_values() {
            let env = self.settings.env.iter().map(|e| self.env(e)).collect::<Result<Vec<_>, _>>()?;
            let files = self.settings.files.iter().map(|f| self.file(f)).collect::<Result<Vec<_>, _>>()?;
            let hash = self.hash(&image, &env, &files);
            (env, files, hash)
        } else {
            (Vec::new(), Vec::new(), self.hash_it_has(observed)?)
        };
        let mut labels = input.identity.labels(self.role);
        labels.extend(self.node_labels());
        labels.insert(label::HASH.into(), hash);
        labels.insert(label::RECORD.into(), self.record.to_label());
        labels.extend(self.epoch().map(|epoch| (label::EPOCH.to_owned(), epoch)));

        let own = self.own_mounts(images).into_iter().map(|(name, target)| Mount {
            source: MountSource::Volume(name),
            target,
            read_only: false,
        });
        let user = self.settings.volumes.iter().map(|v| Mount {
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
            ports: self.settings.ports.iter().map(publish).collect(),
            limits: limits(self.settings),
            ulimits: self.settings.ulimits.clone(),
            host_aliases: self.settings.host_aliases.clone(),
            dns: input.name_servers(),
            network: self.record.network.name.clone(),
            address: self.member.address,
            guest: None,
            privileged: true,
            runtime: self.settings.runtime.clone().or_else(|| self.engine.node_runtime()),
            kind: ContainerKind::Node(Box::new(NodeConfig {
                role: self.role,
                node_name: self.name(),
                node_ip: self.member.address,
                flags: self.flags(),
                config: self.settings.config.clone(),
                args: self.settings.args.clone(),
                files,
                resolver: self.record.load_balancer,
                labels: self.settings.labels.clone(),
                taints: self.settings.taints.clone(),
                peers: self.peers(),
                begins: self.begins(),
            })),
            image,
        })
    }

    /// Whether every value that the node refers to was looked up. The CLI keeps no values of
    /// Secrets, and still has to look at clusters that were made with some.
    fn knows_its_values(&self) -> bool {
        let env = self.settings.env.iter().filter_map(|e| e.value_from.as_ref());
        let files = self.settings.files.iter().filter_map(|f| f.content_from.as_ref());
        env.chain(files).all(|source| self.input.values.get(source).is_some())
    }

    /// What cannot be compared counts as it is; what is not there cannot be made.
    fn hash_it_has(&self, observed: &Observed) -> Result<String, Blocked> {
        let name = self.input.identity.object_name(&self.name());
        observed.container(&name).map(|c| c.hash().to_owned()).ok_or_else(|| {
            Blocked::new(
                Reason::ReferenceMissing,
                format!("container {name} is missing, and the Secrets it is made with are not known here; run k3nest apply with the file that holds them"),
            )
        })
    }

    fn hash(&self, image: &str, env: &[(String, Sensitive<String>)], files: &[FileWant]) -> String {
        let secret = |text: &[u8]| hash::mac(&self.record.salt, text);
        let control_plane =
            || (json!(self.input.spec.k3s.clone().unwrap_or_default()), self.input.user_sans());
        hash::of(&NodeInputs {
            image,
            control_plane: (self.role == Role::Server).then(control_plane),
            args: &self.settings.args,
            config: &self.settings.config,
            env: env.iter().map(|(name, value)| (name.as_str(), secret(value.expose().as_bytes()))).collect(),
            files: files.iter().map(|f| (f.path.as_str(), f.mode, secret(f.content.expose()))).collect(),
            volumes: json!(self.settings.volumes),
            resources: self.settings.resources.as_ref().map(|r| json!(r)),
            ports: &self.settings.ports,
            ulimits: &self.settings.ulimits,
            host_aliases: &self.settings.host_aliases,
            runtime: self.settings.runtime.as_deref(),
            dns: self.input.name_servers(),
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

    /// Whether this server makes the cluster. Never after one was Ready: it would be another one.
    fn founds(&self) -> bool {
        self.role == Role::Server && self.member.index == 0 && !self.record.initialised
    }

    /// The recovery after which this server was made.
    fn epoch(&self) -> Option<String> {
        let recovery = self.record.recovery.as_ref().filter(|_| self.role == Role::Server);
        recovery.map(|recovery| recovery.epoch.clone())
    }

    /// Whether a recovery under way keeps this server's data.
    fn resets(&self) -> bool {
        let survivor = self.record.recovering().map(|recovery| recovery.survivor);
        self.role == Role::Server && survivor == Some(self.member.index)
    }

    /// What is made sure of before k3s starts. The only server of a cluster has nobody to join: without
    /// data it would found another one.
    fn begins(&self) -> Begins {
        let alone = self.role == Role::Server && self.servers.len() == 1 && self.record.initialised;
        Begins { with_data: alone || self.resets(), epoch: self.epoch(), resets: self.resets() }
    }

    /// The servers that a server without data joins.
    fn peers(&self) -> Vec<Ipv4Addr> {
        let joins = self.role == Role::Server && !self.founds() && !self.resets();
        let others = self.servers.iter().filter(|server| joins && server.index != self.member.index);
        others.map(|server| server.address).collect()
    }

    /// Keys of config.yaml that k3nest sets (https://docs.k3s.io/cli/server and /cli/agent).
    fn flags(&self) -> Map<String, Value> {
        let mut flags = match self.role {
            Role::Server => self.control_plane_flags(),
            _ => Map::new(),
        };
        let mut set = |key: &str, value: Value| flags.insert(key.to_owned(), value);
        if self.founds() {
            set("cluster-init", json!(true));
        } else if self.role != Role::Server || (self.servers.len() > 1 && !self.resets()) {
            // The load balancer is the fixed registration address: it leads to whichever server is
            // there. A server with data ignores it (https://docs.k3s.io/datastore/ha-embedded), but one
            // that is told to reset its membership refuses to begin with it.
            set("server", json!(format!("https://{}:{API_PORT}", self.record.load_balancer)));
        }
        set("node-name", json!(self.name()));
        set("node-ip", json!(self.member.address));
        // All images in the Node's status, not the 50 largest: it tells when one is gone.
        let mut kubelet = vec!["node-status-max-images=-1"];
        // The kubelet of 1.35 and later refuses cgroup v1 unless told otherwise.
        let version = version_numbers(&self.input.spec.version);
        if self.engine.cgroup_version == 1 && version.is_some_and(|v| v >= (1, 35, 0)) {
            kubelet.push("fail-cgroupv1=false");
        }
        set("kubelet-arg", json!(kubelet));
        flags
    }

    fn control_plane_flags(&self) -> Map<String, Value> {
        let k3s = self.input.spec.k3s.clone().unwrap_or_default();
        let mut flags = Map::new();
        let mut set = |key: &str, value: Value| flags.insert(key.to_owned(), value);
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
        flags
    }
}

fn limits(settings: &NodeDefaults) -> Limits {
    let Some(NodeResources { cpu, memory, gpus }) = &settings.resources else { return Limits::default() };
    let gpus = gpus.as_ref().map(|gpus| match gpus {
        IntOrString::Int(count) => Gpus::Count(count.unsigned_abs()),
        IntOrString::String(text) => text.parse().map_or(Gpus::All, Gpus::Count),
    });
    Limits {
        memory: memory.as_ref().and_then(Quantity::units),
        millicores: cpu.as_ref().and_then(Quantity::millis),
        gpus,
    }
}

fn publish(port: &NodePort) -> Publish {
    Publish {
        host_ip: port.host_ip.as_deref().map_or(Ipv4Addr::UNSPECIFIED, ipv4),
        host_port: port.host_port,
        port: port.port,
        protocol: port.protocol,
    }
}

fn missing(what: &str) -> Blocked {
    Blocked::new(
        Reason::ReferenceMissing,
        format!("{what}: its source was not looked up; this is a bug of k3nest"),
    )
}
