//! One at a time: a lock on a file, which the kernel frees when its holder ends, however it ends.

use std::fs::{File, TryLockError};
use std::path::Path;

use anyhow::Result;

use super::files::At;
use super::progress::say;

/// Held until dropped.
#[derive(Debug)]
pub(super) struct Lock(#[expect(dead_code, reason = "holding it open is its use")] File);

impl Lock {
    /// Waits for the lock as long as it takes, saying so. The file stays.
    pub(super) fn acquire(path: &Path) -> Result<Self> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).at("create", parent)?;
        }
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .at("open", path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                say(format!(
                    "waiting for another firn-cluster, which holds {}",
                    path.display()
                ));
                file.lock().at("lock", path)?;
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).at("lock", path);
            }
        }
        Ok(Self(file))
    }
}
