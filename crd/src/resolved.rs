//! Source and output as one run uses them: a commit instead of a branch, tags without templates.
//! Pure.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use kube::core::Rule as CelRule;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::container::Container;
use crate::files::Files;
use crate::output::{Layers, Platform, TagPolicy};
use crate::reference::{CaConfigMapRef, SecretRef};
use crate::run::Timestamp;
use crate::schema::Entries;
use crate::source::root;

/// The source of one run. Exactly one of `git` and `oci` is set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("[has(self.git), has(self.oci)].filter(x, x).size() == 1")
        .message("exactly one of source.git and source.oci must be set")
)]
pub struct ResolvedSource {
    /// The first digits of the commit or digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub short_revision: Option<String>,
    /// sha256 of `flake.lock`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub lock_hash: Option<String>,
    /// sha256 over the object ids of `trigger.paths`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub paths_hash: Option<String>,
    /// The commit's own time. It may lie in the future.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit_time: Option<Time>,
    /// A commit of a git repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git: Option<ResolvedGit>,
    /// A source tree kept as an OCI artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oci: Option<ResolvedOci>,
}

/// A commit of a git repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResolvedGit {
    /// `https://host/path`, `ssh://[user@]host/path` or `user@host:path`.
    #[schemars(length(min = 1, max = 2048))]
    pub url: String,
    /// What the commit was resolved from, for the record.
    #[serde(default, rename = "ref", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    pub reference: Option<String>,
    /// Full commit id: 40 or 64 hex digits.
    #[schemars(length(max = 64), regex(pattern = "^([0-9a-f]{40}|[0-9a-f]{64})$"))]
    pub commit: String,
    /// Directory of `flake.nix`, relative to the source's root.
    #[serde(default = "root")]
    #[schemars(length(max = 512))]
    pub dir: String,
    /// Fetch submodules too.
    #[serde(default)]
    pub submodules: bool,
    /// Secret with `username` and `password`, or `bearerToken`, or `identity` and `known_hosts`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
    /// PEM bundle trusted for this endpoint besides the system's and the operator's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_config_map_ref: Option<CaConfigMapRef>,
}

/// A source tree kept as an OCI artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResolvedOci {
    /// Registry host, repository and digest.
    #[schemars(length(min = 1, max = 640), regex(pattern = "@sha256:[0-9a-f]{64}$"))]
    pub image: String,
    /// Directory of `flake.nix`, relative to the source's root.
    #[serde(default = "root")]
    #[schemars(length(max = 512))]
    pub dir: String,
    /// Secret of type `kubernetes.io/dockerconfigjson` to pull the artifact with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_secret_ref: Option<SecretRef>,
    /// PEM bundle trusted for this endpoint besides the system's and the operator's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_config_map_ref: Option<CaConfigMapRef>,
}

/// Where one run's image goes and how it is made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResolvedOutput {
    /// Registry host and repository.
    #[schemars(length(min = 1, max = 512))]
    pub repository: String,
    /// Tags to point to the image, expanded: no templates.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        inner(
            length(min = 1, max = 128),
            regex(pattern = "^[a-zA-Z0-9_][a-zA-Z0-9._-]*$")
        )
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub tags: Vec<String>,
    /// What happens to a tag that points to an image this object did not publish: `Overwrite`, `Keep`
    /// or `Fail`.
    #[serde(default)]
    pub tag_policy: TagPolicy,
    /// Secret of type `kubernetes.io/dockerconfigjson` to push with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub push_secret_ref: Option<SecretRef>,
    /// Secret of type `kubernetes.io/dockerconfigjson` to read base images with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_pull_secret_ref: Option<SecretRef>,
    /// PEM bundle trusted for the registries of base images besides the system's and the operator's.
    #[serde(
        default,
        rename = "baseCAConfigMapRef",
        skip_serializing_if = "Option::is_none"
    )]
    pub base_ca_config_map_ref: Option<CaConfigMapRef>,
    /// Registry hosts from which base images are read by http instead of https.
    #[serde(
        default,
        rename = "basePlainHTTPHosts",
        skip_serializing_if = "Vec::is_empty"
    )]
    #[schemars(
        length(max = 8),
        inner(
            length(min = 1, max = 261),
            regex(pattern = "^[a-z0-9.-]+(:[0-9]{1,5})?$")
        )
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub base_plain_http_hosts: Vec<String>,
    /// PEM bundle trusted for this endpoint besides the system's and the operator's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_config_map_ref: Option<CaConfigMapRef>,
    /// http instead of https. Only for hosts the operator allows.
    #[serde(default, rename = "plainHTTP")]
    pub plain_http: bool,
    /// Platforms with attribute, node selector and resources as this run uses them.
    #[schemars(length(min = 1, max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["platform".into()]))]
    pub platforms: Vec<Platform>,
    /// Labels of the image's config.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(transform = Entries { count: 64, length: 4096 })]
    pub labels: BTreeMap<String, String>,
    /// Annotations of the image's manifest.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(transform = Entries { count: 64, length: 4096 })]
    pub annotations: BTreeMap<String, String>,
    /// `created` of the image: `Epoch`, or `Source` for the commit's time.
    #[serde(default)]
    pub timestamp: Timestamp,
    /// How the closure becomes layers.
    #[serde(default)]
    pub layers: Layers,
    /// How a container of the image is started.
    #[serde(default, skip_serializing_if = "Container::is_empty")]
    pub config: Container,
    /// What is at the image's root besides its store paths.
    #[serde(default, skip_serializing_if = "Files::is_default")]
    pub files: Files,
}

/// The record of a run stays true.
pub(crate) fn frozen() -> CelRule {
    CelRule::new("self == oldSelf").message("spec is immutable (only spec.cancel may be set)")
}
