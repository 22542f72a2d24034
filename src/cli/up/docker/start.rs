//! Starts a dockerd that is installed and does not run.
//!
//! After a SIGKILL or a power cut this takes some clearing: pid files that name nothing, and
//! sometimes a containerd that dockerd had started and that outlived it. Nothing is cleared that is
//! not shown to be such a leftover.

use std::{fs, path::Path, process::Stdio, time::Duration};

use tokio::{
    process::{Child, Command},
    time::{Instant, sleep},
};

use super::{
    ANSWER_BOUND, DockerPaths, Probe, Say, SetupError, find_program, is_root, probe,
    process::{PidFile, is_daemons_containerd, judge_pid_file, left_containerd, processes},
    tail_of,
};
use crate::cli::up::command::{open_log, run_logged};

/// Starts of dockerd before giving up. Tried: after a SIGKILL the first may fail where the second works.
const ATTEMPTS: u32 = 3;

/// How long `systemctl start docker` may take; systemd's own bound is 90 s.
const SYSTEMD_BOUND: Duration = Duration::from_secs(100);

/// How long a process may take to end before it is killed.
const END_BOUND: Duration = Duration::from_secs(5);

/// Exists while systemd is the init, by its own documentation (sd_booted).
const SYSTEMD_BOOTED: &str = "/run/systemd/system";

/// Starts dockerd and waits for its first answer.
pub async fn start(paths: &DockerPaths, say: &Say<'_>) -> Result<(), SetupError> {
    let systemd = Path::new(SYSTEMD_BOOTED).is_dir();
    if !is_root(&paths.proc) {
        let by_hand = if systemd { "sudo systemctl start docker" } else { "sudo k3nest up" };
        return Err(SetupError::new(
            "start Docker",
            "it is installed but does not run, and this user is not root",
            format!("run `{by_hand}`, then `k3nest up` again"),
        ));
    }
    if systemd {
        return start_by_systemd(paths, say).await;
    }
    let Some(program) = find_program("dockerd") else {
        return Err(SetupError::new(
            "start Docker",
            "dockerd is not in PATH nor in /usr/sbin, /usr/bin, /usr/local, though its package is installed",
            "install it anew: apt-get install --reinstall docker.io",
        ));
    };
    // Looked up before the first attempt: a dockerd that fails removes the pid file of a containerd
    // that it could not reach, and the next one then waits for locks which that process holds.
    let left = find_left_containerd(paths);
    let mut cause = String::new();
    for attempt in 1..=ATTEMPTS {
        clear_pid_file(paths, say);
        say(&format!("starting {} (log: {})", program.display(), paths.log.display()));
        match start_detached(&program, paths).await? {
            Outcome::Answers => return Ok(()),
            Outcome::Ended(reason) => cause = reason,
        }
        if attempt < ATTEMPTS {
            say(&format!("attempt {attempt} of {ATTEMPTS}: {}", last_line(&cause)));
            end_left_containerd(left, paths, say).await;
        }
    }
    Err(SetupError::new(
        "start Docker",
        format!("dockerd ended at each of {ATTEMPTS} attempts: {cause}"),
        format!("read {} for the reason, mend it and run `k3nest up` again", paths.log.display()),
    ))
}

async fn start_by_systemd(paths: &DockerPaths, say: &Say<'_>) -> Result<(), SetupError> {
    say("starting Docker: systemctl start docker");
    let failed = |cause: String| {
        SetupError::new(
            "systemctl start docker",
            cause,
            "read `journalctl -u docker -n 50`, mend it and run `k3nest up` again",
        )
    };
    let mut systemctl = Command::new("systemctl");
    systemctl.args(["start", "docker"]);
    run_logged(systemctl, &paths.install_log, SYSTEMD_BOUND).await.map_err(&failed)?;
    let end = Instant::now() + ANSWER_BOUND;
    loop {
        match probe(&paths.socket).await? {
            Probe::Answers => return Ok(()),
            Probe::Silent(cause) if Instant::now() >= end => {
                return Err(failed(format!("no answer within {} s: {cause}", ANSWER_BOUND.as_secs())));
            }
            Probe::Silent(_) => sleep(Duration::from_millis(200)).await,
        }
    }
}

/// Removes dockerd's pid file if it names no dockerd: dockerd would refuse to start because of it.
fn clear_pid_file(paths: &DockerPaths, say: &Say<'_>) {
    let content = fs::read_to_string(&paths.pid_file).ok();
    if let PidFile::Stale(why) = judge_pid_file(content.as_deref(), "dockerd", &processes(&paths.proc)) {
        say(&format!("removing the stale {}: {why}", paths.pid_file.display()));
        // If it cannot be removed, dockerd's own message names it.
        let _ = fs::remove_file(&paths.pid_file);
    }
}

