//! What one container leaves for the next, as JSON files, each in a volume of its producer.
//!
//! `check.json` and `fetch.json` come from Firn's own containers and are read-only elsewhere.
//! `build.json` was written where build code ran: whoever reads it checks every word.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::closure::PathInfo;
use crate::store_path::StorePath;

/// Largest file that is read: 100,000 paths with ten references each are about 100 MB as JSON.
const FILE_MAX: u64 = 128 << 20;

/// From check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Checked {
    /// The published image that is still in the registry. `None`: there is none, or it is gone.
    pub published: Option<String>,
}

/// From fetch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fetched {
    /// The commit that was checked out.
    pub commit: String,
    /// When it was made, by its committer's clock.
    pub commit_time: Timestamp,
    /// SHA-256 of `flake.lock`, hexadecimal. `None`: there is no such file.
    pub lock_hash: Option<String>,
}

/// From build; claims of a place where anything may have run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Built {
    /// The derivation is the published one.
    NotChanged {
        /// The derivation.
        drv_path: StorePath,
    },
    /// Something was built.
    Image(Box<Image>),
}

/// What an image is to be made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Image {
    /// The derivation.
    pub drv_path: StorePath,
    /// Its output. `None`: there is a description instead.
    pub out_path: Option<StorePath>,
    /// Absolute path of the program that a container runs. `None`: there is not exactly one.
    pub entry_point: Option<String>,
    /// Whether the output has a `bin` directory.
    pub has_bin: bool,
    /// The image description that the attribute's value is. `None`: it is a derivation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Something a user should know.
    pub note: Option<String>,
    /// The output with all it needs.
    pub closure: BTreeMap<StorePath, PathInfo>,
}

/// Why a handoff could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum HandoffError {
    /// The file cannot be written.
    #[error("failed to write {path:?}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file cannot be read.
    #[error("failed to read {path:?}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Larger than any that Firn writes.
    #[error("{path:?} has more than {FILE_MAX} bytes")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// Not what Firn writes.
    #[error("failed to understand {path:?}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
}

/// Writes `value` to `path`, whole or not at all.
pub fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), HandoffError> {
    let failed = |source| HandoffError::Write {
        path: path.to_owned(),
        source,
    };
    let json = serde_json::to_vec(value).map_err(|error| failed(error.into()))?;
    let partial = path.with_extension("partial");
    fs::write(&partial, json).map_err(failed)?;
    fs::rename(&partial, path).map_err(failed)
}

/// Reads what [`write()`] wrote. The file is not followed if it is a symbolic link, and its size is
/// bounded.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T, HandoffError> {
    let failed = |source| HandoffError::Read {
        path: path.to_owned(),
        source,
    };
    let flags = rustix::fs::OFlags::RDONLY
        | rustix::fs::OFlags::NOFOLLOW
        | rustix::fs::OFlags::NONBLOCK
        | rustix::fs::OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, rustix::fs::Mode::empty())
        .map_err(|error| failed(error.into()))?;
    let mut bytes = Vec::new();
    File::from(file)
        .take(FILE_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(HandoffError::TooLarge {
            path: path.to_owned(),
        });
    }
    serde_json::from_slice(&bytes).map_err(|source| HandoffError::Parse {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("check.json");
        let checked = Checked {
            published: Some("sha256:abc".into()),
        };
        write(&path, &checked).unwrap();
        assert_eq!(read::<Checked>(&path).unwrap(), checked);
    }

    #[test]
    fn a_link_in_place_of_the_file_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        write(&dir.path().join("real.json"), &Checked { published: None }).unwrap();
        let link = dir.path().join("build.json");
        std::os::unix::fs::symlink(dir.path().join("real.json"), &link).unwrap();
        assert!(matches!(
            read::<Checked>(&link),
            Err(HandoffError::Read { .. })
        ));
    }
}
