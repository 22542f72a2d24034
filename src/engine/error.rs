//! What can go wrong with Docker, sorted by what to do about it.

/// Result of a call to Docker.
pub type Result<T, E = EngineError> = std::result::Result<T, E>;

/// A call to Docker that failed. Every message says which call, on what.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// Docker does not answer: retry.
    #[error("{what}: Docker does not answer: {cause}")]
    Unavailable {
        /// The call and its object.
        what: String,
        /// Why.
        cause: String,
    },
    /// Docker did not answer in time: retry.
    #[error("{what}: no answer within {seconds} s")]
    TimedOut {
        /// The call and its object.
        what: String,
        /// The bound.
        seconds: u64,
    },
    /// The object is not there.
    #[error("{what}: {name} does not exist")]
    NotFound {
        /// The call.
        what: String,
        /// The object.
        name: String,
    },
    /// The name belongs to another object.
    #[error("{kind} {name} exists already and is not this cluster's")]
    NameTaken {
        /// container, volume or network.
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// The host port is in use.
    #[error("{what}: a host port is in use: {message}")]
    PortTaken {
        /// The call and its object.
        what: String,
        /// Docker's words, which name the port.
        message: String,
    },
    /// The range overlaps another network's.
    #[error("{what}: the subnet overlaps another network: {message}")]
    SubnetTaken {
        /// The call and its object.
        what: String,
        /// Docker's words.
        message: String,
    },
    /// The network takes no pinned addresses.
    #[error("{what}: {message}")]
    NoPinning {
        /// The call and its object.
        what: String,
        /// Docker's words.
        message: String,
    },
    /// The image cannot be had.
    #[error("image {image} cannot be had: {message}")]
    ImageUnavailable {
        /// The reference.
        image: String,
        /// Docker's words.
        message: String,
    },
    /// The object is in use or changing: retry.
    #[error("{what}: busy: {message}")]
    Busy {
        /// The call and its object.
        what: String,
        /// Docker's words.
        message: String,
    },
    /// Docker refused.
    #[error("{what}: {message}")]
    Refused {
        /// The call and its object.
        what: String,
        /// Docker's words.
        message: String,
    },
}

impl EngineError {
    /// Whether the same call may work later without anything being changed.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Unavailable { .. } | Self::TimedOut { .. } | Self::Busy { .. } | Self::NotFound { .. }
        )
    }
}
