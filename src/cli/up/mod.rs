//! `k3nest up` and `k3nest down`: everything on one machine, from nothing to a running sample.

mod archive;
mod command;
mod daemon_json;
mod docker;
mod down;
mod error;
mod host;
mod images;
mod inotify;
mod kubectl;
mod privileged;
mod sample;
mod stage;

pub use down::down;
pub use host::Host;

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};

use super::{
    CliError, apply,
    kubeconfig::context_name as kubeconfig_context,
    session::{EngineArgs, Session},
};
use stage::{Say, Stages};

use crate::engine::Docker;

/// Name of the host cluster.
pub const HOST_CLUSTER: &str = "k3nest-host";

/// The k3s release that host cluster and sample run.
pub const VERSION: &str = "v1.36.1+k3s1";

/// Arguments of `up`.
#[derive(Args, Clone, Debug)]
pub struct UpArgs {
    /// Do only these parts
    #[arg(long, value_delimiter = ',', value_name = "PART")]
    only: Vec<Part>,

    /// Checkout of k3nest, from which the offline images are built where no registry answers
    #[arg(long, value_name = "DIRECTORY")]
    source: Option<PathBuf>,

    /// File with the K3sCluster to use as host cluster instead of k3nest's own; its first server needs
    /// the Docker socket mounted
    #[arg(long, value_name = "FILE")]
    host_file: Option<String>,

    /// How long to wait for the host cluster, the operator and the sample, each
    #[arg(long, default_value = "5m", value_parser = apply::duration)]
    timeout: Duration,
}

/// Arguments of `down`.
#[derive(Args, Clone, Debug)]
pub struct DownArgs {
    /// File that up was given with --host-file
    #[arg(long, value_name = "FILE")]
    host_file: Option<String>,

    /// Do not ask when there are clusters other than the sample
    #[arg(short, long)]
    yes: bool,

    /// How long to wait for clusters to be removed
    #[arg(long, default_value = "3m", value_parser = apply::duration)]
    timeout: Duration,
}

/// A part of `up`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Part {
    /// Docker itself, able to run privileged containers
    Docker,
    /// The images of nodes and load balancers
    Images,
    /// The host cluster
    Host,
    /// The operator in it
    Operator,
    /// The sample
    Sample,
}

/// Makes it all, or finds it made.
pub async fn up(args: &EngineArgs, up: UpArgs) -> Result<(), CliError> {
    let wants = |part: Part| up.only.is_empty() || up.only.contains(&part);
    let stages = Stages::new(&["Docker", "Images", "Host cluster", "Operator", "Sample"]);
    let mut args = args.clone();
    if wants(Part::Docker) {
        stages
            .run("Docker", |say, _| async move {
                docker::ensure_docker(&*say).await?;
                inotify::raise_inotify_limits(&*say);
                Ok(((), "runs".into()))
            })
            .await?;
    }
    if wants(Part::Images) {
        let found =
            stages.run("Images", |say, _| ensure_images(args.clone(), up.source.clone(), say)).await?;
        args.node_image = found.node;
        args.load_balancer_image = found.load_balancer;
    }
    if !(wants(Part::Host) || wants(Part::Operator) || wants(Part::Sample)) {
        return Ok(());
    }
    let session = Session::open(&args).await?;
    let resource = host::resource(up.host_file.as_deref())?;
    let host = stages
        .run("Host cluster", |_, line| {
            let (session, resource) = (&session, &resource);
            async move { host::ensure(session, resource, up.timeout, &line).await }
        })
        .await?;
    let kubeconfig = host.write_kubeconfig()?;
    if wants(Part::Operator) {
        let work = |say: Say, _| {
            let (host, args) = (&host, &args);
            async move {
                let (image, imported) = host.ensure_image(&say).await?;
                let applied = host.ensure_operator(&image, args, up.timeout, &say).await?;
                Ok(((), format!("available; image {imported}; {applied}")))
            }
        };
        stages.run("Operator", work).await?;
    }
    if wants(Part::Sample) {
        let work = |say: Say, _| {
            let (session, host) = (&session, &host);
            async move { sample::ensure(session, host, up.timeout, &say).await }
        };
        let nodes = stages.run("Sample", work).await?;
        println!("Nodes of the sample, by the kubeconfig in Secret {}-kubeconfig:", sample::NAME);
        nodes.iter().for_each(|node| println!("  {node}"));
    }
    print_next_steps(&kubeconfig, &args);
    Ok(())
}

/// The images, and Docker able to run nodes of them privileged.
async fn ensure_images(
    args: EngineArgs,
    source: Option<PathBuf>,
    say: Say,
) -> Result<(images::Images, String), CliError> {
    let engine = Docker::connect(args.docker_host.as_deref())?;
    let client = engine.client().await?;
    let plan = images::ImagePlan {
        node_repository: args.node_image.clone(),
        version: VERSION.into(),
        load_balancer: args.load_balancer_image.clone(),
        source,
    };
    let found = images::ensure_images(&client, &plan, &*say).await?;
    let node = format!("{}:{}", found.node, VERSION.replace('+', "-"));
    let runtime = privileged::ensure_privileged(&client, &node, &*say).await?;
    let how = runtime.map(|name| format!("; privileged by OCI runtime {name}")).unwrap_or_default();
    let word = format!("{node} and {}{how}", found.load_balancer);
    Ok((found, word))
}

impl From<error::SetupError> for CliError {
    fn from(error: error::SetupError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Where `up` keeps the kubeconfig of the host cluster `name`: beside its caches, never in a file of
/// the user's.
fn host_kubeconfig(name: &str) -> Result<PathBuf, CliError> {
    let cache = std::env::var_os("K3NEST_CACHE").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/k3nest"));
    let unset = || CliError::Input("neither K3NEST_CACHE nor HOME is set; set one".into());
    Ok(cache.or_else(home).ok_or_else(unset)?.join(format!("{name}.kubeconfig")))
}

/// Removes it again; that it is not there is fine.
fn remove_host_kubeconfig(name: &str) {
    if let Ok(path) = host_kubeconfig(name) {
        let _ = std::fs::remove_file(path);
    }
}

fn print_next_steps(kubeconfig: &std::path::Path, args: &EngineArgs) {
    println!(
        "
The host cluster:    export KUBECONFIG={}
Your clusters in it: kubectl get k3sclusters -A
Another one:         kubectl apply -f config/samples/cluster-full.yaml
Inside a cluster:    kubectl get secret sample-kubeconfig -o jsonpath='{{.data.kubeconfig}}' | base64 -d > sample.kubeconfig
Remove it all:       make down",
        kubeconfig.display()
    );
    if args.node_image != crate::plan::NODE_IMAGE {
        println!(
            "No registry answered, so offline images are used. For k3nest apply:
                     export K3NEST_NODE_IMAGE={} K3NEST_LOAD_BALANCER_IMAGE={}",
            args.node_image, args.load_balancer_image
        );
    }
}
