//! What the operator tells a pod: one JSON document in the environment variable
//! [`crate::pod::ENV_RUN`], the same in every container. It names no secret's value.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::container::Container;
use crate::files::Files;
use crate::output::{LayerProfile, TagPolicy};

/// Version of the contract between operator and builder image: [`Run`], [`crate::report::Report`],
/// exit codes and paths. A pod refuses a run of another version before it does anything.
pub const CONTRACT: u32 = 1;

/// Contract of a [`Run`] whose tags must not all be moved: a builder that does not know
/// [`TagPolicy`] would move them, and refuses it instead. Reports stay what they are.
pub const CONTRACT_TAG_POLICY: u32 = 2;

/// Contract of a [`Run`] whose source comes with its submodules: a builder that does not know
/// [`Source::submodules`] would build without them, and refuses it instead. Reports stay what they
/// are.
pub const CONTRACT_SUBMODULES: u32 = 3;

/// Contracts that this version's builder takes.
pub const CONTRACTS: RangeInclusive<u32> = CONTRACT..=CONTRACT_SUBMODULES;

/// Most digests in [`Output::ours`].
pub const OURS_MAX: usize = 16;

/// Longest [`Run`] as JSON, in bytes: a single environment string may have 128 KiB on Linux.
pub const RUN_MAX: usize = 96 * 1024;

/// One pod's orders.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// [`CONTRACT`] of the operator that wrote this.
    pub contract: u32,
    /// Name of the `NixImageBuild`, for messages.
    pub build: String,
    /// Where the image goes.
    pub output: Output,
    /// What is to be done.
    pub work: Work,
}

/// Where the image goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Output {
    /// Registry host and repository, no tag.
    pub repository: String,
    /// Tags to move when the image is there, expanded. Empty: push by digest only.
    pub tags: Vec<String>,
    /// What becomes of tags that point to what is neither the image nor among [`Self::ours`].
    #[serde(default, skip_serializing_if = "is_default")]
    pub tag_policy: TagPolicy,
    /// Digests that this object published before, the newest first: at most [`OURS_MAX`], and none
    /// where the policy does not ask.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ours: Vec<String>,
    /// A tag for what was pushed, until the index is there that names it: clean-up policies of
    /// registries eat what no tag points to. It is of use to nobody else, and may move anywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temporary_tag: Option<String>,
    /// `http` instead of `https`.
    #[serde(default, rename = "plainHTTP")]
    pub plain_http: bool,
    /// Other registries that base images are read from by `http`.
    #[serde(
        default,
        rename = "basePlainHTTPHosts",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub base_plain_http_hosts: Vec<String>,
}

impl Output {
    /// The contract that a builder must speak to do this and no more.
    pub const fn contract(&self) -> u32 {
        match self.tag_policy {
            TagPolicy::Overwrite => CONTRACT,
            TagPolicy::Keep | TagPolicy::Fail => CONTRACT_TAG_POLICY,
        }
    }
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Work {
    /// check, fetch, build, push.
    Build(Box<Build>),
    /// Move tags to an image that is there already.
    Publish {
        /// Digest of its manifest or index.
        digest: String,
    },
    /// Make the index of several platforms, whose manifests are there, and move tags to it. A
    /// builder that does not know it refuses the run.
    Index {
        /// One for each platform.
        manifests: Vec<PlatformManifest>,
    },
}

impl Work {
    /// The contract that a builder must speak to do all of this.
    pub fn contract(&self) -> u32 {
        match self {
            Self::Build(build) if build.source.submodules => CONTRACT_SUBMODULES,
            Self::Build(_) | Self::Publish { .. } | Self::Index { .. } => CONTRACT,
        }
    }
}

/// What one platform's Job left in the registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlatformManifest {
    /// `linux/amd64`.
    pub platform: String,
    /// Digest of its manifest.
    pub digest: String,
    /// The tag that keeps it until the index does. `None`: it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temporary_tag: Option<String>,
}

/// One platform's build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Build {
    /// `linux/amd64`.
    pub platform: String,
    /// The source, resolved.
    pub source: Source,
    /// Attribute as the user wrote it; a name without dots is `packages.<system>.<name>`.
    pub attribute: String,
    /// How the image is made.
    pub image: ImageSpec,
    /// What is published now, if an equal derivation makes this build unnecessary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published: Option<Published>,
    /// Images whose layers need not be made again, as `registry/repository@digest`, the likeliest
    /// first: from status, never by a tag. A builder uses those on the output's registry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers_from: Vec<String>,
    /// Binary caches for Nix, in order of priority.
    pub substituters: Vec<String>,
    /// Keys whose signatures Nix accepts.
    pub trusted_public_keys: Vec<String>,
    /// Longest time for evaluation and build together, in seconds.
    pub timeout_seconds: u64,
}

/// A git commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// `https://…`
    pub url: String,
    /// What the commit was resolved from (`refs/heads/main`), for servers that do not give
    /// commits by name.
    #[serde(default, rename = "ref", skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// Full commit id, 40 or 64 hex digits.
    pub commit: String,
    /// Directory of `flake.nix`, relative to the source's root.
    pub dir: String,
    /// With its submodules, and theirs.
    #[serde(default, skip_serializing_if = "is_default")]
    pub submodules: bool,
    /// Longest time for the fetch, in seconds.
    pub timeout_seconds: u64,
}

