//! The kind `NixImage`: one image as it should be, and what was made of it. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::build_spec::BuildSpec;
use crate::cache::Cache;
use crate::failure::Failure;
use crate::flake::Flake;
use crate::names::{ANNOTATION_BUILD, ANNOTATION_RECONCILE};
use crate::output::Output;
use crate::policy::{DeletionPolicy, History, RunPolicy, Verification};
use crate::published::Published;
use crate::report::first_bytes;
use crate::schema;
use crate::signing::{Attestations, Signing};
use crate::source::Source;
use crate::trigger::Trigger;

/// What is wanted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "firn.dev",
    version = "v1alpha1",
    kind = "NixImage",
    plural = "niximages",
    singular = "niximage",
    shortname = "nimg",
    category = "firn",
    namespaced,
    status = "NixImageStatus",
    derive = "PartialEq",
    doc = "NixImage keeps one container image, built from one attribute of a Nix flake, published in one repository.",
    selectable = ".spec.output.repository",
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Revision", type_ = "string", json_path = ".status.source.shortRevision"),
    printcolumn(name = "Image", type_ = "string", json_path = ".status.latestImage"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Build", type_ = "string", priority = "1", json_path = ".status.latestBuildRef.name"),
    printcolumn(name = "Trigger", type_ = "string", priority = "1", json_path = ".status.latestBuildReason"),
    printcolumn(name = "Pushed", type_ = "date", priority = "1", json_path = ".status.published.pushedAt"),
    printcolumn(name = "Size", type_ = "integer", priority = "1", json_path = ".status.published.sizeBytes"),
    printcolumn(name = "Sent", type_ = "integer", priority = "1", json_path = ".status.published.bytesPushed"),
    printcolumn(name = "Message", type_ = "string", priority = "1", json_path = r#".status.conditions[?(@.type=="Ready")].message"#),
    // Job names have at most 63 characters: <image>-<7 digits>-riscv64.
    validation = Rule::new("self.metadata.name.size() <= 47 && !self.metadata.name.contains('.')")
        .message("metadata.name must be a DNS label of at most 47 characters (build and Job names are derived from it)")
)]
#[x_kube(
    validation = Rule::new(r#"self.output.platforms.size() <= 1 || self.flake.attribute.matches(r'^([A-Za-z_][A-Za-z0-9_\x27-]*|"[^"\\\s]{1,128}")$')"#)
        .message("with several platforms, flake.attribute must be a short name (it is resolved per system as packages.<system>.<attribute>); a path goes in output.platforms[].attribute"),
    validation = Rule::new("self.output.platforms.size() <= 1 || !has(self.build.store.claimName)")
        .message("build.store.claimName is one single-writer volume: it cannot serve several platforms (use store.storageClassName)"),
    validation = Rule::new("!self.output.tags.exists(t, t.contains('${tag}')) || (has(self.source.git) && has(self.source.git.ref) && (has(self.source.git.ref.tag) || has(self.source.git.ref.semver)))")
        .message("the tag template ${tag} needs source.git.ref.tag or source.git.ref.semver"),
    validation = Rule::new("!self.output.tags.exists(t, t.contains('${branch}')) || (has(self.source.git) && (!has(self.source.git.ref) || has(self.source.git.ref.branch)))")
        .message("the tag template ${branch} needs source.git with ref.branch (or no ref: the default branch)")
)]
pub struct NixImageSpec {
    /// Stop polling, building and drift checks. A running build is left to finish.
    #[serde(default)]
    pub suspend: bool,
    /// Where the flake comes from. Exactly one of `git` and `oci` is set.
    pub source: Source,
    /// What is built from the source.
    #[serde(default)]
    pub flake: Flake,
    /// Which changes of the source start a build.
    #[serde(default)]
    pub trigger: Trigger,
    /// Where the image goes and how it is made.
    pub output: Output,
    /// How and where the pods run.
    #[serde(default)]
    pub build: BuildSpec,
    /// Keeps what pods built and no substituter has, as OCI artifacts, so that the next pod need not
    /// build it.
    #[serde(default)]
    pub cache: Cache,
    /// What happens when a build is wanted while another one runs. `Serial`: every commit that the
    /// operator sees meanwhile is built, in order; at most 10 wait. `SerialLatestOnly`: the running
    /// one ends, then the latest is run. `CancelRunning`: the running one is cancelled.
    #[serde(default)]
    pub run_policy: RunPolicy,
    /// How many finished builds are kept, and how long.
    #[serde(default)]
    pub history: History,
    /// Whether and how the image is signed.
    #[serde(default)]
    pub signing: Signing,
    /// Statements about the image, attached to it.
    #[serde(default)]
    pub attestations: Attestations,
    /// Whether the registry is asked that tags and image are still what was published.
    #[serde(default)]
    pub verification: Verification,
    /// What happens to the image in the registry when this object is deleted: `Retain` or `Delete`.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

/// What was made of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NixImageStatus {
    /// Last generation that was handled to its end (Ready=True or Stalled=True).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Value of annotation reconcile.firn.dev/requestedAt last acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub last_handled_reconcile_at: Option<String>,
    /// Value of annotation build.firn.dev/requestedAt last acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub last_handled_build_at: Option<String>,
    /// `Ready`, `Reconciling`, `Stalled`, `Available`, `SourceReady`, `TagDrift`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::image_conditions")]
    pub conditions: Vec<Condition>,
    /// The source as last seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceStatus>,
    /// Revisions that wait for the build that runs, the oldest first, with `runPolicy: Serial`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = QUEUED_REVISIONS_MAX))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub queued_revisions: Vec<QueuedRevision>,
    /// `repository@sha256:...` of the last success; a failure never clears it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 640))]
    pub latest_image: Option<String>,
    /// The last image that was published, and what it took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published: Option<Published>,
    /// The last build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest_build_ref: Option<BuildRef>,
    /// What asked for it, the strongest reason first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub latest_build_reason: Option<String>,
    /// The generation it was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest_build_generation: Option<i64>,
    /// Number of the last build. Only grows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub build_counter: Option<i64>,
    /// The isolation that was in force in the last build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub effective_isolation: Option<String>,
    /// What went wrong last. Cleared by a success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

/// The source as last seen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourceStatus {
    /// `main@sha1:<40 hex>`, `v1.2.0@sha1:...`, or `sha256:<64 hex>` of an OCI artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub revision: Option<String>,
    /// The first digits of the commit or digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub short_revision: Option<String>,
    /// sha256 of flake.lock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub lock_hash: Option<String>,
    /// sha256 over the object ids of trigger.paths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub paths_hash: Option<String>,
    /// The commit's own time. It may lie in the future.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit_time: Option<Time>,
    /// When this revision was first seen. Not the time of the last poll: a quiet object causes no
    /// writes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_at: Option<Time>,
}

