//! The edge towards a person: verbs, progress, output and exit codes.

mod apply;
mod cluster;
mod confirm;
mod delete;
mod diff;
mod files;
mod get;
mod image;
mod kubeconfig;
mod output;
mod progress;
mod prune;
mod session;
#[cfg(test)]
mod testing;
pub mod up;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::{api::K3sCluster, operator};

/// k3s clusters inside Docker, declaratively.
#[derive(Parser)]
#[command(
    name = "k3nest",
    version,
    about,
    long_about = "k3nest runs k3s clusters in Docker containers, as declared in K3sCluster resources: by its operator \
                  in a host cluster, or by this command line, which needs none.",
    after_help = "Examples:
  k3nest up                          everything: Docker, images, host cluster, operator, sample
  k3nest apply -f dev.yaml           create or converge the clusters in a file, and wait for them
  k3nest diff -f dev.yaml            what apply would do
  k3nest get clusters -o wide
  k3nest kubeconfig merge dev        then: kubectl --context k3nest-dev get nodes
  k3nest image import app:dev --cluster dev
  k3nest delete dev
  k3nest prune                       what is left of clusters whose host cluster is gone

Exit codes: 0 done, 1 differences (diff), 2 bad input, 3 not Ready in time, 4 failed, 5 Docker does not answer,
130 interrupted."
)]
struct Cli {
    #[command(flatten)]
    engine: session::EngineArgs,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Create or converge the clusters in files, and wait until they are Ready
    Apply(apply::ApplyArgs),
    /// Print what apply would do, and change nothing
    Diff(diff::DiffArgs),
    /// What is done to a cluster once, such as recovering it
    Cluster(cluster::ClusterArgs),
    /// Remove clusters and everything of theirs
    Delete(delete::DeleteArgs),
    /// List clusters or their nodes
    Get(get::GetArgs),
    /// Bring images of the Docker daemon into nodes, or compare them
    Image(image::ImageArgs),
    /// Print kubeconfigs, or put them into a file of yours
    Kubeconfig(kubeconfig::KubeconfigArgs),
    /// Set up everything on this machine: Docker, images, a host cluster with the operator, a sample
    Up(up::UpArgs),
    /// Remove what up has made: the operator's clusters, then the host cluster
    Down(up::DownArgs),
    /// List what clusters that nobody looks after any more left in Docker; with --remove, remove it
    Prune(prune::PruneArgs),
    /// Run the operator (inside a host cluster)
    Operator(operator::OperatorArgs),
    /// Print the custom resource definitions
    Crds,
    /// Print the version
    Version,
    /// Print a completion script for a shell
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Why a verb failed, and how the process ends.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// What the user wrote cannot work.
    #[error("{0}")]
    Input(String),
    /// Not Ready within the time given.
    #[error("{0}")]
    NotInTime(String),
    /// It failed, or a person must act.
    #[error("{0}")]
    Failed(String),
    /// Docker does not answer.
    #[error("{0}")]
    Engine(#[from] crate::engine::EngineError),
    /// Ctrl-C.
    #[error("interrupted; what was begun is finished by running the same command again")]
    Interrupted,
    /// The plan is not empty.
    #[error("")]
    Differences,
}

impl CliError {
    /// What several things that were done at once came to: all that went wrong is said, and the
    /// first decides the exit code.
    fn all(errors: Vec<Self>) -> Result<(), Self> {
        let also: Vec<String> = errors.iter().skip(1).map(ToString::to_string).collect();
        let Some(mut first) = errors.into_iter().next() else { return Ok(()) };
        if let Self::Input(text) | Self::NotInTime(text) | Self::Failed(text) = &mut first {
            also.iter().for_each(|more| text.push_str(&format!("\n        {more}")));
        }
        Err(first)
    }

    fn code(&self) -> u8 {
        match self {
            Self::Differences => 1,
            Self::Input(_) => 2,
            Self::NotInTime(_) => 3,
            Self::Failed(_) => 4,
            Self::Engine(error) if error.is_transient() => 5,
            Self::Engine(_) => 4,
            Self::Interrupted => 130,
        }
    }
}

/// Runs the command line of this process.
///
/// Not async, so that everything below is compiled into this library once, and not again into each
/// binary that waits for it.
pub fn main() -> ExitCode {
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(run()),
        Err(error) => {
            eprintln!("k3nest: no threads to work with: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> ExitCode {
    let cli = Cli::parse();
    // The operator ends its work in order by itself, and logs for machines.
    let operates = matches!(cli.verb, Verb::Operator(_));
    log_to_stderr(operates);
    let result = tokio::select! {
        result = cli.run() => result,
        Ok(()) = tokio::signal::ctrl_c(), if !operates => Err(CliError::Interrupted),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let text = error.to_string();
            if !text.is_empty() {
                eprintln!("k3nest: {text}");
            }
            ExitCode::from(error.code())
        }
    }
}

/// Logs: JSON lines from the operator, warnings as text from the command line. `K3NEST_LOG` chooses
/// what, such as `k3nest=debug`.
fn log_to_stderr(operates: bool) {
    use tracing_subscriber::EnvFilter;
    let fallback = if operates { "info" } else { "error" };
    let mut filter = EnvFilter::try_from_env("K3NEST_LOG").unwrap_or_else(|_| EnvFilter::new(fallback));
    // bollard logs request bodies, container environments among them, at debug. A nested API that
    // does not answer yet is no error of ours; conditions tell it.
    for cap in ["bollard=info", "kube_client::client::builder=off"] {
        filter = filter.add_directive(cap.parse().unwrap_or_default());
    }
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if operates {
        builder.json().init();
    } else {
        builder.with_target(false).init();
    }
}

impl Cli {
    async fn run(self) -> Result<(), CliError> {
        match self.verb {
            Verb::Apply(args) => apply::run(&self.engine, args).await,
            Verb::Diff(args) => diff::run(&self.engine, args).await,
            Verb::Cluster(args) => cluster::run(&self.engine, args).await,
            Verb::Delete(args) => delete::run(&self.engine, args).await,
            Verb::Get(args) => get::run(&self.engine, args).await,
            Verb::Image(args) => image::run(&self.engine, args).await,
            Verb::Kubeconfig(args) => kubeconfig::run(&self.engine, args).await,
            Verb::Up(args) => up::up(&self.engine, args).await,
            Verb::Down(args) => up::down(&self.engine, args).await,
            Verb::Prune(args) => prune::run(&self.engine, args).await,
            Verb::Operator(args) => operator::run(args).await.map_err(|e| CliError::Failed(e.to_string())),
            Verb::Crds => print_crds(),
            Verb::Version => {
                println!("k3nest {}", env!("CARGO_PKG_VERSION"));
                Ok(())
            }
            Verb::Completion { shell } => {
                clap_complete::generate(shell, &mut Cli::command(), "k3nest", &mut std::io::stdout());
                Ok(())
            }
        }
    }
}

/// The custom resource definitions as YAML, as in crds/.
pub fn crds() -> Result<String, CliError> {
    use kube::CustomResourceExt;
    let yaml = serde_saphyr::to_string(&K3sCluster::crd()).map_err(|e| CliError::Failed(e.to_string()))?;
    Ok(format!("# Generated from src/api by `make generate`. Do not edit.\n{yaml}"))
}

fn print_crds() -> Result<(), CliError> {
    print!("{}", crds()?);
    Ok(())
}
