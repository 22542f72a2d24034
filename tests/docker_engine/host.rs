//! What a probe reads of the Docker host that these tests run on.

use k3nest::{
    api::{K3sClusterSpec, Reason, Role},
    engine::{Engine, Probe},
    plan::{Ask, HostVerdict, Input, InternalAccess, Machine, PROBE, Settings, Values},
};
use serde_json::{Value, json};

use crate::support::{IMAGE, World};

fn input(world: &World, spec: Value) -> Input {
    let spec: K3sClusterSpec = serde_json::from_value(spec).unwrap();
    Input {
        identity: world.identity.clone(),
        spec,
        values: Values::default(),
        settings: Settings::default(),
        internal: InternalAccess::None,
    }
}

#[tokio::test]
async fn a_probe_reads_the_host_which_is_found_fit() {
    let world = World::new().await;
    let engine = world.engine.info().await.unwrap();
    let probe = Probe {
        name: world.name("probe"),
        image: IMAGE.into(),
        script: PROBE.into(),
        labels: world.identity.labels(Role::Probe),
        volumes: Vec::new(),
    };
    let machine = Machine::parse(&world.engine.run_once(&probe).await.unwrap());

    // What the engine says of its memory is what the kernel says
    assert!(!machine.routes.is_empty(), "{machine:?}");
    assert_eq!(machine.memory, engine.memory);
    assert!(machine.memory_available < machine.memory && machine.disk_free < machine.disk, "{machine:?}");
    assert!(machine.disk_free.is_some() && machine.tasks.is_some(), "{machine:?}");
    assert_eq!(machine.sysctls.len(), 5, "{machine:?}");

    let fit = input(&world, json!({"version": "v1.36.1+k3s1"}));
    let verdict = HostVerdict::of(&engine, &machine, &Ask::whole(&fit));
    assert_eq!(verdict.blocked(), None);
    assert!(
        verdict.message().contains(&format!("cgroup v{}", engine.cgroup_version)),
        "{}",
        verdict.message()
    );

    let vast = json!({"version": "v1.36.1+k3s1", "servers": {"resources": {"memory": "900Ti"}}});
    let blocked = HostVerdict::of(&engine, &machine, &Ask::whole(&input(&world, vast))).blocked().unwrap();
    assert_eq!(blocked.reason, Reason::HostIncompatible);
    assert!(blocked.message.starts_with("spec.servers.resources.memory: 900Ti"), "{}", blocked.message);
}
