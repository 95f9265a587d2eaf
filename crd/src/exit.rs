//! The one table of failures: reason, class, exit code and the container that exits with it.
//! Exit codes, `podFailurePolicy`, conditions, events, metrics and docs are all made from it.
//!
//! Firn's codes avoid those that others own: Rust's panic (101), clap (2), shells (126, 127) and
//! signals (128+n). Nix's own (100, 101, 102, 104) are translated, never passed through.

use serde::{Deserialize, Serialize};
use strum::{Display, EnumIter, EnumString, IntoEnumIterator, IntoStaticStr};

/// Who can do something about a failure, and with that whether it is tried again.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
    Display,
    EnumString,
    EnumIter,
    IntoStaticStr,
)]
pub enum Class {
    /// Goes away by itself: retried.
    Transient,
    /// Not retried until something changes that the user controls.
    User,
    /// For the people who run the cluster: retried within limits.
    Platform,
}

/// The containers of a build pod, in the order in which they run.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    Display,
    EnumString,
    EnumIter,
    IntoStaticStr,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Container {
    /// May we push there? Holds registry credentials.
    Check,
    /// Source and flake inputs. Holds the source's credentials.
    Fetch,
    /// Nix. Holds nothing.
    Build,
    /// Layers, manifest, tags. Holds registry credentials.
    Push,
}

/// Why something failed. The names are API: add, never rename.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    Display,
    EnumString,
    EnumIter,
    IntoStaticStr,
)]
pub enum Reason {
    /// The git server wants other credentials, or the repository is not visible with these.
    SourceAuthFailed,
    /// The git server cannot be reached or does not answer in time.
    SourceUnreachable,
    /// The branch, tag or commit does not exist.
    RevisionNotFound,
    /// The ssh server's host key is not in `known_hosts`.
    HostKeyUnknown,
    /// The source cannot be used: a broken repository, no `flake.nix`, a TLS certificate nobody vouches for.
    SourceInvalid,
    /// The flake does not evaluate.
    EvaluationFailed,
    /// The flake has no such attribute.
    AttributeNotFound,
    /// The flake has inputs but no `flake.lock`.
    LockFileMissing,
    /// `flake.lock` does not fit `flake.nix`.
    LockFileOutdated,
    /// The node cannot give the isolation that was asked for.
    SandboxUnavailable,
    /// A substituter does not answer.
    SubstituterUnavailable,
    /// The build's disk is full.
    StoreFull,
    /// The attribute is of a kind that Firn cannot make an image of (yet).
    NotAnImage,
    /// A derivation failed.
    BuildFailed,
    /// The build took longer than `build.timeout`.
    BuildTimeout,
    /// A fixed-output derivation has another hash than declared.
    HashMismatch,
    /// A derivation built twice gave two results.
    NotDeterministic,
    /// The registry refuses the credentials, or has none.
    PushAuthFailed,
    /// The registry does not answer, or with 5xx.
    RegistryUnavailable,
    /// The registry answers 429.
    RegistryRateLimited,
    /// The tag exists and `tagPolicy` is `Fail`.
    TagExists,
    /// The registry does not let the tag move.
    TagImmutable,
    /// The registry refuses the image itself.
    ManifestRejected,
    /// The build's output breaks the rules of the store.
    StorePathInvalid,
    /// The image that is described, or asked for in `spec.image`, cannot be made.
    ImageInvalid,
    /// A newer build was published, or this one's time is over: no tag was moved.
    NotLatest,
    /// The image could not be signed.
    SigningFailed,
    /// A fault of Firn's own.
    InternalError,
    /// The container, or a process in it, exceeded its memory limit.
    OutOfMemory,
    /// The pod was ended from outside.
    PodKilled,
    /// The pod was evicted from its node.
    PodEvicted,
    /// The pod made room for one of a higher priority.
    Preempted,
    /// The node stopped answering.
    NodeLost,
    /// Somebody deleted the pod.
    PodDeleted,
    /// No node fits the pod.
    Unschedulable,
    /// The node cannot pull Firn's image.
    ImagePullFailed,
    /// A Secret or `ConfigMap` that the spec names does not exist, or lacks a key.
    SecretMissing,
    /// A volume is not ready.
    VolumePending,
    /// A `ResourceQuota` leaves no room.
    QuotaExceeded,
    /// The API server refuses the pod.
    PodRejected,
    /// The operator does not allow this isolation.
    IsolationNotAllowed,
    /// The operator does not allow this registry.
    RegistryNotAllowed,
    /// The operator does not allow this substituter or key.
    TrustNotAllowed,
    /// A tag template gives no valid tag.
    TagTemplateInvalid,
    /// Another `NixImage` owns the same tag of the same repository.
    OutputConflict,
    /// The spec asks for something that this version does not do yet.
    NotSupported,
    /// The operator may not read the Secret.
    CredentialsForbidden,
    /// The Job's deadline passed.
    DeadlineExceeded,
    /// Every retry that `build.retries` allows was used.
    RetriesExhausted,
    /// The run was cancelled.
    Cancelled,
    /// A newer run took over.
    Superseded,
}

