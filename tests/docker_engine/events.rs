//! What wakes, and what does not.

use std::{future::Future, pin::pin, time::Duration};

use futures::StreamExt;
use jiff::Timestamp;
use k3nest::{
    engine::{Docker, Engine, EngineEvent},
    plan::FileWant,
};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::support::World;

/// Passes on the events of objects called one of `names`.
async fn listen(engine: Docker, names: Vec<String>, heard: UnboundedSender<EngineEvent>) {
    let mut events = pin!(engine.events(Timestamp::now()));
    while let Some(event) = events.next().await {
        let event = event.unwrap();
        if names.contains(&event.name) && heard.send(event).is_err() {
            return;
        }
    }
}

async fn within_seconds<T>(seconds: u64, what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(seconds), what).await.expect("an event in time")
}

/// Docker does not say when it listens: makes events until one is heard.
async fn until_heard(world: &World, heard: &mut UnboundedReceiver<EngineEvent>) -> Vec<EngineEvent> {
    let volume = world.volume("data");
    loop {
        world.engine.create_volume(&volume).await.unwrap();
        world.engine.remove_volume(&volume.name).await.unwrap();
        if let Ok(Some(event)) = tokio::time::timeout(Duration::from_secs(1), heard.recv()).await {
            return vec![event];
        }
    }
}

#[tokio::test]
async fn changes_wake_and_our_own_looks_do_not() {
    // Given somebody who listens
    let world = World::new().await;
    let network = world.network("net");
    let names = vec![world.name("a"), network.name.clone(), world.name("data")];
    let (sender, mut receiver) = unbounded_channel();
    let listener = tokio::spawn(listen(world.engine.clone(), names, sender));
    let mut heard = within_seconds(20, until_heard(&world, &mut receiver)).await;

    // When a container lives, is looked into, and dies
    let id = world.run(&network, &world.container("a", &network)).await;
    world.engine.write_files(&id, &[FileWant::new("/tmp/x", 0o600, "x")]).await.unwrap();
    world.engine.read_file(&id, "/tmp/x").await.unwrap();
    world.engine.logs(&id, 1).await.unwrap();
    world.sh(&id, "true").await;
    world.engine.remove_container(&id).await.unwrap();
    while heard.last().is_none_or(|e| (e.kind.as_str(), e.action.as_str()) != ("container", "destroy")) {
        heard.push(within_seconds(20, receiver.recv()).await.expect("a listener"));
    }
    listener.abort();

    // Then its life is heard and no more, with the owner where Docker tells it
    let of =
        |kind: &str| heard.iter().filter(|e| e.kind == kind).map(|e| e.action.as_str()).collect::<Vec<_>>();
    assert_eq!(of("container"), ["create", "start", "die", "destroy"], "{heard:?}");
    assert!(of("network").starts_with(&["create", "connect"]), "{heard:?}");
    let owner = |kind: &str| heard.iter().find(|e| e.kind == kind).and_then(|e| e.owner.clone());
    assert_eq!(owner("container"), Some(world.identity.uid.clone()));
    assert_eq!(owner("volume"), None);
}
