//! The controller of `NixImage`: which builds there should be, and what status says.
//!
//! ```text
//! observe ──▶ Observed ──plan──▶ Plan ──act──▶ NixImageBuild, status, events
//! ```

use std::sync::Arc;

use firn_crd::NixImage;
use jiff::Timestamp;

use crate::settings::{Allowed, Resources};
use crate::{registry, source};

pub mod act;
pub mod controller;
pub mod decide;
pub mod drift;
pub mod fold;
pub mod key;
pub mod measure;
pub mod observe;
pub mod plan;
pub mod queue;
pub mod retry;
pub mod revision;
pub mod run;
pub mod snapshot;
pub mod status;
pub mod support;
pub mod template;
pub mod told;

pub use plan::{Plan, plan};
pub use run::Run;

/// Everything a plan may know.
#[derive(Debug, Clone)]
pub struct Observed {
    /// The time.
    pub now: Timestamp,
    /// The image, as the API server has it now.
    pub image: Arc<NixImage>,
    /// What its source says.
    pub source: source::Observed,
    /// What the registry has of what was published.
    pub registry: registry::Observation,
    /// Its builds, oldest first. Verified: their owner is this very object.
    pub runs: Vec<Run>,
    /// The highest number that a build of this name has, be it ours or another's: of an image that
    /// was deleted and made again, or made by hand.
    pub highest_number: i64,
    /// Images that publish in the same repository, not this one.
    pub rivals: Vec<Rival>,
    /// What whoever runs the operator decided.
    pub site: Arc<Site>,
}

/// What whoever runs the operator decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// What specs may ask for, and get by default.
    pub allowed: Allowed,
    /// Resources of build containers whose spec names none.
    pub resources: Resources,
}

/// Another image in the same repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rival {
    /// `namespace/name`.
    pub name: String,
    /// When it was made, and its UID: the older one has the tag.
    pub born: (Option<Timestamp>, String),
    /// Its tag templates.
    pub tags: Vec<String>,
}

#[cfg(test)]
mod tests;
