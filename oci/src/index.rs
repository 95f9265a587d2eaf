//! Image indexes: one manifest per platform.
//! <https://github.com/opencontainers/image-spec/blob/main/image-index.md>

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::json::{self, ParseError, null_as_default};
use crate::{Descriptor, Platform, media_type};

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