/// How many revisions wait at most. All of them are in status, which is to stay small; past it the
/// newest takes the last place, so that the latest is always built.
pub const QUEUED_REVISIONS_MAX: usize = 10;

/// A revision that is built when its turn comes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct QueuedRevision {
    /// As in `status.source`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub revision: Option<String>,
    /// sha256 of flake.lock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub lock_hash: Option<String>,
    /// sha256 over the object ids of trigger.paths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub paths_hash: Option<String>,
    /// The commit's own time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit_time: Option<Time>,
    /// The generation of the spec that wanted it; a changed spec wants the latest only.
    #[serde(default)]
    pub generation: i64,
    /// Its build has a number above this one.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub after: i64,
}

/// A NixImageBuild of the same namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BuildRef {
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub name: Option<String>,
    /// Its UID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub uid: Option<String>,
}

impl NixImageSpec {
    /// `source` and `output` with every other field at its default.
    pub fn new(source: Source, output: Output) -> Self {
        Self {
            suspend: false,
            source,
            flake: Flake::default(),
            trigger: Trigger::default(),
            output,
            build: BuildSpec::default(),
            cache: Cache::default(),
            run_policy: RunPolicy::default(),
            history: History::default(),
            signing: Signing::default(),
            attestations: Attestations::default(),
            verification: Verification::default(),
            deletion_policy: DeletionPolicy::default(),
        }
    }
}

impl NixImage {
    /// The value of `reconcile.firn.dev/requestedAt` that was not acted on yet.
    pub fn requested_reconcile(&self) -> Option<&str> {
        let status = self.status.as_ref();
        let handled = status.and_then(|status| status.last_handled_reconcile_at.as_deref());
        self.request(ANNOTATION_RECONCILE, handled)
    }

    /// The value of `build.firn.dev/requestedAt` that was not acted on yet.
    pub fn requested_build(&self) -> Option<&str> {
        let status = self.status.as_ref();
        let handled = status.and_then(|status| status.last_handled_build_at.as_deref());
        self.request(ANNOTATION_BUILD, handled)
    }

    /// Any text is a request; one longer than status can echo counts by its beginning.
    fn request(&self, annotation: &str, handled: Option<&str>) -> Option<&str> {
        let value = first_bytes(self.annotations().get(annotation)?, REQUEST_MAX);
        (!value.is_empty() && Some(value) != handled).then_some(value)
    }
}

/// Longest echoed value of a request, in bytes.
const REQUEST_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use crate::source::GitSource;

    use super::*;

    fn image() -> NixImage {
        let source = Source {
            git: Some(GitSource::new("https://git.example.com/web")),
            oci: None,
        };
        NixImage::new(
            "web",
            NixImageSpec::new(source, Output::new("registry.example.com/web")),
        )
    }

    #[test]
    fn a_request_is_new_until_its_value_is_echoed() {
        let mut image = image();
        assert_eq!(image.requested_build(), None);
        image
            .annotations_mut()
            .insert(ANNOTATION_BUILD.into(), "now".into());
        assert_eq!(image.requested_build(), Some("now"));
        assert_eq!(image.requested_reconcile(), None);
        image.status = Some(NixImageStatus {
            last_handled_build_at: Some("now".into()),
            ..NixImageStatus::default()
        });
        assert_eq!(image.requested_build(), None);
        image
            .annotations_mut()
            .insert(ANNOTATION_BUILD.into(), "later".into());
        assert_eq!(image.requested_build(), Some("later"));
    }

    #[test]
    fn a_request_too_long_to_echo_is_not_new_for_ever() {
        let mut image = image();
        image
            .annotations_mut()
            .insert(ANNOTATION_RECONCILE.into(), "x".repeat(REQUEST_MAX + 1));
        let seen = image.requested_reconcile().unwrap().to_owned();
        assert_eq!(seen.len(), REQUEST_MAX);
        image.status = Some(NixImageStatus {
            last_handled_reconcile_at: Some(seen),
            ..NixImageStatus::default()
        });
        assert_eq!(image.requested_reconcile(), None);
    }
}
