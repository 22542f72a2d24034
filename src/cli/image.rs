//! `k3nest image`: images of the Docker daemon in the nodes of a cluster.

use std::collections::BTreeSet;

use clap::{Args, Subcommand};
use futures::future::join_all;
use serde::Serialize;

use super::{
    CliError,
    output::{Column, Format, print},
    progress::Progress,
    session::{EngineArgs, Session},
};
use crate::{
    api::{Identity, Role, label},
    engine::{Docker, Engine},
    k3s::list_names,
    plan::{ContainerState, Observed, Presence, WantedImage, image_name},
    reconcile::{ImageNode, bring, list, run_list, wanted_images},
};

/// Arguments of `image`.
#[derive(Args, Clone, Debug)]
pub struct ImageArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Clone, Debug)]
enum Verb {
    /// Bring images of the Docker daemon into every node of a cluster, now; its specification stays
    Import {
        /// Images as docker image ls names them, such as app:dev
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
        /// The cluster
        #[arg(short, long, value_name = "NAME")]
        cluster: String,
        /// Its namespace
        #[arg(short, long, default_value = "default")]
        namespace: String,
    },
    /// Tell for each image of a cluster's spec.images whether each node has the one that Docker has
    List {
        /// The cluster
        name: String,
        /// Its namespace
        #[arg(short, long, default_value = "default")]
        namespace: String,
        /// How to print
        #[arg(short, long, default_value = "table")]
        output: Format,
    },
}

pub async fn run(args: &EngineArgs, image: ImageArgs) -> Result<(), CliError> {
    let session = Session::open(args).await?;
    match image.verb {
        Verb::Import { images, cluster, namespace } => {
            let (_, observed) = find(&session, &namespace, &cluster).await?;
            import(&session.docker, &cluster, &observed, images).await
        }
        Verb::List { name, namespace, output } => {
            let (identity, observed) = find(&session, &namespace, &name).await?;
            let (applied, _) = session.recorded(&identity, &observed).ok_or_else(|| {
                CliError::Failed(format!(
                    "the record of cluster {name} is gone, so its spec.images is not known; apply its file again, or delete it"
                ))
            })?;
            let rows = rows(&session.docker, &observed, &applied.spec.images).await?;
            print_rows(&rows, output)
        }
    }
}

async fn find(session: &Session, namespace: &str, name: &str) -> Result<(Identity, Observed), CliError> {
    let wanted = session.identity(namespace, name);
    let found = session.clusters().await?.into_iter().find(|(identity, _)| identity.uid == wanted.uid);
    found.ok_or_else(|| {
        CliError::Failed(format!("cluster {wanted} not found; k3nest get clusters lists what is there"))
    })
}

/// The node containers, and whether each runs.
fn nodes(observed: &Observed) -> Vec<(ImageNode, ContainerState)> {
    let nodes = observed.containers.iter().filter(|c| matches!(c.role(), Some(Role::Server | Role::Agent)));
    nodes
        .map(|c| {
            let name = c.labels.get(label::NODE).unwrap_or(&c.name).clone();
            (ImageNode { name, container: c.id.clone() }, c.state)
        })
        .collect()
}

async fn import(
    docker: &Docker,
    cluster: &str,
    observed: &Observed,
    images: Vec<String>,
) -> Result<(), CliError> {
    let (running, standing): (Vec<_>, Vec<_>) =
        nodes(observed).into_iter().partition(|(_, state)| *state == ContainerState::Running);
    let running: Vec<ImageNode> = running.into_iter().map(|(node, _)| node).collect();
    let mut errors: Vec<CliError> = standing
        .iter()
        .map(|(node, state)| {
            CliError::Failed(format!(
                "node {} is {}, so nothing was imported into it; apply its cluster's file and run this again",
                node.name,
                state.as_str()
            ))
        })
        .collect();
    if running.is_empty() && errors.is_empty() {
        return Err(CliError::Failed(format!("cluster {cluster} has no nodes; apply its file")));
    }
    let mut names = BTreeSet::new();
    let mut wanted = wanted_images(docker, &images).await?;
    wanted.retain(|image| names.insert(image_name(&image.reference)));
    let progress = Progress::new(wanted.iter().map(|image| image.reference.as_str()));
    for image in &wanted {
        errors.extend(import_one(docker, image, &running, &progress).await);
    }
    CliError::all(errors)
}

/// Brings one image into all nodes and prints how it went in each.
async fn import_one(
    docker: &Docker,
    image: &WantedImage,
    nodes: &[ImageNode],
    progress: &Progress,
) -> Vec<CliError> {
    let reference = &image.reference;
    let Some(id) = &image.id else {
        return vec![CliError::Failed(format!(
            "the Docker daemon has no image {reference}; docker build, docker pull or docker load it there first"
        ))];
    };
    let line = progress.line(reference);
    line.say("looking which nodes lack it");
    let mut lacking = Vec::new();
    for (node, presence) in look(docker, nodes, reference, id).await {
        match presence {
            // Where a node cannot be asked, the import says why.
            Ok(Presence::Present) => println!("{reference} {}: there already", node.name),
            _ => lacking.push(node.clone()),
        }
    }
    if lacking.is_empty() {
        line.end("in every node");
        return Vec::new();
    }
    line.say(&format!("importing into {} of {} nodes", lacking.len(), nodes.len()));
    let results = bring(docker, reference, id, &lacking).await;
    let mut errors = Vec::new();
    for (node, result) in lacking.iter().zip(results) {
        match result {
            Ok(()) => println!("{reference} {}: imported", node.name),
            Err(failure) => {
                println!("{reference} {}: failed", node.name);
                errors.push(CliError::Failed(failure.message));
            }
        }
    }
    line.end(if errors.is_empty() { "in every node" } else { "failed" });
    errors
}

