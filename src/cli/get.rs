//! `k3nest get`: clusters and nodes of the CLI on this engine.

use clap::{Args, Subcommand};
use futures::future::join_all;
use kube::ResourceExt;

use super::{
    CliError,
    output::{Column, Format, print},
    session::{EngineArgs, Session, now},
};
use crate::{
    api::{
        Identity, K3sCluster, K3sClusterSpec, K3sClusterStatus, NodeStatus, Phase, Reason, condition,
        set_condition,
    },
    plan::{Belongings, Observed, RecordState},
    reconcile::inspect,
};

/// Arguments of `get`.
#[derive(Args, Clone, Debug)]
pub struct GetArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Clone, Debug)]
enum What {
    /// Clusters
    #[command(visible_aliases = ["cluster", "k3c"])]
    Clusters(Selection),
    /// Nodes of clusters
    #[command(visible_alias = "node")]
    Nodes(Selection),
}

#[derive(Args, Clone, Debug)]
struct Selection {
    /// Only these clusters
    #[arg(value_name = "CLUSTER")]
    names: Vec<String>,

    /// Only this namespace; all unless given
    #[arg(short, long)]
    namespace: Option<String>,

    /// How to print
    #[arg(short, long, default_value = "table")]
    output: Format,
}

pub async fn run(args: &EngineArgs, get: GetArgs) -> Result<(), CliError> {
    let session = Session::open(args).await?;
    let (What::Clusters(selection) | What::Nodes(selection)) = &get.what;
    let found: Vec<(Identity, Observed)> = session
        .clusters()
        .await?
        .into_iter()
        .filter(|(i, _)| selection.namespace.as_ref().is_none_or(|n| *n == i.namespace))
        .filter(|(i, _)| selection.names.is_empty() || selection.names.contains(&i.name))
        .collect();
    if let Some(name) = selection.names.iter().find(|n| !found.iter().any(|(i, _)| i.name == **n)) {
        return Err(CliError::Failed(format!(
            "cluster {name} not found; k3nest get clusters lists what is there"
        )));
    }
    let clusters =
        join_all(found.iter().map(|(identity, observed)| look(&session, identity, observed))).await;
    match get.what {
        What::Clusters(selection) => print_clusters(&clusters, selection.output),
        What::Nodes(selection) => print_nodes(&clusters, selection.output),
    }
}

/// The resource with its status as it is now.
async fn look(session: &Session, identity: &Identity, observed: &Observed) -> K3sCluster {
    let world = session.quiet();
    match session.recorded(identity, observed) {
        Some((mut cluster, request)) => {
            cluster.status = Some(inspect(&world, &request, now()).await.status);
            cluster.metadata.namespace = Some(identity.namespace.clone());
            cluster
        }
        None => without_record(identity, observed),
    }
}

/// What can be said of a cluster whose record is gone or cannot be read: not what it is to be.
fn without_record(identity: &Identity, observed: &Observed) -> K3sCluster {
    let (phase, ready, reason, message) = match Belongings::new(identity.clone(), observed).record {
        RecordState::Lost => (
            Phase::Updating,
            None,
            Reason::RecordMissing,
            "its record is gone, its nodes are not; k3nest apply of its file writes it again",
        ),
        RecordState::Missing => (
            Phase::Failed,
            Some(false),
            Reason::RecordMissing,
            "its record is gone: half made or half deleted; apply its file again, or delete it",
        ),
        _ => (
            Phase::Failed,
            Some(false),
            Reason::RecordUnreadable,
            "its record cannot be read: another version of k3nest may have written it; use that version",
        ),
    };
    let mut status = K3sClusterStatus { phase, ..K3sClusterStatus::default() };
    set_condition(&mut status.conditions, condition::READY, ready, reason, message, None, now());
    let mut cluster = K3sCluster::new(&identity.name, K3sClusterSpec::default());
    cluster.metadata.namespace = Some(identity.namespace.clone());
    cluster.status = Some(status);
    cluster
}

fn status(cluster: &K3sCluster) -> K3sClusterStatus {
    cluster.status.clone().unwrap_or_default()
}

