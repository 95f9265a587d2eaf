//! The kind `NixImageBuild`: the immutable record of one run. Its status is in
//! [`crate::build_status`]. Pure.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{Display, EnumIter, EnumString, IntoStaticStr};

use crate::build_spec::BuildSpec;
use crate::build_status::NixImageBuildStatus;
use crate::cache::Cache;
use crate::flake::Flake;
use crate::resolved::{ResolvedOutput, ResolvedSource, frozen};
use crate::signing::{Attestations, Signing};

/// A snapshot of what one run does. Nothing but `cancel` may change, so that the record stays true.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "firn.dev",
    version = "v1alpha1",
    kind = "NixImageBuild",
    plural = "niximagebuilds",
    singular = "niximagebuild",
    shortname = "nib",
    category = "firn",
    namespaced,
    status = "NixImageBuildStatus",
    derive = "PartialEq",
    doc = "NixImageBuild is the immutable record of one run, with its reason, inputs, timings, results and failure.",
    selectable = ".spec.image.name",
    printcolumn(name = "Image", type_ = "string", json_path = ".spec.image.name"),
    printcolumn(name = "Succeeded", type_ = "string", json_path = r#".status.conditions[?(@.type=="Succeeded")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Succeeded")].reason"#),
    printcolumn(name = "Trigger", type_ = "string", json_path = ".spec.reasons[0]"),
    printcolumn(name = "Revision", type_ = "string", json_path = ".spec.source.shortRevision"),
    printcolumn(name = "Duration", type_ = "string", json_path = ".status.duration"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Node", type_ = "string", priority = "1", json_path = ".status.platforms[0].node"),
    printcolumn(name = "Isolation", type_ = "string", priority = "1", json_path = ".status.effectiveIsolation"),
    printcolumn(name = "Sent", type_ = "integer", priority = "1", json_path = ".status.bytesPushed"),
    printcolumn(name = "Digest", type_ = "string", priority = "1", json_path = ".status.digest"),
    validation = Rule::new("self.metadata.name.size() <= 55 && !self.metadata.name.contains('.')")
        .message("metadata.name must be a DNS label of at most 55 characters (Job names are derived from it)"),
    validation = Rule::new("!has(self.spec.image) || self.metadata.name.startsWith(self.spec.image.name + '-')")
        .message("a build of a NixImage is named <image>-<number>")
)]
#[x_kube(
    // The fields' own rules see a change of a value; that one appears or goes is seen here.
    validation = Rule::new("has(self.image) == has(oldSelf.image) && has(self.number) == has(oldSelf.number) && has(self.key) == has(oldSelf.key) && has(self.reasons) == has(oldSelf.reasons) && has(self.changes) == has(oldSelf.changes) && has(self.signing) == has(oldSelf.signing)")
        .message("spec is immutable (only spec.cancel may be set)"),
    validation = Rule::new("has(self.image) == has(self.number)")
        .message("spec.image and spec.number go together"),
    validation = Rule::new("!oldSelf.cancel || self.cancel")
        .message("spec.cancel cannot be taken back")
)]
pub struct NixImageBuildSpec {
    /// Stop this run. The only field that may change, and only to true.
    #[serde(default)]
    pub cancel: bool,
    /// The NixImage this run belongs to. Absent: an ad-hoc build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = frozen())]
    pub image: Option<ImageRef>,
    /// Number of this run among those of its NixImage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 9_999_999))]
    #[x_kube(validation = frozen())]
    pub number: Option<i64>,
    /// Hash of image uid, build hash, revision, platforms and the nonce of the reason: two equal keys
    /// are the same work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = frozen())]
    pub key: Option<String>,
    /// All that asked for this run, the strongest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 10))]
    #[x_kube(validation = frozen(), merge_strategy = ListMerge::Atomic)]
    pub reasons: Vec<BuildReason>,
    /// What changed since the last run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(validation = frozen(), merge_strategy = ListMerge::Atomic)]
    pub changes: Vec<Change>,
    /// The source, resolved: names a commit or a digest, never something that moves.
    #[x_kube(validation = frozen())]
    pub source: ResolvedSource,
    /// What is built from the source.
    #[x_kube(validation = frozen())]
    pub flake: Flake,
    /// Where the image goes and how it is made, with tags and platforms as this run uses them.
    #[x_kube(validation = frozen())]
    pub output: ResolvedOutput,
    /// How and where the pods run, with the operator's defaults filled in.
    #[serde(default)]
    #[x_kube(validation = frozen())]
    pub build: BuildSpec,
    /// Keeps what pods built and no substituter has, as OCI artifacts.
    #[serde(default)]
    #[x_kube(validation = frozen())]
    pub cache: Cache,
    /// Whether and how the image is signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = frozen())]
    pub signing: Option<Signing>,
    /// Statements about the image, attached to it.
    #[serde(default)]
    #[x_kube(validation = frozen())]
    pub attestations: Attestations,
}

/// The NixImage a run belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImageRef {
    /// Its name.
    #[schemars(length(min = 1, max = 47))]
    pub name: String,
    /// Its UID.
    #[schemars(length(min = 1, max = 64))]
    pub uid: String,
    /// The generation the snapshot was taken from.
    pub generation: i64,
}

/// What asked for a run.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
    Display,
    EnumIter,
    EnumString,
    IntoStaticStr,
)]
#[schemars(extend("maxLength" = 32))]
pub enum BuildReason {
    /// Nothing is published in the repository yet.
    Initial,
    /// The source has a new revision.
    Revision,
    /// `flake.lock` or one of the named paths changed.
    LockFile,
    /// The spec changed in a field that changes the image.
    Config,
    /// The builder image or its Nix is another.
    BuilderUpgrade,
    /// A person asked for it.
    Manual,
    /// The registry has something else than was published.
    Drift,
    /// An earlier run failed for a cause that may be gone.
    Retry,
    /// Tags changed; nothing is built.
    Retag,
}

/// One thing that changed since the last run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// Which of the run's reasons it explains.
    #[schemars(length(max = 32))]
    pub reason: String,
    /// Path of the field, or name of the flake's input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub field: Option<String>,
    /// Its value before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub old: Option<String>,
    /// Its value now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub new: Option<String>,
}
