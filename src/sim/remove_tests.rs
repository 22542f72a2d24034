//! Deletion: from any state in between it ends with nothing of ours left, creates nothing on the
//! way, and never touches what is not ours.

use proptest::prelude::*;

use super::{
    docker::{Docker, SimContainer},
    faults::faults,
    lab::{Lab, cases, foreign_container, foreign_network, host, is_ready, message, reason},
    projection::{leftovers, others},
    specs::{Draft, Place, SHARED_NETWORK, dev, draft, edit, identity},
};
use crate::{
    api::Role,
    plan::{ContainerState, HostPort, VolumeWant},
};

/// What somebody else has in the way of a cluster.
#[derive(Clone, Copy, Debug)]
enum Obstacle {
    /// A container with the name of the server's.
    Container,
    /// A volume with the name of the data volume's.
    Volume,
    /// A volume with the name of the first record's.
    Record,
    /// A network with the name of ours.
    Network,
    /// Names that begin like ours.
    Neighbours,
}

fn obstacle() -> impl Strategy<Value = Obstacle> {
    prop_oneof![
        Just(Obstacle::Container),
        Just(Obstacle::Volume),
        Just(Obstacle::Record),
        Just(Obstacle::Network),
        Just(Obstacle::Neighbours),
    ]
}

fn place(docker: &mut Docker, obstacle: Obstacle) {
    let name = |what: &str| dev().object_name(what);
    let volume = |name: String| VolumeWant { name, labels: [("who".into(), "somebody".into())].into() };
    match obstacle {
        Obstacle::Container => foreign_container(docker, &name("dev-server-0"), SHARED_NETWORK),
        Obstacle::Volume => drop(docker.create_volume(&volume(name("dev-server-0-data")))),
        Obstacle::Record => drop(docker.create_volume(&volume(name("dev-record-1")))),
        Obstacle::Network => foreign_network(docker, &name("dev"), "10.250.0.0/24"),
        Obstacle::Neighbours => {
            foreign_container(docker, &format!("{}0", name("dev-server-0")), "bridge");
            foreign_network(docker, &format!("{}-x", name("dev")), "10.112.0.0/16");
            let mut labels = dev().labels(Role::Data);
            labels.insert(crate::api::label::INSTANCE.into(), "host-b".into());
            docker.create_volume(&VolumeWant { name: "of-another-host".into(), labels });
        }
    }
}

proptest! {
    #![proptest_config(cases(96))]

    #[test]
    fn deletion_leaves_nothing_and_creates_nothing(
        first in draft(),
        edits in prop::collection::vec(edit(), 0..2),
        steps in 0..5usize,
        accidents in faults(50),
    ) {
        // Given a cluster somewhere on its way, with accidents before and during its deletion,
        let mut lab = Lab::new(host());
        let before = others(&lab.engine.docker(), &dev());
        lab.engine.arrange(accidents);
        let mut draft = first;
        for step in 0..steps {
            draft = edits.get(step).map_or(draft.clone(), |edit| draft.edited(edit));
            let outcome = lab.step(&draft, &dev());
            lab.wait(outcome.as_ref());
        }
        let changes = lab.engine.changes().len();

        // when it is deleted,
        let gone = lab.delete(&dev());

        // then nothing is left, nothing was made, and the others' are as they were.
        prop_assert_eq!(gone, Ok(()));
        prop_assert_eq!(leftovers(&lab.engine.docker(), &dev()), Vec::<String>::new());
        let asked = lab.engine.changes()[changes..].to_vec();
        prop_assert!(asked.iter().all(|c| c.starts_with("remove") || c.starts_with("stop")), "{asked:?}");
        prop_assert_eq!(others(&lab.engine.docker(), &dev()), before);
    }

    #[test]
    fn what_is_not_ours_is_never_touched(
        draft in draft(),
        obstacle in obstacle(),
        accidents in faults(40),
    ) {
        // Given somebody else's object in the way,
        let mut lab = Lab::new(host());
        place(&mut lab.engine.docker(), obstacle);
        let before = others(&lab.engine.docker(), &dev());
        lab.engine.arrange(accidents);

        // when a cluster is made and deleted again,
        let outcome = lab.settle_or_block(&draft, &dev());
        let held_up = !matches!(obstacle, Obstacle::Neighbours)
            && (!matches!(obstacle, Obstacle::Network) || draft.place != Place::Joined);
        prop_assert_eq!(outcome.as_ref().map(is_ready), Some(!held_up));
        if held_up {
            prop_assert_eq!(outcome.as_ref().map(reason), Some("NameTaken"));
        }
        prop_assert_eq!(lab.delete(&dev()), Ok(()));

        // then theirs is as it was, and ours is gone.
        prop_assert_eq!(others(&lab.engine.docker(), &dev()), before);
        prop_assert_eq!(leftovers(&lab.engine.docker(), &dev()), Vec::<String>::new());
    }

    #[test]
    fn one_name_in_two_namespaces_is_two_clusters(
        draft in draft(),
        accidents in faults(80),
        turns in prop::collection::vec(any::<bool>(), 1..20),
    ) {
        // Given two clusters called dev, made at the same time,
        let mut lab = Lab::new(host());
        lab.engine.arrange(accidents);
        let draft = Draft { ports: Default::default(), api_port: None, ..draft };
        let draft = if draft.place == Place::Subnet {
            Draft { place: Place::Picked, ..draft }
        } else {
            draft
        };
        let (a, b) = (dev(), identity("team", "2f0c7a52-0000-4000-8000-000000000002"));
        // (in a network of others one after the other: there, both may pick one address, for life)
        let at_once = if draft.place == Place::Joined { 0 } else { 4 };
        for _ in 0..at_once {
            let now = lab.now();
            let (ra, rb) = (lab.request(&draft, &a), lab.request(&draft, &b));
            let step = crate::reconcile::step;
            lab.run_both(step(&lab.world, &ra, now), step(&lab.world, &rb, now), &turns);
            lab.pass(std::time::Duration::from_secs(4));
        }
        for who in [&a, &b] {
            let outcome = lab.settle_or_block(&draft, who);
            let ready = outcome.as_ref().map(|o| (is_ready(o), message(o).to_owned()));
            prop_assert_eq!(ready, Some((true, "every node is Ready".to_owned())));
        }
        let before = others(&lab.engine.docker(), &a);
        let ports: Vec<HostPort> = lab.engine.docker().containers.values()
            .filter(|c| c.state == ContainerState::Running)
            .flat_map(SimContainer::host_ports).collect();
        prop_assert!(!ports.is_empty());

        // when one is deleted,
        prop_assert_eq!(lab.delete(&a), Ok(()));

        // then the other is as it was.
        prop_assert_eq!(leftovers(&lab.engine.docker(), &a), Vec::<String>::new());
        prop_assert_eq!(others(&lab.engine.docker(), &a), before);
        prop_assert_eq!(&lab.engine.docker().broken, &Vec::<String>::new());
    }
}
