//! Plans that are carried out, observed, and undone.

use std::{collections::HashSet, time::Duration};

use k3nest::{
    api::{Protocol, Role},
    engine::{Engine, EngineError, observe_all, owners},
    plan::{
        Action, Attachment, ContainerState, FileWant, GuestAddress, Mount, MountSource, Publish, Sensitive,
    },
};

use crate::support::{World, free_port, host};

#[tokio::test]
async fn a_plan_makes_what_is_observed_and_another_removes_it() {
    // Given a plan for a network, a volume and a container with files in both
    let world = World::new().await;
    let (network, volume) = (world.network("net"), world.volume("data"));
    let mut want = world.container("server-0", &network);
    let (ip, port) = ([127, 0, 0, 1].into(), free_port());
    want.ports = vec![Publish { host_ip: ip, host_port: port, port: 6443, protocol: Protocol::Tcp }];
    want.env = vec![("GREETING".into(), Sensitive::new("hello world".into()))];
    want.tmpfs = vec!["/run".into()];
    let mount = |source, target: &str, read_only| Mount { source, target: target.into(), read_only };
    want.mounts = vec![
        mount(MountSource::Volume(volume.name.clone()), "/data", false),
        mount(MountSource::Host("/etc/hostname".into()), "/etc/host", true),
    ];
    let files = vec![
        FileWant::new("/data/deep/er/config.yaml", 0o600, "token: x"),
        FileWant::new("/etc/k3nest/nginx.conf", 0o644, "events {}"),
        FileWant::new("/tmp/run.sh", 0o755, "#!/bin/sh\necho ran\n"),
    ];

    // When it is carried out
    let steps = vec![
        (Action::CreateNetwork(network.clone()), vec![]),
        (Action::CreateVolume(volume.clone()), vec![]),
        (Action::RunContainer(Box::new(want.clone())), vec![0, 1]),
    ];
    let report = world.execute(steps, files).await;
    assert!(report.failures.is_empty(), "{report:?}");

    // Then what is observed is what was wanted
    let seen = world.observe().await;
    let container = seen.container(&want.name).expect("the container");
    assert_eq!((container.state, container.image.as_str()), (ContainerState::Running, want.image.as_str()));
    // The image's own labels come on top.
    assert!(want.labels.iter().all(|(key, value)| container.labels.get(key) == Some(value)));
    let attachment = Attachment { address: Some(want.address), pinned: Some(want.address) };
    assert_eq!(container.networks, [(network.name.clone(), attachment)].into());
    let held: Vec<_> = container.ports.iter().map(|p| (p.ip, p.port, p.protocol)).collect();
    assert_eq!(held, [(ip, port, Protocol::Tcp)]);
    assert_eq!(seen.volume(&volume.name).expect("the volume").labels, volume.labels);
    let made = seen.network().expect("the network");
    assert_eq!((made.subnet, made.gateway), (Some(network.subnet), Some(network.gateway)));
    assert_eq!((made.ip_range, &made.labels), (Some(network.ip_range), &network.labels));

    // And the files are root's, with their modes, and no directory has changed
    let id = &container.id;
    let paths = "/data/deep /data/deep/er /data/deep/er/config.yaml /etc /etc/k3nest /tmp /tmp/run.sh";
    let modes = world.sh(id, &format!("stat -c '%a %u:%g %n' {paths}")).await;
    assert_eq!(
        modes.lines().collect::<Vec<_>>(),
        [
            "755 0:0 /data/deep",
            "755 0:0 /data/deep/er",
            "600 0:0 /data/deep/er/config.yaml",
            "755 0:0 /etc",
            "755 0:0 /etc/k3nest",
            "1777 0:0 /tmp",
            "755 0:0 /tmp/run.sh"
        ]
    );
    assert_eq!(
        world.sh(id, "/tmp/run.sh; echo $GREETING; hostname").await,
        "ran\nhello world\ndev-server-0\n"
    );
    assert_eq!(world.engine.logs(id, 10).await.unwrap(), "awake\n");

    // And what is in use is busy, not lost
    assert!(matches!(world.fails(Action::RemoveVolume(volume.name.clone())).await, EngineError::Busy { .. }));
    let error = world.engine.remove_network(&made.id).await.unwrap_err();
    assert!(matches!(error, EngineError::Busy { .. }), "{error}");

    // When it is undone, twice
    let undo = vec![
        (Action::RemoveContainer { id: id.clone(), name: want.name, graceful: true }, vec![]),
        (Action::RemoveVolume(volume.name), vec![0]),
        (Action::RemoveNetwork { id: made.id.clone(), name: network.name }, vec![0]),
    ];
    for _ in 0..2 {
        let report = world.execute(undo.clone(), Vec::new()).await;
        assert!(report.failures.is_empty(), "{report:?}");
    }
    // Then nothing is left
    assert!(world.observe().await.is_empty());
}

