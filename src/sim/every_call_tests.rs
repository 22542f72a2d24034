//! Every call of a creation and of a deletion meets every kind of accident once, one in each history.
//! The same on a real Docker is in e2e/tests/faults, with several accidents in one life.

use super::{
    docker::Docker,
    faults::{Fault, Faults},
    lab::{Lab, host, is_ready},
    projection::{difference, project},
    specs::{Draft, dev},
};
use crate::api::Role;

const FAULTS: [Fault; 5] = [Fault::Before, Fault::Refused, Fault::After, Fault::CutBefore, Fault::CutAfter];

/// One server and one agent, as the command line makes it, and as an operator in a container does.
fn drafts() -> [Draft; 2] {
    let cli = Draft { agents: 1, keep_spec: true, ..Draft::default() };
    let operator = Draft { agents: 1, internal: 1, ..Draft::default() };
    [cli, operator]
}

fn made(draft: &Draft, faults: Faults) -> Lab {
    let mut lab = Lab::new(host());
    lab.engine.arrange(faults);
    let outcome = lab.settle(draft, &dev());
    assert!(outcome.as_ref().is_some_and(is_ready), "{outcome:#?}");
    lab
}

fn leftovers(docker: &Docker) -> Vec<String> {
    let containers = docker.containers.values().filter(|c| dev().owns(&c.want.labels));
    let volumes = docker.volumes.iter().filter(|(_, v)| dev().owns(&v.labels) || v.anonymous);
    let networks = docker.networks.iter().filter(|n| dev().owns(&n.labels));
    containers
        .map(|c| c.want.name.clone())
        .chain(volumes.map(|(name, _)| name.clone()))
        .chain(networks.map(|n| n.name.clone()))
        .collect()
}

#[test]
fn a_creation_survives_every_accident_of_every_call() {
    for draft in drafts() {
        let undisturbed = made(&draft, Faults::default());
        let expected = project(&undisturbed.engine.docker(), &dev(), &draft);
        for fault in FAULTS {
            for call in 0..undisturbed.engine.calls() {
                let lab = made(&draft, Faults::one_call(call, fault));
                let docker = lab.engine.docker();
                let differences = difference(&project(&docker, &dev(), &draft), &expected);
                assert!(differences.is_empty(), "{fault:?} at call {call} of {draft:?}: {differences:#?}");
                assert_eq!(docker.broken, [""; 0], "{fault:?} at call {call}");
                assert!(!docker.volumes.values().any(|v| v.anonymous), "{fault:?} at call {call}");
            }
        }
    }
}

#[test]
fn a_deletion_survives_every_accident_of_every_call() {
    for draft in drafts() {
        let undisturbed = made(&draft, Faults::default());
        let begun = undisturbed.engine.calls();
        let mut counted = made(&draft, Faults::default());
        assert_eq!(counted.delete(&dev()), Ok(()));
        for fault in FAULTS {
            for call in begun..counted.engine.calls() {
                let mut lab = made(&draft, Faults::default());
                lab.engine.arrange(Faults::one_call(call, fault));
                assert_eq!(lab.delete(&dev()), Ok(()), "{fault:?} at call {call} of {draft:?}");
                assert_eq!(leftovers(&lab.engine.docker()), [""; 0], "{fault:?} at call {call} of {draft:?}");
            }
        }
    }
}

/// What a maker who died has left behind is removed without anybody asking: nothing else may ever
/// wake the cluster again.
#[test]
fn a_converged_cluster_has_no_probe_left_to_a_maker_that_died() {
    for draft in drafts() {
        for call in 0..made(&draft, Faults::default()).engine.calls() {
            let lab = made(&draft, Faults::one_call(call, Fault::CutAfter));
            let docker = lab.engine.docker();
            let probe = docker.containers.values().find(|c| {
                let role = c.want.labels.get(crate::api::label::ROLE);
                role.map(String::as_str) == Some(Role::Probe.as_str())
            });
            assert_eq!(probe.map(|c| &c.want.name), None, "killed after call {call}, and nobody looks again");
        }
    }
}
