//! `status` of a NixImageBuild: what one run did. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{Display, EnumIter, EnumString, IntoStaticStr};

use crate::failure::Failure;
use crate::report::StageName;
use crate::schema;

/// What one run did.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NixImageBuildStatus {
    /// Last generation that was handled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Succeeded (True, False, or Unknown while it runs), and Stalled after a failure.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::build_conditions")]
    pub conditions: Vec<Condition>,
    /// How it ended. Absent while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<BuildOutcome>,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// For people, written once at the end: 4m12s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub duration: Option<String>,
    /// Digest of the manifest, or of the index of several platforms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 71))]
    pub digest: Option<String>,
    /// Media type of what the digest names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub media_type: Option<String>,
    /// Tags that were pointed to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 128)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub tags: Vec<String>,
    /// Tags that point to somebody else's image and were kept, as `output.tagPolicy` says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 128)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub kept_tags: Vec<String>,
    /// Compressed size of config and layers, in bytes; of all platforms together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<i64>,
    /// Bytes that were sent; of all platforms together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_pushed: Option<i64>,
    /// Digest of the signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 71))]
    pub signature_digest: Option<String>,
    /// Digest of the provenance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 71))]
    pub provenance_digest: Option<String>,
    /// Digest of the SBOM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 71))]
    pub sbom_digest: Option<String>,
    /// The isolation that was in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub effective_isolation: Option<String>,
    /// What took how long.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["platform".into(), "name".into()]))]
    pub stages: Vec<StageStatus>,
    /// One entry per platform.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["platform".into()]))]
    pub platforms: Vec<PlatformStatus>,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

/// How a run ended.
#[derive(
    Debug,
    Clone,
    Copy,
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
pub enum BuildOutcome {
    /// An image was built and published.
    Published,
    /// What would have been built is published already.
    NotChanged,
    /// Tags were moved to an image that was there already.
    Retagged,
    /// It failed.
    Failed,
    /// It was cancelled.
    Cancelled,
    /// A newer run took over.
    Superseded,
}

/// One stretch of work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StageStatus {
    /// `linux/amd64`, or `*` for what is done once (Queue, Index, Sign, Tag).
    #[schemars(length(max = 32))]
    pub platform: String,
    /// What was done.
    #[schemars(extend("maxLength" = 16))]
    pub name: StageName,
    /// When it began.
    pub start_time: Time,
    /// How long it took. Absent while it lasts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub duration_milliseconds: Option<i64>,
}

/// One platform of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlatformStatus {
    /// `linux/amd64`.
    #[schemars(length(max = 32))]
    pub platform: String,
    /// How far it is.
    pub state: PlatformState,
    /// Its Job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub job: Option<String>,
    /// The last pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub pod: Option<String>,
    /// The node it ran on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub node: Option<String>,
    /// How many pods this platform has used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<i32>,
    /// The isolation that was in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub isolation: Option<String>,
    /// Digest of this platform's manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 71))]
    pub digest: Option<String>,
    /// The derivation it was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub drv_path: Option<String>,
    /// Its output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub out_path: Option<String>,
    /// Compressed size of config and layers, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<i64>,
    /// Layers of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers_total: Option<i32>,
    /// Layers that were sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers_pushed: Option<i32>,
    /// Layers the registry took from another of its repositories.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers_mounted: Option<i32>,
    /// Layers that were there already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers_reused: Option<i32>,
    /// Bytes that were sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_pushed: Option<i64>,
}

impl PlatformStatus {
    /// A platform of which nothing is known but how far it is.
    pub fn new(platform: impl Into<String>, state: PlatformState) -> Self {
        Self {
            platform: platform.into(),
            state,
            job: None,
            pod: None,
            node: None,
            pods: None,
            isolation: None,
            digest: None,
            drv_path: None,
            out_path: None,
            size_bytes: None,
            layers_total: None,
            layers_pushed: None,
            layers_mounted: None,
            layers_reused: None,
            bytes_pushed: None,
        }
    }
}

/// How far a platform is.
#[derive(
    Debug,
    Clone,
    Copy,
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
pub enum PlatformState {
    /// Its Job waits for a free slot.
    Queued,
    /// Its pod waits for a node, volumes or images.
    Pending,
    /// Its pod runs.
    Running,
    /// Its image is in the registry.
    Succeeded,
    /// Its derivation is the published one.
    NotChanged,
    /// It failed.
    Failed,
    /// It was cancelled.
    Cancelled,
}
