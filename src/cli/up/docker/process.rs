//! Which dockerd and which containerd of a dockerd run, and whether a pid file tells the truth.
//!
//! After a kill or a power cut, pid files stay and name processes that are gone, or, worse, that
//! are something else by now. Both keep dockerd from starting. The decisions are pure functions
//! over a list of processes.

use std::{fs, path::Path};

/// A running process, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// Its name as the kernel has it.
    pub name: String,
    /// Its command line.
    pub command: Vec<String>,
    /// Whether it shares our network. A dockerd in another network namespace is no concern of ours.
    pub same_network: bool,
}

/// What a pid file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PidFile {
    /// There is none.
    Absent,
    /// It names this running process of the expected name.
    Live(u32),
    /// It names none, and why that is known.
    Stale(String),
}

/// All running processes. Those that end while being read, and the dead whose parent has not looked
/// yet (they have no command line any more), are left out.
pub fn processes(proc: &Path) -> Vec<Process> {
    let network = fs::read_link(proc.join("self/ns/net")).ok();
    let Ok(entries) = fs::read_dir(proc) else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let name = fs::read_to_string(entry.path().join("comm")).ok()?.trim_end().to_owned();
            let command = split_command(&fs::read(entry.path().join("cmdline")).ok()?);
            // Unreadable without root: then it may well be ours.
            let theirs = fs::read_link(entry.path().join("ns/net")).ok();
            let same_network = theirs.is_none() || theirs == network;
            (!command.is_empty()).then_some(Process { pid, name, command, same_network })
        })
        .collect()
}

fn split_command(bytes: &[u8]) -> Vec<String> {
    let bytes = bytes.strip_suffix(&[0]).unwrap_or(bytes);
    if bytes.is_empty() {
        return Vec::new();
    }
    bytes.split(|b| *b == 0).map(|part| String::from_utf8_lossy(part).into_owned()).collect()
}

/// The dockerd of this network namespace.
pub fn daemon(running: &[Process]) -> Option<&Process> {
    running.iter().find(|p| p.name == "dockerd" && p.same_network)
}

/// Whether the pid file's `content` names a running process called `name`.
pub fn judge_pid_file(content: Option<&str>, name: &str, running: &[Process]) -> PidFile {
    let Some(content) = content.map(str::trim) else { return PidFile::Absent };
    let Ok(pid) = content.parse::<u32>() else {
        return PidFile::Stale("it holds no process id".into());
    };
    match running.iter().find(|p| p.pid == pid) {
        None => PidFile::Stale(format!("process {pid} is gone")),
        Some(p) if p.name != name => PidFile::Stale(format!("process {pid} is {}, not {name}", p.name)),
        Some(_) => PidFile::Live(pid),
    }
}

/// The containerd that a dead dockerd left behind: named by that dockerd's pid file and, see
/// [`is_daemons_containerd`], what it should be.
pub fn left_containerd(pid_file: Option<&str>, directory: &Path, running: &[Process]) -> Option<u32> {
    let PidFile::Live(pid) = judge_pid_file(pid_file, "containerd", running) else { return None };
    is_daemons_containerd(pid, directory, running).then_some(pid)
}

/// Whether this process is a containerd that a dockerd with this state directory started: by name
/// and by the configuration in that directory, and in our network. So the machine's own containerd
/// is never taken for it, nor that of a dockerd in a place of its own.
pub fn is_daemons_containerd(pid: u32, directory: &Path, running: &[Process]) -> bool {
    let Some(process) = running.iter().find(|p| p.pid == pid) else { return false };
    let config = flag_value(&process.command, "--config").map(Path::new);
    process.name == "containerd"
        && process.same_network
        && same_place(config.and_then(Path::parent), directory)
}

/// Whether two directories are one; /var/run is a link to /run.
fn same_place(one: Option<&Path>, other: &Path) -> bool {
    let plain = |p: &Path| match p.strip_prefix("/var/run") {
        Ok(rest) => Path::new("/run").join(rest),
        Err(_) => p.to_owned(),
    };
    one.is_some_and(|one| plain(one) == plain(other))
}

/// The value of a flag on a command line, as `--flag value` or `--flag=value`.
pub fn flag_value<'a>(command: &'a [String], flag: &str) -> Option<&'a str> {
    command.iter().enumerate().find_map(|(i, argument)| match argument.strip_prefix(flag)? {
        "" => command.get(i + 1).map(String::as_str),
        rest => rest.strip_prefix('='),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: u32, name: &str, command: &str) -> Process {
        let command = command.split(' ').map(str::to_owned).collect();
        Process { pid, name: name.into(), command, same_network: true }
    }

    fn stale(why: &str) -> PidFile {
        PidFile::Stale(why.into())
    }

    #[test]
    fn a_pid_file_is_believed_only_if_its_process_is_what_it_should_be() {
        let running = [process(7, "dockerd", "dockerd"), process(8, "bash", "-bash")];
        let judge = |content| judge_pid_file(content, "dockerd", &running);
        assert_eq!(judge(None), PidFile::Absent);
        assert_eq!(judge(Some("7\n")), PidFile::Live(7));
        assert_eq!(judge(Some("9")), stale("process 9 is gone"));
        assert_eq!(judge(Some("8")), stale("process 8 is bash, not dockerd"));
        assert_eq!(judge(Some("")), stale("it holds no process id"));
        assert_eq!(judge(Some("-7")), stale("it holds no process id"));
    }

    #[test]
    fn only_the_containerd_of_dockerd_counts_as_left_behind() {
        let directory = Path::new("/var/run/docker/containerd");
        let running = [
            process(5, "containerd", "/usr/bin/containerd"),
            process(
                6,
                "containerd",
                "containerd --config /run/docker/containerd/containerd.toml --log-level info",
            ),
            process(7, "containerd", "containerd --config=/etc/containerd/containerd.toml"),
            process(8, "bash", "bash --config /run/docker/containerd/containerd.toml"),
        ];
        let left = |content| left_containerd(content, directory, &running);
        assert_eq!(left(Some("6")), Some(6));
        for other in ["5", "7", "8", "9", ""] {
            assert_eq!(left(Some(other)), None, "{other}");
        }
        assert_eq!(left(None), None);
    }

    #[test]
    fn a_dockerd_in_another_network_is_not_ours() {
        let mut other = process(7, "dockerd", "dockerd");
        other.same_network = false;
        assert_eq!(daemon(&[other.clone()]), None);
        let ours = process(8, "dockerd", "dockerd");
        assert_eq!(daemon(&[other, ours.clone()]), Some(&ours));
    }

    #[test]
    fn flags_are_found_in_both_spellings() {
        let command: Vec<String> =
            ["dockerd", "--config-file=/a", "--pidfile", "/b"].map(String::from).into();
        assert_eq!(flag_value(&command, "--config-file"), Some("/a"));
        assert_eq!(flag_value(&command, "--pidfile"), Some("/b"));
        assert_eq!(flag_value(&command, "--config"), None);
        assert_eq!(flag_value(&command, "--exec-root"), None);
    }

    #[test]
    fn this_process_is_found_running() {
        let me = std::process::id();
        let running = processes(Path::new("/proc"));
        assert!(running.iter().any(|p| p.pid == me && p.same_network && !p.command.is_empty()));
    }
}
