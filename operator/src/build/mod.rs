//! The controller of `NixImageBuild`: its Jobs, and what became of them. One platform takes one Job;
//! several take one each, and then one that publishes.
//!
//! ```text
//! observe ──▶ Observed ──plan──▶ Plan ──act──▶ Job, status, events
//! ```

use std::sync::Arc;

use firn_crd::{NixImage, NixImageBuild};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

pub mod act;
pub mod controller;
pub mod job;
pub mod measure;
pub mod observe;
pub mod order;
pub mod plan;
pub mod progress;
pub mod queue;
pub mod report;
pub mod status;
pub mod trouble;
pub mod volumes;
pub mod whole;

pub use order::{Known, Part};
pub use plan::{Plan, plan};

/// Everything a plan may know.
#[derive(Debug, Clone)]
pub struct Observed {
    /// The time.
    pub now: Timestamp,
    /// The build, as the API server has it now.
    pub build: Arc<NixImageBuild>,
    /// The image it belongs to; `None` also if it is gone, or another one of that name.
    pub image: Option<Arc<NixImage>>,
    /// The build before it, if this one has several platforms: what it left need not be made again.
    pub previous: Option<Arc<NixImageBuild>>,
    /// Builds before this one that published something, the newest first: few, and only while a Job
    /// is to be made.
    pub earlier: Vec<NixImageBuild>,
    /// Whether the account of build pods exists.
    pub has_account: bool,
    /// One for each of [`order::parts`], in their order.
    pub jobs: Vec<Seen>,
    /// What the API server said when a Job was to be made.
    pub refused: Option<String>,
    /// What whoever runs the operator decided.
    pub site: Arc<job::Site>,
    /// How long the Jobs of a build that succeeded are kept.
    pub retention: std::time::Duration,
}

/// One of the build's Jobs, and what is around it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// What it is for.
    pub part: Part,
    /// The Job. Verified: the owner is this very build.
    pub job: Option<Job>,
    /// The Job's pods, oldest first.
    pub pods: Vec<Pod>,
    /// Pods of older builds that it must not run beside and that may still run.
    pub others: Vec<String>,
    /// Warnings of the kubelet and of controllers about Job and pods, oldest first.
    pub warnings: Vec<Warning>,
    /// Whether there is a free slot.
    pub turn: queue::Turn,
}

impl Observed {
    /// Whether nothing more may come of the build: somebody said so, or its image was deleted and
    /// it was kept (`--cascade=orphan`). Builds that have an owner go with it by themselves.
    pub fn is_unwanted(&self) -> bool {
        self.build.spec.cancel || self.is_left_behind()
    }

    /// Whether the image is gone and the build was kept.
    pub fn is_left_behind(&self) -> bool {
        let owners = self.build.owner_references();
        self.build.spec.image.is_some()
            && self.image.is_none()
            && !owners.iter().any(|owner| owner.controller == Some(true))
    }

    /// What orders are made from.
    pub fn known(&self) -> Known<'_> {
        Known {
            build: &self.build,
            image: self.image.as_deref(),
            previous: self.previous.as_deref(),
            earlier: &self.earlier,
        }
    }
}

/// A Kubernetes event of type Warning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// `FailedMount`
    pub reason: String,
    /// In words.
    pub message: String,
}

#[cfg(test)]
pub(crate) mod tests;
