//! Networks that are not the cluster's own, and what becomes of it when others remove them.

use super::{
    docker::Docker,
    lab::{foreign_network, message, ready, reason, settled},
    specs::{Draft, Place, SHARED_NETWORK, dev},
    wounds::Wound,
};

const SUBNET: &str = "172.30.0.0/24";

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

#[test]
fn where_a_joined_one_is_gone_nothing_is_done_but_said() {
    let draft = Draft { place: Place::Joined, ..Draft::default() };
    for lost in [None, Some(Wound::Remove(0)), Some(Wound::Remove(1))] {
        let mut lab = ready(&draft);
        for wound in [Wound::DaemonKilled].iter().chain(&lost) {
            wound.inflict(&mut lab.engine.docker(), &dev());
        }
        // Another range is of no use to nodes that have their addresses for life.
        for subnet in [None, Some("172.31.0.0/24")] {
            renew(&mut lab.engine.docker(), subnet);
            let before = lab.engine.docker().clone();
            let outcome = lab.step(&draft, &dev()).unwrap();
            assert_eq!(reason(&outcome), "NetworkUnusable", "{lost:?}");
            let way_out = format!("docker network create --subnet {SUBNET} {SHARED_NETWORK}");
            assert!(message(&outcome).contains(&way_out), "{}", message(&outcome));
            // To look into data volumes is no harm.
            let docker = lab.engine.docker();
            assert_eq!(docker.containers, before.containers, "{lost:?}");
            assert_eq!((&docker.networks, docker.volumes.len()), (&before.networks, before.volumes.len()));
        }
        // It goes on when the network is back, and is deleted without it.
        renew(&mut lab.engine.docker(), Some(SUBNET));
        assert_eq!(settled(&mut lab, &draft), "Ready", "{lost:?}");
        renew(&mut lab.engine.docker(), None);
        assert_eq!(lab.delete(&dev()), Ok(()), "{lost:?}");
    }
}