/// What became of a start.
enum Outcome {
    /// Docker answers.
    Answers,
    /// dockerd ended before it answered, and why.
    Ended(String),
}

/// Starts dockerd in a session of its own, so that it outlives us and our terminal, and waits for
/// its answer or its end. One that neither answers nor ends is left alone: it may be busy
/// restoring containers.
async fn start_detached(program: &Path, paths: &DockerPaths) -> Result<Outcome, SetupError> {
    let mut child = spawn(program, &paths.log).map_err(|e| {
        SetupError::new(
            format!("start {}", program.display()),
            e,
            format!(
                "see that setsid (package util-linux) is there and {} can be written",
                paths.log.display()
            ),
        )
    })?;
    let end = Instant::now() + ANSWER_BOUND;
    while Instant::now() < end {
        // First whether it lives: the answer must be this one's.
        if let Ok(Some(status)) = child.try_wait() {
            return Ok(Outcome::Ended(format!("{status}; {}", tail_of(&paths.log))));
        }
        if probe(&paths.socket).await? == Probe::Answers {
            return Ok(Outcome::Answers);
        }
        sleep(Duration::from_millis(100)).await;
    }
    let pid = child.id().unwrap_or_default();
    Err(SetupError::new(
        "start Docker",
        format!(
            "dockerd (process {pid}) runs but does not answer at {} within {} s; {}",
            paths.socket.display(),
            ANSWER_BOUND.as_secs(),
            tail_of(&paths.log)
        ),
        format!("if its log shows progress, wait and run `k3nest up` again; else `kill {pid}` first"),
    ))
}

/// `setsid` instead of a call of our own: a new session takes unsafe code between fork and exec.
fn spawn(program: &Path, log: &Path) -> std::io::Result<Child> {
    let file = open_log(log)?;
    let copy = file.try_clone()?;
    Command::new("setsid")
        .arg(program)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(copy)
        .kill_on_drop(false)
        .spawn()
}

fn find_left_containerd(paths: &DockerPaths) -> Option<u32> {
    let content = fs::read_to_string(paths.containerd.join("containerd.pid")).ok();
    left_containerd(content.as_deref(), &paths.containerd, &processes(&paths.proc))
}

/// Ends the containerd that a dead dockerd left behind, and that a new one could not work with.
/// Containers are not its children and stay.
async fn end_left_containerd(left: Option<u32>, paths: &DockerPaths, say: &Say<'_>) {
    let Some(pid) = left else { return };
    let lives = || is_daemons_containerd(pid, &paths.containerd, &processes(&paths.proc));
    if !lives() {
        return;
    }
    say(&format!("ending process {pid}: the containerd of the dockerd that is gone"));
    for signal in ["-TERM", "-KILL"] {
        // The shell's own kill: the program of that name may not be installed.
        let _ = Command::new("/bin/sh").args(["-c", "kill $0 $1", signal, &pid.to_string()]).status().await;
        let end = Instant::now() + END_BOUND;
        while Instant::now() < end {
            if !lives() {
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
}

/// The line that says most about why a program ended: its last.
fn last_line(text: &str) -> &str {
    text.trim_end().lines().last().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Paths in a directory of the test's own.
    fn paths() -> DockerPaths {
        let directory = std::env::temp_dir().join(format!("k3nest-start-{}", uuid::Uuid::new_v4()));
        fs::create_dir_all(&directory).unwrap();
        DockerPaths {
            socket: directory.join("docker.sock"),
            pid_file: directory.join("docker.pid"),
            log: directory.join("dockerd.log"),
            ..DockerPaths::default()
        }
    }

    #[test]
    fn a_stale_pid_file_is_removed_and_said() {
        let paths = paths();
        fs::write(&paths.pid_file, std::process::id().to_string()).unwrap();
        let said = Mutex::new(String::new());
        clear_pid_file(&paths, &|line| said.lock().unwrap().push_str(line));
        assert!(!paths.pid_file.exists());
        assert!(said.lock().unwrap().contains("not dockerd"), "{said:?}");
    }

    #[tokio::test]
    async fn a_daemon_that_ends_at_once_is_reported_with_its_log() {
        let paths = paths();
        let program = paths.log.with_file_name("dockerd");
        fs::write(&program, "#!/bin/sh\necho no space left; exit 1\n").unwrap();
        let mode = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
        fs::set_permissions(&program, mode).unwrap();
        let Outcome::Ended(reason) = start_detached(&program, &paths).await.unwrap() else {
            panic!("answered")
        };
        assert!(reason.contains("exit status: 1") && last_line(&reason) == "no space left", "{reason}");
    }
}
