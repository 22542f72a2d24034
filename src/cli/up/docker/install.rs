//! Installs Docker from the distribution's packages where it is missing.

use std::{fs, time::Duration};

use tokio::process::Command;

use super::{DockerPaths, Say, SetupError, find_program, is_root};
use crate::cli::up::command::run_logged;

/// How long `apt-get update` may take.
const UPDATE_BOUND: Duration = Duration::from_secs(180);

/// How long `apt-get install` may take.
const INSTALL_BOUND: Duration = Duration::from_secs(600);

/// Whether /etc/os-release describes Debian or a distribution made from it, whose packages are
/// called docker.io and iptables.
pub fn is_debian(os_release: &str) -> bool {
    let value = |key: &str| {
        let line = os_release.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix('='));
        line.map(|v| v.trim().trim_matches(['"', '\'']).to_owned()).unwrap_or_default()
    };
    let (id, like) = (value("ID"), value("ID_LIKE"));
    std::iter::once(id.as_str()).chain(like.split_whitespace()).any(|d| d == "debian" || d == "ubuntu")
}

/// The packages that must be installed for dockerd to run. A `docker` client alone does not count:
/// it may be there without the daemon.
pub fn missing_packages(has: impl Fn(&str) -> bool) -> Vec<&'static str> {
    [("dockerd", "docker.io"), ("iptables", "iptables")]
        .into_iter()
        .filter(|(program, _)| !has(program))
        .map(|(_, package)| package)
        .collect()
}

/// Installs what dockerd needs and lacks.
pub async fn ensure_installed(paths: &DockerPaths, say: &Say<'_>) -> Result<(), SetupError> {
    let packages = missing_packages(|program| find_program(program).is_some());
    if packages.is_empty() {
        return Ok(());
    }
    let what = format!("install {}", packages.join(" and "));
    if !is_debian(&fs::read_to_string(&paths.os_release).unwrap_or_default()) {
        return Err(SetupError::new(
            what,
            "Docker does not run here, and k3nest knows how to install it only on Debian and Ubuntu",
            "install and start Docker (https://docs.docker.com/engine/install/), or set DOCKER_HOST to one that runs, then run `k3nest up` again",
        ));
    }
    if !is_root(&paths.proc) {
        return Err(SetupError::new(
            what,
            "Docker is not installed and this user is not root",
            format!("run `sudo k3nest up`, or first `sudo apt-get install {}`", packages.join(" ")),
        ));
    }
    install(&packages, paths, say).await.map_err(|cause| {
        SetupError::new(
            what,
            cause,
            format!(
                "see {} for everything apt-get wrote; if it was interrupted, `dpkg --configure -a`; then run `k3nest up` again",
                paths.install_log.display()
            ),
        )
    })
}

async fn install(packages: &[&str], paths: &DockerPaths, say: &Say<'_>) -> Result<(), String> {
    say(&format!("refreshing the package lists: apt-get update (log: {})", paths.install_log.display()));
    // A broken third-party source fails the update but not the installation: go on and see.
    let update = run_logged(apt_get(&["update"]), &paths.install_log, UPDATE_BOUND).await;
    if let Err(cause) = &update {
        let reason = cause.lines().next().unwrap_or_default();
        say(&format!("apt-get update failed ({reason}): trying with the lists that are there"));
    }
    let mut arguments = vec!["install", "-y"];
    arguments.extend(packages);
    say(&format!("installing Docker: apt-get {}", arguments.join(" ")));
    run_logged(apt_get(&arguments), &paths.install_log, INSTALL_BOUND).await
}

/// apt-get that never asks, waits for another one to finish and keeps changed configuration files.
fn apt_get(arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["-o", "DPkg::Lock::Timeout=120", "-o", "Dpkg::Options::=--force-confold"])
        .args(arguments);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debian_and_its_kin_are_recognised() {
        for yes in [
            "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\n",
            "ID=ubuntu\nID_LIKE=debian\n",
            "ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n",
            "ID='raspbian'\nID_LIKE=debian",
        ] {
            assert!(is_debian(yes), "{yes}");
        }
        for no in [
            "ID=fedora\n",
            "ID=alpine\nVERSION_ID=3\n",
            "ID=\"rhel\"\nID_LIKE=\"fedora\"\n",
            "",
            "NOT_ID=debian\n",
        ] {
            assert!(!is_debian(no), "{no}");
        }
    }

    #[test]
    fn a_client_without_the_daemon_is_not_docker() {
        assert_eq!(missing_packages(|p| p == "docker" || p == "iptables"), ["docker.io"]);
        assert_eq!(missing_packages(|_| false), ["docker.io", "iptables"]);
        assert!(missing_packages(|_| true).is_empty());
    }
}
