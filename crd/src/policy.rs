//! What happens around the builds of an image: when several are wanted, which are kept, whether the
//! registry is watched, and what a deletion takes along. Pure.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{Display, EnumIter, EnumString, IntoStaticStr};

use crate::duration::Duration;

/// What happens when a build is wanted while another one runs.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
    Display,
    EnumIter,
    EnumString,
    IntoStaticStr,
)]
pub enum RunPolicy {
    /// Every commit that is seen meanwhile is run, one after the other.
    Serial,
    /// The running one ends, then only the latest is run.
    #[default]
    SerialLatestOnly,
    /// The running one is cancelled.
    CancelRunning,
}

/// What happens to the image in the registry when the object is deleted.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
    Display,
    EnumIter,
    EnumString,
    IntoStaticStr,
)]
pub enum DeletionPolicy {
    /// It stays.
    #[default]
    Retain,
    /// Its tags and manifests are deleted.
    Delete,
}

/// How many finished builds are kept, and how long. Never deleted: the build that made the latest
/// image, and one that is not finished.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct History {
    /// Builds that succeeded.
    #[serde(default = "kept")]
    #[schemars(range(min = 0, max = 100))]
    pub succeeded: i32,
    /// Builds that failed.
    #[serde(default = "kept")]
    #[schemars(range(min = 0, max = 100))]
    pub failed: i32,
    /// Finished builds older than this are deleted: 1m to 8760h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(
        validation = Rule::new("self >= duration('1m') && self <= duration('8760h')")
            .message("ttlAfterFinished must be between 1m and 8760h")
    )]
    pub ttl_after_finished: Option<Duration>,
}

impl Default for History {
    fn default() -> Self {
        Self {
            succeeded: kept(),
            failed: kept(),
            ttl_after_finished: None,
        }
    }
}

const fn kept() -> i32 {
    5
}

/// Whether the registry is asked that tags and image are still what was published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Verification {
    /// How often: 5m to 168h.
    #[serde(default = "interval")]
    #[x_kube(
        validation = Rule::new("self >= duration('5m') && self <= duration('168h')")
            .message("verification.interval must be between 5m and 168h")
    )]
    pub interval: Duration,
    /// `Report`: condition `TagDrift` and an event. `Repush`: repaired, too. `Ignore`: not looked at.
    #[serde(default)]
    pub on_drift: OnDrift,
}

impl Default for Verification {
    fn default() -> Self {
        Self {
            interval: interval(),
            on_drift: OnDrift::default(),
        }
    }
}

fn interval() -> Duration {
    Duration::of(std::time::Duration::from_secs(60 * 60))
}

/// What follows when the registry has something else than was published.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
    Display,
    EnumIter,
    EnumString,
    IntoStaticStr,
)]
pub enum OnDrift {
    /// It is said.
    Report,
    /// It is repaired.
    Repush,
    /// It is not looked at.
    #[default]
    Ignore,
}
