//! What must work, told as stories. Each scenario is a function that panics where it does not.

mod bad_input;
mod capacity;
mod crash;
mod cut;
mod edits;
mod images;
mod life;
mod looks;
mod names;
mod node;
mod pair;
mod places;
mod prune;
mod secrets;
mod whole;
mod words;
mod workload;

/// A scenario.
pub type Scenario = fn();

/// Every scenario by name; long ones first, so that the last to end is a short one.
pub const ALL: &[(&str, Scenario)] = &[
    ("cli::life", life::life),
    ("cli::three_and_two", whole::three_and_two),
    ("cli::capacity", capacity::capacity),
    ("cli::five_at_once", whole::five_at_once),
    ("cli::settings", whole::settings),
    ("cli::cut_short", cut::cut_short),
    ("cli::images", images::of_a_cluster),
    ("cli::images_cut_short", images::cut_short),
    ("cli::images_no_space", images::no_space),
    ("cli::two_namespaces", pair::two_namespaces),
    ("cli::ports", places::ports),
    ("cli::joined_network", places::joined_network),
    ("cli::two_at_once", pair::two_at_once),
    ("cli::crash_loop", crash::crash_loop),
    ("cli::deleted_while_made", cut::deleted_while_made),
    ("cli::half_made", cut::half_made),
    ("cli::taken_names", names::taken_names),
    ("cli::missing_image", crash::missing_image),
    ("cli::prune", prune::of_lost_instances),
    ("cli::bad_input", bad_input::table),
    ("cli::words", words::words),
];
