//! What is asked of a Docker host.

use crate::{
    api::{FlannelBackend, NodeDefaults, NodeResources, Quantity, Role, label},
    plan::{Desired, Input, Observed, version_numbers},
};

/// What is asked of a Docker host.
pub struct Ask<'a> {
    input: &'a Input,
    /// The groups of nodes that are made or changed.
    pub groups: Vec<Group<'a>>,
    /// Servers and agents of whatever cluster that run there already.
    pub running: [u64; 2],
    /// Variables that the nodes' image sets.
    pub image_env: &'a [String],
}

/// Nodes that are described together.
pub struct Group<'a> {
    /// [`Role::Server`] or [`Role::Agent`].
    pub role: Role,
    /// How many are made that were not there before.
    pub new: u64,
    own: &'a NodeDefaults,
    defaults: Option<&'a NodeDefaults>,
}

impl<'a> Ask<'a> {
    /// Everything that the specification wants: before anything is there.
    pub fn whole(input: &'a Input) -> Self {
        let spec = &input.spec;
        Self::new(input, [u64::from(spec.servers.replicas), u64::from(spec.agents.replicas)], [true; 2])
    }

    /// What is wanted beyond what is there: nodes without a data volume are new, and containers
    /// that are to be replaced may ask for more. None if there is nothing of the kind; a container
    /// that was lost comes back whatever the host looks like.
    pub fn growth(input: &'a Input, desired: &Desired, observed: &Observed) -> Option<Self> {
        let (mut new, mut touched) = ([0, 0], [false, false]);
        let members = observed.members();
        for (want, role) in desired.nodes().map(|(want, node)| (want, node.role)) {
            let group = usize::from(role != Role::Server);
            if !members.iter().any(|member| member.address == want.address) {
                new[group] += 1;
            } else if observed
                .container(&want.name)
                .is_some_and(|there| Some(there.hash()) != want.labels.get(label::HASH).map(String::as_str))
            {
                touched[group] = true;
            }
        }
        let ask = Self::new(input, new, touched);
        (!ask.groups.is_empty()).then_some(ask)
    }

    fn new(input: &'a Input, new: [u64; 2], touched: [bool; 2]) -> Self {
        let spec = &input.spec;
        let defaults = spec.node_defaults.as_ref();
        let groups = [
            (Role::Server, &spec.servers.node, spec.servers.replicas),
            (Role::Agent, &spec.agents.node, spec.agents.replicas),
        ];
        let groups = groups.into_iter().zip(new).zip(touched);
        let groups = groups
            .filter(|(((.., wanted), new), touched)| *wanted > 0 && (*new > 0 || *touched))
            .map(|(((role, own, _), new), _)| Group { role, new, own, defaults })
            .collect();
        Self { input, groups, running: [0, 0], image_env: &[] }
    }

    /// How many nodes are made that were not there before.
    pub fn new_nodes(&self) -> u64 {
        self.groups.iter().map(|group| group.new).sum()
    }

    /// How many of them are servers, and agents.
    pub fn new_of_each(&self) -> [u64; 2] {
        let of =
            |role: Role| self.groups.iter().filter(|group| group.role == role).map(|group| group.new).sum();
        [of(Role::Server), of(Role::Agent)]
    }

    /// Kubernetes's version: major, minor, patch.
    pub fn version(&self) -> Option<(u32, u32, u32)> {
        version_numbers(&self.input.spec.version)
    }

    /// Flannel's backend.
    pub fn flannel(&self) -> FlannelBackend {
        self.input.spec.k3s.as_ref().and_then(|k3s| k3s.flannel_backend).unwrap_or(FlannelBackend::Vxlan)
    }

    /// Whether arguments of the nodes contain `text`: somebody has taken care of it.
    pub fn args_have(&self, text: &str) -> bool {
        let args = |group: &Group<'_>| {
            let own = group.own.args.iter().chain(group.defaults.iter().flat_map(|node| &node.args));
            own.into_iter().any(|arg| arg.contains(text))
        };
        !self.groups.is_empty() && self.groups.iter().all(args)
    }
}

impl<'a> Group<'a> {
    /// What of the group's, else of the defaults', `get` gets, and the field that says so.
    pub fn field<T>(&self, name: &str, get: impl Fn(&'a NodeDefaults) -> Option<T>) -> Option<(String, T)> {
        let group = if self.role == Role::Server { "spec.servers" } else { "spec.agents" };
        let own = get(self.own).map(|value| (format!("{group}.{name}"), value));
        own.or_else(|| {
            let inherited = self.defaults.and_then(get)?;
            Some((format!("spec.nodeDefaults.{name}"), inherited))
        })
    }

    /// One of the group's resources, with the field that says so.
    pub fn resource(
        &self,
        name: &str,
        get: impl Fn(&'a NodeResources) -> Option<&'a Quantity>,
    ) -> Option<(String, &'a Quantity)> {
        self.field(&format!("resources.{name}"), |node| node.resources.as_ref().and_then(&get))
    }
}
