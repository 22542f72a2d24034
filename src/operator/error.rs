//! What can go wrong at the operator's edge, sorted by whose fault it is.

use std::time::Duration;

use crate::engine::EngineError;

/// Why the operator ended.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// No client for the host cluster's API.
    #[error("the host cluster's API cannot be reached: {0}; run inside a cluster, or set KUBECONFIG")]
    Client(#[source] kube::Error),
    /// The host cluster could not be identified.
    #[error("namespace kube-system, whose uid tells the host cluster, cannot be read: {0}")]
    Instance(String),
    /// No Docker client. An engine that is away is waited for; this is a bad address.
    #[error("no connection to Docker: {0}")]
    Docker(#[from] EngineError),
    /// Health and metrics cannot be served.
    #[error("health and metrics cannot be served on {address}: {cause}; choose another --metrics-address")]
    Server {
        /// Where.
        address: std::net::SocketAddr,
        /// Why.
        cause: std::io::Error,
    },
    /// A metric was registered twice.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// Why a cluster was not seen through this time. Each is retried with back-off.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// A call to the host cluster's API failed.
    #[error("{what}: {}", host_message(.source))]
    Host {
        /// The call and its object.
        what: String,
        /// Why.
        source: kube::Error,
    },
    /// Objects of a deleted cluster are still there.
    #[error("still there: {0}")]
    Remaining(String),
    /// Objects of a deleted cluster are on an engine that this is not.
    #[error("{0}")]
    Elsewhere(String),
    /// The engine could not be asked.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Adding or removing the finalizer failed.
    #[error("finalizer: {0}")]
    Finalizer(String),
}

impl ReconcileError {
    /// A word for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Host { .. } => "HostApi",
            Self::Remaining(_) => "Remaining",
            Self::Elsewhere(_) => "EngineMismatch",
            Self::Engine(_) => "Engine",
            Self::Finalizer(_) => "Finalizer",
        }
    }
}

/// Says which call failed, on what.
pub(super) trait Context<T> {
    /// `what` is the call and its object.
    fn context(self, what: impl FnOnce() -> String) -> Result<T, ReconcileError>;
}

impl<T> Context<T> for Result<T, kube::Error> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T, ReconcileError> {
        self.map_err(|source| ReconcileError::Host { what: what(), source })
    }
}

/// The API server's own sentence, without the whole Status object around it.
pub(super) fn host_message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// Whether the object of a call is gone.
pub(super) fn is_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_not_found())
}

/// When to look at a cluster again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// On events; the slow resync is the net.
    Resync,
    /// After this time.
    After(Duration),
    /// With back-off.
    BackOff,
}
