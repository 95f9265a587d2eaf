//! The words of events: what `kubectl describe` shows, and what alerts may count. Pure.

use strum::{Display, EnumIter, EnumString, IntoStaticStr};

/// `reason` of an event. The names are API: add, never rename. All of them are sent; what a later
/// version tells gets its word with it.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Display,
    EnumIter,
    EnumString,
    IntoStaticStr,
)]
pub enum EventReason {
    /// The source has a new revision.
    NewRevision,
    /// `flake.lock` changed.
    LockFileChanged,
    /// A build waits for a free slot.
    BuildQueued,
    /// A build runs.
    BuildStarted,
    /// What would be built is published already.
    BuildSkipped,
    /// A build succeeded.
    BuildSucceeded,
    /// An image is in the registry.
    ImagePushed,
    /// Tags were moved.
    TagsUpdated,
    /// A newer run took over.
    BuildSuperseded,
    /// A run was cancelled.
    BuildCancelled,
    /// The registry has what was published again.
    DriftRepaired,
    /// Old builds were deleted.
    HistoryPruned,
    /// The source could not be read.
    SourceFetchFailed,
    /// A build failed.
    BuildFailed,
    /// A build failed and is tried again.
    BuildRetrying,
    /// The registry refused or did not answer.
    PushFailed,
    /// A pod was evicted.
    PodEvicted,
    /// A `ResourceQuota` leaves no room.
    QuotaExceeded,
    /// A node cannot give the isolation that was asked for.
    SandboxUnavailable,
    /// A Secret or `ConfigMap` is missing.
    SecretMissing,
    /// The registry has something else than was published.
    TagDrift,
}

impl EventReason {
    /// Whether it is a warning, which somebody should look at.
    pub const fn is_warning(self) -> bool {
        match self {
            Self::NewRevision
            | Self::LockFileChanged
            | Self::BuildQueued
            | Self::BuildStarted
            | Self::BuildSkipped
            | Self::BuildSucceeded
            | Self::ImagePushed
            | Self::TagsUpdated
            | Self::BuildSuperseded
            | Self::BuildCancelled
            | Self::DriftRepaired
            | Self::HistoryPruned => false,
            Self::SourceFetchFailed
            | Self::BuildFailed
            | Self::BuildRetrying
            | Self::PushFailed
            | Self::PodEvicted
            | Self::QuotaExceeded
            | Self::SandboxUnavailable
            | Self::SecretMissing
            | Self::TagDrift => true,
        }
    }
}
