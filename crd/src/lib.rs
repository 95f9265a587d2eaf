//! What users write and what Firn answers: the API types, and the contract between the operator
//! and its pods. Pure: no I/O, no async, no clock.

pub mod exit;
pub mod names;
pub mod pod;
pub mod report;
pub mod run;

/// The `firn.dev` API group.
pub const GROUP: &str = "firn.dev";
/// The only version served so far.
pub const VERSION: &str = "v1alpha1";
