//! Programs that setting up runs: bounded in time, their output in a log file or passed on.

use std::{
    fs::OpenOptions,
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::Command,
};

use super::error::Say;

/// Bytes from a log's end that an error shows.
const TAIL_BYTES: u64 = 1500;

/// Directories that hold system programs and that an ordinary user's PATH may lack.
const SYSTEM_DIRECTORIES: [&str; 4] = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"];

/// The program's path: from PATH, then where packages put it.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(SYSTEM_DIRECTORIES.map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
}

/// Runs a command to its end within `bound`, appending what it writes to `log`. It is killed at
/// the bound. The error is the cause in words, with the log's tail.
pub async fn run_logged(mut command: Command, log: &Path, bound: Duration) -> Result<(), String> {
    let file = open_log(log).map_err(|e| format!("cannot write {}: {e}", log.display()))?;
    let copy = file.try_clone().map_err(|e| format!("cannot write {}: {e}", log.display()))?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(copy)
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| format!("cannot be started: {e}"))?;
    match tokio::time::timeout(bound, child.wait()).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(format!("{status}; {}", tail_of(log))),
        Ok(Err(e)) => Err(format!("cannot wait for it: {e}")),
        Err(_) => Err(format!("not done after {} s; {}", bound.as_secs(), tail_of(log))),
    }
}

/// Runs a command to its end within `bound`, passing every line it writes to `say`. It is killed
/// at the bound. The error is the cause in words.
pub async fn run_said(mut command: Command, say: &Say<'_>, bound: Duration) -> Result<(), String> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| format!("cannot be started: {e}"))?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let whole = async {
        tokio::join!(pass_lines(stdout, say), pass_lines(stderr, say));
        child.wait().await
    };
    match tokio::time::timeout(bound, whole).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(status.to_string()),
        Ok(Err(e)) => Err(format!("cannot wait for it: {e}")),
        Err(_) => Err(format!("not done after {} s", bound.as_secs())),
    }
}

async fn pass_lines<R: AsyncRead + Unpin>(from: Option<R>, say: &Say<'_>) {
    let Some(from) = from else { return };
    let mut lines = BufReader::new(from).split(b'\n');
    while let Ok(Some(line)) = lines.next_segment().await {
        say(String::from_utf8_lossy(&line).trim_end());
    }
}

/// Opens a log for appending, with its directory.
pub fn open_log(log: &Path) -> io::Result<std::fs::File> {
    if let Some(directory) = log.parent() {
        std::fs::create_dir_all(directory)?;
    }
    OpenOptions::new().create(true).append(true).open(log)
}

/// The end of a log as part of an error message: "FILE ends with: …", whole lines.
pub fn tail_of(log: &Path) -> String {
    match read_tail(log) {
        Ok(tail) if tail.trim().is_empty() => format!("{} is empty", log.display()),
        Ok(tail) => format!("{} ends with:\n{}", log.display(), tail.trim_end()),
        Err(e) => format!("{} cannot be read: {e}", log.display()),
    }
}

fn read_tail(log: &Path) -> io::Result<String> {
    let mut file = std::fs::File::open(log)?;
    let length = file.metadata()?.len();
    let start = length.saturating_sub(TAIL_BYTES);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    // Cut in the middle of a line: begin at the next one.
    Ok(match (start > 0).then(|| text.find('\n')).flatten() {
        Some(end) => text[end + 1..].to_owned(),
        None => text,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[tokio::test]
    async fn a_failing_command_shows_the_end_of_its_log() {
        let directory = tempdir();
        let log = directory.join("deep/log");
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "echo reason >&2; exit 3"]);
        let error = run_logged(command, &log, Duration::from_secs(10)).await.unwrap_err();
        assert!(error.contains("exit status: 3") && error.ends_with("reason"), "{error}");
    }

    #[tokio::test]
    async fn a_command_is_ended_at_its_bound() {
        let log = tempdir().join("log");
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "exec sleep 60"]);
        let error = run_logged(command, &log, Duration::from_millis(50)).await.unwrap_err();
        assert!(error.contains("not done"), "{error}");
    }

    #[tokio::test]
    async fn lines_are_passed_on() {
        let said = Mutex::new(Vec::new());
        let say = |line: &str| said.lock().unwrap().push(line.to_owned());
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "echo one; echo two"]);
        run_said(command, &say, Duration::from_secs(10)).await.unwrap();
        assert_eq!(*said.lock().unwrap(), ["one", "two"]);
    }

    #[test]
    fn the_tail_holds_whole_lines() {
        let log = tempdir().join("log");
        let line = "x".repeat(999);
        std::fs::write(&log, format!("{line}\n{line}\nlast\n")).unwrap();
        assert_eq!(read_tail(&log).unwrap(), format!("{line}\nlast\n"));
    }

    /// A directory of the test's own.
    fn tempdir() -> PathBuf {
        let path = std::env::temp_dir().join(format!("k3nest-command-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(&path).unwrap();
        path
    }
}
