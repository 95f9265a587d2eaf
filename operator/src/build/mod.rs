//! The controller of `NixImageBuild`: one Job, and what became of it.
//!
//! ```text
//! observe ──▶ Observed ──plan──▶ Plan ──act──▶ Job, status, events
//! ```

use std::sync::Arc;

use firn_crd::{NixImage, NixImageBuild};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;

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
    /// Whether the account of build pods exists.
    pub has_account: bool,
    /// Its Job. Verified: the owner is this very build.
    pub job: Option<Job>,
    /// The Job's pods, oldest first.
    pub pods: Vec<Pod>,
    /// Pods of the same image and platform that are not this build's and may still run.
    pub others: Vec<String>,
    /// Warnings of the kubelet and of controllers about Job and pods, oldest first.
    pub warnings: Vec<Warning>,
    /// Whether there is a free slot.
    pub turn: queue::Turn,
    /// What the API server said when the Job was to be made.
    pub refused: Option<String>,
    /// What whoever runs the operator decided.
    pub site: Arc<job::Site>,
    /// How long the Job of a build that succeeded is kept.
    pub retention: std::time::Duration,
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
mod tests;
