//! The cluster of the random walk, and the edits that are made to it.

use std::collections::BTreeSet;

use rand::{Rng, RngExt, seq::IndexedRandom};

use crate::{harness::nest::VERSION, tenant::Tenant};

/// Version of the node image that upgrades come from.
const FORMER: &str = "v1.35.4+k3s1";

/// Few agents: each is a kubelet.
const AGENTS: u32 = 2;

/// What is said of the cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    former: bool,
    pub servers: u32,
    agents: u32,
    labels: BTreeSet<u8>,
    agent_hosts: BTreeSet<u8>,
    verbosity: u8,
    agent_limits: BTreeSet<u8>,
    ports: BTreeSet<u16>,
    api_port: Option<u16>,
    everywhere: bool,
    san: bool,
}

/// An edit that the API lets through at any time.
#[derive(Clone, Debug)]
pub enum Edit {
    Upgrade,
    OneAgentMore,
    Labels(BTreeSet<u8>),
    AgentHosts(BTreeSet<u8>),
    Verbosity(u8),
    AgentLimits(BTreeSet<u8>),
    Ports(BTreeSet<u16>),
    ApiPort(Option<u16>),
    Everywhere(bool),
    San(bool),
}

/// Ports of the Docker host that the walk uses.
pub struct Ports {
    pub api: u16,
    pub forwarded: [u16; 2],
}

fn few(rng: &mut impl Rng) -> BTreeSet<u8> {
    (0..3).filter(|_| rng.random_bool(0.4)).collect()
}

impl Draft {
    pub fn first(rng: &mut impl Rng) -> Self {
        Self {
            former: rng.random_bool(0.5),
            servers: if rng.random_bool(0.6) { 3 } else { 1 },
            agents: rng.random_range(0..=1),
            labels: few(rng),
            agent_hosts: few(rng),
            verbosity: 0,
            agent_limits: few(rng),
            ports: BTreeSet::new(),
            api_port: None,
            everywhere: false,
            san: rng.random_bool(0.5),
        }
    }

    pub fn edited(&self, edit: &Edit) -> Self {
        let mut next = self.clone();
        match edit.clone() {
            Edit::Upgrade => next.former = false,
            Edit::OneAgentMore => next.agents = (self.agents + 1).min(AGENTS),
            Edit::Labels(labels) => next.labels = labels,
            Edit::AgentHosts(hosts) => next.agent_hosts = hosts,
            Edit::Verbosity(v) => next.verbosity = v,
            Edit::AgentLimits(limits) => next.agent_limits = limits,
            Edit::Ports(ports) => next.ports = ports,
            Edit::ApiPort(port) => next.api_port = port,
            Edit::Everywhere(everywhere) => next.everywhere = everywhere,
            Edit::San(san) => next.san = san,
        }
        next
    }

    /// An edit that changes something: of one of each kind, some may say what is so already,
    /// or what nobody is there for.
    pub fn an_edit(&self, rng: &mut impl Rng, ports: &Ports) -> Edit {
        let one_of_each = [
            Edit::Upgrade,
            Edit::OneAgentMore,
            Edit::Labels(few(rng)),
            Edit::AgentHosts(few(rng)),
            Edit::Verbosity((self.verbosity + rng.random_range(1..3)) % 3),
            Edit::AgentLimits(few(rng)),
            Edit::Ports(ports.forwarded.into_iter().filter(|_| rng.random_bool(0.5)).collect()),
            Edit::ApiPort(self.api_port.is_none().then_some(ports.api)),
            Edit::Everywhere(!self.everywhere),
            Edit::San(!self.san),
        ];
        let no_agent =
            |edit: &Edit| self.agents == 0 && matches!(edit, Edit::AgentHosts(_) | Edit::AgentLimits(_));
        let is_news = |edit: &Edit| !no_agent(edit) && self.edited(edit) != *self;
        let news: Vec<Edit> = one_of_each.into_iter().filter(is_news).collect();
        news.choose(rng).expect("some are always news").clone()
    }

    fn spec(&self) -> String {
        let list = |all: Vec<String>| format!("[{}]", all.join(", "));
        let kubelet = "'--kubelet-arg=eviction-hard=nodefs.available<1%,imagefs.available<1%'";
        let args = format!("[{kubelet}, '--kubelet-arg=v={}']", self.verbosity);
        let labels: Vec<String> = self.labels.iter().map(|n| format!("example.com/l{n}: x")).collect();
        let hosts = self.agent_hosts.iter().map(|n| format!("{{ip: 192.0.2.{n}, hostnames: [h{n}]}}"));
        let limits = self.agent_limits.iter().map(|n| {
            let name = ["core", "msgqueue", "sigpending"][usize::from(*n)];
            format!("{{name: {name}, soft: 1000, hard: 1000}}")
        });
        let ports = self.ports.iter().map(|port| format!("{{hostPort: {port}, port: 30080}}"));
        let api_port = self.api_port.map(|port| format!("hostPort: {port}, ")).unwrap_or_default();
        let host_ip = if self.everywhere { "hostIP: 0.0.0.0, " } else { "" };
        format!(
            "servers: {{replicas: {}, args: {args}, labels: {{{}}}}}
agents: {{replicas: {}, args: {args}, hostAliases: {}, ulimits: {}}}
loadBalancer: {{ports: {}}}
api: {{{api_port}{host_ip}tlsSANs: {}}}
k3s: {{disable: [traefik, servicelb, local-storage, metrics-server]}}",
            self.servers,
            labels.join(", "),
            self.agents,
            list(hosts.collect()),
            list(limits.collect()),
            list(ports.collect()),
            if self.san { "[dev.example.com]" } else { "[]" },
        )
    }

    pub fn apply(&self, tenant: &Tenant) {
        let document = tenant.document(&self.spec());
        let document = if self.former { document.replace(VERSION, FORMER) } else { document };
        tenant.run(&["apply", "-f", &tenant.scratch.file("walk.yaml", &document)]).ok();
    }
}
