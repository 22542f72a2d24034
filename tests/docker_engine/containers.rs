//! Files, images, and what a node needs of Docker.

use std::time::Duration;

use futures::stream;
use k3nest::{
    engine::{Docker, Engine, EngineError},
    plan::{FileWant, Mount, MountSource},
};

use crate::support::{World, sleep};

/// An image on a registry that cannot exist (RFC 6761).
const IMPOSSIBLE: &str = "k3nest.invalid/nothing:1";

#[tokio::test]
async fn files_reach_the_volumes_of_a_container_that_never_ran() {
    let world = World::new().await;
    let (network, volume) = (world.network("net"), world.volume("data"));
    world.engine.create_network(&network).await.unwrap();
    world.engine.create_volume(&volume).await.unwrap();
    let mut want = world.container("a", &network);
    let source = MountSource::Volume(volume.name.clone());
    want.mounts = vec![Mount { source, target: "/data".into(), read_only: false }];
    let id = world.engine.create_container(&want, &sleep()).await.unwrap();
    let token = "/data/server/token";
    world.engine.write_files(&id, &[FileWant::new(token, 0o600, "secret")]).await.unwrap();
    assert_eq!(world.engine.read_file(&id, token).await.unwrap().unwrap(), b"secret");

    // When another container takes the volume over
    world.engine.remove_container(&id).await.unwrap();
    let id = world.engine.create_container(&want, &sleep()).await.unwrap();
    // Then it has the file
    assert_eq!(world.engine.read_file(&id, token).await.unwrap().unwrap(), b"secret");
    // And the volume has kept the labels it was made with
    assert_eq!(world.observe().await.volume(&volume.name).unwrap().labels, volume.labels);
}

#[tokio::test]
async fn writing_replaces_files_and_nothing_else() {
    let world = World::new().await;
    let network = world.network("net");
    let id = world.run(&network, &world.container("a", &network)).await;
    world
        .sh(&id, "mkdir -p /srv/own && chmod 700 /srv/own && chown 7:8 /srv/own && echo old >/srv/own/f")
        .await;
    world.engine.write_files(&id, &[FileWant::new("/srv/own/f", 0o640, "new")]).await.unwrap();
    let seen = world.sh(&id, "stat -c '%a %u:%g' /srv/own /srv/own/f; cat /srv/own/f").await;
    assert_eq!(seen, "700 7:8\n640 0:0\nnew");
    // A directory stays one
    assert!(world.engine.write_files(&id, &[FileWant::new("/srv/own", 0o600, "")]).await.is_err());
    assert_eq!(world.sh(&id, "cat /srv/own/f").await, "new");
    world.engine.write_files(&id, &[]).await.unwrap();
}

#[tokio::test]
async fn reading_follows_links_and_is_bounded() {
    let world = World::new().await;
    let network = world.network("net");
    let id = world.run(&network, &world.container("a", &network)).await;
    world
        .sh(&id, "mkdir /d; echo k >/d/real; ln -s real /d/near; ln -s /d/near /far; ln -s loop /loop")
        .await;
    world.sh(&id, "head -c 1100000 /dev/zero >/big; : >/empty").await;
    let read = |path| world.engine.read_file(&id, path);
    assert_eq!(read("/far").await.unwrap().unwrap(), b"k\n");
    assert_eq!(read("/empty").await.unwrap().unwrap(), b"");
    assert_eq!(read("/nothing").await.unwrap(), None);
    assert_eq!(read("/nothing/in/here").await.unwrap(), None);
    for path in ["/loop", "/big", "/d"] {
        let error = read(path).await.unwrap_err();
        assert!(matches!(error, EngineError::Refused { .. }), "{error}");
    }
    assert_eq!(world.engine.read_file("no-such-container", "/x").await.unwrap(), None);
}

