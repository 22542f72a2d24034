//! What happens inside a nested cluster: how to get in, whether it is ready, and the rendering of
//! everything k3s and its load balancer are told.

mod access;
mod client;
mod images;
mod node;
mod render;

pub use access::{Access, AccessError};
pub(crate) use client::root_cause;
pub use client::{ClusterApi, Network};
pub use images::{IMPORT_IMAGES, is_out_of_space, last_words, list_images, list_names, parse_images};
pub use node::NodeFacts;
pub use render::{
    EPOCH_PATH, ETCD_DATABASE_PATH, ETCD_LOG_PATH, ETCD_TOMBSTONE_PATH, K3S_TOKEN_PATH, KUBECONFIG_PATH,
    LOADED_PATH, NGINX_PATH, RELOAD, TOKEN_PATH, balancer_files, command, node_files,
};
