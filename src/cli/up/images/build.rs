//! Builds offline images by the scripts of a checkout of k3nest.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{process::Command, time::timeout};

use crate::cli::up::{
    command::run_said,
    error::{Say, SetupError},
};

/// How long a build may take. The node image compiles Kubernetes: about eight minutes on two free
/// cores when nothing is cached.
const BUILD_BOUND: Duration = Duration::from_secs(3600);

/// How long a script may take to say what it would build.
const QUESTION_BOUND: Duration = Duration::from_secs(30);

/// Where Go's own installation puts the compiler; `sudo` and bare shells lack it in PATH.
const GO: &str = "/usr/local/go/bin";

/// Names the checkout to build from.
const SOURCE_VARIABLE: &str = "K3NEST_SOURCE";

/// The checkout to build from: as given, else as the environment says, else the current directory
/// if it is one.
pub fn source(given: Option<&Path>) -> Option<PathBuf> {
    let named = env::var_os(SOURCE_VARIABLE).filter(|v| !v.is_empty()).map(PathBuf::from);
    let here = || env::current_dir().ok().filter(|d| d.join("e2e/node-image/build.sh").is_file());
    given.map(Path::to_owned).or(named).or_else(here)
}

/// Builds `image` by its script, passing on what it says.
pub async fn build(script: &Path, image: &str, say: &Say<'_>) -> Result<(), SetupError> {
    let what = format!("build {image}");
    let failed = |cause: String, next: String| SetupError::new(&what, cause, next);
    if !script.is_file() {
        return Err(failed(
            format!("{} does not exist", script.display()),
            format!("set {SOURCE_VARIABLE} to a checkout of k3nest"),
        ));
    }
    // A script builds one image. Ask which before minutes are spent on another.
    let builds = print_image(script).await.map_err(|cause| failed(cause, by_hand(script)))?;
    if builds != image {
        return Err(failed(
            format!("{} builds {builds}", script.display()),
            format!("without a registry use that version, the tag of {builds}"),
        ));
    }
    run_said(bash(script), say, BUILD_BOUND).await.map_err(|cause| {
        failed(format!("{}: {cause} (its lines are above)", script.display()), by_hand(script))
    })
}

fn by_hand(script: &Path) -> String {
    format!("run {} by hand to see what it lacks, then `k3nest up` again", script.display())
}

/// What the script would build.
async fn print_image(script: &Path) -> Result<String, String> {
    let mut command = bash(script);
    command.arg("--print-image").stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(QUESTION_BOUND, command.output())
        .await
        .map_err(|_| {
            format!("{} --print-image: no answer within {} s", script.display(), QUESTION_BOUND.as_secs())
        })?
        .map_err(|e| format!("{} cannot be run: {e}", script.display()))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{} --print-image: {}: {}", script.display(), output.status, errors.trim_end()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn bash(script: &Path) -> Command {
    let mut command = Command::new("bash");
    command.arg(script).env("PATH", path_with_go(env::var_os("PATH")));
    command
}

fn path_with_go(path: Option<OsString>) -> OsString {
    let path = path.unwrap_or_default();
    let parts = env::split_paths(&path).chain([PathBuf::from(GO)]);
    env::join_paths(parts).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn script(text: &str) -> PathBuf {
        let path = env::temp_dir().join(format!("k3nest-build-{}.sh", uuid::Uuid::new_v4()));
        std::fs::write(&path, text).unwrap();
        path
    }

    #[tokio::test]
    async fn a_script_of_another_version_is_not_run() {
        let script = script("[ \"$1\" = --print-image ] && echo node:2 || echo built");
        let error = build(&script, "node:1", &|line| panic!("{line}")).await.unwrap_err();
        assert!(error.cause.ends_with("builds node:2"), "{error}");
    }

    #[tokio::test]
    async fn what_a_script_says_is_passed_on_and_its_failure_is_ours() {
        let script = script("[ \"$1\" = --print-image ] && echo node:1 && exit; echo compiling; exit 4");
        let said = Mutex::new(Vec::new());
        let error =
            build(&script, "node:1", &|line| said.lock().unwrap().push(line.to_owned())).await.unwrap_err();
        assert_eq!(*said.lock().unwrap(), ["compiling"]);
        assert!(error.cause.contains("exit status: 4") && error.next.contains("by hand"), "{error}");
    }

    #[test]
    fn go_is_looked_for_last() {
        assert_eq!(path_with_go(Some("/a:/b".into())), "/a:/b:/usr/local/go/bin");
    }

    #[test]
    fn a_given_source_wins() {
        assert_eq!(source(Some(Path::new("/given"))), Some("/given".into()));
    }
}
