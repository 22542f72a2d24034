//! What goes wrong while `up` sets the machine up, and what to do about it.

use std::fmt;

/// Where announcements go: each step is said before it is done.
pub type Say<'a> = dyn Fn(&str) + Send + Sync + 'a;

/// A step of setting up that failed. Nobody branches on the kind; a person reads it, so it always
/// has three parts: the step and its object, the cause, and what to do next.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct SetupError {
    /// The step, and on what: "start dockerd".
    pub what: String,
    /// Why it failed.
    pub cause: String,
    /// What the reader does next.
    pub next: String,
}

impl SetupError {
    /// A failed step.
    pub fn new(what: impl Into<String>, cause: impl fmt::Display, next: impl Into<String>) -> Self {
        Self { what: what.into(), cause: cause.to_string().trim_end().to_owned(), next: next.into() }
    }
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}\nnext: {}", self.what, self.cause, self.next)
    }
}
