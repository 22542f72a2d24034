//! `k3nest apply`: create or converge, and wait.

use std::{sync::Arc, time::Duration};

use clap::Args;
use futures::future::{BoxFuture, join_all};
use tokio::{task::JoinSet, time::Instant};

use super::{
    CliError, delete,
    files::{self, ClusterFile},
    progress::{Line, Progress},
    session::{EngineArgs, Session, now},
};
use crate::{
    api::{Counts, Identity, Phase, Reason, Role, condition, validate::check_document},
    engine::{self, Engine, observe},
    plan::Observed,
    reconcile::{Import, Importer, Outcome, Request, import, node_news, step},
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
            line.end(match &result {
                Ok(text) => text,
                Err(CliError::NotInTime(_)) => "not Ready in time",
                Err(_) => "failed",
            });
            result
        }
    });
    CliError::all(join_all(runs).await.into_iter().filter_map(Result::err).collect())
}

/// What is waited for, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Wait {
    /// Only until containers run.
    pub no_wait: bool,
    /// How long in all.
    pub timeout: Duration,
}

/// Takes steps until the cluster of a file is as wanted. Returns a last word.
pub async fn converge(
    session: &Session,
    file: &ClusterFile,
    args: &ApplyArgs,
    line: &Line,
) -> Result<String, CliError> {
    let request = checked_request(session, file).await?;
    let wait = Wait { no_wait: args.no_wait, timeout: args.timeout };
    converge_request(session, request, &wait, line).await
}

/// Takes steps until the cluster of `request` is as wanted. Returns a last word.
pub async fn converge_request(
    session: &Session,
    mut request: Request,
    args: &Wait,
    line: &Line,
) -> Result<String, CliError> {
    let identity = request.identity.clone();
    if request.spec.paused {
        return Ok("left alone, since spec.paused is true; set it to false to go on".into());
    }
    let voice = line.clone();
    let world = session.world(Arc::new(move |text| voice.say(text)));
    let deadline = Instant::now() + args.timeout;
    let mut progress = Applied::default();
    let mut imports = Imports::default();
    loop {
        let Ok(outcome) = tokio::time::timeout_at(deadline, step(&world, &request, now())).await else {
            return Err(progress.not_in_time(
                &identity,
                args.timeout,
                "objects in Docker are still being made",
            ));
        };
        imports.begin(session, &world.importer, outcome.imports.clone(), line);
        progress.note(&outcome);
        for news in node_news(&request.former, &outcome.status) {
            line.say(&news.text);
        }
        if outcome.status.phase == Phase::Running {
            return Ok(format!(
                "Ready at {} ({})",
                outcome.status.endpoint.as_deref().unwrap_or_default(),
                progress.changed()
            ));
        }
        let why = why(&outcome);
        if outcome.status.phase == Phase::Failed {
            // One image that cannot come holds no other one up.
            let _ = tokio::time::timeout_at(deadline, imports.all_ended()).await;
            return Err(CliError::Failed(why));
        }
        let all_run = |counts: Counts| counts.running == counts.desired;
        let containers_run =
            outcome.changes == 0 && all_run(outcome.status.servers) && all_run(outcome.status.agents);
        if args.no_wait && containers_run {
            let what = if request.spec.images.is_empty() { "nodes" } else { "nodes and images" };
            return Ok(format!("its containers run ({}); {what} are not waited for", progress.changed()));
        }
        line.say(&why);
        progress.served |= outcome.initialised;
        request.former = outcome.status;
        let pause = async {
            match &outcome.coming_up {
                Some(cluster) => cluster.news(&world, |why| line.say(why)).await,
                None => tokio::time::sleep(outcome.recheck.unwrap_or(Duration::from_secs(1))).await,
            }
        };
        let rest = async {
            tokio::select! {
                () = pause => {}
                () = imports.one_ended() => {}
            }
        };
        if tokio::time::timeout_at(deadline, rest).await.is_err() {
            return Err(progress.not_in_time(&identity, args.timeout, &why));
        }
        let so_far = (progress.changes > 0, progress.served);
        stop_if_deleted(session, &identity, so_far, deadline, line).await?;
    }
}

