//! `k3nest diff`: the plan, and nothing done.

use clap::Args;

use super::{
    CliError,
    apply::checked_request,
    files,
    session::{EngineArgs, Session, now},
};
use crate::reconcile::preview;

/// Arguments of `diff`.
#[derive(Args, Clone, Debug)]
pub struct DiffArgs {
    /// File with K3sCluster resources; - is standard input
    #[arg(short, long = "filename", required = true, value_name = "FILE")]
    files: Vec<String>,
}

pub async fn run(args: &EngineArgs, diff: DiffArgs) -> Result<(), CliError> {
    let clusters = files::read(&diff.files)?;
    let session = Session::open(args).await?;
    let world = session.quiet();
    let mut differences = false;
    for cluster in &clusters {
        let request = checked_request(&session, cluster).await?;
        if request.spec.paused {
            println!("{}: left alone, since spec.paused is true", cluster.name);
            continue;
        }
        let plan = preview(&world, &request, now())
            .await
            .map_err(|e| CliError::Failed(format!("{}: {e}", cluster.name)))?;
        if let Some(blocked) = plan.blocked {
            return Err(CliError::Failed(format!("{}: {blocked}", cluster.name)));
        }
        differences |= !plan.steps.is_empty();
        match plan.steps.len() {
            0 => println!("{}: no changes", cluster.name),
            n => println!("{}: {n} to do", cluster.name),
        }
        for (i, step) in plan.steps.iter().enumerate() {
            let after = match step.after.as_slice() {
                [] => String::new(),
                steps => format!(
                    "  (after {})",
                    steps.iter().map(|s| (s + 1).to_string()).collect::<Vec<_>>().join(", ")
                ),
            };
            println!("  {:>2}. {}{after}", i + 1, step.action);
        }
    }
    if differences { Err(CliError::Differences) } else { Ok(()) }
}
