//! `spec.trigger`: which changes of the source start a build. Pure.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{Display, EnumIter, EnumString, IntoStaticStr};

use crate::schema::Each;

/// Which changes of the source start a build.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.paths) || self.paths.size() == 0 || (has(self.mode) && self.mode == 'LockFile')")
        .message("trigger.paths goes with trigger.mode LockFile")
)]
pub struct Trigger {
    /// `Revision`: every new commit, tag or digest is evaluated, and built if its derivation is
    /// another. `LockFile`: only a change of `flake.lock` or `paths`. `Manual`: only the annotation
    /// `build.firn.dev/requestedAt`, besides the first build and changes of the spec.
    #[serde(default)]
    pub mode: TriggerMode,
    /// More paths (files or directories) whose change starts a build, besides `flake.lock`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 32),
        inner(length(min = 1, max = 256)),
        transform = Each(kube::core::Rule::new("!self.startsWith('/') && !self.split('/').exists(p, p == '..')")
            .message("trigger.paths must be relative, without '..'"))
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub paths: Vec<String>,
}

/// Which changes of the source start a build.
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
pub enum TriggerMode {
    /// A change of `flake.lock` or of the named paths.
    LockFile,
    /// Every new commit, tag or digest.
    #[default]
    Revision,
    /// Only what a person asks for.
    Manual,
}
