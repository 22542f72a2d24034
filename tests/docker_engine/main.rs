//! The engine on a real Docker. Without one these tests fail: a skipped test tells nothing.
//!
//! Every test makes objects of an instance of its own and removes them at the end, also when it
//! panics.

mod containers;
mod events;
mod exec;
mod host;
mod names;
mod support;
mod whole;
