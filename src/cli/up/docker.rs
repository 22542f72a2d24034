//! Makes Docker available on the machine at hand: found running, started, or installed.
//!
//! What is done depends on what is found, and every step is said before it is done:
//!
//! 1. Docker answers: nothing to do. `DOCKER_HOST` names another engine: that one must answer, and
//!    nothing is ever changed on its behalf.
//! 2. A dockerd is about to come up (somebody else started it): wait for it. A second one is never
//!    started beside it, because two in one network namespace take away each other's packet filter
//!    rules.
//! 3. Installed but not running: started, by systemd where that is the init, else detached.
//! 4. Not installed: on Debian and its kin, as root, installed from the distribution's packages.
//!
//! Everything else is an error that names the next step.

mod install;
mod process;
mod start;

use std::{
    fs::File,
    io::ErrorKind,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use bollard::{API_DEFAULT_VERSION, Docker};
use tokio::time::{Instant, sleep};

pub use process::{flag_value, processes};

use super::{
    command::{find_program, tail_of},
    error::{Say, SetupError},
};

/// Seconds that one call to Docker may take here.
const CALL_SECONDS: u64 = 5;

/// How long dockerd may take from its start to its first answer.
const ANSWER_BOUND: Duration = Duration::from_secs(60);

/// How long to wait for another `k3nest up` that sets Docker up at the same time: as long as an
/// installation and a start may take.
const LOCK_BOUND: Duration = Duration::from_secs(900);

/// Where dockerd keeps what setting up looks at. A value, so that tests can use files of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DockerPaths {
    /// The API's socket.
    pub socket: PathBuf,
    /// dockerd's own pid file.
    pub pid_file: PathBuf,
    /// State of the containerd that dockerd starts for itself, with its pid file.
    pub containerd: PathBuf,
    /// What a dockerd that we start writes.
    pub log: PathBuf,
    /// What installing writes.
    pub install_log: PathBuf,
    /// Held while something is changed.
    pub lock: PathBuf,
    /// What distribution this is.
    pub os_release: PathBuf,
    /// The kernel's view of processes.
    pub proc: PathBuf,
}

impl Default for DockerPaths {
    fn default() -> Self {
        Self {
            socket: "/var/run/docker.sock".into(),
            pid_file: "/var/run/docker.pid".into(),
            containerd: "/var/run/docker/containerd".into(),
            log: "/var/log/k3nest-dockerd.log".into(),
            install_log: "/var/log/k3nest-install.log".into(),
            lock: "/run/k3nest-up.lock".into(),
            os_release: "/etc/os-release".into(),
            proc: "/proc".into(),
        }
    }
}

/// Makes Docker answer, or says why it cannot and what to do next.
///
/// Bounded: a start takes at most three times 60 s, an installation at most ten minutes.
pub async fn ensure_docker(say: &Say<'_>) -> Result<(), SetupError> {
    let host = std::env::var("DOCKER_HOST").ok().filter(|h| !h.is_empty());
    ensure_docker_at(&DockerPaths::default(), host.as_deref(), say).await
}

/// The same with the places to look at, and `DOCKER_HOST`, given.
pub async fn ensure_docker_at(
    paths: &DockerPaths,
    host: Option<&str>,
    say: &Say<'_>,
) -> Result<(), SetupError> {
    if let Some(host) = host.filter(|h| *h != format!("unix://{}", paths.socket.display())) {
        return ask_host(host).await;
    }
    if probe(&paths.socket).await? == Probe::Answers {
        return Ok(());
    }
    let _lock = if is_root(&paths.proc) { Some(lock(paths, say).await?) } else { None };
    // Another `k3nest up` may have finished the job while this one waited for the lock.
    if probe(&paths.socket).await? == Probe::Answers {
        return Ok(());
    }
    if await_running(paths, say).await? {
        return Ok(());
    }
    install::ensure_installed(paths, say).await?;
    // The package's script starts Docker on some machines.
    if await_running(paths, say).await? {
        return Ok(());
    }
    start::start(paths, say).await
}

/// Whether Docker is the one of this machine, whose configuration is ours to look at.
pub fn is_local() -> bool {
    match std::env::var("DOCKER_HOST") {
        Ok(host) if !host.is_empty() => host == format!("unix://{}", DockerPaths::default().socket.display()),
        _ => cfg!(target_os = "linux"),
    }
}

/// Whether this process is root (effective user), by the kernel's own report.
pub fn is_root(proc: &Path) -> bool {
    let status = std::fs::read_to_string(proc.join("self/status")).unwrap_or_default();
    let effective = status.lines().find_map(|l| l.strip_prefix("Uid:")?.split_whitespace().nth(1));
    effective == Some("0")
}

/// An engine elsewhere answers or is an error: nothing is started on somebody's behalf.
async fn ask_host(host: &str) -> Result<(), SetupError> {
    let next = format!(
        "start the Docker that DOCKER_HOST names and check with `docker -H {host} version`, or unset DOCKER_HOST to use this machine's"
    );
    let what = format!("reach Docker at DOCKER_HOST={host}");
    let docker = Docker::connect_with_host(host).map_err(|e| SetupError::new(&what, e, &next))?;
    match ping(docker).await {
        Ok(()) => Ok(()),
        Err(cause) => Err(SetupError::new(what, cause, next)),
    }
}

