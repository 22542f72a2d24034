//! Why steps end early, and what failures of Docker mean for a cluster.

use crate::{
    api::{Blocked, Reason},
    engine::EngineError,
};

/// Why a step ended before all was as wanted.
#[derive(Debug, thiserror::Error)]
pub enum Stop {
    /// A person must act.
    #[error(transparent)]
    Blocked(#[from] Blocked),
    /// What exists is not what is wanted, and nothing was done about it.
    #[error("{0}")]
    Drifted(String),
    /// Docker failed; trying again may help.
    #[error(transparent)]
    Engine(EngineError),
}

impl From<EngineError> for Stop {
    fn from(error: EngineError) -> Self {
        stop(error, None)
    }
}

/// What a failure of Docker means for the cluster.
pub(super) fn stop(error: EngineError, action: Option<&str>) -> Stop {
    let (reason, advice) = match &error {
        EngineError::NameTaken { kind, .. } => {
            (Reason::NameTaken, format!("k3nest leaves it alone: rename or remove that {kind}"))
        }
        EngineError::ImageUnavailable { .. } => (
            Reason::ImageUnavailable,
            "check spec.version and spec.image, and that the Docker host reaches the registry".to_owned(),
        ),
        EngineError::PortTaken { .. } => {
            (Reason::PortTaken, "stop what uses it, or choose another hostPort".to_owned())
        }
        EngineError::NoPinning { .. } => (
            Reason::NetworkUnusable,
            "spec.network.name: addresses can be pinned only in a network with a configured subnet: make it anew with docker network create --subnet, delete the cluster and create it again".to_owned(),
        ),
        EngineError::SubnetTaken { .. } => {
            (Reason::SubnetUnavailable, "choose another spec.network.subnet".to_owned())
        }
        _ => return Stop::Engine(error),
    };
    // These errors name the object themselves.
    let action = action.filter(|_| !matches!(reason, Reason::NameTaken | Reason::ImageUnavailable));
    let at = action.map(|action| format!("{action}: ")).unwrap_or_default();
    Blocked::new(reason, format!("{at}{error}; {advice}")).into()
}
