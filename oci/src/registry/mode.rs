//! In what form a registry takes blobs, found out by being refused and remembered. Pure.
//!
//! ```text
//! streamed PATCH ─413 400 416 …─► numbered chunks ─405 400 …─► whole, with the commit
//!  nothing kept                    one chunk kept               one small blob kept
//! ```

use super::{Error, Registry};
use crate::provider;

use std::sync::PoisonError;

/// In what form bodies are sent, from the best to the last resort.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mode {
    /// One PATCH of unknown length.
    Streamed,
    /// A PATCH for each chunk.
    Chunked,
    /// With the PUT that commits it.
    Whole,
}

impl Mode {
    /// What to try after a body was refused. `None`: nothing else can help.
    pub(super) fn after(self, error: &Error, host: &str) -> Option<Self> {
        match self {
            _ if !error.is_form_refused() => None,
            Self::Streamed if provider::takes_chunks(host) => Some(Self::Chunked),
            Self::Streamed | Self::Chunked => Some(Self::Whole),
            Self::Whole => None,
        }
    }
}

impl Registry {
    /// The form that worked last.
    pub(super) fn mode(&self) -> Mode {
        *self
            .inner
            .mode
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// A blob was taken in this form. One that was not the first choice is remembered.
    pub(super) fn worked(&self, mode: Mode) {
        let mut held = self
            .inner
            .mode
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if *held < mode {
            tracing::info!(
                registry = self.inner.host.as_str(),
                ?mode,
                "the registry takes blobs in this form only"
            );
            *held = mode;
        }
    }
}
