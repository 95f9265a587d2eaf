//! `spec.cache`: keeping what pods built for the next pod. Pure.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{Display, EnumIter, EnumString, IntoStaticStr};

use crate::reference::SecretRef;

/// Keeps what pods built and no substituter has, as OCI artifacts, so that the next pod need not
/// build it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cache {
    /// `ReadWrite`, `ReadOnly` or `Disabled`.
    #[serde(default)]
    pub mode: CacheMode,
    /// Default: the operator's, else `output.repository` with `-cache` appended. Its writers trust
    /// each other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(
        validation = Rule::new("self.matches(r'^([A-Za-z0-9-]+([.][A-Za-z0-9-]+)+(:[0-9]{1,5})?|[A-Za-z0-9-]+:[0-9]{1,5}|localhost)(/[a-z0-9]+([._-]+[a-z0-9]+)*)+$')")
            .message("cache.repository must be registry-host/repository without tag and digest")
    )]
    pub repository: Option<String>,
    /// Secret of type `kubernetes.io/dockerconfigjson` for the cache's repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
}

/// What pods may do with the cache.
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
pub enum CacheMode {
    /// Read and write.
    ReadWrite,
    /// Read only.
    ReadOnly,
    /// Nothing.
    #[default]
    Disabled,
}
