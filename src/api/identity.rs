//! Who a cluster is, and the names and labels of its objects in Docker.

use std::collections::BTreeMap;

use uuid::Uuid;

/// Labels on every object of ours in Docker. Nothing without [`label::INSTANCE`] of this instance
/// is ever changed or removed.
pub mod label {
    /// Who made it: the uid of the host cluster's kube-system namespace, or [`super::STANDALONE`].
    pub const INSTANCE: &str = "k3nest.dev/instance";
    /// The cluster's uid.
    pub const OWNER: &str = "k3nest.dev/owner";
    /// The cluster's name.
    pub const NAME: &str = "k3nest.dev/name";
    /// The cluster's namespace.
    pub const NAMESPACE: &str = "k3nest.dev/namespace";
    /// What it is; see [`super::Role`].
    pub const ROLE: &str = "k3nest.dev/role";
    /// The pool of a node.
    pub const POOL: &str = "k3nest.dev/pool";
    /// The index of a node in its pool.
    pub const INDEX: &str = "k3nest.dev/index";
    /// The node that a volume belongs to.
    pub const NODE: &str = "k3nest.dev/node";
    /// Hash of what the user asked for in a container.
    pub const HASH: &str = "k3nest.dev/hash";
    /// The pinned address of a node, on its data volume.
    pub const ADDRESS: &str = "k3nest.dev/address";
    /// The path at which a volume is mounted.
    pub const TARGET: &str = "k3nest.dev/target";
    /// The record, as JSON, on a record volume.
    pub const RECORD: &str = "k3nest.dev/record";
    /// The recovery after which a server's container was made.
    pub const EPOCH: &str = "k3nest.dev/epoch";
    /// The last applied specification, on a record volume of the CLI.
    pub const SPEC: &str = "k3nest.dev/spec";
}

/// Instance of everything the CLI makes.
pub const STANDALONE: &str = "standalone";

/// What an object in Docker is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Container of a server node.
    Server,
    /// Container of an agent node.
    Agent,
    /// Container of the load balancer.
    LoadBalancer,
    /// The cluster's network.
    Network,
    /// The volume that makes a node a member: its k3s data directory.
    Data,
    /// Any other volume of a node.
    Volume,
    /// A volume that the user named.
    UserVolume,
    /// A generation of the record.
    Record,
    /// A short-lived container that asks the host something.
    Probe,
}

impl Role {
    /// As in the label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Agent => "agent",
            Self::LoadBalancer => "loadbalancer",
            Self::Network => "network",
            Self::Data => "data",
            Self::Volume => "volume",
            Self::UserVolume => "user-volume",
            Self::Record => "record",
            Self::Probe => "probe",
        }
    }

    /// From the label.
    pub fn parse(text: &str) -> Option<Self> {
        [
            Self::Server,
            Self::Agent,
            Self::LoadBalancer,
            Self::Network,
            Self::Data,
            Self::Volume,
            Self::UserVolume,
            Self::Record,
            Self::Probe,
        ]
        .into_iter()
        .find(|role| role.as_str() == text)
    }
}

/// Who a cluster is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    /// Who manages it: uid of the host cluster's kube-system namespace, or [`STANDALONE`].
    pub instance: String,
    /// The resource's uid; for the CLI a UUIDv5 of engine and name.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Docker's own limit is far above this; it is the length up to which a name is a DNS label, so
/// that every object can be resolved and typed.
const MAX_OBJECT_NAME: usize = 63;

impl Identity {
    /// Identity of a cluster that the CLI keeps on the engine `engine_id`.
    pub fn standalone(engine_id: &str, namespace: &str, name: &str) -> Self {
        let key = format!("k3nest.dev/{engine_id}/{namespace}/{name}");
        Self {
            instance: STANDALONE.into(),
            uid: Uuid::new_v5(&Uuid::NAMESPACE_URL, key.as_bytes()).to_string(),
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// Whose object it is that carries `labels`. What they do not say is empty, and nobody's.
    pub fn of_labels(labels: &BTreeMap<String, String>) -> Self {
        let text = |key: &str| labels.get(key).cloned().unwrap_or_default();
        Self {
            instance: text(label::INSTANCE),
            uid: text(label::OWNER),
            namespace: text(label::NAMESPACE),
            name: text(label::NAME),
        }
    }

    /// Eight hex digits of the uid, at the end of every name.
    pub fn suffix(&self) -> String {
        self.uid.chars().filter(char::is_ascii_hexdigit).take(8).collect::<String>().to_lowercase()
    }

    /// Name in Docker of the object `what` of this cluster: `k3nest-<namespace>-<what>-<suffix>`,
    /// with the namespace shortened where it does not fit.
    pub fn object_name(&self, what: &str) -> String {
        let suffix = self.suffix();
        let fixed = "k3nest-".len() + what.len() + 1 + suffix.len();
        let room = MAX_OBJECT_NAME.saturating_sub(fixed + 1);
        let namespace: String = self.namespace.chars().take(room).collect();
        let namespace = namespace.trim_end_matches('-');
        if namespace.is_empty() {
            format!("k3nest-{what}-{suffix}")
        } else {
            format!("k3nest-{namespace}-{what}-{suffix}")
        }
    }

    /// Name of the node `index` of `pool`, which is its hostname.
    pub fn node_name(&self, pool: &str, index: u32) -> String {
        format!("{}-{pool}-{index}", self.name)
    }

    /// Name of the Service through which Pods of the host cluster reach the API. It is the stable
    /// name in the API's certificate, also where there is no host cluster.
    pub fn service_name(&self) -> String {
        format!("{}-k3s-api", self.name)
    }

    /// DNS name of [`Self::service_name`].
    pub fn service_host(&self) -> String {
        format!("{}.{}.svc", self.service_name(), self.namespace)
    }

    /// Labels of an object of this cluster with `role`.
    pub fn labels(&self, role: Role) -> BTreeMap<String, String> {
        [
            (label::INSTANCE, self.instance.as_str()),
            (label::OWNER, &self.uid),
            (label::NAME, &self.name),
            (label::NAMESPACE, &self.namespace),
            (label::ROLE, role.as_str()),
        ]
        .into_iter()
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect()
    }

    /// Whether `labels` say that an object is this cluster's.
    pub fn owns(&self, labels: &BTreeMap<String, String>) -> bool {
        labels.get(label::INSTANCE) == Some(&self.instance) && labels.get(label::OWNER) == Some(&self.uid)
    }
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(namespace: &str, name: &str) -> Identity {
        Identity::standalone("ENGINE", namespace, name)
    }

    #[test]
    fn one_name_in_two_namespaces_gives_other_objects() {
        let (a, b) = (identity("a", "dev"), identity("b", "dev"));
        assert_ne!(a.uid, b.uid);
        assert_ne!(a.object_name("dev-server-0"), b.object_name("dev-server-0"));
    }

    #[test]
    fn namespaces_that_differ_only_past_the_cut_still_differ() {
        let long = "n".repeat(62);
        let (a, b) = (identity(&format!("{long}a"), "dev"), identity(&format!("{long}b"), "dev"));
        let (a, b) = (a.object_name("dev-server-0"), b.object_name("dev-server-0"));
        assert!(a.len() <= MAX_OBJECT_NAME && b.len() <= MAX_OBJECT_NAME, "{a} {b}");
        assert_ne!(a, b);
    }

    #[test]
    fn identities_are_stable() {
        assert_eq!(identity("default", "dev"), identity("default", "dev"));
        insta::assert_snapshot!(identity("default", "dev").object_name("dev-server-0"));
    }
}
