//! Image indexes: one manifest per platform.
//! <https://github.com/opencontainers/image-spec/blob/main/image-index.md>

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::json::{self, ParseError, null_as_default};
use crate::{Descriptor, Digest, Platform, media_type};

/// An index of either family (OCI or Docker's manifest list).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// `None` in old OCI indexes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// Manifests, or further indexes.
    #[serde(default, deserialize_with = "null_as_default")]
    pub manifests: Vec<Descriptor>,
    /// Annotations, sorted.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_as_default"
    )]
    pub annotations: BTreeMap<String, String>,
    /// Fields this crate has no use for (`subject`, `artifactType`).
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

/// Manifests that make no index of one image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// Nothing to choose from.
    #[error("an index needs at least one manifest")]
    Empty,
    /// Something else than a manifest, such as another index.
    #[error("{digest} cannot be an image in an index: its type is {media_type:?}")]
    NoManifest {
        /// The entry.
        digest: Digest,
        /// What it is.
        media_type: String,
    },
    /// Nobody could choose it.
    #[error("the manifest {digest} cannot be in an index: its platform is not known")]
    NoPlatform {
        /// The entry.
        digest: Digest,
    },
    /// Which one is meant?
    #[error("an index cannot have two manifests for {platform}")]
    Twice {
        /// The platform.
        platform: String,
    },
}

impl Index {
    /// An OCI index. Entries are sorted by platform, then digest: the bytes do not depend on which
    /// platform was ready first.
    pub fn new(mut manifests: Vec<Descriptor>) -> Self {
        manifests.sort_by_cached_key(|entry| {
            (
                entry.platform.as_ref().map(Platform::to_string),
                entry.digest,
            )
        });
        Self {
            schema_version: 2,
            media_type: Some(media_type::INDEX.to_owned()),
            manifests,
            annotations: BTreeMap::new(),
            extra: BTreeMap::new(),
        }
    }

    /// An OCI index of one image for several platforms. Each entry needs its platform, which is
    /// written by its usual name (`arm64`, not `arm64/v8`).
    ///
    /// # Errors
    /// An entry has no platform or is no manifest, two have the same platform, or there is none.
    pub fn of_platforms(mut manifests: Vec<Descriptor>) -> Result<Self, IndexError> {
        let mut platforms = BTreeSet::new();
        for entry in &mut manifests {
            if !media_type::is_manifest(&entry.media_type) {
                return Err(IndexError::NoManifest {
                    digest: entry.digest,
                    media_type: entry.media_type.clone(),
                });
            }
            let Some(platform) = entry.platform.as_mut() else {
                return Err(IndexError::NoPlatform {
                    digest: entry.digest,
                });
            };
            *platform = platform.usual();
            if !platforms.insert(platform.to_string()) {
                return Err(IndexError::Twice {
                    platform: platform.to_string(),
                });
            }
        }
        if manifests.is_empty() {
            return Err(IndexError::Empty);
        }
        Ok(Self::new(manifests))
    }

    /// The first entry for `wanted`. Attestations (`unknown/unknown`) match nothing real.
    pub fn for_platform(&self, wanted: &Platform) -> Option<&Descriptor> {
        self.manifests.iter().find(|entry| {
            entry
                .platform
                .as_ref()
                .is_some_and(|platform| platform.matches(wanted))
        })
    }

    /// Reads an index.
    ///
    /// # Errors
    /// The bytes are no index.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ParseError> {
        json::from_bytes("an image index", bytes)
    }

    /// Compact JSON, the same bytes for the same index.
    pub fn to_bytes(&self) -> Vec<u8> {
        json::to_bytes(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(platform: &str, text: &str) -> Descriptor {
        Descriptor {
            platform: platform.parse().ok(),
            ..Descriptor::of(media_type::MANIFEST, text.as_bytes())
        }
    }

    #[test]
    fn the_order_of_becoming_ready_does_not_show() {
        let (amd, arm) = (entry("linux/amd64", "1"), entry("linux/arm64/v8", "2"));
        let one = Index::of_platforms(vec![amd.clone(), arm.clone()]).unwrap();
        let other = Index::of_platforms(vec![arm, amd]).unwrap();
        assert_eq!(one.to_bytes(), other.to_bytes());
        let platforms: Vec<String> = one
            .manifests
            .iter()
            .filter_map(|entry| Some(entry.platform.as_ref()?.to_string()))
            .collect();
        assert_eq!(platforms, ["linux/amd64", "linux/arm64"]);
    }

    #[test]
    fn what_nobody_could_choose_from_is_no_index() {
        let twice = vec![entry("linux/arm64", "1"), entry("linux/arm64/v8", "2")];
        let nested = Descriptor {
            media_type: media_type::INDEX.to_owned(),
            ..entry("linux/amd64", "1")
        };
        for (manifests, expected) in [
            (vec![], "at least one"),
            (twice, "two manifests for linux/arm64"),
            (vec![entry("", "1")], "platform is not known"),
            (vec![nested], "its type is"),
        ] {
            let error = Index::of_platforms(manifests).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