fn print_clusters(clusters: &[K3sCluster], format: Format) -> Result<(), CliError> {
    let ready = |c: &K3sCluster| {
        let conditions = status(c).conditions;
        conditions
            .into_iter()
            .find(|c| c.type_ == condition::READY)
            .map(|c| (c.reason, c.message))
            .unwrap_or_default()
    };
    let columns: Vec<Column<K3sCluster>> = vec![
        Column::new("NAMESPACE", |c: &K3sCluster| c.namespace().unwrap_or_default()),
        Column::new("NAME", |c: &K3sCluster| c.name_any()),
        Column::new("VERSION", |c: &K3sCluster| status(c).version.unwrap_or_else(|| c.spec.version.clone())),
        Column::new("PHASE", |c: &K3sCluster| status(c).phase.to_string()),
        Column::new("SERVERS", |c: &K3sCluster| status(c).servers_ready.unwrap_or_default()),
        Column::new("AGENTS", |c: &K3sCluster| status(c).agents_ready.unwrap_or_default()),
        Column::wide("ENDPOINT", |c: &K3sCluster| status(c).endpoint.unwrap_or_default()),
        Column::wide("REASON", move |c: &K3sCluster| ready(c).0),
        Column::wide("MESSAGE", move |c: &K3sCluster| ready(c).1),
    ];
    print(clusters, &columns, format, "cluster", |c| c.name_any())
}

fn print_nodes(clusters: &[K3sCluster], format: Format) -> Result<(), CliError> {
    #[derive(serde::Serialize)]
    struct Node {
        namespace: String,
        cluster: String,
        #[serde(flatten)]
        status: NodeStatus,
    }
    let nodes: Vec<Node> = clusters
        .iter()
        .flat_map(|c| {
            status(c).nodes.into_iter().map(|status| Node {
                namespace: c.namespace().unwrap_or_default(),
                cluster: c.name_any(),
                status,
            })
        })
        .collect();
    let columns: Vec<Column<Node>> = vec![
        Column::new("NAMESPACE", |n: &Node| n.namespace.clone()),
        Column::new("CLUSTER", |n: &Node| n.cluster.clone()),
        Column::new("NAME", |n: &Node| n.status.name.clone()),
        Column::new("ROLE", |n: &Node| n.status.role.clone()),
        Column::new("READY", |n: &Node| n.status.ready.to_string()),
        Column::new("STATE", |n: &Node| n.status.state.clone()),
        Column::new("VERSION", |n: &Node| n.status.version.clone().unwrap_or_default()),
        Column::wide("IP", |n: &Node| n.status.ip.clone()),
        Column::wide("CONTAINER", |n: &Node| n.status.container.clone()),
        Column::wide("MESSAGE", |n: &Node| n.status.message.clone().unwrap_or_default()),
    ];
    print(&nodes, &columns, format, "node", |n| n.status.name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::Role,
        cli::testing::{ENGINE, FakeDocker},
        engine::observe,
    };

    /// Phase, status and reason of Ready, and its message, for a cluster that has these objects.
    async fn said(objects: &[Role]) -> [String; 4] {
        let dev = Identity::standalone(ENGINE, "default", "dev");
        let objects: Vec<_> = objects.iter().map(|role| (&dev, *role)).collect();
        let docker = FakeDocker::with(&objects);
        let session = Session::open(&docker.args()).await.unwrap();
        let observed = observe(&session.docker, &dev).await.unwrap();
        let status = look(&session, &dev, &observed).await.status.unwrap();
        let ready = status.conditions.into_iter().find(|c| c.type_ == condition::READY).unwrap();
        [status.phase.to_string(), ready.status, ready.reason, ready.message]
    }

    #[tokio::test]
    async fn only_what_is_lost_is_said_to_be() {
        for (objects, expected, advice) in [
            (&[Role::Server, Role::Data][..], ["Updating", "Unknown", "RecordMissing"], "k3nest apply"),
            (&[Role::Data], ["Updating", "Unknown", "RecordMissing"], "k3nest apply"),
            (&[Role::Network], ["Failed", "False", "RecordMissing"], "half made or half deleted"),
            (&[Role::Record, Role::Data], ["Failed", "False", "RecordUnreadable"], "use that version"),
        ] {
            let [phase, status, reason, message] = said(objects).await;
            assert_eq!([&*phase, &*status, &*reason], expected, "{objects:?}");
            assert!(message.contains(advice), "{objects:?}: {message}");
            let deletion = objects == [Role::Network];
            assert_eq!(message.contains("delete it"), deletion, "{objects:?}: {message}");
        }
    }
}
