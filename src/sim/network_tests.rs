//! Networks that are not the cluster's own, and what becomes of it when others remove them.

use super::{
    docker::Docker,
    lab::{Lab, foreign_network, host, is_ready, reason},
    specs::{Draft, Place, SHARED_NETWORK, dev},
    wounds::Wound,
};

const SUBNET: &str = "172.30.0.0/24";

fn ready(draft: &Draft) -> Lab {
    let mut lab = Lab::new(host());
    assert!(lab.settle(draft, &dev()).as_ref().is_some_and(is_ready));
    lab
}

fn settled(lab: &mut Lab, draft: &Draft) -> String {
    let outcome = lab.settle_or_block(draft, &dev());
    outcome.as_ref().map(reason).unwrap_or_default().to_owned()
}

/// It is removed, and maybe made anew: another one of the same name.
fn renew(docker: &mut Docker, subnet: Option<&str>) {
    docker.networks.retain(|network| network.name != SHARED_NETWORK);
    if let Some(subnet) = subnet {
        foreign_network(docker, SHARED_NETWORK, subnet);
    }
}

#[test]
fn one_that_was_made_anew_is_joined_again() {
    let joined = Draft { place: Place::Joined, servers: 3, ..Draft::default() };
    for draft in [joined, Draft { internal: 1, ..Draft::default() }] {
        let mut lab = ready(&draft);
        Wound::DaemonKilled.inflict(&mut lab.engine.docker(), &dev());
        renew(&mut lab.engine.docker(), Some(SUBNET));
        assert_eq!(settled(&mut lab, &draft), "Ready", "{draft:?}");
        assert_eq!(lab.engine.docker().broken, [""; 0]);
    }
}
