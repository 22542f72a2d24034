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
    plan::{Adopter, Keeper},
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
        wanted.extend(
            files::names(&delete.files)?.iter().map(|(namespace, name)| session.identity(namespace, name)),
        );
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
            let result = gone(session, identity, None, delete.timeout, &line).await;
            line.end(match &result {
                Ok(()) => "deleted",
                Err(_) => "not deleted",
            });
            result
        }
    });
    let mut errors: Vec<CliError> = join_all(runs).await.into_iter().filter_map(Result::err).collect();
    if !missing.is_empty() {
        errors.push(CliError::Failed(format!(
            "not found: {}; k3nest get clusters lists what is there",
            missing.join(", ")
        )));
    }
    CliError::all(errors)
}

/// The first of `left`, which says why, and how many more there are.
fn in_short(left: &[String]) -> String {
    match left {
        [] => String::new(),
        [one] => one.clone(),
        [first, rest @ ..] => format!("{first} ({} more wait for it)", rest.len()),
    }
}

/// Removes until nothing is left, unless somebody else than its `keeper` looks after it.
pub async fn gone(
    session: &Session,
    identity: &Identity,
    keeper: Option<Keeper>,
    timeout: Duration,
    line: &Line,
) -> Result<(), CliError> {
    let voice = line.clone();
    let world = session.world(Arc::new(move |text| voice.say(text)));
    let deadline = Instant::now() + timeout;
    let adopter = keeper.map(|keeper| Adopter { keeper, from: None });
    loop {
        let left = match remove(&world, identity, adopter.as_ref()).await {
            Ok(Removal::Gone) => return Ok(()),
            Ok(Removal::Kept(Keeper { instance, uid })) => {
                return Err(CliError::Failed(format!(
                    "{identity} stays: it was adopted, and the resource {uid} of instance {instance} looks after it"
                )));
            }
            Ok(Removal::Remaining(left)) => left,
            // It answered a moment ago, when this began; what is begun is seen through.
            Err(error) if error.is_transient() => vec![error.to_string()],
            Err(error) => return Err(error.into()),
        };
        if tokio::time::timeout_at(deadline, tokio::time::sleep(PAUSE)).await.is_err() {
            return Err(CliError::NotInTime(format!(
                "{identity} is not gone after {timeout:?}: {}; then run the same command again",
                in_short(&left)
            )));
        }
        line.say(&format!("left: {}", in_short(&left)));
    }
}
