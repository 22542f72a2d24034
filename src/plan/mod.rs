//! The decisions, as pure functions over plain data: same inputs, same plan, no I/O, no clock.
//!
//! [`allocate`] picks once what is kept for life (subnet, ports) into a [`Record`]; [`desired`]
//! says exactly what should exist; [`diff`] says what to do about the difference to what is
//! [`Observed`]; [`removal`] is the plan for nothing. [`image_plan`] says which images nodes lack, [`judge`] whose
//! objects nobody looks after any more.

mod adopt;
mod allocate;
mod desired;
mod diff;
mod hash;
mod host;
mod images;
mod observed;
mod prune;
mod quorum;
mod record;
mod removal;
mod sensitive;
mod settings;
mod want;

#[cfg(test)]
pub(crate) mod tests;

pub use adopt::{Acting, Adopter, Wanted, adopt, adopted_by, refuse_other_keeper};
pub use allocate::{
    HostFacts, addresses_in, allocate, allocate_guest, check_joined, names_port, next_guest, next_port,
    next_subnet, parse_routes, pick_address, port_taken,
};
pub use desired::{AGENT_POOL, API_PORT, SERVER_POOL, desired, version_numbers};
pub use diff::{diff, images_needed};
pub use hash::mac;
pub use host::{Ask, HostVerdict, Machine, PROBE};
pub use images::{
    ImageImport, ImageInNode, ImagePlan, NodeImage, NodeImages, Presence, WantedImage, image_name,
    image_plan, image_repository,
};
pub use observed::*;
pub use prune::{Answer, ApiServer, Belongings, RecordState, Standing, Verdict, judge};
pub(crate) use quorum::data_lost;
pub use quorum::{Recover, recover, recovery_command, served_unseen};
pub use record::*;
pub use removal::removal;
pub use sensitive::Sensitive;
pub use settings::*;
pub use want::*;

use std::{collections::BTreeMap, time::Duration};

use crate::api::Blocked;

/// Images that are known to be there, by reference, and the paths they declare as volumes.
pub type Images = BTreeMap<String, Vec<String>>;

/// What to do next about one cluster. Empty at convergence.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The actions; each runs as soon as those it comes after are done.
    pub steps: Vec<Step>,
    /// Something is on its way that is not ours to hurry: look again after this time.
    pub recheck: Option<Duration>,
    /// Something is left to a maker who may be gone: look after this time whether it went. Nothing
    /// waits for that, and nobody else would tell.
    pub later: Option<Duration>,
    /// What holds the cluster up until a person acts.
    pub blocked: Option<Blocked>,
    /// What may be done depends on which Nodes there are and are Ready.
    pub depends_on_nodes: bool,
    /// What is to be done depends on what lies in data volumes.
    pub depends_on_data: bool,
}

impl Plan {
    /// Whether there is nothing to do and nothing to wait for.
    pub fn is_settled(&self) -> bool {
        self.steps.is_empty() && self.recheck.is_none() && self.blocked.is_none()
    }

    /// Adds an action that runs after the steps `after`, and returns its index.
    pub(crate) fn push(&mut self, action: Action, after: Vec<usize>) -> usize {
        self.steps.push(Step { action, after });
        self.steps.len() - 1
    }

    /// Whether it makes or starts a node.
    pub fn starts_nodes(&self) -> bool {
        self.steps.iter().any(|step| match &step.action {
            Action::RunContainer(want)
            | Action::StartContainer { want, .. }
            | Action::TellNode { want, .. } => {
                matches!(want.kind, ContainerKind::Node(_))
            }
            _ => false,
        })
    }

    /// Whether it makes or starts the server that founds the cluster.
    pub fn founds(&self) -> bool {
        self.steps.iter().any(|step| match &step.action {
            Action::RunContainer(want) | Action::StartContainer { want, .. } => {
                want.node().is_some_and(|node| node.founds())
            }
            _ => false,
        })
    }

    /// Whether it does nothing but wait.
    pub fn waits(&self) -> bool {
        self.steps.is_empty() && self.blocked.is_none()
    }

    /// A plan that does nothing but say why.
    pub fn blocked(blocked: Blocked) -> Self {
        Self { blocked: Some(blocked), ..Self::default() }
    }
}

/// An action and the steps (indices into [`Plan::steps`]) that must be done before it.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// What to do.
    pub action: Action,
    /// What must be done before.
    pub after: Vec<usize>,
}

/// One thing to do in Docker. Each is idempotent: done twice it changes nothing more.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Pulls an image that is not there.
    PullImage(String),
    /// Creates a network.
    CreateNetwork(NetworkWant),
    /// Creates a volume.
    CreateVolume(VolumeWant),
    /// Creates a container, joins it to its networks, writes its files and starts it.
    RunContainer(Box<ContainerWant>),
    /// Writes the files of a container that stands still, and starts it.
    StartContainer {
        /// Its id.
        id: String,
        /// What it should be.
        want: Box<ContainerWant>,
    },
    /// Writes the files of a running node anew, for its next start.
    TellNode {
        /// Id of its container.
        id: String,
        /// What it should be.
        want: Box<ContainerWant>,
    },
    /// Makes the nested cluster forget a Node whose data is lost, and its membership of etcd: one of
    /// its name could not join otherwise.
    ForgetNode(String),
    /// Gives a running load balancer what it forwards, without a restart.
    ReloadBalancer {
        /// Id of its container.
        id: String,
        /// What it should be.
        want: Box<ContainerWant>,
    },
    /// Stops and removes a container, with its anonymous volumes.
    RemoveContainer {
        /// Its id.
        id: String,
        /// Its name, for people.
        name: String,
        /// Whether it gets time to stop by itself.
        graceful: bool,
    },
    /// Removes a volume.
    RemoveVolume(String),
    /// Removes a network.
    RemoveNetwork {
        /// Its id.
        id: String,
        /// Its name, for people.
        name: String,
    },
}

impl std::fmt::Display for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::PullImage(image) => write!(f, "pull image {image}"),
            Self::CreateNetwork(n) => write!(f, "create network {} ({})", n.name, n.subnet),
            Self::CreateVolume(v) => write!(f, "create volume {}", v.name),
            Self::RunContainer(c) => write!(f, "run container {} ({})", c.name, c.image),
            Self::StartContainer { want, .. } => write!(f, "start container {}", want.name),
            Self::TellNode { want, .. } => write!(f, "tell node {}", want.name),
            Self::ForgetNode(name) => write!(f, "forget Node {name}"),
            Self::ReloadBalancer { want, .. } => write!(f, "reload load balancer {}", want.name),
            Self::RemoveContainer { name, .. } => write!(f, "remove container {name}"),
            Self::RemoveVolume(name) => write!(f, "remove volume {name}"),
            Self::RemoveNetwork { name, .. } => write!(f, "remove network {name}"),
        }
    }
}