impl Reason {
    /// Whether it is tried again, and who can help.
    pub const fn class(self) -> Class {
        match self {
            Self::SourceUnreachable
            | Self::SubstituterUnavailable
            | Self::RegistryUnavailable
            | Self::RegistryRateLimited
            | Self::SigningFailed => Class::Transient,
            Self::SandboxUnavailable
            | Self::StoreFull
            | Self::NotLatest
            | Self::InternalError
            | Self::OutOfMemory
            | Self::PodKilled
            | Self::PodEvicted
            | Self::Preempted
            | Self::NodeLost
            | Self::PodDeleted
            | Self::Unschedulable
            | Self::ImagePullFailed
            | Self::SecretMissing
            | Self::VolumePending
            | Self::QuotaExceeded
            | Self::PodRejected
            | Self::DeadlineExceeded
            | Self::RetriesExhausted => Class::Platform,
            Self::SourceAuthFailed
            | Self::RevisionNotFound
            | Self::HostKeyUnknown
            | Self::SourceInvalid
            | Self::EvaluationFailed
            | Self::AttributeNotFound
            | Self::LockFileMissing
            | Self::LockFileOutdated
            | Self::NotAnImage
            | Self::BuildFailed
            | Self::BuildTimeout
            | Self::HashMismatch
            | Self::NotDeterministic
            | Self::PushAuthFailed
            | Self::TagExists
            | Self::TagImmutable
            | Self::ManifestRejected
            | Self::StorePathInvalid
            | Self::ImageInvalid
            | Self::IsolationNotAllowed
            | Self::RegistryNotAllowed
            | Self::TrustNotAllowed
            | Self::TagTemplateInvalid
            | Self::OutputConflict
            | Self::NotSupported
            | Self::CredentialsForbidden
            | Self::Cancelled
            | Self::Superseded => Class::User,
        }
    }

    /// The exit code a container ends with. `None`: no container says this, the operator finds it.
    pub const fn exit_code(self) -> Option<u8> {
        Some(match self {
            Self::SourceAuthFailed => 10,
            Self::SourceUnreachable => 11,
            Self::RevisionNotFound => 12,
            Self::HostKeyUnknown | Self::SourceInvalid => 13,
            Self::EvaluationFailed => 20,
            Self::AttributeNotFound => 21,
            Self::LockFileMissing | Self::LockFileOutdated => 22,
            Self::SandboxUnavailable => 23,
            Self::SubstituterUnavailable => 24,
            Self::StoreFull => 25,
            Self::NotAnImage => 26,
            Self::BuildFailed => 30,
            Self::BuildTimeout => 31,
            Self::HashMismatch => 32,
            Self::NotDeterministic => 33,
            Self::PushAuthFailed => 40,
            Self::RegistryUnavailable => 41,
            Self::RegistryRateLimited => 42,
            Self::TagExists | Self::TagImmutable => 43,
            Self::ManifestRejected => 44,
            Self::StorePathInvalid => 45,
            Self::NotLatest => 46,
            Self::ImageInvalid => 47,
            Self::SigningFailed => 50,
            Self::InternalError => 70,
            // What the kernel's own SIGKILL looks like; the wrapper says it for a killed builder.
            Self::OutOfMemory => 137,
            Self::PodKilled => 143,
            _ => return None,
        })
    }

