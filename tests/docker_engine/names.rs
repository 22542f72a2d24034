//! Names, ports, addresses and ranges that somebody else has.

use std::net::TcpListener;

use futures::future::join_all;
use k3nest::{
    api::{Protocol, Role},
    engine::{Engine, EngineError},
    plan::{Action, Publish},
};

use crate::support::{World, free_port, host, sleep};

#[tokio::test]
async fn a_container_name_is_a_lock() {
    let world = World::new().await;
    let network = world.network("net");
    world.engine.create_network(&network).await.unwrap();
    let want = world.container("a", &network);
    let run = Action::RunContainer(Box::new(want.clone()));

    // Given one of ours: somebody else is at it
    let id = world.engine.create_container(&want, &sleep()).await.unwrap();
    let error = world.fails(run.clone()).await;
    assert!(matches!(error, EngineError::Busy { .. }), "{error}");
    world.engine.remove_container(&id).await.unwrap();

    // Given a neighbour's: it is theirs
    let mut theirs = want.clone();
    theirs.labels = world.neighbour().labels(Role::LoadBalancer);
    world.engine.create_container(&theirs, &sleep()).await.unwrap();
    let error = world.fails(run).await;
    assert_eq!(error, EngineError::NameTaken { kind: "container", name: want.name });
}

#[tokio::test]
async fn networks_and_volumes_of_others_are_not_taken_for_ours() {
    let world = World::new().await;
    let neighbour = world.neighbour();
    let (mut network, mut volume) = (world.network("net"), world.volume("data"));
    let (ours_network, ours_volume) = (network.clone(), volume.clone());
    network.labels = neighbour.labels(Role::Network);
    volume.labels = neighbour.labels(Role::Volume);
    world.engine.create_network(&network).await.unwrap();
    world.engine.create_volume(&volume).await.unwrap();

    let error = world.fails(Action::CreateNetwork(ours_network)).await;
    assert_eq!(error, EngineError::NameTaken { kind: "network", name: network.name });
    let error = world.fails(Action::CreateVolume(ours_volume)).await;
    assert_eq!(error, EngineError::NameTaken { kind: "volume", name: volume.name });
}

#[tokio::test]
async fn creators_at_once_end_with_one_network() {
    let world = World::new().await;
    // With one range Docker itself refuses the second; with a range each, only the name is common.
    for same_range in [true, false] {
        let want = world.network(if same_range { "one" } else { "many" });
        let wants: Vec<_> = (0..6)
            .map(|_| {
                let mut other = world.network("other");
                other.name = want.name.clone();
                if same_range { want.clone() } else { other }
            })
            .collect();
        let made = join_all(wants.iter().map(|want| world.engine.create_network(want))).await;
        let seen = world.observe().await;
        let left: Vec<_> = seen.networks.iter().filter(|n| n.name == want.name).collect();
        assert_eq!(left.len(), 1, "{made:?}");
        for network in made {
            let network = network.unwrap();
            assert!(!same_range || network == *left[0], "{network:?}");
        }
        // Whoever asks later gets it, too.
        assert_eq!(world.engine.create_network(&want).await.unwrap(), *left[0]);
    }
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let world = World::new().await;
    let network = world.network("net");
    let publish = |host_port| {
        vec![Publish { host_ip: [0, 0, 0, 0].into(), host_port, port: 80, protocol: Protocol::Tcp }]
    };

    // Given a port that a program of the host has
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut want = world.container("a", &network);
    want.ports = publish(port);
    world.engine.create_network(&network).await.unwrap();
    let error = world.fails(Action::RunContainer(Box::new(want))).await;
    assert!(matches!(&error, EngineError::PortTaken { .. }), "{error}");
    assert!(error.to_string().contains(&port.to_string()), "{error}");

    // Given a port that another container has
    let port = free_port();
    let (mut b, mut c) = (world.container("b", &network), world.container("c", &network));
    (b.address, c.address) = (host(network.subnet, 11), host(network.subnet, 12));
    (b.ports, c.ports) = (publish(port), publish(port));
    world.run(&network, &b).await;
    let error = world.fails(Action::RunContainer(Box::new(c))).await;
    assert!(matches!(&error, EngineError::PortTaken { .. }), "{error}");
    assert!(error.to_string().contains(&port.to_string()), "{error}");
}

#[tokio::test]
async fn a_taken_address_is_not_a_taken_port() {
    let world = World::new().await;
    let network = world.network("net");
    let (a, b) = (world.container("a", &network), world.container("b", &network));
    world.run(&network, &a).await;
    let error = world.fails(Action::RunContainer(Box::new(b))).await;
    assert!(matches!(&error, EngineError::Busy { .. }), "{error}");
    assert!(error.to_string().contains("pinned address"), "{error}");
}

#[tokio::test]
async fn an_overlapping_range_is_told_from_other_failures() {
    let world = World::new().await;
    let (first, mut second) = (world.network("first"), world.network("second"));
    (second.subnet, second.gateway, second.ip_range) = (first.subnet, first.gateway, first.ip_range);
    world.engine.create_network(&first).await.unwrap();
    let error = world.fails(Action::CreateNetwork(second)).await;
    assert!(matches!(&error, EngineError::SubnetTaken { .. }), "{error}");
}