/// Imports that go on beside the steps of one apply, and end with it.
#[derive(Default)]
struct Imports(JoinSet<()>);

impl Imports {
    fn begin(&mut self, session: &Session, importer: &Importer, imports: Vec<Import>, line: &Line) {
        if imports.is_empty() {
            return;
        }
        let voice = line.clone();
        let progress: Box<engine::Progress> = Box::new(move |text| voice.say(text));
        self.0.spawn(carry_out(session.docker.clone(), progress, importer.clone(), imports));
    }

    /// Waits for the end of one of them; for ever if there are none.
    async fn one_ended(&mut self) {
        if self.0.join_next().await.is_none() {
            std::future::pending().await
        }
    }

    async fn all_ended(&mut self) {
        while self.0.join_next().await.is_some() {}
    }
}

/// One import after the other. A function over any engine, since only its promises make it [`Send`].
fn carry_out<E: Engine>(
    engine: E,
    progress: Box<engine::Progress>,
    importer: Importer,
    imports: Vec<Import>,
) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        for one in imports {
            import(&engine, &progress, &importer, one).await;
        }
    })
}

/// What the steps of one apply came to.
#[derive(Default)]
struct Applied {
    changes: usize,
    /// Whether it was Ready before.
    served: bool,
    /// Why a node crashes. Between two tries it looks like one that comes up.
    crash: Option<String>,
}

impl Applied {
    fn note(&mut self, outcome: &Outcome) {
        self.changes += outcome.changes + outcome.imports.iter().map(|i| i.nodes.len()).sum::<usize>();
        let ready = outcome.status.conditions.iter().find(|c| c.type_ == condition::READY);
        if let Some(crash) = ready.filter(|c| c.reason == Reason::NodeCrashLooping.as_str()) {
            self.crash = Some(crash.message.clone());
        }
    }

    fn changed(&self) -> String {
        match self.changes {
            0 => "unchanged".to_owned(),
            1 => "1 change".to_owned(),
            n => format!("{n} changes"),
        }
    }

    fn not_in_time(&self, identity: &Identity, timeout: Duration, why: &str) -> CliError {
        let why = self.crash.as_deref().unwrap_or(why);
        CliError::NotInTime(format!(
            "{} is not Ready after {timeout:?}: {why}; apply again to go on, k3nest get clusters -o wide shows how it is",
            identity.name
        ))
    }
}

fn why(outcome: &Outcome) -> String {
    let ready = outcome.status.conditions.iter().find(|c| c.type_ == condition::READY);
    ready.map(|c| c.message.clone()).unwrap_or_default()
}

/// Somebody who deletes the cluster while it is made wants it gone: what was made since goes, too. The
/// record is what goes last, so that of a cluster which has `served`, and still has data, somebody has taken
/// the record alone: the next step writes it again.
async fn stop_if_deleted(
    session: &Session,
    identity: &Identity,
    (begun, served): (bool, bool),
    deadline: Instant,
    line: &Line,
) -> Result<(), CliError> {
    if !begun {
        return Ok(());
    }
    let has_data = |observed: &Observed| observed.volumes.iter().any(|v| v.role() == Some(Role::Data));
    match observe(&session.docker, identity).await {
        Ok(observed) if observed.unreadable_record().is_some() => return Ok(()),
        Ok(observed) if observed.record().is_none() && !(served && has_data(&observed)) => {}
        // A Docker that is away says nothing; the next step tells that it is.
        Err(error) if !error.is_transient() => return Err(error.into()),
        _ => return Ok(()),
    }
    let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_secs(10));
    delete::gone(session, identity, None, left, line).await?;
    Err(CliError::Failed(format!("{identity} was deleted by somebody else while it was made")))
}

/// The request for what a file says, if that can be asked for.
///
/// # Errors
/// Where a value is missing, or a field that cannot change has changed.
pub async fn checked_request(session: &Session, file: &ClusterFile) -> Result<Request, CliError> {
    refuse_changed_immutables(session, file).await?;
    let request = session.request(file);
    match &request.values {
        Ok(_) => Ok(request),
        Err(blocked) => Err(CliError::Input(blocked.message.clone())),
    }
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