/// How the image is made from the closure.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageSpec {
    /// Labels of the image's config.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the manifest.
    pub annotations: BTreeMap<String, String>,
    /// `created` of the image.
    pub timestamp: Timestamp,
    /// Most layers.
    pub max_layers: u32,
    /// Layers to leave free below `max_layers`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub head_room: u32,
    /// How store paths are put together.
    #[serde(default, skip_serializing_if = "is_default")]
    pub strategy: Strategy,
    /// Whose tar format layers of store paths have.
    #[serde(default, skip_serializing_if = "is_default")]
    pub profile: LayerProfile,
    /// How layers are compressed.
    pub compression: Compression,
    /// At which of [`Compression::levels`]. Default: [`Compression`]'s own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<u8>,
    /// How a container is started.
    #[serde(default, skip_serializing_if = "Container::is_empty")]
    pub config: Container,
    /// What is at the root.
    #[serde(default, skip_serializing_if = "Files::is_default")]
    pub files: Files,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// How store paths are put together into layers.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
pub enum Strategy {
    /// Firn's own: a change stays where it is.
    #[default]
    Stable,
    /// nix2container's: by popularity.
    Popularity,
    /// nixpkgs': by size.
    BySize,
}

/// `created` of the image.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
pub enum Timestamp {
    /// 1970-01-01T00:00:01Z: a commit that changes nothing gives the same digest.
    #[default]
    Epoch,
    /// The commit's time.
    Source,
}

/// How layers are compressed.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
pub enum Compression {
    /// zstd, level 3 unless another is asked for.
    #[default]
    Zstd,
    /// gzip, level 4 unless another is asked for. For clients older than containerd 1.5 or Docker
    /// 23.
    Gzip,
    /// Plain tar.
    None,
}

impl Compression {
    /// The levels that may be asked for; `None` where there are none. Those of zstd above 19 need
    /// more memory than a push may take, those of gzip above 9 are known to one library only.
    pub const fn levels(self) -> Option<RangeInclusive<u8>> {
        match self {
            Self::Zstd => Some(1..=19),
            Self::Gzip => Some(1..=9),
            Self::None => None,
        }
    }
}

/// An image that is published already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Published {
    /// Digest of its manifest.
    pub digest: String,
    /// The derivation it was made from.
    pub drv_path: String,
    /// Digest of the index that names it, which must be there too. `None`: it is in none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// [`CONTRACT`] stays what it was when fields were added: each side reads what the other writes
    /// without them, and an order that an older builder does not know cannot be read by it as
    /// another.
    #[test]
    fn orders_without_what_was_added_later_are_read_and_new_ones_are_of_a_kind_of_their_own() {
        let output = r#"{"repository":"r.example/web","tags":["latest"],"plainHTTP":false}"#;
        let read: Output = serde_json::from_str(output).unwrap();
        assert_eq!(read.temporary_tag, None);
        assert_eq!(read.contract(), CONTRACT);
        assert_eq!(serde_json::to_string(&read).unwrap(), output);
        let published = r#"{"digest":"sha256:aa","drvPath":"/nix/store/x.drv"}"#;
        let read: Published = serde_json::from_str(published).unwrap();
        assert_eq!(read.index, None);
        assert_eq!(serde_json::to_string(&read).unwrap(), published);
        let index = Work::Index {
            manifests: vec![PlatformManifest {
                platform: "linux/arm64".into(),
                digest: "sha256:aa".into(),
                temporary_tag: Some("t".into()),
            }],
        };
        assert_eq!(
            serde_json::to_string(&index).unwrap(),
            r#"{"index":{"manifests":[{"platform":"linux/arm64","digest":"sha256:aa","temporaryTag":"t"}]}}"#
        );
    }

    #[test]
    fn a_run_that_must_leave_tags_alone_is_refused_by_builders_that_would_not() {
        let output = r#"{"repository":"r.example/web","tags":["latest"],"tagPolicy":"Keep","ours":["sha256:aa"],"plainHTTP":false}"#;
        let read: Output = serde_json::from_str(output).unwrap();
        assert_eq!(read.contract(), CONTRACT_TAG_POLICY);
        assert_eq!(serde_json::to_string(&read).unwrap(), output);
        assert!(CONTRACTS.contains(&CONTRACT) && CONTRACTS.contains(&CONTRACT_TAG_POLICY));
    }

    #[test]
    fn a_source_with_submodules_is_refused_by_builders_that_would_leave_them_out() {
        let build = |source: &str| -> Work {
            let build = format!(
                r#"{{"build":{{"platform":"linux/amd64","source":{source},"attribute":"default",
                "image":{{"labels":{{}},"annotations":{{}},"timestamp":"Epoch","maxLayers":10,
                "compression":"Zstd"}},"substituters":[],"trustedPublicKeys":[],
                "timeoutSeconds":60}}}}"#
            );
            serde_json::from_str(&build).unwrap()
        };
        let source =
            r#"{"url":"https://git.example/app","commit":"aa","dir":".","timeoutSeconds":60}"#;
        let without = build(source);
        assert_eq!(without.contract(), CONTRACT);
        assert!(
            !serde_json::to_string(&without)
                .unwrap()
                .contains("submodules")
        );
        let with = source.replace(r#""dir""#, r#""submodules":true,"dir""#);
        assert_eq!(build(&with).contract(), CONTRACT_SUBMODULES);
        assert!(CONTRACTS.contains(&CONTRACT_SUBMODULES));
    }
}
