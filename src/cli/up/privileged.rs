//! Whether nodes can run privileged, and an OCI runtime that makes it so where they cannot.
//!
//! `--privileged` asks for every capability. On a machine whose bounding set lacks one, runc fails
//! with "unable to apply caps". There, and only there, a wrapper around runc is installed as the
//! runtime [`RUNTIME`] and added to dockerd's configuration, which dockerd reads again on SIGHUP:
//! nothing that runs is touched, and the default runtime stays what it was.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use bollard::{
    Docker,
    errors::Error as DockerError,
    models::{ContainerCreateBody, HostConfig},
    query_parameters::{
        CreateContainerOptionsBuilder, LogsOptions, RemoveContainerOptionsBuilder, WaitContainerOptions,
    },
};
use futures::StreamExt;
use tokio::{
    process::Command,
    time::{Instant, sleep, timeout},
};

use super::{
    daemon_json::{with_runtime, write_atomically},
    docker::{DockerPaths, flag_value, is_local, is_root, processes},
    error::{Say, SetupError},
};

use crate::plan::OCI_RUNTIME as RUNTIME;

/// The wrapper's text.
const WRAPPER: &str = include_str!("runc-wrapper.sh");

/// How long the throw-away container may take; a node's image is large but already there.
const CHECK_BOUND: Duration = Duration::from_secs(60);

/// How long dockerd may take to read its configuration again.
const RELOAD_BOUND: Duration = Duration::from_secs(15);

/// Label of the throw-away container, so that one left behind is known as ours.
const CHECK_LABEL: &str = "k3nest.dev/check";

/// Where things go. A value, so that tests can use files of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimePaths {
    /// The wrapper.
    pub wrapper: PathBuf,
    /// dockerd's configuration, unless dockerd's command line names another.
    pub daemon_json: PathBuf,
}

impl Default for RuntimePaths {
    fn default() -> Self {
        Self { wrapper: "/usr/local/lib/k3nest/runc".into(), daemon_json: "/etc/docker/daemon.json".into() }
    }
}

/// Makes sure that privileged containers run: with the engine's own runtime (None), else with
/// [`RUNTIME`], which is added where it is missing. `image` must be there and hold /bin/sh; nothing
/// is pulled.
pub async fn ensure_privileged(
    docker: &Docker,
    image: &str,
    say: &Say<'_>,
) -> Result<Option<&'static str>, SetupError> {
    ensure_privileged_at(&RuntimePaths::default(), docker, image, say).await
}

/// The same with the places given.
pub async fn ensure_privileged_at(
    paths: &RuntimePaths,
    docker: &Docker,
    image: &str,
    say: &Say<'_>,
) -> Result<Option<&'static str>, SetupError> {
    let refusal = match run_privileged(docker, image, None).await? {
        Ran::Well => return Ok(None),
        Ran::Refused(message) => message,
    };
    let registered = has_runtime(docker).await;
    if !is_local() || !is_root(Path::new("/proc")) {
        if registered && run_privileged(docker, image, Some(RUNTIME)).await? == Ran::Well {
            return Ok(Some(RUNTIME));
        }
        return Err(SetupError::new(
            "run a privileged container",
            format!("Docker refuses: {refusal}"),
            "run `sudo k3nest up` on the machine where this Docker runs: it adds a runtime that leaves out the capabilities which that machine lacks",
        ));
    }
    install_wrapper(paths, &refusal, say)?;
    register(paths, docker, registered, say).await?;
    match run_privileged(docker, image, Some(RUNTIME)).await? {
        Ran::Well => Ok(Some(RUNTIME)),
        Ran::Refused(message) => Err(SetupError::new(
            "run a privileged container",
            format!("Docker refuses ({refusal}), and with the runtime {RUNTIME} too: {message}"),
            "k3s needs privileged containers: use a machine or VM that allows them",
        )),
    }
}

