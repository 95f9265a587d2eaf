//! Store paths and path infos for tests, by name.

use sha2::{Digest as _, Sha256};

use crate::closure::PathInfo;
use crate::nar_hash::NarHash;
use crate::store_path::StorePath;

/// A store path with this name and a hash made from it.
pub(crate) fn path(name: &str) -> StorePath {
    path_version(name, 0)
}

/// Another store path with the same name, as a change of its contents gives one.
pub(crate) fn path_version(name: &str, version: u32) -> StorePath {
    const ALPHABET: &[u8; 32] = b"0123456789abcdfghijklmnpqrsvwxyz";
    let digest = Sha256::digest(format!("{name}/{version}"));
    let hash: String = digest
        .iter()
        .map(|b| char::from(ALPHABET[usize::from(b % 32)]))
        .collect();
    StorePath::of_base_name(&format!("{hash}-{name}")).unwrap()
}

/// Facts about a path of `nar_size` bytes that refers to `references`.
pub(crate) fn info(nar_size: u64, references: &[&str]) -> PathInfo {
    PathInfo {
        nar_hash: NarHash([0; 32]),
        nar_size,
        references: references.iter().map(|name| path(name)).collect(),
    }
}
