//! The one binary: command line and operator.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    k3nest::cli::run().await
}
