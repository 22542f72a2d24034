//! The one binary: command line and operator.

use std::process::ExitCode;

fn main() -> ExitCode {
    k3nest::cli::main()
}
