//! `spec.build`: how and where the pods run. Nothing here changes the image, except what Nix may
//! substitute. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Affinity, Toleration};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{Display, EnumIter, EnumString, IntoStaticStr};

use crate::duration::Duration;
use crate::reference::{CaConfigMapRef, SecretRef};
use crate::resources::{Resources, node_selector_rule};
use crate::schema::{self, Each, Entries};

/// How and where the pods run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.isolation) || self.isolation != 'RuntimeClass' || has(self.runtimeClassName)")
        .message("build.isolation RuntimeClass needs build.runtimeClassName"),
    validation = Rule::new("has(self.isolation) && self.isolation == 'RemoteBuilder' ? has(self.remoteBuilder) : !has(self.remoteBuilder)")
        .message("build.remoteBuilder and build.isolation RemoteBuilder go together")
)]
pub struct BuildSpec {
    /// What keeps build code away from the node and from other pods. Default and allowed values: the
    /// operator's. The effective one is in status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Isolation>,
    /// The machine that builds, with isolation `RemoteBuilder`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_builder: Option<RemoteBuilder>,
    /// Longest time for evaluation and build together: 1m to 72h.
    #[serde(default = "timeout")]
    #[x_kube(
        validation = Rule::new("self >= duration('1m') && self <= duration('72h')")
            .message("timeout must be between 1m and 72h")
    )]
    pub timeout: Duration,
    /// Longest time a pod may wait for a node, its volumes and its images: 30s to 24h.
    #[serde(default = "pending_timeout")]
    #[x_kube(
        validation = Rule::new("self >= duration('30s') && self <= duration('24h')")
            .message("pendingTimeout must be between 30s and 24h")
    )]
    pub pending_timeout: Duration,
    /// How often a run that failed for no fault of the user is tried again, with growing pauses.
    #[serde(default = "retries")]
    #[schemars(range(min = 0, max = 10))]
    pub retries: i32,
    /// Of the build container; the others have the operator's. A platform's take the place of
    /// `build.resources`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// RuntimeClass of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub runtime_class_name: Option<String>,
    /// PriorityClass of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,
    /// Kueue LocalQueue: it alone decides when the Jobs begin, and the operator's own limits do not
    /// apply to them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub queue_name: Option<String>,
    /// Labels of the nodes to build on. A platform's are added to `build.nodeSelector` and win where
    /// both have a key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(transform = Entries { count: 32, length: 63 })]
    #[x_kube(validation = node_selector_rule())]
    pub node_selector: BTreeMap<String, String>,
    /// Taints of nodes that the pods tolerate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::tolerations")]
    pub tolerations: Vec<Toleration>,
    /// Scheduling constraints of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::affinity")]
    pub affinity: Option<Affinity>,
    /// The volume that holds `/nix` during the build.
    #[serde(default)]
    pub store: Store,
    /// Binary caches for Nix, in order of priority. Default: the operator's. More than the operator
    /// allows is refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        inner(length(min = 1, max = 512)),
        transform = Each(kube::core::Rule::new(r"self.matches(r'^(https?|s3)://[^\s@]+$')")
            .message("a substituter is an http(s):// or s3:// URL without credentials (use build.netrcSecretRef)"))
    )]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub substituters: Vec<String>,
    /// Keys whose signatures Nix accepts, as `name:base64`. Default: the operator's. More than the
    /// operator allows is refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 32),
        inner(length(min = 1, max = 256)),
        transform = Each(kube::core::Rule::new(r"self.matches(r'^[^\s:]+:[A-Za-z0-9+/]{43}=$')")
            .message("a trusted key is name:base64 of 32 bytes, as `nix key convert-secret-to-public` prints it"))
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub trusted_public_keys: Vec<String>,
    /// Secret with a key `netrc`: credentials for substituters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netrc_secret_ref: Option<SecretRef>,
    /// PEM bundle trusted for this endpoint besides the system's and the operator's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_config_map_ref: Option<CaConfigMapRef>,
}

impl Default for BuildSpec {
    fn default() -> Self {
        Self {
            isolation: None,
            remote_builder: None,
            timeout: timeout(),
            pending_timeout: pending_timeout(),
            retries: retries(),
            resources: None,
            runtime_class_name: None,
            priority_class_name: None,
            queue_name: None,
            node_selector: BTreeMap::new(),
            tolerations: Vec::new(),
            affinity: None,
            store: Store::default(),
            substituters: Vec::new(),
            trusted_public_keys: Vec::new(),
            netrc_secret_ref: None,
            ca_config_map_ref: None,
        }
    }
}

/// What keeps build code away from the node and from other pods.
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
pub enum Isolation {
    /// A pod of the `restricted` standard; Nix has no sandbox of its own, Landlock is around it.
    Restricted,
    /// A pod in a user namespace, with Nix's sandbox in it.
    UserNamespace,
    /// What the RuntimeClass gives: Kata, gVisor.
    RuntimeClass,
    /// The build runs on another machine.
    RemoteBuilder,
    /// A privileged pod, with Nix's sandbox in it.
    Privileged,
}

/// A machine that builds for the pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RemoteBuilder {
    /// Host, with an optional port.
    #[schemars(
        length(min = 1, max = 512),
        regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]{1,5})?$")
    )]
    pub address: String,
    /// Secret with `tls.crt`, `tls.key` and `ca.crt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_secret_ref: Option<SecretRef>,
}

/// The volume that holds `/nix` during the build.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(has(self.type) && self.type == 'PersistentVolumeClaim') == has(self.claimName)")
        .message("store.claimName and store.type PersistentVolumeClaim go together"),
    validation = Rule::new("!has(self.storageClassName) || (has(self.size) && !has(self.claimName))")
        .message("store.storageClassName goes with store.type Ephemeral and store.size")
)]
pub struct Store {
    /// `Ephemeral`: an emptyDir, or with `storageClassName` a volume made and deleted with the pod.
    /// `PersistentVolumeClaim`: the claim of that name, for one build at a time.
    #[serde(default, rename = "type")]
    pub kind: StoreType,
    /// The PersistentVolumeClaim to use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub claim_name: Option<String>,
    /// StorageClass of a volume made and deleted with the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
    /// Size of that volume, or limit of the emptyDir.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::quantity")]
    pub size: Option<Quantity>,
}

/// What kind of volume holds the store.
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
pub enum StoreType {
    /// Made and deleted with the pod.
    #[default]
    Ephemeral,
    /// A claim of the user's.
    PersistentVolumeClaim,
}

fn timeout() -> Duration {
    Duration::of(std::time::Duration::from_secs(60 * 60))
}

fn pending_timeout() -> Duration {
    Duration::of(std::time::Duration::from_secs(15 * 60))
}

const fn retries() -> i32 {
    3
}
