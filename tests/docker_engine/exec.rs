//! Commands in containers, and containers that are one command.

use std::time::Duration;

use bytes::Bytes;
use futures::{
    StreamExt,
    stream::{self, Stream},
};
use k3nest::{
    api::Role,
    engine::{Engine, EngineError, Probe},
    plan::{Volume, VolumeWant},
};

use crate::support::{IMAGE, World};

const MEGABYTE: usize = 1024 * 1024;

/// Five megabytes in pieces.
fn megabytes() -> impl Stream<Item = Bytes> + Send + Unpin + 'static {
    stream::iter(std::iter::repeat_n(Bytes::from(vec![b'x'; MEGABYTE / 16]), 5 * 16))
}

#[tokio::test]
async fn input_goes_in_whole_and_its_end_is_seen() {
    let world = World::new().await;
    let network = world.network("net");
    let id = world.run(&network, &world.container("a", &network)).await;
    let ran = world.engine.exec(&id, &["wc", "-c"], megabytes()).await.unwrap();
    assert_eq!((ran.code, ran.output.trim()), (0, "5242880"));

    // What comes back while it goes in does not block it, and only the end of it is kept
    let ran = world.engine.exec(&id, &["cat"], megabytes()).await.unwrap();
    assert_eq!((ran.code, ran.output.len()), (0, 64 * 1024));

    // What it complains of comes, too (another pipe than its output: in no certain order with it).
    let script = "cat >/dev/null; echo error >&2; exit 7";
    let ran = world.engine.exec(&id, &["/bin/sh", "-c", script], megabytes()).await.unwrap();
    assert_eq!((ran.code, ran.output.as_str()), (7, "error\n"));
}

#[tokio::test]
async fn an_image_is_exported_into_a_command() {
    let world = World::new().await;
    let network = world.network("net");
    let id = world.run(&network, &world.container("a", &network)).await;
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    let archive = stream::unfold(receiver, |mut pieces| async { Some((pieces.recv().await?, pieces)) });
    let export = async {
        let mut pieces = std::pin::pin!(world.engine.export_image(IMAGE));
        while let Some(piece) = pieces.next().await {
            sender.send(piece.unwrap()).await.unwrap();
        }
        drop(sender);
    };
    let list = ["tar", "-t", "-f", "-"];
    let ((), ran) = tokio::join!(export, world.engine.exec(&id, &list, archive.boxed()));
    let ran = ran.unwrap();
    assert_eq!(ran.code, 0, "{}", ran.output);
    assert!(ran.output.lines().any(|file| file == "manifest.json"), "{}", ran.output);

    // One that is not there ends in an error, and in nothing that passes for an archive
    let missing: Vec<_> = world.engine.export_image("k3nest.invalid/nothing:1").collect().await;
    assert!(missing.last().is_some_and(Result::is_err), "{missing:?}");
}

#[tokio::test]
async fn a_command_may_end_before_its_input() {
    let world = World::new().await;
    let network = world.network("net");
    let id = world.run(&network, &world.container("a", &network)).await;
    let endless = stream::repeat_with(|| Bytes::from(vec![b'x'; MEGABYTE]));
    let ran = world.engine.exec(&id, &["/bin/sh", "-c", "head -c 3; exit 4"], endless).await.unwrap();
    assert_eq!((ran.code, ran.output.as_str()), (4, "xxx"));
    // Nor does it need any: this input never comes
    let ran = world.engine.exec(&id, &["echo", "hi"], stream::pending()).await.unwrap();
    assert_eq!((ran.code, ran.output.as_str()), (0, "hi\n"));
}

#[tokio::test]
async fn where_nothing_runs_there_is_no_exec() {
    let world = World::new().await;
    let network = world.network("net");
    let id = world.run(&network, &world.container("a", &network)).await;
    match world.engine.exec(&id, &["/bin/nothing"], stream::empty()).await {
        Ok(ran) => assert!(matches!(ran.code, 126 | 127), "{ran:?}"),
        Err(error) => assert!(matches!(error, EngineError::Refused { .. }), "{error}"),
    }
    world.engine.stop_container(&id, Duration::from_secs(5)).await.unwrap();
    let error = world.engine.exec(&id, &["true"], stream::empty()).await.unwrap_err();
    assert!(matches!(error, EngineError::Busy { .. }), "{error}");
    world.engine.remove_container(&id).await.unwrap();
    let error = world.engine.exec(&id, &["true"], stream::empty()).await.unwrap_err();
    assert!(matches!(error, EngineError::NotFound { .. }), "{error}");
}

fn probe(world: &World, script: &str) -> Probe {
    Probe {
        name: world.name("probe"),
        image: IMAGE.into(),
        script: script.into(),
        labels: world.identity.labels(Role::Probe),
        volumes: Vec::new(),
    }
}

#[tokio::test]
async fn a_probe_sees_the_host_and_goes() {
    let world = World::new().await;
    let devices = world.engine.run_once(&probe(&world, "ls /sys/class/net")).await.unwrap();
    assert!(devices.lines().any(|device| device == "docker0"), "{devices}");
    let error = world.engine.run_once(&probe(&world, "echo why; exit 3")).await.unwrap_err();
    assert!(error.to_string().contains("ended with 3: why"), "{error}");
    let mut missing = probe(&world, "true");
    missing.image = "k3nest.invalid/nothing:1".into();
    let error = world.engine.run_once(&missing).await.unwrap_err();
    assert!(matches!(error, EngineError::ImageUnavailable { .. }), "{error}");
    assert!(world.observe().await.is_empty());
}

/// Whoever finds it takes it for the one that went.
#[tokio::test]
async fn a_volume_that_went_before_a_probe_looks_is_made_as_it_was() {
    let world = World::new().await;
    let volume = VolumeWant { name: world.name("data"), labels: world.identity.labels(Role::Data) };
    let mut probe = probe(&world, "ls -A /looked-at");
    probe.volumes = vec![(volume.clone(), "/looked-at".into())];
    assert_eq!(world.engine.run_once(&probe).await.unwrap(), "");
    let made = world.observe().await.volumes;
    assert_eq!(made, [Volume { name: volume.name, labels: volume.labels }]);
}

#[tokio::test]
async fn a_probe_that_is_dropped_goes_too() {
    let world = World::new().await;
    let endless = probe(&world, "sleep 600");
    let dropped = tokio::time::timeout(Duration::from_secs(3), world.engine.run_once(&endless)).await;
    assert!(dropped.is_err());
    let gone = async {
        while !world.observe().await.is_empty() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.expect("the probe is removed");
}

#[tokio::test]
async fn a_probe_at_work_is_not_disturbed_by_another() {
    let world = World::new().await;
    let slow = probe(&world, "sleep 3; echo done");
    let (first, second) = tokio::join!(world.engine.run_once(&slow), async {
        while world.observe().await.is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        world.engine.run_once(&slow).await
    });
    assert_eq!(first.unwrap(), "done\n");
    assert!(matches!(second, Err(EngineError::Busy { .. })), "{second:?}");
}
