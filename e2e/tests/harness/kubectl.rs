//! kubectl against a nested cluster, with the certificate verified: it never gets to skip that.

use std::{path::PathBuf, process::Command, sync::OnceLock, time::Duration};

use serde_json::Value;

use super::{
    Finished,
    docker::{TOOLS, docker},
    nest::VERSION,
    pick::Scratch,
    run, run_with_input, within,
};

/// kubectl with the kubeconfig of one cluster.
pub struct Kubectl {
    scratch: Scratch,
}

impl Kubectl {
    /// From the text of a kubeconfig.
    pub fn new(kubeconfig: &str) -> Self {
        assert!(!kubeconfig.contains("insecure-skip-tls-verify"), "the kubeconfig verifies nothing");
        let scratch = Scratch::new();
        scratch.file("config", kubeconfig);
        Self { scratch }
    }

    /// The command, not yet run.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program());
        if program().file_name().is_some_and(|name| name == "k3s") {
            command.arg("kubectl");
        }
        command.env("KUBECONFIG", self.scratch.path("config")).args(args);
        command
    }

    /// Runs it to its end.
    pub fn run(&self, args: &[&str]) -> Finished {
        run(&mut self.command(args))
    }

    /// Applies manifests.
    #[track_caller]
    pub fn apply(&self, manifests: &str) {
        run_with_input(&mut self.command(&["apply", "-f", "-"]), manifests.as_bytes()).ok();
    }

    /// An object.
    #[track_caller]
    pub fn get(&self, kind: &str, name: &str) -> Value {
        let text = self.run(&["get", kind, name, "-o", "json"]).ok();
        serde_json::from_str(&text).expect("kubectl prints JSON")
    }

    /// Waits until the Pod `name` is Ready.
    #[track_caller]
    pub fn pod_is_ready(&self, name: &str) {
        within(Duration::from_secs(60), &format!("Pod {name} to be Ready"), || {
            self.run(&["wait", "pod", name, "--for=condition=Ready", "--timeout=5s"])
                .result()
                .map_err(|seen| format!("{seen}\n{}", self.run(&["describe", "pod", name]).stdout))
        });
    }

    /// Runs the tools in a Pod that has them.
    pub fn tools(&self, pod: &str, args: &[&str]) -> Finished {
        self.run(&[&["exec", pod, "--", "/bin/tools"], args].concat())
    }
}

/// A Pod with the workload image, as one document.
pub fn tools_pod(name: &str, labels: &str, args: &[&str]) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{{labels}}}}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {{name: tools, image: {TOOLS}, imagePullPolicy: Never, args: {args:?}}}
---
"
    )
}

/// kubectl of the PATH, else k3s out of the node's image: a static program that is kubectl, too.
fn program() -> &'static PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let installed =
            std::env::split_paths(&path).map(|dir| dir.join("kubectl")).find(|file| file.is_file());
        installed.unwrap_or_else(out_of_the_node_image)
    })
}

fn out_of_the_node_image() -> PathBuf {
    let home = std::env::var("HOME").unwrap_or_else(|_| "/tmp".into());
    let cache = std::env::var("K3NEST_CACHE").unwrap_or_else(|_| format!("{home}/.cache/k3nest"));
    let folder = PathBuf::from(cache).join("bin");
    let file = folder.join("k3s");
    if file.is_file() {
        return file;
    }
    std::fs::create_dir_all(&folder).expect("the cache is writable");
    let image = format!("k3nest-offline/node:{}", VERSION.replace('+', "-"));
    let container = docker(&["create", &image]).ok();
    let copied = docker(&["cp", &format!("{}:/bin/k3s", container.trim()), &file.to_string_lossy()]);
    docker(&["rm", "-v", container.trim()]).ok();
    copied.ok();
    file
}
