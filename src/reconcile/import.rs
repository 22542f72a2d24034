//! Bringing an image from the Docker daemon into nodes: exported once, streamed into all of them at
//! once, and verified by ID.

use std::{pin::pin, time::Duration};

use bytes::Bytes;
use futures::{
    Stream, StreamExt,
    future::{join, join_all},
    stream::unfold,
};
use tokio::{sync::mpsc, time::Instant};

use super::importer::{ImageNode, Import, ImportFailure, Importer, in_words};
use crate::{
    engine::{Engine, ExecOutput, Progress},
    k3s::{IMPORT_IMAGES, is_out_of_space, last_words, list_images, parse_images},
    plan::{NodeImages, Presence, image_name},
};

/// Pieces of the archive that wait for one node, some 64 kB each. The slowest node sets the pace, so
/// that memory is bounded.
const AHEAD: usize = 16;

/// The kubelet's side of containerd takes note of an image a moment after the import.
const NOTED: Duration = Duration::from_secs(10);

/// Between two looks for that.
const PAUSE: Duration = Duration::from_millis(100);

/// What a node may take to say which images it has. An exec may be silent for longer than that, since an
/// import may; this is a question.
const ANSWER: Duration = Duration::from_secs(60);

/// Carries out an import that a step has planned, and notes how it ended for the steps to come.
/// Returns into how many nodes it came, and did not come.
pub async fn import<E: Engine>(
    engine: &E,
    progress: &Progress,
    importer: &Importer,
    import: Import,
) -> (usize, usize) {
    progress(&import.to_string());
    let results = bring(engine, &import.reference, &import.id, &import.nodes).await;
    let failed = results.iter().filter(|result| result.is_err()).count();
    if failed == 0 {
        progress(&format!("{} is in {}", import.reference, in_words(&import.nodes)));
    }
    for (node, result) in import.nodes.iter().zip(results) {
        if let Err(failure) = &result {
            tracing::warn!(image = import.reference, node = node.name, "{}", failure.message);
        }
        importer.note((node.container.clone(), image_name(&import.reference)), result);
    }
    (import.nodes.len() - failed, failed)
}

/// Brings the image `reference`, which has this `id`, into `nodes`; the results are in their order.
pub async fn bring<E: Engine>(
    engine: &E,
    reference: &str,
    id: &str,
    nodes: &[ImageNode],
) -> Vec<Result<(), ImportFailure>> {
    let (mut feeds, mut into) = (Vec::new(), Vec::new());
    for node in nodes {
        let (feed, archive) = mpsc::channel(AHEAD);
        let archive = unfold(archive, |mut archive| async { Some((archive.recv().await?, archive)) });
        feeds.push(feed);
        into.push(engine.exec(&node.container, &IMPORT_IMAGES, archive.boxed()));
    }
    let (exported, imported) = join(feed(engine.export_image(reference), feeds), join_all(into)).await;
    let mut ended = Vec::new();
    for (node, imported) in nodes.iter().zip(imported) {
        ended.push(end(engine, reference, id, node, &exported, imported));
    }
    join_all(ended).await
}

/// What an import into one node came to.
async fn end<E: Engine>(
    engine: &E,
    reference: &str,
    id: &str,
    node: &ImageNode,
    exported: &Result<(), String>,
    imported: crate::engine::Result<ExecOutput>,
) -> Result<(), ImportFailure> {
    let failed = |why: &str| failure(reference, node, why);
    // Cut short, the archive is the reason for whatever became of it.
    exported.as_ref().map_err(|why| failed(why))?;
    let output = imported.map_err(|error| failed(&error.to_string()))?;
    succeeded(&output).map_err(|words| failed(&words))?;
    verify(engine, reference, id, node).await
}

