//! `k3nest cluster`: what is done to a cluster once, rather than wished for good.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::{
    CliError, apply,
    files::{self, ClusterFile},
    progress::Progress,
    session::{EngineArgs, Session},
};
use crate::{
    api::STANDALONE,
    engine::observe_all,
    plan::{Recover, recovery_command},
    reconcile::Request,
};

/// Arguments of `cluster`.
#[derive(Args, Clone, Debug)]
pub struct ClusterArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Clone, Debug)]
enum Verb {
    /// Go on with the data of one server, after most servers lost theirs; the others join it as new members
    Recover(RecoverArgs),
}

/// Arguments of `cluster recover`.
#[derive(Args, Clone, Debug)]
struct RecoverArgs {
    /// The cluster
    #[arg(value_name = "NAME", required_unless_present = "file")]
    name: Option<String>,

    /// Its namespace
    #[arg(short, long, default_value = "default")]
    namespace: String,

    /// The file it was applied with; needed where that refers to Secrets or ConfigMaps
    #[arg(short, long = "filename", value_name = "FILE", conflicts_with = "name")]
    file: Option<String>,

    /// The Node whose data is kept; without it the one that was written to last
    #[arg(long, value_name = "NODE")]
    from: Option<String>,

    /// How long to wait until every node is Ready
    #[arg(long, default_value = "10m", value_parser = apply::duration)]
    timeout: Duration,
}

pub async fn run(args: &EngineArgs, cluster: ClusterArgs) -> Result<(), CliError> {
    let Verb::Recover(recover) = cluster.verb;
    let session = Session::open(args).await?;
    let mut request = match &recover.file {
        Some(file) => applied(&session, file).await?,
        None => recorded(&session, &recover).await?,
    };
    // Of two who wish at once, the second finds the recovery under way, and waits for it.
    request.recover = Some(Recover { nonce: uuid::Uuid::new_v4().to_string(), from: recover.from });
    let name = request.identity.name.clone();
    let progress = Progress::new([name.as_str()].into_iter());
    let line = progress.line(&name);
    let wait = apply::Wait { no_wait: false, timeout: recover.timeout };
    let result = apply::converge_request(&session, request, &wait, &line).await;
    line.end(match &result {
        Ok(text) => text,
        Err(CliError::NotInTime(_)) => "not Ready in time",
        Err(_) => "not recovered",
    });
    result.map(drop)
}

async fn applied(session: &Session, file: &str) -> Result<Request, CliError> {
    let files: Vec<ClusterFile> = files::read(&[file.to_owned()])?;
    match files.as_slice() {
        [one] => apply::checked_request(session, one).await,
        several => Err(CliError::Input(format!(
            "{file} holds {} clusters; recover them one by one, by name",
            several.len()
        ))),
    }
}

/// The request for a cluster as it was applied last.
async fn recorded(session: &Session, args: &RecoverArgs) -> Result<Request, CliError> {
    let name = args.name.as_deref().unwrap_or_default();
    let identity = session.identity(&args.namespace, name);
    let all = observe_all(&session.docker, None).await?;
    let Some(observed) = all.get(&identity) else {
        let of_operator = |i: &&crate::api::Identity| {
            i.instance != STANDALONE && i.name == name && i.namespace == args.namespace
        };
        return Err(CliError::Failed(match all.keys().find(of_operator) {
            Some(operators) => format!(
                "{identity} is an operator's; write to its resource: {}",
                recovery_command(operators, args.from.as_deref()),
            ),
            None => format!("not found: {identity}; k3nest get clusters lists what is there"),
        }));
    };
    let Some((_, request)) = session.recorded(&identity, observed) else {
        return Err(CliError::Failed(format!(
            "{identity} has no readable record; name the file it was applied with by -f"
        )));
    };
    if request.values.as_ref().is_ok_and(|values| values.cover(&request.spec)) {
        return Ok(request);
    }
    Err(CliError::Input(format!(
        "{identity} refers to Secrets or ConfigMaps, which are not kept; name the file it was applied with by -f"
    )))
}
