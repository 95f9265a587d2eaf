//! Why a source could not be read: a closed vocabulary, each with the reason conditions show and
//! the words users read. Pure.
//!
//! A message names the thing, the value, the cause and the remedy, never a secret.

use std::time::Duration;

use firn_crd::exit::{Class, Reason};

/// What went wrong. The name is the `result` label of `firn_source_polls_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, strum::IntoStaticStr, strum::EnumIter)]
pub enum Kind {
    /// The server wants other credentials, or does not show the repository to these.
    AuthFailed,
    /// The operator may not read the Secret or `ConfigMap`.
    CredentialsForbidden,
    /// The Secret or `ConfigMap` does not exist, or lacks a key.
    SecretMissing,
    /// Nobody the source's Secret names vouches for the ssh server's host key.
    HostKeyUnknown,
    /// There is no such branch, tag or commit.
    RevisionNotFound,
    /// The server does not answer, or with 5xx.
    Unreachable,
    /// The server asks us to wait.
    RateLimited,
    /// Nobody the operator trusts vouches for the server's TLS certificate.
    CertificateUnknown,
    /// Not a usable repository, or too large to read.
    Invalid,
    /// This version cannot do that yet.
    NotSupported,
    /// The API server does not answer, or the operator itself is at fault.
    Internal,
}

impl Kind {
    /// The reason in conditions and events.
    pub const fn reason(self) -> Reason {
        match self {
            Self::AuthFailed => Reason::SourceAuthFailed,
            Self::CredentialsForbidden => Reason::CredentialsForbidden,
            Self::SecretMissing => Reason::SecretMissing,
            Self::HostKeyUnknown => Reason::HostKeyUnknown,
            Self::RevisionNotFound => Reason::RevisionNotFound,
            Self::Unreachable | Self::RateLimited => Reason::SourceUnreachable,
            Self::CertificateUnknown | Self::Invalid => Reason::SourceInvalid,
            Self::NotSupported => Reason::NotSupported,
            Self::Internal => Reason::InternalError,
        }
    }

    /// Whether only the cluster's own API was asked, so that trying again costs nobody anything.
    pub const fn is_local(self) -> bool {
        matches!(
            self,
            Self::CredentialsForbidden | Self::SecretMissing | Self::Internal
        )
    }
}

/// One failed poll.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SourceFailure {
    /// What went wrong.
    pub kind: Kind,
    /// One or two sentences for people.
    pub message: String,
    /// How long the server asked us to wait.
    pub retry_after: Option<Duration>,
}

impl SourceFailure {
    /// A failure without a wish of the server's.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            retry_after: None,
        }
    }

    /// The reason in conditions and events.
    pub const fn reason(&self) -> Reason {
        self.kind.reason()
    }

    /// Who can do something about it.
    pub const fn class(&self) -> Class {
        self.reason().class()
    }
}

/// The beginning of `text`, at most `max` bytes of it.
pub(crate) fn cut(text: &str, max: usize) -> &str {
    firn_crd::report::first_bytes(text, max)
}