/// Passes the archive on to every node that still takes it.
async fn feed(
    archive: impl Stream<Item = crate::engine::Result<Bytes>>,
    mut feeds: Vec<mpsc::Sender<Bytes>>,
) -> Result<(), String> {
    let mut archive = pin!(archive);
    while let Some(piece) = archive.next().await {
        let piece = piece.map_err(|error| error.to_string())?;
        let mut sending = Vec::new();
        for feed in feeds {
            let piece = piece.clone();
            sending.push(async move { feed.send(piece).await.is_ok().then_some(feed) });
        }
        feeds = join_all(sending).await.into_iter().flatten().collect();
        if feeds.is_empty() {
            break;
        }
    }
    Ok(())
}

/// Whether a command ended well; else why not.
fn succeeded(output: &ExecOutput) -> Result<(), String> {
    match output.code {
        0 => Ok(()),
        code => {
            let output = &output.output;
            // What failed first is the reason, and need not be what was said last.
            let space = if is_out_of_space(output) { "no space left on device; " } else { "" };
            Err(format!("{space}{} (exit code {code})", last_words(output)))
        }
    }
}

/// An import that reports success has been seen to leave nothing behind.
async fn verify<E: Engine>(
    engine: &E,
    reference: &str,
    id: &str,
    node: &ImageNode,
) -> Result<(), ImportFailure> {
    let deadline = Instant::now() + NOTED;
    loop {
        let listed = list(engine, node, &[reference, id]).await;
        let images = listed.map_err(|why| failure(reference, node, &why))?;
        let found = match images.presence(reference, id) {
            Presence::Present => return Ok(()),
            _ if Instant::now() < deadline => {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            Presence::Missing => "the node has no such image".to_owned(),
            Presence::Different(digest) => format!("the node has {digest} under that name"),
        };
        let words = format!("the import reported success, but {found}, not {id}, the one in Docker");
        return Err(failure(reference, node, &words));
    }
}

/// What a node has under `names`, references or IDs. An error says in words why it cannot be told.
pub async fn list<E: Engine>(engine: &E, node: &ImageNode, names: &[&str]) -> Result<NodeImages, String> {
    run_list(engine, node, &list_images(names)).await
}

/// Runs a command of [`list_images`]' kind in a node.
pub async fn run_list<E: Engine>(
    engine: &E,
    node: &ImageNode,
    command: &[String],
) -> Result<NodeImages, String> {
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    let asked = engine.exec(&node.container, &words, futures::stream::empty());
    let Ok(ran) = tokio::time::timeout(ANSWER, asked).await else {
        let short = &node.container[..node.container.len().min(12)];
        return Err(format!(
            "k3s ctr images ls: no answer within {} s; containerd in the node hangs or its disk is too slow: docker logs {short} may say why",
            ANSWER.as_secs()
        ));
    };
    let output = ran.map_err(|error| error.to_string())?;
    succeeded(&output).map_err(|words| format!("k3s ctr images ls: {words}"))?;
    Ok(parse_images(&output.output))
}

fn failure(reference: &str, node: &ImageNode, why: &str) -> ImportFailure {
    let out_of_space = is_out_of_space(why);
    let what = format!("{reference} could not be imported into node {}", node.name);
    let short = &node.container[..node.container.len().min(12)];
    let message = if out_of_space {
        format!(
            "{what}: {why}; make room in the node (docker exec {short} k3s crictl rmi --prune removes images \
             that no container uses) or on the Docker host's disk; it is tried again"
        )
    } else {
        format!("{what}: {why}; it is tried again")
    };
    ImportFailure { out_of_space, message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::{engine::SimEngine, faults::Faults};

    #[tokio::test(start_paused = true)]
    async fn a_node_that_does_not_say_which_images_it_has_holds_nobody_up_for_long() {
        let engine = SimEngine::default();
        let node = ImageNode { name: "dev-server-0".into(), container: "1f".into() };
        assert_eq!(list(&engine, &node, &["app:dev"]).await, Ok(NodeImages::default()));

        engine.arrange(Faults { hanging: true, ..Faults::default() });
        let asked = tokio::time::timeout(ANSWER * 2, list(&engine, &node, &["app:dev"])).await;
        let why = asked.expect("an end").unwrap_err();
        assert!(why.contains("no answer within 60 s") && why.contains("docker logs 1f"), "{why}");
    }
}
