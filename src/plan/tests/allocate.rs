use serde_json::json;

use super::*;
use crate::api::{Blocked, Protocol, Reason};

fn picked(more: serde_json::Value, host: &HostFacts) -> Result<Record, Blocked> {
    allocate(&input(more), "ENGINE-A", host, "salt")
}

fn refused(more: serde_json::Value, host: &HostFacts) -> (Reason, String) {
    let blocked = picked(more, host).unwrap_err();
    (blocked.reason, blocked.message)
}

fn holding(port: u16) -> Container {
    let want = wanted(&input(json!({})), &record());
    let ports = vec![HostPort { ip: "0.0.0.0".parse().unwrap(), port, protocol: Protocol::Tcp }];
    Container { name: "web".into(), labels: Default::default(), ports, ..container(&want.containers[0]) }
}

#[test]
fn picks_depend_on_the_uid_alone() {
    let host = HostFacts::default();
    let (a, b) = (picked(json!({}), &host).unwrap(), picked(json!({}), &host).unwrap());
    assert_eq!(a, b);
    insta::assert_snapshot!(format!("{} {} {}", a.network.subnet, a.load_balancer, a.api_port));
}

#[test]
fn a_subnet_is_free_of_networks_routes_and_what_docker_refused() {
    let first = picked(json!({}), &HostFacts::default()).unwrap().network.subnet;
    let hosts = [
        HostFacts { networks: vec![foreign_network("x", Some(&first.to_string()))], ..HostFacts::default() },
        HostFacts { routes: vec![first], ..HostFacts::default() },
        HostFacts { refused_subnets: vec![first], ..HostFacts::default() },
    ];
    for host in hosts {
        assert_ne!(picked(json!({}), &host).unwrap().network.subnet, first);
    }
}

#[test]
fn a_full_pool_says_which() {
    let host = HostFacts { routes: vec!["10.0.0.0/8".parse().unwrap()], ..HostFacts::default() };
    let (reason, message) = refused(json!({}), &host);
    assert_eq!(reason, Reason::SubnetUnavailable);
    assert!(message.contains("--subnet-pool"), "{message}");
}

#[test]
fn a_wanted_subnet_that_is_taken_names_the_holder() {
    let spec = json!({"network": {"subnet": "10.9.0.0/24"}});
    assert_eq!(
        picked(spec.clone(), &HostFacts::default()).unwrap().network.subnet.to_string(),
        "10.9.0.0/24"
    );
    let host =
        HostFacts { networks: vec![foreign_network("lan", Some("10.9.0.0/16"))], ..HostFacts::default() };
    assert_eq!(
        refused(spec, &host),
        (
            Reason::SubnetUnavailable,
            "spec.network.subnet: 10.9.0.0/24 overlaps Docker network lan; choose another range, or leave it out to have a free one picked".into()
        )
    );
}

#[test]
fn a_picked_port_avoids_containers_processes_and_forwards() {
    let first = picked(json!({}), &HostFacts::default()).unwrap().api_port;
    let held = HostFacts { containers: vec![holding(first)], ..HostFacts::default() };
    let refused = HostFacts { refused_ports: [first].into(), ..HostFacts::default() };
    for host in [held, refused] {
        assert_ne!(picked(json!({}), &host).unwrap().api_port, first);
    }
    let forward = json!({"loadBalancer": {"ports": [{"hostPort": first, "port": 80}]}});
    assert_ne!(picked(forward, &HostFacts::default()).unwrap().api_port, first);
}

#[test]
fn a_wanted_port_that_is_taken_names_the_holder() {
    let host = HostFacts { containers: vec![holding(6443)], ..HostFacts::default() };
    let (reason, message) = refused(json!({"api": {"hostPort": 6443}}), &host);
    assert_eq!(reason, Reason::PortTaken);
    assert!(message.contains("6443 is in use by container web"), "{message}");
}

#[test]
fn a_network_to_join_must_be_there_with_a_subnet() {
    let spec = json!({"network": {"name": "lan"}});
    for networks in [vec![], vec![foreign_network("lan", None)]] {
        let host = HostFacts { networks, ..HostFacts::default() };
        assert_eq!(refused(spec.clone(), &host).0, Reason::NetworkUnusable);
    }
    let host =
        HostFacts { networks: vec![foreign_network("lan", Some("10.9.0.0/24"))], ..HostFacts::default() };
    let record = picked(spec, &host).unwrap();
    assert!(!record.network.owned);
    assert!(record.network.subnet.contains(&record.load_balancer));
}

#[test]
fn a_guest_moves_only_if_somebody_has_its_place() {
    let network = foreign_network("host", Some("10.9.0.0/24"));
    let mut host = HostFacts { networks: vec![network], ..HostFacts::default() };
    let input = Input { internal: InternalAccess::Join { network: "host".into() }, ..input(json!({})) };
    let record = allocate(&input, "ENGINE-A", &host, "salt").unwrap();
    let place = record.guest.clone().unwrap().address;
    assert_eq!(next_guest(&record, &input, &host), Ok(None));

    let at_place = Attachment { address: Some(place), pinned: None };
    host.containers = vec![Container { networks: [("host".into(), at_place)].into(), ..holding(1) }];
    let moved = next_guest(&record, &input, &host).unwrap().unwrap();
    assert_eq!(moved.generation, 2);
    assert_ne!(moved.guest.unwrap().address, place);
}