async fn look<'a>(
    docker: &Docker,
    nodes: &'a [ImageNode],
    reference: &str,
    id: &str,
) -> Vec<(&'a ImageNode, Result<Presence, String>)> {
    let looks = nodes.iter().map(|node| async move {
        let names = [reference, id];
        let has = list(docker, node, &names).await;
        (node, has.map(|has| has.presence(reference, id)))
    });
    join_all(looks).await
}

/// An image in a node.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    image: String,
    node: String,
    /// present, different, missing, or unknown where the node could not be asked; not-in-docker where
    /// there is nothing to compare with.
    state: &'static str,
    /// The image's ID in Docker.
    id: Option<String>,
    /// The ID of what the node has under that name.
    node_id: Option<String>,
    /// Why the state is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

async fn rows(docker: &Docker, observed: &Observed, images: &[String]) -> Result<Vec<Row>, CliError> {
    let wanted = wanted_images(docker, images).await?;
    let (wanted, nodes) = (&wanted, nodes(observed));
    let of_nodes = nodes.iter().map(|(node, state)| async move {
        if *state != ContainerState::Running {
            let why = format!("its container is {}", state.as_str());
            return wanted.iter().map(|image| unknown(image, node, &why)).collect();
        }
        rows_of(docker, node, wanted).await
    });
    let mut rows: Vec<Row> = join_all(of_nodes).await.into_iter().flatten().collect();
    let place = |row: &Row| images.iter().position(|image| *image == row.image);
    rows.sort_by_key(place);
    Ok(rows)
}

fn unknown(image: &WantedImage, node: &ImageNode, why: &str) -> Row {
    Row {
        image: image.reference.clone(),
        node: node.name.clone(),
        state: "unknown",
        id: image.id.clone(),
        node_id: None,
        message: Some(why.to_owned()),
    }
}

async fn rows_of<E: Engine>(engine: &E, node: &ImageNode, wanted: &[WantedImage]) -> Vec<Row> {
    let ids = wanted.iter().filter_map(|image| image.id.as_deref());
    let names: Vec<&str> = wanted.iter().map(|image| image.reference.as_str()).chain(ids).collect();
    if names.is_empty() {
        return Vec::new();
    }
    let has = match list(engine, node, &names).await {
        Ok(has) => has,
        Err(why) => return wanted.iter().map(|image| unknown(image, node, &why)).collect(),
    };
    // Others are known by their manifests so far; their IDs have names of their own.
    let presences: Vec<Presence> = wanted
        .iter()
        .map(|image| has.presence(&image.reference, image.id.as_deref().unwrap_or_default()))
        .collect();
    let digests: Vec<&str> = presences
        .iter()
        .filter_map(|presence| match presence {
            Presence::Different(digest) => Some(digest.as_str()),
            Presence::Present | Presence::Missing => None,
        })
        .collect();
    let others = match digests.is_empty() {
        true => Default::default(),
        false => run_list(engine, node, &list_names(&digests)).await.unwrap_or_default(),
    };
    let id_of = |digest: &String| {
        let named =
            others.0.iter().find(|other| other.digest == *digest && other.name.starts_with("sha256:"));
        named.map_or_else(|| digest.clone(), |other| other.name.clone())
    };
    let row = |(image, presence): (&WantedImage, &Presence)| {
        let (state, node_id) = match presence {
            Presence::Present => ("present", image.id.clone()),
            Presence::Different(digest) => ("different", Some(id_of(digest))),
            Presence::Missing => ("missing", None),
        };
        Row {
            image: image.reference.clone(),
            node: node.name.clone(),
            state: if image.id.is_some() { state } else { "not-in-docker" },
            id: image.id.clone(),
            node_id,
            message: None,
        }
    };
    wanted.iter().zip(&presences).map(row).collect()
}

fn print_rows(rows: &[Row], format: Format) -> Result<(), CliError> {
    let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
    let columns: Vec<Column<Row>> = vec![
        Column::new("IMAGE", |row: &Row| row.image.clone()),
        Column::new("NODE", |row: &Row| row.node.clone()),
        Column::new("STATE", |row: &Row| row.state.to_owned()),
        Column::wide("ID", move |row: &Row| text(&row.id)),
        Column::wide("NODE ID", move |row: &Row| text(&row.node_id)),
        Column::wide("MESSAGE", |row: &Row| row.message.clone().unwrap_or_default()),
    ];
    print(rows, &columns, format, "image", |row| format!("{}@{}", row.image, row.node))
}
