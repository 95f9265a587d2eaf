//! `spec.output`: where the image goes and how it is made. Pure.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{Display, EnumIter, EnumString, IntoStaticStr};

use crate::container::Container;
use crate::files::Files;
use crate::flake::attribute_rule;
use crate::reference::{CaConfigMapRef, SecretRef};
use crate::resources::{Resources, node_selector_rule};
pub use crate::run::{Compression, Strategy, Timestamp};
use crate::schema::{Each, Entries};

/// Where the image goes and how it is made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Output {
    /// Registry host and repository, as in `ghcr.io/acme/web`. May change: nothing is published at
    /// the new place yet, so an Initial build follows there.
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(
        validation = Rule::new("!self.contains('@') && !self.split('/')[self.split('/').size() - 1].contains(':')")
            .message("output.repository is a repository: no tag and no digest (use output.tags)"),
        validation = Rule::new("self.matches(r'^([A-Za-z0-9-]+([.][A-Za-z0-9-]+)+(:[0-9]{1,5})?|[A-Za-z0-9-]+:[0-9]{1,5}|localhost)/')")
            .message("output.repository must start with a registry host (a name with a dot, a port, or localhost), as in ghcr.io/acme/web"),
        validation = Rule::new("self.matches(r'^[^/]+(/[a-z0-9]+([._-]+[a-z0-9]+)*)+([:@].*)?$')")
            .message("output.repository: the path after the host must be lower-case letters, digits and . _ - between slashes")
    )]
    pub repository: String,
    /// Tags to point to the image, moved last. They may hold `${rev}`, `${shortRev}`, `${lockHash}`,
    /// `${branch}`, `${tag}`, `${buildNumber}` and `${commitDate}`.
    #[serde(default = "latest")]
    #[schemars(
        length(max = 16),
        inner(length(min = 1, max = 128)),
        transform = Each(kube::core::Rule::new("self.matches(r'^([a-zA-Z0-9_.-]|[$][{](rev|shortRev|lockHash|branch|tag|buildNumber|commitDate)[}])+$') && !self.startsWith('.') && !self.startsWith('-')")
            .message("not a valid tag template; allowed: letters, digits, _ . - and ${rev} ${shortRev} ${lockHash} ${branch} ${tag} ${buildNumber} ${commitDate}"))
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub tags: Vec<String>,
    /// What happens to a tag that points to an image this object did not publish. `Overwrite`: it is
    /// moved. `Keep`: it stays. `Fail`: the build fails with `TagExists`.
    #[serde(default)]
    pub tag_policy: TagPolicy,
    /// Secret of type `kubernetes.io/dockerconfigjson` to push with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub push_secret_ref: Option<SecretRef>,
    /// Secret of type `kubernetes.io/dockerconfigjson` to read base images with, on the registries
    /// that it has logins for. The flake chooses the images: give logins that read base images and
    /// nothing else. Without it, those on the registry of `repository` are read with
    /// `pushSecretRef`, all others without a login.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_pull_secret_ref: Option<SecretRef>,
    /// PEM bundle trusted for the registries of base images besides the system's and the operator's.
    /// For the registry of `repository` it is `caConfigMapRef`.
    #[serde(
        default,
        rename = "baseCAConfigMapRef",
        skip_serializing_if = "Option::is_none"
    )]
    pub base_ca_config_map_ref: Option<CaConfigMapRef>,
    /// Registry hosts, with port, from which base images are read by http instead of https. Only
    /// hosts the operator allows. For the registry of `repository` it is `plainHTTP`.
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
    /// http instead of https. Only for hosts the operator allows. TLS is always verified: another CA
    /// goes in `caConfigMapRef`.
    #[serde(default, rename = "plainHTTP")]
    pub plain_http: bool,
    /// Platforms to build for. With several the image is an index, and each is built on a node of
    /// its own architecture.
    #[serde(default = "amd64")]
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
    /// `created` of the image. `Epoch`: a fixed time, so that a commit that changes nothing gives the
    /// same digest. `Source`: the commit's time.
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

/// One platform of the image.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Platform {
    /// Operating system and architecture.
    pub platform: PlatformName,
    /// Default: `flake.attribute`. Read in the same way, but a dotted one is always allowed here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = attribute_rule())]
    pub attribute: Option<String>,
    /// Labels of the nodes to build on. A platform's are added to `build.nodeSelector` and win where
    /// both have a key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(transform = Entries { count: 32, length: 63 })]
    #[x_kube(validation = node_selector_rule())]
    pub node_selector: BTreeMap<String, String>,
    /// Of the build container; the others have the operator's. A platform's take the place of
    /// `build.resources`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
}