    /// What a container's exit means when it left no readable report. Total: an unknown code is
    /// Firn's own fault until shown otherwise. `oom_killed` is the kubelet's word.
    pub const fn of_exit(container: Container, code: i32, oom_killed: bool) -> Self {
        if oom_killed {
            return Self::OutOfMemory;
        }
        match (container, code) {
            (Container::Fetch, 10) => Self::SourceAuthFailed,
            (Container::Fetch, 11) => Self::SourceUnreachable,
            (Container::Fetch, 12) => Self::RevisionNotFound,
            (Container::Fetch, 13) => Self::SourceInvalid,
            (Container::Build, 20) => Self::EvaluationFailed,
            (Container::Build, 21) => Self::AttributeNotFound,
            (Container::Build, 22) => Self::LockFileOutdated,
            (Container::Build, 23) => Self::SandboxUnavailable,
            (Container::Build, 24) => Self::SubstituterUnavailable,
            (Container::Build, 25) => Self::StoreFull,
            (Container::Build | Container::Push, 26) => Self::NotAnImage,
            (Container::Build, 30) => Self::BuildFailed,
            (Container::Build, 31) => Self::BuildTimeout,
            (Container::Build, 32) => Self::HashMismatch,
            (Container::Build, 33) => Self::NotDeterministic,
            (Container::Check | Container::Push, 40) => Self::PushAuthFailed,
            (Container::Check | Container::Push, 41) => Self::RegistryUnavailable,
            (Container::Check | Container::Push, 42) => Self::RegistryRateLimited,
            (Container::Check | Container::Push, 43) => Self::TagExists,
            (Container::Check | Container::Push, 44) => Self::ManifestRejected,
            (Container::Push, 45) => Self::StorePathInvalid,
            (Container::Push, 46) => Self::NotLatest,
            (Container::Push, 47) => Self::ImageInvalid,
            (Container::Push, 50) => Self::SigningFailed,
            (_, 137 | 143) => Self::PodKilled,
            _ => Self::InternalError,
        }
    }

    /// The containers that may exit with this reason's code.
    pub const fn containers(self) -> &'static [Container] {
        match self.exit_code() {
            Some(10..=13) => &[Container::Fetch],
            // What an output is shows when push reads it.
            Some(26) => &[Container::Build, Container::Push],
            Some(20..=33) => &[Container::Build],
            Some(40..=44) => &[Container::Check, Container::Push],
            Some(45..=50) => &[Container::Push],
            Some(_) => &[
                Container::Check,
                Container::Fetch,
                Container::Build,
                Container::Push,
            ],
            None => &[],
        }
    }
}

/// The exit codes of `container` after which the Job must not start another pod: sorted, without
/// duplicates and without 0, as `podFailurePolicy` demands.
pub fn final_exit_codes(container: Container) -> Vec<i32> {
    let mut codes: Vec<i32> = Reason::iter()
        .filter(|reason| reason.containers().contains(&container))
        .filter(|reason| {
            matches!(reason, Reason::SandboxUnavailable | Reason::NotLatest)
                || reason.class() == Class::User
        })
        .filter_map(|reason| reason.exit_code().map(i32::from))
        .collect();
    codes.sort_unstable();
    codes.dedup();
    codes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn final_codes_are_those_of_the_failure_table() {
        assert_eq!(final_exit_codes(Container::Check), [40, 43, 44]);
        assert_eq!(final_exit_codes(Container::Fetch), [10, 12, 13]);
        assert_eq!(
            final_exit_codes(Container::Build),
            [20, 21, 22, 23, 26, 30, 31, 32, 33]
        );
        assert_eq!(
            final_exit_codes(Container::Push),
            [26, 40, 43, 44, 45, 46, 47]
        );
    }

    #[test]
    fn a_code_means_the_same_on_the_way_out_and_on_the_way_in() {
        for reason in Reason::iter() {
            let Some(code) = reason.exit_code() else {
                continue;
            };
            for container in reason.containers() {
                let read =
                    Reason::of_exit(*container, i32::from(code), reason == Reason::OutOfMemory);
                assert_eq!(read.exit_code(), Some(code), "{reason} in {container}");
                assert_eq!(read.class(), reason.class(), "{reason} in {container}");
            }
        }
    }

    #[test]
    fn no_code_is_one_that_belongs_to_somebody_else() {
        for reason in Reason::iter() {
            let code = reason.exit_code();
            assert!(
                !matches!(code, Some(0 | 1 | 2 | 100..=104 | 126..=136)),
                "{reason}: {code:?}"
            );
        }
    }
}
