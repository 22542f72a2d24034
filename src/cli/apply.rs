//! `k3nest apply`: create or converge, and wait.

use std::{sync::Arc, time::Duration};

use clap::Args;
use futures::future::join_all;
use tokio::time::Instant;

use super::{
    CliError,
    files::{self, ClusterFile},
    progress::{Line, Progress},
    session::{EngineArgs, Session, now},
};
use crate::{
    api::{Phase, condition, validate::check_document},
    engine::observe,
    reconcile::{Outcome, step},
};

/// Arguments of `apply`.
#[derive(Args, Clone, Debug)]
pub struct ApplyArgs {
    /// File with K3sCluster resources, and the Secrets and ConfigMaps they refer to; - is standard input
    #[arg(short, long = "filename", required = true, value_name = "FILE")]
    pub files: Vec<String>,

    /// Return as soon as containers run, before the nodes are Ready
    #[arg(long)]
    pub no_wait: bool,

    /// How long to wait until every node is Ready, such as 90s or 10m
    #[arg(long, default_value = "10m", value_parser = duration)]
    pub timeout: Duration,
}

/// A duration as people write it: 90s, 10m, 1h30m.
pub fn duration(text: &str) -> Result<Duration, String> {
    let span: jiff::SignedDuration =
        text.parse().map_err(|_| format!("{text:?} is not a duration such as 90s or 10m"))?;
    Duration::try_from(span).map_err(|_| "must not be negative".to_owned())
}

pub async fn run(args: &EngineArgs, apply: ApplyArgs) -> Result<(), CliError> {
    let clusters = files::read(&apply.files)?;
    let session = Session::open(args).await?;
    let progress = Progress::new(clusters.iter().map(|c| c.name.as_str()));
    let runs = clusters.iter().map(|cluster| {
        let line = progress.line(&cluster.name);
        let (session, apply) = (&session, &apply);
        async move {
            let result = converge(session, cluster, apply, &line).await;
            match &result {
                Ok(text) => line.end(text),
                Err(error) => line.end(&format!("failed: {error}")),
            }
            result
        }
    });
    let errors: Vec<CliError> = join_all(runs).await.into_iter().filter_map(Result::err).collect();
    match errors.into_iter().next() {
        None => Ok(()),
        Some(first) => Err(first),
    }
}

/// Takes steps until the cluster is as wanted. Returns a last word.
pub async fn converge(
    session: &Session,
    file: &ClusterFile,
    args: &ApplyArgs,
    line: &Line,
) -> Result<String, CliError> {
    refuse_changed_immutables(session, file).await?;
    let voice = line.clone();
    let world = session.world(Arc::new(move |text| voice.say(text)));
    let mut request = session.request(file);
    if let Err(blocked) = &request.values {
        return Err(CliError::Input(blocked.message.clone()));
    }
    let deadline = Instant::now() + args.timeout;
    let mut changes = 0;
    loop {
        let Ok(outcome) = tokio::time::timeout_at(deadline, step(&world, &request, now())).await else {
            return Err(CliError::NotInTime(format!(
                "{} was still being changed after {:?}; run apply again",
                file.name, args.timeout
            )));
        };
        changes += outcome.changes;
        if outcome.status.phase == Phase::Running {
            return Ok(last_word(&outcome, changes));
        }
        let why = why(&outcome);
        if outcome.status.phase == Phase::Failed {
            return Err(CliError::Failed(why));
        }
        let containers_run =
            outcome.changes == 0 && outcome.status.servers.running == outcome.status.servers.desired;
        if args.no_wait && containers_run {
            return Ok(format!("created ({changes} changes); not waited for"));
        }
        line.say(&why);
        request.former = outcome.status;
        let pause = outcome.recheck.unwrap_or(Duration::from_secs(1));
        if tokio::time::timeout_at(deadline, tokio::time::sleep(pause)).await.is_err() {
            return Err(CliError::NotInTime(format!("not Ready after {:?}: {why}", args.timeout)));
        }
    }
}

fn why(outcome: &Outcome) -> String {
    let ready = outcome.status.conditions.iter().find(|c| c.type_ == condition::READY);
    ready.map(|c| c.message.clone()).unwrap_or_default()
}

fn last_word(outcome: &Outcome, changes: usize) -> String {
    let endpoint = outcome.status.endpoint.as_deref().unwrap_or_default();
    let done = match changes {
        0 => "unchanged".to_owned(),
        1 => "1 change".to_owned(),
        n => format!("{n} changes"),
    };
    format!("Ready at {endpoint} ({done})")
}

/// The API server holds new specs against old ones; here the record has the old one.
async fn refuse_changed_immutables(session: &Session, file: &ClusterFile) -> Result<(), CliError> {
    let identity = session.identity(&file.namespace, &file.name);
    let observed = observe(&session.docker, &identity).await?;
    let Some(old) = observed.record().and_then(|r| r.spec).and_then(|s| serde_json::from_str(&s).ok()) else {
        return Ok(());
    };
    let problems = check_document(&file.document, Some(&old));
    if problems.is_empty() {
        return Ok(());
    }
    Err(CliError::Input(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")))
}