/// Waits for a dockerd that runs already. False if there is none.
async fn await_running(paths: &DockerPaths, say: &Say<'_>) -> Result<bool, SetupError> {
    let Some(daemon) = process::daemon(&processes(&paths.proc)).cloned() else { return Ok(false) };
    say(&format!(
        "dockerd runs (process {}) but does not answer yet: waiting up to {} s",
        daemon.pid,
        ANSWER_BOUND.as_secs()
    ));
    let end = Instant::now() + ANSWER_BOUND;
    while Instant::now() < end {
        if probe(&paths.socket).await? == Probe::Answers {
            return Ok(true);
        }
        if process::daemon(&processes(&paths.proc)).is_none() {
            say("that dockerd ended");
            return Ok(false);
        }
        sleep(Duration::from_millis(200)).await;
    }
    Err(SetupError::new(
        format!("reach Docker at {}", paths.socket.display()),
        format!(
            "dockerd (process {}, `{}`) runs but does not answer there within {} s",
            daemon.pid,
            daemon.command.join(" "),
            ANSWER_BOUND.as_secs()
        ),
        "if it listens elsewhere, set DOCKER_HOST to that; else look at its log, end it and run `k3nest up` again",
    ))
}

/// What the socket says.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Probe {
    /// Docker answers.
    Answers,
    /// It does not, and why.
    Silent(String),
}

/// Asks Docker at a socket whether it is there. The one error is a socket that this user may not
/// open, since no start would help.
async fn probe(socket: &Path) -> Result<Probe, SetupError> {
    match UnixStream::connect(socket) {
        Ok(_) => {}
        Err(e) if e.kind() == ErrorKind::PermissionDenied => {
            return Err(SetupError::new(
                format!("reach Docker at {}", socket.display()),
                "this user may not open the socket",
                "run as root (sudo), or join the docker group: `sudo usermod -aG docker $USER`, log in anew, run `k3nest up` again",
            ));
        }
        Err(e) => return Ok(Probe::Silent(e.to_string())),
    }
    let address = format!("unix://{}", socket.display());
    let docker = match Docker::connect_with_unix(&address, CALL_SECONDS, API_DEFAULT_VERSION) {
        Ok(docker) => docker,
        Err(e) => return Ok(Probe::Silent(e.to_string())),
    };
    Ok(match ping(docker).await {
        Ok(()) => Probe::Answers,
        Err(cause) => Probe::Silent(cause),
    })
}

/// `GET /_ping`, bounded.
async fn ping(docker: Docker) -> Result<(), String> {
    match tokio::time::timeout(Duration::from_secs(CALL_SECONDS), docker.ping()).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(e)) => Err(e.to_string()),
        Err(_) => Err(format!("no answer within {CALL_SECONDS} s")),
    }
}

/// Takes the lock that keeps two `k3nest up` from installing or starting at the same time. The
/// kernel frees it when the process ends, however it ends.
async fn lock(paths: &DockerPaths, say: &Say<'_>) -> Result<File, SetupError> {
    let failed = |cause: &dyn std::fmt::Display| {
        SetupError::new(
            format!("lock {}", paths.lock.display()),
            cause,
            "see that the file can be written and that no other `k3nest up` hangs",
        )
    };
    let file =
        File::options().create(true).truncate(false).write(true).open(&paths.lock).map_err(|e| failed(&e))?;
    let end = Instant::now() + LOCK_BOUND;
    let mut said = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(std::fs::TryLockError::WouldBlock) if Instant::now() < end => {}
            Err(e) => return Err(failed(&e)),
        }
        if !said {
            say("another `k3nest up` sets Docker up: waiting for it");
            said = true;
        }
        sleep(Duration::from_millis(200)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_docker_host_that_does_not_answer_is_an_error_with_a_next_step() {
        let error =
            ensure_docker_at(&DockerPaths::default(), Some("tcp://127.0.0.1:1"), &|_| {}).await.unwrap_err();
        assert!(
            error.what.contains("tcp://127.0.0.1:1") && error.next.contains("unset DOCKER_HOST"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_socket_that_is_not_there_is_silent() {
        assert!(matches!(probe(Path::new("/nonexistent/docker.sock")).await, Ok(Probe::Silent(_))));
    }

    #[tokio::test]
    async fn the_lock_is_held_by_one() {
        let path = std::env::temp_dir().join(format!("k3nest-lock-{}", uuid::Uuid::new_v4()));
        let paths = DockerPaths { lock: path.clone(), ..DockerPaths::default() };
        let first = lock(&paths, &|_| {}).await.unwrap();
        let second = lock(&paths, &|_| {});
        assert!(tokio::time::timeout(Duration::from_millis(50), second).await.is_err());
        drop(first);
        assert!(lock(&paths, &|_| {}).await.is_ok());
        std::fs::remove_file(path).unwrap();
    }
}
