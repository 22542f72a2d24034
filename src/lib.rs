//! k3nest runs k3s clusters inside Docker, declaratively.
//!
//! The map of the house; decisions are data, and only the edges do I/O:
//!
//! - [`api`]: the resources people write, their rules, and the words k3nest reports in
//! - [`plan`]: pure decisions: what should exist, and what to do about the difference
//! - [`engine`]: Docker: observe what exists, execute plans
//! - [`k3s`]: inside a nested cluster: access, readiness, rendered configuration
//! - [`reconcile`]: the one step that both edges take
//! - [`operator`]: the edge towards a host cluster
//! - [`cli`]: the edge towards a person
pub mod api;
pub mod cli;
pub mod engine;
pub mod k3s;
pub mod operator;
pub mod plan;
pub mod reconcile;

#[cfg(test)]
mod sim;
