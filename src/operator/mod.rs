//! stub
use clap::Args;
#[derive(Args, Clone, Debug)]
pub struct OperatorArgs {}
pub async fn run(_a: OperatorArgs) -> Result<(), std::io::Error> {
    Ok(())
}
pub mod install;
