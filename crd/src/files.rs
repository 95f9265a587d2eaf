//! `spec.output.files`: what is at the image's root besides its store paths. Pure.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is at the image's root besides its store paths: one small layer on top. An attribute that is
/// an image of another maker gets none of it unless it is asked for here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Files {
    /// `/tmp`, for everybody to write to. Default: yes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tmp: Option<bool>,
    /// CA certificates at the usual places, and `SSL_CERT_FILE`: those of the package `cacert` among
    /// the image's store paths. Default: if it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_certificates: Option<bool>,
    /// Users besides root and nobody, for `/etc/passwd` and `/etc/group`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub users: Vec<User>,
    /// The package's files at `/`, too, as links: `/bin`, `/etc`, `/share`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub copy_to_root: bool,
    /// `/bin/sh`, of the shell among the image's store paths.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub bin_sh: bool,
    /// `/usr/bin/env`, of the coreutils among the image's store paths.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub usr_bin_env: bool,
}

/// A user.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct User {
    /// Login name.
    #[schemars(length(min = 1, max = 32), regex(pattern = "^[a-z_][a-z0-9_-]*$"))]
    pub name: String,
    /// Number.
    #[schemars(range(min = 0))]
    pub uid: i64,
    /// Number of the main group. Default: the user's own number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub gid: Option<i64>,
    /// Home directory, made for the user. Default: `/var/empty`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = "^/[^:]*$"))]
    pub home: Option<String>,
    /// Login shell. Default: `/bin/sh`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = "^/[^:]*$"))]
    pub shell: Option<String>,
}

impl Files {
    /// Whether everything has its default.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
