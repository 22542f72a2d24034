//! `k3nest delete`: everything of a cluster goes, nothing else.

use std::{sync::Arc, time::Duration};

use clap::Args;
use futures::future::join_all;
use tokio::time::Instant;

use super::{
    CliError, apply, files,
    progress::{Line, Progress},
    session::{EngineArgs, Session},
};
use crate::{
    api::Identity,
    reconcile::{Removal, remove},
};

/// Between two tries at what Docker is still busy with.
const PAUSE: Duration = Duration::from_millis(500);

/// Arguments of `delete`.
#[derive(Args, Clone, Debug)]
#[group(required = true, multiple = true)]
pub struct DeleteArgs {
    /// Clusters to remove
    #[arg(value_name = "NAME")]
    names: Vec<String>,

    /// Remove the clusters in this file; only their names matter
    #[arg(short, long = "filename", value_name = "FILE")]
    files: Vec<String>,

    /// Namespace of the clusters given by name
    #[arg(short, long, default_value = "default")]
    namespace: String,

    /// How long to try
    #[arg(long, default_value = "2m", value_parser = apply::duration)]
    timeout: Duration,
}

pub async fn run(args: &EngineArgs, delete: DeleteArgs) -> Result<(), CliError> {
    let session = Session::open(args).await?;
    let mut wanted: Vec<Identity> =
        delete.names.iter().map(|n| session.identity(&delete.namespace, n)).collect();
    if !delete.files.is_empty() {
        wanted.extend(files::read(&delete.files)?.iter().map(|f| session.identity(&f.namespace, &f.name)));
    }
    let known = session.clusters().await?;
    let missing = wanted.iter().filter(|w| !known.iter().any(|(identity, _)| identity.uid == w.uid));
    let missing: Vec<String> = missing.map(ToString::to_string).collect();

    let progress = Progress::new(wanted.iter().map(|i| i.name.as_str()));
    let present = wanted.iter().filter(|w| known.iter().any(|(identity, _)| identity.uid == w.uid));
    let runs = present.map(|identity| {
        let line = progress.line(&identity.name);
        let session = &session;
        async move {
            let result = gone(session, identity, delete.timeout, &line).await;
            line.end(match &result {
                Ok(()) => "deleted",
                Err(_) => "not deleted",
            });
            result
        }
    });
    for result in join_all(runs).await {
        result?;
    }
    match missing.as_slice() {
        [] => Ok(()),
        names => Err(CliError::Failed(format!(
            "not found: {}; k3nest get clusters lists what is there",
            names.join(", ")
        ))),
    }
}

/// Removes until nothing is left.
pub async fn gone(
    session: &Session,
    identity: &Identity,
    timeout: Duration,
    line: &Line,
) -> Result<(), CliError> {
    let voice = line.clone();
    let world = session.world(Arc::new(move |text| voice.say(text)));
    let deadline = Instant::now() + timeout;
    loop {
        let Removal::Remaining(left) = remove(&world, identity).await? else { return Ok(()) };
        if tokio::time::timeout_at(deadline, tokio::time::sleep(PAUSE)).await.is_err() {
            return Err(CliError::NotInTime(format!(
                "{identity}: left after {timeout:?}: {}; run delete again",
                left.join(", ")
            )));
        }
        line.say(&format!("{} left: {}", left.len(), left.first().cloned().unwrap_or_default()));
    }
}
