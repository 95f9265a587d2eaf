//! JSON as this crate reads and writes it: compact, in one order, and tolerant of Go's `null`.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};

/// A document that is not what it should be.
#[derive(Debug, thiserror::Error)]
#[error("failed to read {what}")]
pub struct ParseError {
    what: &'static str,
    #[source]
    source: serde_json::Error,
}

/// `null` and a missing key are the same in documents that Go wrote from an empty slice or map.
pub(crate) fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

pub(crate) fn from_bytes<T: DeserializeOwned>(
    what: &'static str,
    bytes: &[u8],
) -> Result<T, ParseError> {
    serde_json::from_slice(bytes).map_err(|source| ParseError { what, source })
}

/// The one serialisation of a document: hash this, store this, send this.
pub(crate) fn to_bytes<T: Serialize>(document: &T) -> Vec<u8> {
    // serde_json fails on maps whose keys are no strings and on foreign Serialize impls; the
    // documents of this crate have neither, and writing into memory does not fail.
    serde_json::to_vec(document).expect("documents are plain structs with string keys")
}
