//! k3nest runs k3s clusters inside Docker, declaratively.
//!
//! The map of the house; decisions are data, and only the edges do I/O:
//!
//! - [`api`]: the resources people write, their rules, and the words k3nest reports in
pub mod api;
