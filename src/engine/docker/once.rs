//! Short-lived containers that answer a question.

use bollard::{errors::Error, query_parameters::WaitContainerOptionsBuilder};
use futures::TryStreamExt;
use jiff::{SignedDuration, Timestamp};

use super::{
    Docker,
    containers::{self, RemoveOnDrop},
    create, exec,
    failure::Call,
    limits, lists,
};
use crate::engine::{EngineError, Probe, Result, Scope};

/// Lines kept of what a probe wrote.
const LINES: usize = 10_000;

/// Runs a probe to its end and returns what it wrote. The container is removed whatever happens.
pub(super) async fn run(docker: &Docker, probe: &Probe) -> Result<String> {
    let id = match containers::create_from(docker, &probe.name, create::probe(probe)).await {
        Err(EngineError::NameTaken { .. }) => {
            clear_away(docker, probe).await?;
            containers::create_from(docker, &probe.name, create::probe(probe)).await?
        }
        created => created?,
    };
    let container = RemoveOnDrop::new(docker, &id);
    let answer = answer(docker, probe, &id).await;
    container.remove().await;
    answer
}

async fn answer(docker: &Docker, probe: &Probe, id: &str) -> Result<String> {
    containers::start(docker, id).await?;
    let call = Call::new("run", "container", &probe.name);
    let code = docker.call(&call, limits::PROBE, |client| async move { wait(&client, id).await }).await?;
    let output = exec::logs(docker, id, LINES).await?;
    match code {
        0 => Ok(output),
        code => Err(call.refused(format!("its script ended with {code}: {}", output.trim()))),
    }
}

/// Waits for the end and returns the exit code, which bollard makes an error.
async fn wait(client: &bollard::Docker, id: &str) -> std::result::Result<i64, Error> {
    let options = WaitContainerOptionsBuilder::new().condition("not-running").build();
    let ended: std::result::Result<Vec<_>, Error> =
        client.wait_container(id, Some(options)).try_collect().await;
    match ended {
        Ok(ended) => Ok(ended.first().map(|end| end.status_code).unwrap_or_default()),
        Err(Error::DockerContainerWaitError { code, .. }) => Ok(code),
        Err(error) => Err(error),
    }
}

/// Removes a probe of the same name that a crash has left behind: ours by all its labels, and older
/// than a probe can get.
async fn clear_away(docker: &Docker, probe: &Probe) -> Result<()> {
    let labels = probe.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let ours = lists::containers(docker, &Scope::Labels(labels)).await?;
    let Some(existing) = ours.into_iter().find(|c| c.name == probe.name && !probe.labels.is_empty()) else {
        return Err(EngineError::NameTaken { kind: "container", name: probe.name.clone() });
    };
    let longest =
        SignedDuration::try_from(limits::CHANGE + limits::PROBE + limits::QUESTION).unwrap_or_default();
    if Timestamp::now().duration_since(existing.created) < longest {
        let message = "another one of its name is at work".into();
        return Err(EngineError::Busy { what: format!("run container {}", probe.name), message });
    }
    containers::remove(docker, &existing.id).await
}
