//! kubectl on the host cluster: the user's own, or the one that k3s has in the node.

use std::{path::PathBuf, process::Stdio, time::Duration};

use bytes::Bytes;
use tokio::io::AsyncWriteExt;

use crate::{
    cli::CliError,
    engine::{Docker, Engine},
};

/// How long one kubectl may take.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A way to run kubectl.
pub enum Kubectl {
    /// A program on this machine, with this kubeconfig.
    Local { program: PathBuf, kubeconfig: PathBuf },
    /// `k3s kubectl` in the container of a server (https://docs.k3s.io/cli).
    InNode { docker: Docker, container: String },
}

impl Kubectl {
    /// The program on the PATH, if there is one.
    pub fn on_path() -> Option<PathBuf> {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path).map(|dir| dir.join("kubectl")).find(|file| file.is_file())
    }

    /// Runs it with `input` on standard input, and returns what it wrote.
    ///
    /// # Errors
    /// With its words, where it fails.
    pub async fn run(&self, args: &[&str], input: &str) -> Result<String, CliError> {
        let what = format!("kubectl {}", args.join(" "));
        let result = tokio::time::timeout(TIMEOUT, self.run_unbounded(args, input)).await;
        result
            .unwrap_or_else(|_| Err(format!("no end within {} s", TIMEOUT.as_secs())))
            .map_err(|e| CliError::Failed(format!("{what}: {}", e.trim_end())))
    }

    async fn run_unbounded(&self, args: &[&str], input: &str) -> Result<String, String> {
        match self {
            Self::Local { program, kubeconfig } => {
                let mut child = tokio::process::Command::new(program)
                    .args(args)
                    .env("KUBECONFIG", kubeconfig)
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .stderr(Stdio::piped())
                    .kill_on_drop(true)
                    .spawn()
                    .map_err(|e| e.to_string())?;
                if let Some(mut stdin) = child.stdin.take() {
                    stdin.write_all(input.as_bytes()).await.map_err(|e| e.to_string())?;
                }
                let output = child.wait_with_output().await.map_err(|e| e.to_string())?;
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
            }
            Self::InNode { docker, container } => {
                let mut command = vec!["/bin/k3s", "kubectl"];
                command.extend(args);
                let input = futures::stream::iter([Bytes::copy_from_slice(input.as_bytes())]);
                let output = docker.exec(container, &command, input).await.map_err(|e| e.to_string())?;
                if output.code == 0 { Ok(output.output) } else { Err(output.output) }
            }
        }
    }
}
