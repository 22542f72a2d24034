//! Carries out a plan: every step as soon as what it comes after is done, and all that can at once.

use std::{future::Future, time::Duration};

use futures::stream::{FuturesUnordered, StreamExt};

use super::{Command, Engine, EngineError, Progress, Result, Scope};
use crate::{
    api::Identity,
    k3s::RELOAD,
    plan::{Action, Container, ContainerWant, FileWant, Plan},
};

/// What a container gets to stop by itself: time for k3s to close its database, and as much as
/// Docker gives it when dockerd goes down.
const GRACE: Duration = Duration::from_secs(30);

/// What happens inside of containers and of the nested cluster. Files are asked for only when a container
/// is about to start, since some of what they say can be known only then.
pub trait Inside: Send + Sync {
    /// What the container runs.
    fn command(&self, want: &ContainerWant) -> Command;

    /// The files of the container `id`, which exists and stands still.
    fn files(&self, id: &str, want: &ContainerWant) -> impl Future<Output = Result<Vec<FileWant>>> + Send;

    /// Makes the nested cluster forget the Node called `node`, and returns when it has.
    fn forget(&self, node: &str) -> impl Future<Output = Result<()>> + Send;
}

/// What came of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// How many steps were done.
    pub done: usize,
    /// The steps that failed. Those that come after them were not tried.
    pub failures: Vec<Failure>,
}

/// A step that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What was to be done, in words.
    pub action: String,
    /// Why it was not.
    pub error: EngineError,
}

/// Carries out `plan` for `identity`. A step that fails holds up those that come after it, and no
/// others. Dropped at any point it leaves a world that can be planned for again.
pub async fn execute<E: Engine, I: Inside>(
    engine: &E,
    identity: &Identity,
    plan: &Plan,
    inside: &I,
    progress: &Progress,
) -> Report {
    let worker = Worker { engine, identity, inside, progress };
    let run = |index: usize| {
        let worker = &worker;
        let action = &plan.steps[index].action;
        async move { (index, worker.act(action).await) }
    };

    let mut report = Report::default();
    let mut open: Vec<usize> = plan.steps.iter().map(|step| step.after.len()).collect();
    let mut running: FuturesUnordered<_> =
        (0..plan.steps.len()).filter(|&index| open[index] == 0).map(run).collect();
    while let Some((index, result)) = running.next().await {
        if let Err(error) = result {
            let action = plan.steps[index].action.to_string();
            tracing::debug!(cluster = %identity, action, %error, "a step failed");
            report.failures.push(Failure { action, error });
            continue;
        }
        report.done += 1;
        for (next, step) in plan.steps.iter().enumerate() {
            let waited_for = step.after.iter().filter(|&&before| before == index).count();
            if waited_for > 0 {
                open[next] -= waited_for;
                if open[next] == 0 {
                    running.push(run(next));
                }
            }
        }
    }
    report
}

struct Worker<'a, E, I> {
    engine: &'a E,
    identity: &'a Identity,
    inside: &'a I,
    progress: &'a Progress,
}

