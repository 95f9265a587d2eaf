//! What is in the registry: `status.published` of a NixImage. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The last image that was published, and what it took.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Published {
    /// Digest of the manifest, or of the index of several platforms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 71))]
    pub digest: Option<String>,
    /// Media type of what the digest names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub media_type: Option<String>,
    /// Tags that point to it, without templates.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 128)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub tags: Vec<String>,
    /// Tags that point to somebody else's image and were kept, as `output.tagPolicy` says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 128)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub kept_tags: Vec<String>,
    /// One entry per platform.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["platform".into()]))]
    pub platforms: Vec<PublishedPlatform>,
    /// Compressed size of config and layers, in bytes; of all platforms together.
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
    /// When it was published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pushed_at: Option<Time>,
    /// The revision it was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub revision: Option<String>,
    /// sha256 of that revision's `flake.lock`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub lock_hash: Option<String>,
    /// sha256 over the object ids of `trigger.paths` in that revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub paths_hash: Option<String>,
    /// The NixImageBuild that pushed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub build: Option<String>,
    /// Hash of the fields of the spec that change the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub build_hash: Option<String>,
    /// Hash of the fields of the spec that change tags only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub tags_hash: Option<String>,
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
}

/// One platform of a published image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PublishedPlatform {
    /// `linux/amd64`.
    #[schemars(length(max = 32))]
    pub platform: String,
    /// Digest of this platform's manifest.
    #[schemars(length(max = 71))]
    pub digest: String,
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
}
