//! A Docker host that is too small, and one that was looked at a moment ago.

use std::time::Duration;

use super::{
    lab::{Lab, host, is_ready, reason},
    specs::{Draft, dev, identity},
};
use crate::{
    api::{K3sClusterStatus, condition},
    reconcile::Outcome,
};

const FEW_INSTANCES: &str = "/proc/sys/fs/inotify/max_user_instances:24\n";

/// Status, reason and message of the condition HostCompatible.
fn said(status: &K3sClusterStatus) -> (&str, &str, &str) {
    let condition = status.conditions.iter().find(|c| c.type_ == condition::HOST_COMPATIBLE).unwrap();
    (&condition.status, &condition.reason, &condition.message)
}

fn probes(lab: &Lab) -> usize {
    let probe = |change: &&String| change.starts_with("create container") && change.contains("-probe-");
    lab.engine.changes().iter().filter(probe).count()
}

fn agents(agents: u32) -> Draft {
    Draft { agents, ..Draft::default() }
}

fn stalled(lab: &mut Lab, draft: &Draft) -> Outcome {
    let outcome = lab.step(draft, &dev()).unwrap();
    assert_eq!(reason(&outcome), "HostIncompatible");
    outcome
}

#[test]
fn on_a_host_that_is_too_small_nothing_is_made_until_it_is_mended() {
    let mut lab = Lab::new(host());
    let roomy = std::mem::replace(&mut lab.engine.docker().machine, FEW_INSTANCES.into());
    let outcome = stalled(&mut lab, &agents(4));
    let (status, reason, message) = said(&outcome.status);
    assert_eq!((status, reason), ("False", "HostIncompatible"));
    assert!(message.contains("sysctl -w fs.inotify.max_user_instances=8192"), "{message}");
    {
        let docker = lab.engine.docker();
        let ours = docker.containers.keys().filter(|name| *name != "somebody").count();
        assert_eq!((ours, docker.volumes.len()), (0, 0), "{:?} {:?}", docker.containers, docker.volumes);
    }

    lab.engine.docker().machine = roomy;
    lab.pass(Duration::from_secs(61));
    assert!(lab.settle(&agents(4), &dev()).as_ref().is_some_and(is_ready));
    assert_eq!(probes(&lab), 2);
}

#[test]
fn what_runs_goes_on_while_more_of_it_is_refused() {
    let mut lab = Lab::new(host());
    let ready = lab.settle(&agents(1), &dev()).unwrap();
    let fit = said(&ready.status).2.to_owned();
    assert!(fit.contains("cgroup v2"), "{fit}");
    let before = lab.engine.docker().containers.len();

    // Given a host that is used up since
    lab.engine.docker().machine = FEW_INSTANCES.into();
    lab.pass(Duration::from_secs(61));
    let refused = stalled(&mut lab, &agents(2));
    assert_eq!(said(&refused.status).0, "False");
    assert_eq!(lab.engine.docker().containers.len(), before);

    // When nothing more is asked of it, then it is fit again, and a lost node comes back
    let node = dev().object_name("dev-agent-0");
    let id = lab.engine.docker().containers[&node].id.clone();
    lab.engine.docker().remove_container(&id);
    let outcome = lab.settle(&agents(1), &dev()).unwrap();
    assert!(is_ready(&outcome));
    assert_eq!(said(&outcome.status), ("True", "HostCompatible", "the Docker host uses cgroup v2"));
}

#[test]
fn a_host_is_read_once_a_minute_at_most() {
    let mut lab = Lab::new(host());
    assert!(lab.settle(&agents(0), &dev()).as_ref().is_some_and(is_ready));
    assert_eq!(probes(&lab), 1);
    let outcome = lab.step(&agents(0), &dev()).unwrap();
    assert!(said(&outcome.status).2.contains("has cgroup v2"), "what was said stands: {:?}", outcome.status);

    let other = identity("team-a", "3f0c7a51-0000-4000-8000-000000000002");
    assert!(lab.settle(&agents(0), &other).as_ref().is_some_and(is_ready));
    assert_eq!(probes(&lab), 1, "it was read a moment ago");
    lab.pass(Duration::from_secs(61));
    assert!(lab.settle(&agents(1), &other).as_ref().is_some_and(is_ready));
    assert_eq!(probes(&lab), 2);
    lab.pass(Duration::from_secs(61));
    assert!(is_ready(&lab.step(&agents(1), &other).unwrap()));
    assert_eq!(probes(&lab), 2, "a converged cluster asks nothing");
}
