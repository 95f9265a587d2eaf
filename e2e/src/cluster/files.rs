//! File operations whose errors say which file and what was to be done with it.

use std::path::Path;

use anyhow::{Context, Result};

/// Adds operation and path to an error that knows neither.
pub(super) trait At<T> {
    /// "failed to OPERATION PATH"
    fn at(self, operation: &str, path: impl AsRef<Path>) -> Result<T>;
}

impl<T, E: std::error::Error + Send + Sync + 'static> At<T> for Result<T, E> {
    fn at(self, operation: &str, path: impl AsRef<Path>) -> Result<T> {
        self.with_context(|| format!("failed to {operation} {}", path.as_ref().display()))
    }
}