/// Writes the wrapper if it is not there or not this one.
fn install_wrapper(paths: &RuntimePaths, refusal: &str, say: &Say<'_>) -> Result<(), SetupError> {
    if fs::read(&paths.wrapper).is_ok_and(|there| there == WRAPPER.as_bytes()) {
        return Ok(());
    }
    say(&format!(
        "privileged containers fail here ({refusal}): installing the OCI runtime {}, which leaves out the capabilities that this machine lacks",
        paths.wrapper.display()
    ));
    write_atomically(&paths.wrapper, WRAPPER.as_bytes(), 0o755).map_err(|e| {
        SetupError::new(
            format!("write {}", paths.wrapper.display()),
            e,
            "see that the directory can be written, then run `k3nest up` again",
        )
    })
}

/// Adds the runtime to dockerd's configuration and has dockerd read it.
async fn register(
    paths: &RuntimePaths,
    docker: &Docker,
    registered: bool,
    say: &Say<'_>,
) -> Result<(), SetupError> {
    let what = format!("add the runtime {RUNTIME} to dockerd");
    let (pid, command) = daemon().ok_or_else(|| {
        SetupError::new(&what, "no dockerd is found on this machine", "run `k3nest up` where dockerd runs")
    })?;
    let wrapper = paths.wrapper.display().to_string();
    // Flag and file must not both name runtimes: dockerd would not start again.
    if flag_value(&command, "--add-runtime").is_some() {
        if registered {
            return Ok(());
        }
        return Err(SetupError::new(
            what,
            "dockerd's command line names its runtimes by --add-runtime, and then its configuration file must not",
            format!("add `--add-runtime {RUNTIME}={wrapper}` to that command line and restart dockerd"),
        ));
    }
    let file = flag_value(&command, "--config-file").map_or_else(|| paths.daemon_json.clone(), PathBuf::from);
    let failed = |cause: String| {
        SetupError::new(
            &what,
            format!("{}: {cause}", file.display()),
            format!(
                "mend the file, or add \"runtimes\": {{\"{RUNTIME}\": {{\"path\": \"{wrapper}\"}}}} to it by hand and restart dockerd"
            ),
        )
    };
    let content = match fs::read_to_string(&file) {
        Ok(content) => content,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(e) => return Err(failed(e.to_string())),
    };
    match with_runtime(&content, RUNTIME, &wrapper).map_err(&failed)? {
        None if registered => return Ok(()),
        None => {}
        Some(merged) => {
            say(&format!("adding the runtime {RUNTIME} to {}", file.display()));
            write_atomically(&file, merged.as_bytes(), 0o644).map_err(|e| failed(e.to_string()))?;
        }
    }
    say(&format!("having dockerd (process {pid}) read its configuration again: kill -HUP {pid}"));
    // The shell's own kill: the program of that name may not be installed.
    let _ = Command::new("/bin/sh").args(["-c", "kill -HUP $0", &pid.to_string()]).status().await;
    let end = Instant::now() + RELOAD_BOUND;
    while !has_runtime(docker).await {
        if Instant::now() >= end {
            return Err(SetupError::new(
                what,
                format!("`docker info` does not list it {} s after the reload", RELOAD_BOUND.as_secs()),
                format!(
                    "check {} with `dockerd --validate --config-file {0}`, read dockerd's log, restart dockerd",
                    file.display()
                ),
            ));
        }
        sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// Process id and command line of the dockerd of this network namespace: by its pid file where
/// that tells the truth, which a second dockerd in a place of its own makes matter.
fn daemon() -> Option<(u32, Vec<String>)> {
    let paths = DockerPaths::default();
    let running = processes(&paths.proc);
    let by_file = fs::read_to_string(&paths.pid_file).ok().and_then(|c| c.trim().parse::<u32>().ok());
    let daemons = || running.iter().filter(|p| p.name == "dockerd");
    daemons()
        .find(|p| Some(p.pid) == by_file)
        .or_else(|| daemons().find(|p| p.same_network))
        .map(|p| (p.pid, p.command.clone()))
}

async fn has_runtime(docker: &Docker) -> bool {
    let info = timeout(Duration::from_secs(5), docker.info()).await;
    info.is_ok_and(|i| i.is_ok_and(|i| i.runtimes.is_some_and(|r| r.contains_key(RUNTIME))))
}

/// What became of the throw-away container.
#[derive(Debug, PartialEq, Eq)]
enum Ran {
    Well,
    /// Docker refused for want of capabilities, in its words.
    Refused(String),
}

/// Runs and removes a privileged container that does nothing. The error is any other failure than
/// the one that our runtime cures.
async fn run_privileged(docker: &Docker, image: &str, runtime: Option<&str>) -> Result<Ran, SetupError> {
    let name = format!("k3nest-check-{}", &uuid::Uuid::new_v4().simple().to_string()[..12]);
    let outcome = timeout(CHECK_BOUND, run_to_end(docker, &name, image, runtime)).await;
    // Also after the bound: nothing of it may stay.
    let remove = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
    let _ = timeout(Duration::from_secs(20), docker.remove_container(&name, Some(remove))).await;
    let message = match outcome {
        Ok(Ok(())) => return Ok(Ran::Well),
        Ok(Err(message)) if lacks_capabilities(&message) => return Ok(Ran::Refused(message)),
        Ok(Err(message)) => message,
        Err(_) => format!("not done after {} s", CHECK_BOUND.as_secs()),
    };
    Err(SetupError::new(
        format!("run a privileged container of {image}"),
        message,
        format!("try it by hand: docker run --rm --privileged --entrypoint /bin/sh {image} -c true"),
    ))
}

async fn run_to_end(docker: &Docker, name: &str, image: &str, runtime: Option<&str>) -> Result<(), String> {
    let body = ContainerCreateBody {
        image: Some(image.into()),
        entrypoint: Some(vec!["/bin/sh".into()]),
        cmd: Some(vec!["-c".into(), "true".into()]),
        labels: Some(HashMap::from([(CHECK_LABEL.into(), "privileged".into())])),
        host_config: Some(HostConfig {
            privileged: Some(true),
            network_mode: Some("none".into()),
            runtime: runtime.map(Into::into),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    };
    let options = CreateContainerOptionsBuilder::default().name(name).build();
    docker.create_container(Some(options), body).await.map_err(words)?;
    docker
        .start_container(name, None::<bollard::query_parameters::StartContainerOptions>)
        .await
        .map_err(words)?;
    match docker.wait_container(name, None::<WaitContainerOptions>).next().await {
        Some(Ok(_)) => Ok(()),
        Some(Err(DockerError::DockerContainerWaitError { code, .. })) => {
            let options =
                LogsOptions { stdout: true, stderr: true, tail: "5".into(), ..LogsOptions::default() };
            let lines: Vec<String> = docker
                .logs(name, Some(options))
                .filter_map(async |l| l.ok().map(|l| l.to_string()))
                .collect()
                .await;
            Err(format!("it ended with code {code}: {}", lines.concat()))
        }
        Some(Err(e)) => Err(words(e)),
        None => Err("Docker did not say how it ended".into()),
    }
}

fn words(error: DockerError) -> String {
    match error {
        DockerError::DockerResponseServerError { message, .. } => message,
        other => other.to_string(),
    }
}

/// Whether Docker's words mean that the capability set is what fails. runc says "unable to apply
/// caps", crun and newer runc "operation not permitted" on the same step.
fn lacks_capabilities(message: &str) -> bool {
    let message = message.to_lowercase();
    message.contains("unable to apply caps")
        || message.contains("apply bounding set")
        || (message.contains("cap") && message.contains("operation not permitted"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_missing_capabilities_are_cured() {
        assert!(lacks_capabilities(
            "failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: unable to apply caps: operation not permitted: unknown"
        ));
        for other in [
            "No such image: nginx:1",
            "error mounting \"cgroup\": operation not permitted",
            "no space left on device",
        ] {
            assert!(!lacks_capabilities(other), "{other}");
        }
    }
}
