//! Condition types and reasons. Reasons are constants: they are part of what users script against.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Condition types of a `K3sCluster`.
pub mod condition {
    /// The wanted state is reached.
    pub const READY: &str = "Ready";
    /// The nested API answers.
    pub const AVAILABLE: &str = "Available";
    /// Work is under way (kstatus).
    pub const RECONCILING: &str = "Reconciling";
    /// It will not go on without a person (kstatus).
    pub const STALLED: &str = "Stalled";
    /// `spec.paused` is set.
    pub const PAUSED: &str = "Paused";
    /// The Docker host can run such nodes.
    pub const HOST_COMPATIBLE: &str = "HostCompatible";
    /// Its objects in Docker are those of the uid that an annotation names.
    pub const ADOPTED: &str = "Adopted";
}

/// Why a condition is as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// All is as wanted.
    Ready,
    /// Objects in Docker are being made or changed.
    Progressing,
    /// Waiting for the nested API or its Nodes.
    WaitingForNodes,
    /// A node container stops again and again.
    NodeCrashLooping,
    /// `spec.paused`.
    Paused,
    /// `spec.paused` is not set.
    NotPaused,
    /// Being deleted.
    Deleting,
    /// The specification cannot work; the message names the field.
    InvalidSpec,
    /// A Secret or ConfigMap that is referred to is missing or lacks the key.
    ReferenceMissing,
    /// The token in `tokenSecretRef` is not the one the cluster was made with.
    TokenChanged,
    /// A host path is not among those the operator allows.
    HostPathDenied,
    /// An image cannot be had.
    ImageUnavailable,
    /// The Docker daemon has no image of a name that `spec.images` lists.
    ImageMissing,
    /// An image could not be brought into a node.
    ImageImportFailed,
    /// A node has no space left for an image.
    NodeOutOfSpace,
    /// A name that is needed belongs to somebody else's object.
    NameTaken,
    /// A host port is in use.
    PortTaken,
    /// No subnet is free, or the wanted one overlaps another.
    SubnetUnavailable,
    /// The Docker network to join is missing or has no configured subnet.
    NetworkUnusable,
    /// Docker does not answer.
    EngineUnavailable,
    /// Docker refused a call.
    EngineError,
    /// This is another Docker engine than the one the cluster lives on.
    EngineMismatch,
    /// What k3nest has written down of the cluster is not in words of this version.
    RecordUnreadable,
    /// What k3nest has written down of the cluster is gone, and with it what the cluster is to be.
    RecordMissing,
    /// What the annotation asks to adopt is no uid.
    AdoptionInvalid,
    /// Nothing of the owner to adopt is on this engine.
    AdoptionNotFound,
    /// The owner to adopt is a cluster of another name or namespace.
    AdoptionMismatch,
    /// What is to be adopted has somebody who looks after it, or the resource has objects already.
    AdoptionConflict,
    /// Objects of a former uid are this cluster's.
    Adopted,
    /// No server's data is left.
    DataLost,
    /// Too few servers have their data to agree on anything.
    QuorumLost,
    /// The host cannot run this version of k3s.
    HostIncompatible,
    /// The Docker host was found fit.
    HostCompatible,
    /// Nothing was found out yet.
    Unknown,
}

impl Reason {
    /// The word in the condition.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Progressing => "Progressing",
            Self::WaitingForNodes => "WaitingForNodes",
            Self::NodeCrashLooping => "NodeCrashLooping",
            Self::Paused => "Paused",
            Self::NotPaused => "NotPaused",
            Self::Deleting => "Deleting",
            Self::InvalidSpec => "InvalidSpec",
            Self::ReferenceMissing => "ReferenceMissing",
            Self::TokenChanged => "TokenChanged",
            Self::HostPathDenied => "HostPathDenied",
            Self::ImageUnavailable => "ImageUnavailable",
            Self::ImageMissing => "ImageMissing",
            Self::ImageImportFailed => "ImageImportFailed",
            Self::NodeOutOfSpace => "NodeOutOfSpace",
            Self::NameTaken => "NameTaken",
            Self::PortTaken => "PortTaken",
            Self::SubnetUnavailable => "SubnetUnavailable",
            Self::NetworkUnusable => "NetworkUnusable",
            Self::EngineUnavailable => "EngineUnavailable",
            Self::EngineError => "EngineError",
            Self::EngineMismatch => "EngineMismatch",
            Self::RecordUnreadable => "RecordUnreadable",
            Self::RecordMissing => "RecordMissing",
            Self::AdoptionInvalid => "AdoptionInvalid",
            Self::AdoptionNotFound => "AdoptionNotFound",
            Self::AdoptionMismatch => "AdoptionMismatch",
            Self::AdoptionConflict => "AdoptionConflict",
            Self::Adopted => "Adopted",
            Self::DataLost => "DataLost",
            Self::QuorumLost => "QuorumLost",
            Self::HostIncompatible => "HostIncompatible",
            Self::HostCompatible => "HostCompatible",
            Self::Unknown => "Unknown",
        }
    }

    /// Whether only a person can get things going again. Everything else is retried with back-off.
    pub fn needs_a_person(self) -> bool {
        matches!(
            self,
            Self::InvalidSpec
                | Self::ReferenceMissing
                | Self::TokenChanged
                | Self::HostPathDenied
                | Self::ImageUnavailable
                | Self::ImageMissing
                | Self::NodeOutOfSpace
                | Self::NameTaken
                | Self::PortTaken
                | Self::SubnetUnavailable
                | Self::NetworkUnusable
                | Self::EngineMismatch
                | Self::RecordUnreadable
                | Self::RecordMissing
                | Self::AdoptionInvalid
                | Self::AdoptionNotFound
                | Self::AdoptionMismatch
                | Self::AdoptionConflict
                | Self::DataLost
                | Self::QuorumLost
                | Self::HostIncompatible
        )
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a cluster is held up: a reason, and what, where and what to do in words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Blocked {
    /// The reason.
    pub reason: Reason,
    /// What is wrong, where, and what to do about it.
    pub message: String,
}

impl Blocked {
    /// A cluster held up for `reason`.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// Puts a condition into `conditions`, keeping `lastTransitionTime` while its status stays.
pub fn set_condition(
    conditions: &mut Vec<Condition>,
    type_: &str,
    status: Option<bool>,
    reason: Reason,
    message: impl Into<String>,
    generation: Option<i64>,
    now: Timestamp,
) {
    let status = match status {
        Some(true) => "True",
        Some(false) => "False",
        None => "Unknown",
    };
    let since = conditions
        .iter()
        .find(|c| c.type_ == type_ && c.status == status)
        .map_or_else(|| Time(now), |c| c.last_transition_time.clone());
    conditions.retain(|c| c.type_ != type_);
    conditions.push(Condition {
        type_: type_.into(),
        status: status.into(),
        reason: reason.as_str().into(),
        message: message.into(),
        observed_generation: generation,
        last_transition_time: since,
    });
    conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
}
