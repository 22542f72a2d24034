//! The custom resources as types: their schema, their rules, how groups inherit, and the words
//! (condition types and reasons) in which k3nest reports. No I/O and no clock.
//!
//! A rule that CEL can say is written once, next to its field, and reaches users twice: the API
//! server enforces it from the CRD, and [`validate`] evaluates the same CRD schema for the CLI.

mod adoption;
mod cluster;
mod conditions;
mod identity;
mod inherit;
mod node_group;
mod owned;
mod quantity;
mod status;
pub mod validate;

pub use adoption::*;
pub use cluster::*;
pub use conditions::*;
pub use identity::*;
pub use inherit::*;
pub use node_group::*;
pub use owned::*;
pub use quantity::*;
pub use status::*;

/// API group of every k3nest resource.
pub const GROUP: &str = "k3nest.dev";

/// Field manager of everything the operator applies server-side.
pub const FIELD_MANAGER: &str = "k3nest";

/// Finalizer that keeps a `K3sCluster` until nothing of it is left in Docker.
pub const FINALIZER: &str = "k3nest.dev/cluster";

/// Annotation with which a person lets a cluster go although its Docker engine cannot be reached.
/// What stays behind is listed in an Event.
pub const ABANDON_ANNOTATION: &str = "k3nest.dev/abandon";

/// Annotation with which a person has a cluster recovered that lost its quorum: a word, which is acted
/// upon once, and behind a colon the Node whose data is to be kept, if not the one written to last.
pub const RECOVER_ANNOTATION: &str = "k3nest.dev/recover";

/// Annotation with which a resource that was created again says whose objects in Docker are its own:
/// the uid that it had before.
pub const ADOPT_ANNOTATION: &str = "k3nest.dev/adopt";
