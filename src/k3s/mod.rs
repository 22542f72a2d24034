//! What happens inside a nested cluster: how to get in, whether it is ready, and the rendering of
//! everything k3s and its load balancer are told.

mod access;
mod client;
mod node;
mod render;

pub use access::{Access, AccessError};
pub use client::{ClusterApi, Network};
pub use node::NodeFacts;
pub use render::{K3S_TOKEN_PATH, KUBECONFIG_PATH, TOKEN_PATH, balancer_files, command, server_files};
