//! Is a cluster well said?
//!
//! Two layers, the same for CLI and operator: [`schema`] is what the API server checks too (types,
//! bounds and the CEL rules of the CRD), evaluated here for the CLI; [`rules`] holds what CEL
//! cannot say, which the operator reports as reason InvalidSpec.

mod rules;
mod schema;

pub use rules::{Policy, check_spec};
pub(crate) use rules::{overlap, port_claims};
pub use schema::check_document;

/// One thing that is wrong with a resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The field, such as `spec.servers.args[0]`.
    pub field: String,
    /// What is wrong with it and what to write instead.
    pub message: String,
}

impl Problem {
    /// A problem of `field`.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Messages of CEL rules name the field themselves: they must make sense in kubectl, too.
        let short = self.field.split('[').next().unwrap_or_default();
        if self.message.starts_with(short) || self.field.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.field, self.message)
        }
    }
}
