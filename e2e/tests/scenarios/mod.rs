//! What must work, told as stories. Each scenario is a function that panics where it does not.

mod small;

/// A scenario.
pub type Scenario = fn();

/// Every scenario by name; long ones first, so that the last to end is a short one.
pub const ALL: &[(&str, Scenario)] =
    &[("cli::apply_twice", small::apply_twice), ("cli::words", small::words)];