#[tokio::test]
async fn a_stopped_container_keeps_its_address_and_gets_new_files() {
    let world = World::new().await;
    let network = world.network("net");
    let want = world.container("a", &network);
    let id = world.run(&network, &want).await;
    for _ in 0..2 {
        world.engine.stop_container(&id, Duration::from_secs(5)).await.unwrap();
    }
    let stopped = &world.observe().await.containers[0];
    assert_eq!(stopped.state, ContainerState::Exited);
    assert_eq!(stopped.networks[&network.name], Attachment { address: None, pinned: Some(want.address) });

    let start = Action::StartContainer { id: id.clone(), want: Box::new(want.clone()) };
    let report = world.execute(vec![(start, vec![])], vec![FileWant::new("/etc/new", 0o600, "new")]).await;
    assert_eq!(report.done, 1, "{report:?}");
    world.engine.start_container(&id).await.unwrap();
    let running = &world.observe().await.containers[0];
    assert_eq!(running.networks[&network.name].address, Some(want.address));
    assert_eq!(world.engine.read_file(&id, "/etc/new").await.unwrap().unwrap(), b"new");
}

#[tokio::test]
async fn a_guest_is_in_both_networks_or_not_at_all() {
    let world = World::new().await;
    let (home, away) = (world.network("net"), world.network("away"));
    world.engine.create_network(&away).await.unwrap();
    let mut want = world.container("a", &home);
    want.guest = Some(GuestAddress { network: away.name.clone(), address: host(away.subnet, 20) });
    world.run(&home, &want).await;
    let seen = world.observe().await;
    let networks = &seen.container(&want.name).unwrap().networks;
    assert_eq!(networks[&home.name].address, Some(want.address));
    assert_eq!(networks[&away.name].address, Some(host(away.subnet, 20)));

    // And where the second network is missing, nothing is left
    let mut lost = world.container("b", &home);
    lost.address = host(home.subnet, 11);
    lost.guest = Some(GuestAddress { network: world.name("nowhere"), address: host(away.subnet, 21) });
    let error = world.fails(Action::RunContainer(Box::new(lost.clone()))).await;
    assert!(error.to_string().contains(&world.name("nowhere")), "{error}");
    assert!(world.observe().await.container(&lost.name).is_none());
}

#[tokio::test]
async fn clusters_of_an_instance_are_told_apart() {
    let world = World::new().await;
    let neighbour = world.neighbour();
    let mut theirs = world.volume("theirs");
    theirs.labels = neighbour.labels(Role::Data);
    world.engine.create_volume(&theirs).await.unwrap();
    world.engine.create_volume(&world.volume("ours")).await.unwrap();
    world.engine.create_network(&world.network("net")).await.unwrap();
    let all = observe_all(&world.engine, Some(&world.identity.instance)).await.unwrap();
    assert_eq!(all.keys().collect::<HashSet<_>>(), [&world.identity, &neighbour].into());
    assert_eq!(all[&world.identity], world.observe().await);
    assert_eq!(all[&neighbour].volumes[0].name, theirs.name);
    // And found by their uid alone
    for identity in [&world.identity, &neighbour] {
        assert_eq!(owners(&world.engine, &identity.uid).await.unwrap(), std::slice::from_ref(identity));
    }
    assert_eq!(owners(&world.engine, &world.identity.instance).await.unwrap(), []);
}