impl<E: Engine, I: Inside> Worker<'_, E, I> {
    async fn act(&self, action: &Action) -> Result<()> {
        let engine = self.engine;
        match action {
            Action::PullImage(image) => {
                self.say(&format!("pulling {image}"));
                engine.pull_image(image, self.progress).await
            }
            Action::CreateNetwork(want) => {
                self.say(&format!("creating network {} ({})", want.name, want.subnet));
                let network = engine.create_network(want).await?;
                self.must_own(&network.labels, "network", &want.name)
            }
            Action::CreateVolume(want) => {
                let volume = engine.create_volume(want).await?;
                self.must_own(&volume.labels, "volume", &want.name)?;
                // Labels hold the record and the nodes' addresses: somebody else's are to be read
                // before anything is built on ours.
                if volume.labels == want.labels { Ok(()) } else { Err(made_elsewhere("volume", &want.name)) }
            }
            Action::RunContainer(want) => {
                self.say(&format!("starting {}", want.hostname));
                let id = self.create(want).await?;
                let started = self.start(&id, want).await;
                if let Err(error) = &started
                    && !self.may_run(&id, error).await
                {
                    // Half made, it would hold its name and make others wait for us. If this
                    // fails, too, the next plan replaces it.
                    let _ = engine.remove_container(&id).await;
                }
                started
            }
            Action::StartContainer { id, want } => {
                self.say(&format!("starting {}", want.hostname));
                self.write(id, want).await?;
                let started = engine.start_container(id).await;
                if matches!(started, Err(EngineError::NotFound { .. })) {
                    // It knows its networks by their ids: once one was removed, and be it that there is
                    // another of its name, it can never start again. Data lies in volumes; the next plan
                    // makes it anew.
                    engine.remove_container(id).await?;
                }
                started
            }
            Action::TellNode { id, want } => self.write(id, want).await,
            Action::ForgetNode(node) => {
                self.say(&format!("making the cluster forget {node}, whose data is lost"));
                self.inside.forget(node).await
            }
            Action::ReloadBalancer { id, want } => self.reload(id, want).await,
            Action::RemoveContainer { id, name, graceful } => {
                self.say(&format!("removing {name}"));
                if *graceful {
                    engine.stop_container(id, GRACE).await?;
                }
                engine.remove_container(id).await
            }
            Action::RemoveVolume(name) => engine.remove_volume(name).await,
            Action::RemoveNetwork { id, name } => {
                self.say(&format!("removing network {name}"));
                engine.remove_network(id).await
            }
        }
    }

    fn say(&self, sentence: &str) {
        (self.progress)(sentence);
    }

    async fn create(&self, want: &ContainerWant) -> Result<String> {
        match self.engine.create_container(want, &self.inside.command(want)).await {
            Err(EngineError::NameTaken { .. }) => {
                let containers = self.engine.list_containers(&Scope::Everything).await?;
                Err(taken_name(&want.name, &containers, self.identity))
            }
            created => created,
        }
    }

    /// Whether the container `id` may have been started after all, though the answer was lost. A server
    /// that was may be one that others agree with already: it is left to the next plan.
    async fn may_run(&self, id: &str, error: &EngineError) -> bool {
        let lost = matches!(error, EngineError::TimedOut { .. } | EngineError::Unavailable { .. });
        lost && !matches!(self.engine.started(id).await, Ok(None))
    }

    async fn start(&self, id: &str, want: &ContainerWant) -> Result<()> {
        self.write(id, want).await?;
        self.engine.start_container(id).await
    }

    async fn write(&self, id: &str, want: &ContainerWant) -> Result<()> {
        let files = self.inside.files(id, want).await?;
        self.engine.write_files(id, &files).await
    }

    /// The mark that says which configuration is loaded comes last, after nginx took it over.
    async fn reload(&self, id: &str, want: &ContainerWant) -> Result<()> {
        let files = self.inside.files(id, want).await?;
        let Some((mark, configuration)) = files.split_last() else { return Ok(()) };
        self.engine.write_files(id, configuration).await?;
        let done = self.engine.exec(id, &RELOAD, futures::stream::empty()).await?;
        if done.code != 0 {
            return Err(EngineError::Refused {
                what: format!("reload load balancer {}", want.name),
                message: done.output.trim().to_owned(),
            });
        }
        self.engine.write_files(id, std::slice::from_ref(mark)).await
    }

    /// Names of networks and volumes are no locks: creating returns what has the name.
    fn must_own(
        &self,
        labels: &std::collections::BTreeMap<String, String>,
        kind: &'static str,
        name: &str,
    ) -> Result<()> {
        if self.identity.owns(labels) {
            Ok(())
        } else {
            Err(EngineError::NameTaken { kind, name: name.into() })
        }
    }
}

/// What it means that the `name` of a container is taken, while there are `containers`. Docker gives
/// a name away before it lists the container, so one that nobody has is being made at this moment.
fn taken_name(name: &str, containers: &[Container], identity: &Identity) -> EngineError {
    match containers.iter().find(|c| c.name == name) {
        Some(holder) if !identity.owns(&holder.labels) => {
            EngineError::NameTaken { kind: "container", name: name.into() }
        }
        _ => made_elsewhere("container", name),
    }
}

/// Another k3nest makes the same cluster at this moment.
fn made_elsewhere(kind: &str, name: &str) -> EngineError {
    EngineError::Busy {
        what: format!("create {kind} {name}"),
        message: "it is being made by somebody else at this moment".into(),
    }
}

#[cfg(test)]
mod tests;