#[tokio::test]
async fn what_lies_at_a_path_is_found_also_where_the_container_stands_still() {
    let world = World::new().await;
    let (network, volume) = (world.network("net"), world.volume("data"));
    world.engine.create_network(&network).await.unwrap();
    world.engine.create_volume(&volume).await.unwrap();
    let mut want = world.container("a", &network);
    let source = MountSource::Volume(volume.name.clone());
    want.mounts = vec![Mount { source, target: "/data".into(), read_only: false }];
    let id = world.engine.create_container(&want, &sleep()).await.unwrap();
    world.engine.write_files(&id, &[FileWant::new("/data/db/member/snap", 0o600, "x")]).await.unwrap();
    for (path, there) in [("/data/db/member/snap", true), ("/data/db/member", true), ("/data/db/wal", false)]
    {
        assert_eq!(world.engine.has_path(&id, path).await.unwrap(), there, "{path}");
    }
    assert!(!world.engine.has_path("no-such-container", "/data").await.unwrap());
    let known = world.engine.container(&id).await.unwrap().expect("it is there");
    assert_eq!(known.id, id);
    assert!(world.identity.owns(&known.labels), "{:?}", known.labels);
    assert_eq!(world.engine.container("no-such-container").await.unwrap(), None);
}

#[tokio::test]
async fn an_image_that_cannot_be_had_says_why() {
    let world = World::new().await;
    assert_eq!(world.engine.inspect_image(IMPOSSIBLE).await.unwrap(), None);
    let error = world.engine.pull_image("127.0.0.1:1/nothing:1", &|_| {}).await.unwrap_err();
    assert!(matches!(error, EngineError::ImageUnavailable { .. }), "{error}");
    assert!(error.to_string().contains("cannot reach the registry 127.0.0.1:1"), "{error}");
    let error = world.engine.pull_image(IMPOSSIBLE, &|_| {}).await.unwrap_err();
    assert!(matches!(error, EngineError::ImageUnavailable { .. }), "{error}");

    let network = world.network("net");
    world.engine.create_network(&network).await.unwrap();
    let mut want = world.container("a", &network);
    want.image = IMPOSSIBLE.into();
    let error = world.engine.create_container(&want, &sleep()).await.unwrap_err();
    assert!(matches!(error, EngineError::ImageUnavailable { .. }), "{error}");
}

#[tokio::test]
async fn a_node_is_privileged_with_the_runtime_the_engine_has_for_it() {
    let world = World::new().await;
    let info = world.engine.info().await.unwrap();
    assert!(!info.id.is_empty() && matches!(info.cgroup_version, 1 | 2), "{info:?}");
    let network = world.network("net");
    let mut want = world.container("a", &network);
    (want.privileged, want.runtime) = (true, info.node_runtime());
    let id = world.run(&network, &want).await;
    world.sh(&id, "mkdir /m && mount -t tmpfs none /m").await;
}

#[tokio::test]
async fn what_is_gone_is_gone_and_what_is_missing_is_named() {
    let world = World::new().await;
    let nothing = world.name("nothing");
    world.engine.stop_container(&nothing, Duration::from_secs(1)).await.unwrap();
    world.engine.remove_container(&nothing).await.unwrap();
    world.engine.remove_volume(&nothing).await.unwrap();
    world.engine.remove_network(&nothing).await.unwrap();
    let error = world.engine.start_container(&nothing).await.unwrap_err();
    assert!(matches!(&error, EngineError::NotFound { name, .. } if *name == nothing), "{error}");

    // Engines differ in when they look for a container's network.
    let want = world.container("a", &world.network("net"));
    let error = match world.engine.create_container(&want, &sleep()).await {
        Ok(id) => world.engine.start_container(&id).await.unwrap_err(),
        Err(error) => error,
    };
    let missing = format!("network {}", want.network);
    assert!(matches!(&error, EngineError::NotFound { name, .. } if *name == missing), "{error}");
}

#[tokio::test]
async fn an_engine_that_is_not_there_is_unavailable() {
    let engine = Docker::connect(Some("tcp://127.0.0.1:1")).unwrap();
    let error = engine.info().await.unwrap_err();
    assert!(matches!(error, EngineError::Unavailable { .. }) && error.is_transient(), "{error}");
    assert!(error.to_string().contains("nothing listens"), "{error}");
    let error = engine.exec("x", &["true"], stream::empty()).await.unwrap_err();
    assert!(matches!(error, EngineError::Unavailable { .. }), "{error}");
}
