//! Credentials of a nested cluster's administrator and the kubeconfigs made of them.

use crate::plan::Sensitive;

/// Credentials and the stable name in the API's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// CA of the API, PEM.
    pub ca: String,
    /// Client certificate, PEM.
    pub certificate: String,
    /// Its key, PEM.
    pub key: Sensitive<String>,
    /// The name that certificates are verified against (`tls-server-name`).
    pub server_name: String,
}

/// Why a kubeconfig could not be used.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// Not a kubeconfig of the expected shape.
    #[error("the kubeconfig that k3s wrote cannot be read: {0}")]
    Unreadable(String),
    /// No client could be made of it.
    #[error("no client for the nested API: {0}")]
    Client(#[from] kube::Error),
}

impl Access {
    /// From the kubeconfig that k3s writes (/etc/rancher/k3s/k3s.yaml).
    pub fn from_k3s_yaml(_yaml: &[u8], _server_name: &str) -> Result<Self, AccessError> {
        unimplemented!()
    }

    /// A kubeconfig with one context, called `context`, for readers who reach the API at `url`.
    pub fn kubeconfig(&self, _context: &str, _url: &str) -> String {
        unimplemented!()
    }

    /// A client for `url`, verifying against [`Self::server_name`].
    pub fn client(&self, _url: &str) -> Result<kube::Client, AccessError> {
        unimplemented!()
    }
}
