//! What users write and what Firn answers: the API types, and the contract between the operator
//! and its pods. Pure: no I/O, no async, no clock.
//!
//! The kinds are [`NixImage`] and [`NixImageBuild`]; each section of a spec has a module of its own.
//! [`exit`], [`report`], [`run`] and [`pod`] are the contract with the builder image.

#![expect(
    unreachable_pub,
    reason = "KubeSchema repeats a struct inside a function, with its `pub`"
)]

pub mod build;
pub mod build_spec;
pub mod build_status;
pub mod cache;
pub mod condition;
pub mod container;
pub mod duration;
pub mod event;
pub mod exit;
pub mod failure;
pub mod files;
pub mod flake;
pub mod hash;
pub mod image;
pub mod names;
pub mod output;
pub mod pod;
pub mod policy;
pub mod published;
pub mod reference;
pub mod report;
pub mod resolved;
pub mod resources;
pub mod run;
pub mod schema;
pub mod signing;
pub mod source;
pub mod ssh;
pub mod trigger;

pub use build::{NixImageBuild, NixImageBuildSpec};
pub use build_status::NixImageBuildStatus;
pub use duration::Duration;
pub use image::{NixImage, NixImageSpec, NixImageStatus};

/// The `firn.dev` API group.
pub const GROUP: &str = "firn.dev";
/// The only version served so far.
pub const VERSION: &str = "v1alpha1";