/// Operating system and architecture, in the words of OCI.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
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
pub enum PlatformName {
    /// 64-bit x86.
    #[default]
    #[serde(rename = "linux/amd64")]
    #[strum(serialize = "linux/amd64")]
    LinuxAmd64,
    /// 64-bit ARM.
    #[serde(rename = "linux/arm64")]
    #[strum(serialize = "linux/arm64")]
    LinuxArm64,
    /// 64-bit RISC-V.
    #[serde(rename = "linux/riscv64")]
    #[strum(serialize = "linux/riscv64")]
    LinuxRiscv64,
}

impl PlatformName {
    /// `linux/amd64`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LinuxAmd64 => "linux/amd64",
            Self::LinuxArm64 => "linux/arm64",
            Self::LinuxRiscv64 => "linux/riscv64",
        }
    }

    /// The node label `kubernetes.io/os`.
    pub const fn os(self) -> &'static str {
        "linux"
    }

    /// The node label `kubernetes.io/arch`: `amd64`.
    pub const fn architecture(self) -> &'static str {
        match self {
            Self::LinuxAmd64 => "amd64",
            Self::LinuxArm64 => "arm64",
            Self::LinuxRiscv64 => "riscv64",
        }
    }

    /// Nix's name: `x86_64-linux`.
    pub const fn system(self) -> &'static str {
        match self {
            Self::LinuxAmd64 => "x86_64-linux",
            Self::LinuxArm64 => "aarch64-linux",
            Self::LinuxRiscv64 => "riscv64-linux",
        }
    }
}

/// What happens to a tag that points to an image this object did not publish.
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
pub enum TagPolicy {
    /// It is moved.
    #[default]
    Overwrite,
    /// It stays.
    Keep,
    /// The build fails.
    Fail,
}

/// How the closure becomes layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.level) || !has(self.compression) || self.compression != 'None'")
        .message("layers.level goes with layers.compression Zstd or Gzip"),
    validation = Rule::new("!has(self.level) || !has(self.compression) || self.compression != 'Gzip' || self.level <= 9")
        .message("layers.level must be between 1 and 9 with layers.compression Gzip")
)]
pub struct Layers {
    /// Most layers of the image. Not every container runtime takes more than 127.
    #[serde(default = "max_layers")]
    #[schemars(range(min = 1, max = 480))]
    pub max: i32,
    /// Layers to leave free below `max`, for images that are built on top of this one.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0, max = 479))]
    pub head_room: i32,
    /// How store paths are put together: `Stable`, so that a change stays where it is, or as
    /// nix2container (`Popularity`) or nixpkgs (`BySize`) do it.
    #[serde(default)]
    pub strategy: Strategy,
    /// `Zstd`, `Gzip` for container runtimes of before 2021, or `None`.
    #[serde(default)]
    pub compression: Compression,
    /// How much time is spent for smaller layers: 1 to 19 with `Zstd`, 1 to 9 with `Gzip`. Another
    /// level makes every layer anew. Default: 3 with `Zstd`, 4 with `Gzip`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 19))]
    pub level: Option<i32>,
    /// Whose tar format: `Firn`, or that of `Nix2container` or `DockerTools`, so that a layer of the
    /// same store paths has the diffID that those give it.
    #[serde(default)]
    pub profile: LayerProfile,
}

impl Default for Layers {
    fn default() -> Self {
        Self {
            max: max_layers(),
            head_room: 0,
            strategy: Strategy::default(),
            compression: Compression::default(),
            level: None,
            profile: LayerProfile::default(),
        }
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde's skip_serializing_if passes a reference"
)]
const fn is_zero(number: &i32) -> bool {
    *number == 0
}

/// Whose tar format the layers have, byte for byte.
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
pub enum LayerProfile {
    /// Firn's own.
    #[default]
    Firn,
    /// nix2container's.
    Nix2container,
    /// dockerTools'.
    DockerTools,
}

impl Output {
    /// `repository` with every other field at its default.
    pub fn new(repository: impl Into<String>) -> Self {
        Self {
            repository: repository.into(),
            tags: latest(),
            tag_policy: TagPolicy::default(),
            push_secret_ref: None,
            base_pull_secret_ref: None,
            base_ca_config_map_ref: None,
            base_plain_http_hosts: Vec::new(),
            ca_config_map_ref: None,
            plain_http: false,
            platforms: amd64(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            timestamp: Timestamp::default(),
            layers: Layers::default(),
            config: Container::default(),
            files: Files::default(),
        }
    }
}

fn latest() -> Vec<String> {
    vec!["latest".into()]
}

fn amd64() -> Vec<Platform> {
    vec![Platform::default()]
}

const fn max_layers() -> i32 {
    100
}
