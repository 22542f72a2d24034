//! What is to be done about one container, by itself.

use std::net::Ipv4Addr;

use crate::{
    api::label,
    plan::{
        Attachment, Container, ContainerKind, ContainerState, ContainerWant, DataState, NodeConfig, Observed,
    },
};

/// What is to be done about one container.
pub(super) enum Verdict<'a> {
    Keep,
    /// A load balancer that runs with another configuration.
    Reload(&'a Container),
    Create,
    Start(&'a Container),
    Replace(&'a Container),
    /// Somebody else is at it.
    Wait,
}

pub(super) fn verdict<'a>(want: &ContainerWant, observed: &'a Observed) -> Verdict<'a> {
    let Some(container) = observed.container(&want.name) else { return Verdict::Create };
    let same = Some(container.hash()) == want.labels.get(label::HASH).map(String::as_str)
        && is_of_epoch(want, container)
        && is_attached(want, container);
    match container.state {
        ContainerState::Removing => Verdict::Wait,
        ContainerState::Dead | ContainerState::Created => Verdict::Replace(container),
        _ if !same => Verdict::Replace(container),
        ContainerState::Exited | ContainerState::Restarting if has_no_data(want, observed) => {
            Verdict::Replace(container)
        }
        // Docker restarts it in vain: what is written before a start of ours is missing.
        ContainerState::Restarting if has_no_token(want, observed) => Verdict::Replace(container),
        ContainerState::Exited => Verdict::Start(container),
        // Docker restarts it in vain.
        ContainerState::Restarting if want.node().is_none() && !is_loaded(want, observed) => {
            Verdict::Replace(container)
        }
        ContainerState::Running if !is_loaded(want, observed) => Verdict::Reload(container),
        ContainerState::Running | ContainerState::Restarting | ContainerState::Paused => Verdict::Keep,
    }
}

/// Whether the container of a server was made after the last recovery.
pub(super) fn is_of_epoch(want: &ContainerWant, container: &Container) -> bool {
    want.labels.get(label::EPOCH) == container.labels.get(label::EPOCH)
}

/// Whether a container is where it should be in every network that it should be in.
pub(super) fn is_attached(want: &ContainerWant, container: &Container) -> bool {
    let at = |network: &str, address: Ipv4Addr| {
        let place = container.networks.get(network);
        let is = |Attachment { address: now, pinned }: &Attachment| pinned.or(*now) == Some(address);
        // One that stands still may not tell.
        place.is_some_and(|place| *place == Attachment::default() || is(place))
    };
    // A container has one place in a network.
    let guests = want.guest.iter().filter(|guest| guest.network != want.network);
    at(&want.network, want.address) && guests.into_iter().all(|guest| at(&guest.network, guest.address))
}

/// Whether a node's data is gone. One that fails for other reasons is not mended by a new container.
pub(super) fn has_no_data(want: &ContainerWant, observed: &Observed) -> bool {
    let state = |node: &NodeConfig| observed.data_of(node.role, &want.hostname, &want.name);
    want.node().is_some_and(|node| state(node) == DataState::Empty)
}

/// Whether a node's data is there but for the token, as in a copy of k3s's own data that was put back.
fn has_no_token(want: &ContainerWant, observed: &Observed) -> bool {
    want.node().is_some() && observed.found_of(&want.hostname).is_some_and(|data| !data.token)
}

/// Whether a load balancer has loaded what it should forward.
pub(super) fn is_loaded(want: &ContainerWant, observed: &Observed) -> bool {
    match &want.kind {
        ContainerKind::Node(_) => true,
        ContainerKind::LoadBalancer(config) => observed.loaded.as_ref() == Some(&config.fingerprint()),
    }
}
