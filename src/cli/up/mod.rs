//! stub
use super::{CliError, session::EngineArgs};
use clap::Args;
#[derive(Args, Clone, Debug)]
pub struct UpArgs {}
#[derive(Args, Clone, Debug)]
pub struct DownArgs {}
pub async fn up(_a: &EngineArgs, _b: UpArgs) -> Result<(), CliError> {
    Ok(())
}
pub async fn down(_a: &EngineArgs, _b: DownArgs) -> Result<(), CliError> {
    Ok(())
}
