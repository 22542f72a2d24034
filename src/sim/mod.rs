//! A world in which every accident can be arranged: a Docker engine and nested clusters, simulated
//! as far as k3nest's decisions depend on them, and properties that must hold whatever happens.
//!
//! - [`docker`], [`containers`]: Docker's objects and its rules about them
//! - [`k3s`]: what a started server does: etcd, its token, its Node
//! - [`engine`]: the two behind the traits of the product, with faults
//! - [`faults`]: what can go wrong, and when
//! - [`wounds`]: what others do to a cluster
//! - [`losses`]: what a cluster has lost, in truth
//! - [`lab`]: steps taken in that world, one or two at a time, cut off where a test wants it
//! - [`specs`]: clusters and the edits that people make to them
//! - [`projection`]: what a world looks like without ids, times and picks
//!
//! There are no threads and no waiting: futures are polled by hand, and time is a number.

mod containers;
mod docker;
pub(crate) mod engine;
pub(crate) mod faults;
mod k3s;
pub(crate) mod lab;
mod losses;
mod projection;
pub(crate) mod specs;
mod wounds;

mod adoption_tests;
mod appliers_tests;
mod converge_tests;
mod every_call_tests;
mod host_tests;
mod network_tests;
mod recovery_tests;
mod remove_tests;
mod scenario_tests;
mod secrets_tests;
