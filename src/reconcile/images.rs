//! The look at images: what Docker has, what every node has, and what there is to import.

use std::{collections::BTreeMap, time::Duration};

use futures::future::{join_all, try_join_all};

use super::{
    Request, World,
    converge::Seen,
    import::list,
    importer::{ImageNode, Import, ImportFailure},
};
use crate::{
    engine::{Engine, EngineError},
    plan::{ContainerState, ImageImport, NodeImages, Presence, WantedImage, image_name, image_plan},
};

/// What a step found out about images.
#[derive(Debug, Default)]
pub struct ImagesSeen {
    /// Wanted images that Docker does not have.
    pub missing: Vec<WantedImage>,
    /// Imports to carry out, which count as under way already.
    pub imports: Vec<Import>,
    /// What nodes lack, in words, where nothing is to be done about it now.
    pub lacking: Vec<String>,
    /// Imports that failed.
    pub failures: Vec<ImportFailure>,
    /// When one of those may be tried again.
    pub retry: Option<Duration>,
    /// Nodes with imports under way from a former step.
    pub busy: Vec<String>,
    /// Nodes that could not be asked, and why.
    pub unlisted: Vec<(String, String)>,
}

/// A node on its way, as far as images go.
struct Place {
    node: ImageNode,
    /// Whether its kubelet has spoken since its container was made: its containerd is up by then.
    speaks: bool,
    ready: bool,
}

/// Looks which wanted images nodes lack. Nodes are asked as soon as their kubelets speak; one that
/// had everything is not asked again before all are Ready. With `act` set, the imports that come out
/// of it begin with their being in `seen`.
///
/// # Errors
/// Where Docker could not be asked for its own images.
pub async fn look_at_images<E: Engine, A>(
    world: &World<E, A>,
    request: &Request,
    seen: &mut Seen,
    act: bool,
) -> Result<(), EngineError> {
    if request.spec.images.is_empty() {
        return Ok(());
    }
    let wanted = wanted_images(&world.engine, &request.spec.images).await?;
    let there: Vec<(String, String)> =
        wanted.iter().filter_map(|image| Some((image_name(&image.reference), image.id.clone()?))).collect();
    let names: Vec<&str> = there.iter().flat_map(|(name, id)| [name.as_str(), id.as_str()]).collect();

    let (importer, places) = (&world.importer, places(seen));
    let all_ready = places.iter().all(|place| place.ready);
    let asked = |place: &&Place| {
        place.speaks
            && !names.is_empty()
            && !importer.is_busy(&place.node.container)
            && (all_ready || !importer.was_complete(&place.node.container, &there))
    };
    let asked: Vec<&ImageNode> = places.iter().filter(asked).map(|place| &place.node).collect();
    let lists = join_all(asked.iter().map(|node| list(&world.engine, node, &names))).await;

    let mut images = ImagesSeen::default();
    let mut nodes: BTreeMap<String, NodeImages> = BTreeMap::new();
    for (node, listed) in asked.into_iter().zip(lists) {
        match listed {
            Ok(has) => {
                let present = |(name, id): &(String, String)| has.presence(name, id) == Presence::Present;
                importer.note_complete(&node.container, &there, there.iter().all(present));
                nodes.insert(node.container.clone(), has);
            }
            Err(why) => images.unlisted.push((node.name.clone(), why)),
        }
    }
    let all: Vec<ImageNode> = places.into_iter().map(|place| place.node).collect();
    let busy = all.iter().filter(|node| importer.is_busy(&node.container));
    images.busy = busy.map(|node| node.name.clone()).collect();
    let plan = image_plan(&wanted, &nodes, &importer.held());
    images.missing = plan.missing;
    if act {
        images.imports = plan.imports.iter().map(|import| importer.begin(import, &all)).collect();
    } else {
        images.lacking = plan.imports.iter().map(|import| lacking(import, &all)).collect();
    }
    (images.failures, images.retry) = importer.failures(&all, &there);
    seen.images = Some(images);
    Ok(())
}

/// The wanted images, with the IDs that Docker knows them by.
///
/// # Errors
/// Where Docker could not be asked.
pub async fn wanted_images<E: Engine>(
    engine: &E,
    references: &[String],
) -> Result<Vec<WantedImage>, EngineError> {
    let look = references.iter().enumerate().map(|(index, reference)| async move {
        let found = engine.inspect_image(reference).await?;
        Ok(WantedImage {
            field: format!("spec.images[{index}]"),
            reference: reference.clone(),
            id: found.map(|image| image.id),
        })
    });
    try_join_all(look).await
}

/// The nodes with running containers.
fn places(seen: &Seen) -> Vec<Place> {
    let facts = seen.nodes.iter().flatten().flatten();
    seen.nodes_wanted()
        .filter_map(|(want, config)| {
            let container = seen.observed.container(&want.name)?;
            let node = facts.clone().find(|node| node.name == config.node_name);
            (container.state == ContainerState::Running).then(|| Place {
                node: ImageNode { name: config.node_name.clone(), container: container.id.clone() },
                speaks: node.is_some_and(|node| node.ready || node.has_spoken_since(container.created)),
                ready: node.is_some_and(|node| node.ready),
            })
        })
        .collect()
}

fn lacking(import: &ImageImport, all: &[ImageNode]) -> String {
    let nodes = all.iter().filter(|node| import.nodes.contains(&node.container));
    let names: Vec<&str> = nodes.map(|node| node.name.as_str()).collect();
    format!("{} is missing or another one in {}", import.reference, names.join(", "))
}
