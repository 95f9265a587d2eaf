//! What can go wrong between Firn and a registry, in words for the person whose push it is.
//!
//! Callers ask predicates; a message names the registry, the repository, what was asked, the
//! registry's own words (bounded) and a remedy. It never holds a credential or an address with a
//! query, since upload addresses are capabilities.

use std::fmt;
use std::time::Duration;

use reqwest::StatusCode;

use super::Ask;
use crate::{Digest, RegistryHost, Repository, provider};

/// A request that did not do what it was for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The registry, or the token service it named, said no.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// No answer: no address, no connection, or one that broke.
    #[error("failed to {place}: no connection to it; {remedy}")]
    Unreachable {
        /// Who was asked what.
        place: Box<Place>,
        /// What to do.
        remedy: &'static str,
        /// Why, without the address.
        source: reqwest::Error,
    },
    /// An answer or the next piece of it did not come in time.
    #[error("failed to {place}: {what} for {} s; check that it and the way to it are not overloaded", waited.as_secs())]
    TimedOut {
        /// Who was asked what.
        place: Box<Place>,
        /// "no answer", "nothing was taken".
        what: &'static str,
        /// How long it was waited for.
        waited: Duration,
    },
    /// An answer that the protocol does not have.
    #[error(
        "failed to {place}: its answer {what}; this is a fault of the registry or of a proxy before it"
    )]
    Protocol {
        /// Who was asked what.
        place: Box<Place>,
        /// What is wrong with the answer.
        what: String,
    },
    /// Content is not what its digest says.
    #[error(
        "failed to {place}: expected {expected}, got {actual}; the content was changed on the way or in the registry"
    )]
    DigestMismatch {
        /// Who was asked what.
        place: Box<Place>,
        /// What was asked for.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// Content is longer than its descriptor says.
    #[error(
        "failed to {place}: expected {expected} bytes, got {actual} or more; the content was changed on the way or in the registry"
    )]
    SizeMismatch {
        /// Who was asked what.
        place: Box<Place>,
        /// Bytes that the descriptor says.
        expected: u64,
        /// Bytes that came until it was given up.
        actual: u64,
    },
    /// Content ended before it was whole, again and again.
    #[error(
        "failed to {place}: it ended after {actual} of {expected} bytes; check the registry's log, and proxies on the way"
    )]
    Truncated {
        /// Who was asked what.
        place: Box<Place>,
        /// Bytes that the descriptor says.
        expected: u64,
        /// Bytes that came.
        actual: u64,
    },
    /// There is an image, but for other platforms.
    #[error(
        "failed to {place}: there is none for {wanted}, only for {}",
        some(offered)
    )]
    NoSuchPlatform {
        /// Who was asked what.
        place: Box<Place>,
        /// The platform that was asked for.
        wanted: String,
        /// Those there are, sorted.
        offered: Vec<String>,
    },
    /// A document is what it says it is, and not what was asked for.
    #[error("failed to {place}: {what}")]
    Malformed {
        /// Who was asked what.
        place: Box<Place>,
        /// What is wrong with it.
        what: String,
    },
    /// Content is larger than such content can be.
    #[error("failed to {place}: it is larger than the {limit} bytes that are allowed")]
    TooLarge {
        /// Who was asked what.
        place: Box<Place>,
        /// Bytes allowed.
        limit: u64,
    },
    /// A fault of this program: a thread that makes a layer ended without a result.
    #[error("failed to {place}: the thread that makes the layer was lost")]
    ProducerLost {
        /// Who was asked what.
        place: Box<Place>,
    },
}

/// Who was asked what. Reads on after "failed to".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// "start an upload".
    pub(crate) what: &'static str,
    /// The registry.
    pub registry: RegistryHost,
    /// `None`: the registry as a whole.
    pub repository: Option<Repository>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.what)?;
        if let Some(repository) = &self.repository {
            write!(f, "in repository {:?} ", repository.as_str())?;
        }
        write!(f, "of registry {:?}", self.registry.as_str())
    }
}

/// A refusal in the registry's own words.
#[derive(Debug)]
pub struct Refusal {
    pub(crate) place: Box<Place>,
    /// The host of the token service, if that one refused.
    pub(crate) token_service: Option<String>,
    pub(crate) status: StatusCode,
    /// The first error code of the body, such as `DENIED`. Empty: none.
    pub(crate) code: String,
    /// Codes and messages of the body, or its text; bounded.
    pub(crate) words: String,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) standing: Standing,
    /// The request was the PUT of a manifest.
    pub(crate) of_manifest: bool,
    /// The manifest names zstd layers.
    pub(crate) of_zstd: bool,
}

/// As whom the registry was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// There are no credentials for it.
    Anonymous,
    /// Nor are there here, but a credential helper, which is not run, is set for this registry.
    HelperNotRun,
    /// With credentials as they are.
    LoggedIn,
    /// The token service took the credentials and gave a token, which the registry found not enough.
    Granted,
}

impl Refusal {
    fn remedy(&self) -> &'static str {
        match self.status.as_u16() {
            _ if is_immutable(self) => "choose another tag, or let the registry move this one",
            _ if is_blob_unknown(self) => {
                "a layer or manifest was removed from the registry meanwhile: push again"
            }
            400 if provider::says_tls_is_needed(&self.words) => {
                "this registry speaks HTTPS: do not ask for plain HTTP"
            }
            401 | 403 if self.standing == Standing::HelperNotRun => {
                "the credentials name a helper program, which is not run: put a login for this \
                 registry into \"auths\""
            }
            401 if self.standing == Standing::Anonymous => "give credentials for this registry",
            401 if self.standing == Standing::LoggedIn => {
                "check that the name and the password or token are right and have not expired"
            }
            401 | 403 => "give credentials that may do this in this repository",
            404 if self.code == "NAME_UNKNOWN" => {
                "create the repository, or check its name: this registry does not make it by itself"
            }
            413 => "a proxy before the registry limits the size of requests: raise its limit",
            429 => "wait, or use credentials with a higher limit",
            400 | 415 | 422 if self.of_zstd => {
                "older registries take no zstd layers: set `compression: Gzip`, or check that this \
                 one takes OCI manifests"
            }
            400 | 415 | 422 if self.of_manifest => "check that the registry takes OCI manifests",
            500..=599 => "this is a fault of the registry: try again later or look at its log",
            _ => "check the registry's log",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failed to {}: ", self.place)?;
        match &self.token_service {
            Some(host) => write!(f, "its token service {host:?} answered {}", self.status)?,
            None => write!(f, "it answered {}", self.status)?,
        }
        if !self.words.is_empty() {
            write!(f, " ({:?})", self.words)?;
        }
        write!(f, "; {}", self.remedy())
    }
}

impl Error {
    fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }

    fn status(&self) -> Option<u16> {
        self.refusal().map(|refusal| refusal.status.as_u16())
    }

    /// Whose answer a refusal is. `None`: it is another kind of error.
    pub fn refused_at(&self) -> Option<&Place> {
        self.refusal().map(|refusal| &*refusal.place)
    }

    /// The credentials are missing, wrong, expired or not enough.
    pub fn is_auth(&self) -> bool {
        matches!(self.status(), Some(401 | 403)) && !self.is_tag_immutable()
    }

    /// Too many requests: later it works.
    pub fn is_rate_limited(&self) -> bool {
        self.status() == Some(429)
    }

    /// The registry or the way to it does not work at present.
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::TimedOut { .. }
            | Self::Truncated { .. }
            | Self::Protocol { .. } => true,
            _ => matches!(self.status(), Some(408 | 500..=599)),
        }
    }

    /// There is an image of that name, but not for that platform, or not one that Firn reads.
    pub fn is_unsuitable(&self) -> bool {
        matches!(self, Self::NoSuchPlatform { .. } | Self::Malformed { .. })
    }

    /// Nobody that is trusted vouches for the registry.
    pub fn is_untrusted(&self) -> bool {
        matches!(self, Self::Unreachable { source, .. } if is_certificate(source))
    }

    /// The registry was asked by https and speaks http.
    pub fn is_without_tls(&self) -> bool {
        matches!(self, Self::Unreachable { source, .. } if is_plain(source))
    }

    /// What came is not what its digest and size say.
    pub fn is_damaged(&self) -> bool {
        matches!(
            self,
            Self::DigestMismatch { .. } | Self::SizeMismatch { .. }
        )
    }

    /// The repository, blob or manifest does not exist, or is not shown to us.
    pub fn is_not_found(&self) -> bool {
        self.status() == Some(404)
    }

    /// The registry refuses the image itself: its type, its size, its form.
    pub fn is_manifest_rejected(&self) -> bool {
        self.refusal().is_some_and(|refusal| {
            refusal.of_manifest
                && matches!(refusal.status.as_u16(), 400 | 405 | 413 | 415 | 422)
                && !is_immutable(refusal)
                && !self.is_blob_unknown()
        })
    }

    /// The tag exists and may not move.
    pub fn is_tag_immutable(&self) -> bool {
        self.refusal().is_some_and(is_immutable)
    }

    /// A manifest names a blob that the registry does not have (any more): make and send it again.
    pub fn is_blob_unknown(&self) -> bool {
        self.refusal().is_some_and(is_blob_unknown)
    }

    /// How long the registry asked us to wait. `None`: it did not.
    pub fn retry_after(&self) -> Option<Duration> {
        self.refusal().and_then(|refusal| refusal.retry_after)
    }

    /// The same request may succeed later, without anybody's doing.
    pub fn is_retryable(&self) -> bool {
        match self {
            // What a server is does not change by itself.
            Self::Unreachable { source, .. } => !is_certificate(source) && !is_plain(source),
            Self::TimedOut { .. } | Self::Truncated { .. } => true,
            _ => matches!(self.status(), Some(408 | 429 | 500 | 502 | 503 | 504)),
        }
    }

    pub(crate) fn has_status(&self, status: StatusCode) -> bool {
        self.status() == Some(status.as_u16())
    }

    /// The mount itself may be what is refused, by the registry or by its token service.
    pub(crate) fn is_mount_refused(&self) -> bool {
        matches!(self.status(), Some(400 | 401 | 403 | 404 | 405))
    }

    /// The token service does not take the credentials.
    pub(crate) fn is_login_refused(&self) -> bool {
        self.refusal().is_some_and(|refusal| {
            refusal.token_service.is_some() && matches!(refusal.status.as_u16(), 400 | 401 | 403)
        })
    }

    /// An upload session that the registry has forgotten: start another.
    pub(crate) fn is_upload_unknown(&self) -> bool {
        self.refusal()
            .is_some_and(|refusal| refusal.code == "BLOB_UPLOAD_UNKNOWN")
    }

    /// It is not known whether the request was carried out.
    pub(crate) fn is_ambiguous(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } => true,
            _ => matches!(self.status(), Some(408 | 500..=599)),
        }
    }

    /// The registry does not take a body in the form it was sent in.
    pub(crate) fn is_form_refused(&self) -> bool {
        let Some(refusal) = self.refusal() else {
            return false;
        };
        let code = refusal.code.as_str();
        match refusal.status.as_u16() {
            // A broken proxy says 400 for everything; what names another cause is believed.
            400 => matches!(
                code,
                "" | "BLOB_UPLOAD_INVALID"
                    | "RANGE_INVALID"
                    | "SIZE_INVALID"
                    | "UNKNOWN"
                    | "UNSUPPORTED"
            ),
            404 => code == "UNSUPPORTED",
            405 | 411 | 413 | 416 | 501 => true,
            _ => false,
        }
    }

    pub(crate) fn unreachable(ask: &Ask<'_>, source: reqwest::Error) -> Self {
        let source = source.without_url();
        let remedy = if is_certificate(&source) {
            "give the certificate of the authority that signed the registry's"
        } else if is_plain(&source) {
            "it does not speak TLS: ask for plain HTTP, or check the port"
        } else {
            "check its name and port, that it runs, and proxies and network policies on the way"
        };
        Self::Unreachable {
            place: Box::new(ask.place()),
            remedy,
            source,
        }
    }

    pub(crate) fn protocol(ask: &Ask<'_>, what: impl Into<String>) -> Self {
        Self::Protocol {
            place: Box::new(ask.place()),
            what: what.into(),
        }
    }
}

fn some(platforms: &[String]) -> String {
    /// Enough to see what kind of image it is.
    const SHOWN: usize = 12;
    match platforms {
        [] => "unknown ones".to_owned(),
        all => all
            .iter()
            .take(SHOWN)
            .cloned()
            .collect::<Vec<_>>()
            .join(", "),
    }
}

/// Distribution says the first with a 404, others with a 400; the second is the newer code.
fn is_blob_unknown(refusal: &Refusal) -> bool {
    refusal.of_manifest
        && (refusal.words.contains("MANIFEST_BLOB_UNKNOWN") || refusal.code == "BLOB_UNKNOWN")
}

fn is_immutable(refusal: &Refusal) -> bool {
    refusal.of_manifest
        && refusal.status.is_client_error()
        && provider::says_tag_is_immutable(&refusal.words)
}

/// reqwest has no predicate for it; rustls' words are stable enough, and only a remedy and one
/// needless retry depend on them.
fn is_certificate(error: &reqwest::Error) -> bool {
    has_cause(error, "certificate")
}

/// The answer to TLS was none of TLS.
fn is_plain(error: &reqwest::Error) -> bool {
    has_cause(error, "InvalidContentType")
}

fn has_cause(error: &reqwest::Error, words: &str) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if cause.to_string().contains(words) {
            return true;
        }
        source = cause.source();
    }
    false
}

/// Code and words of an error body, `{"errors":[{"code","message","detail"}]}` or anything else.
/// <https://github.com/opencontainers/distribution-spec/blob/main/spec.md#error-codes>
pub(crate) fn words_of(body: &[u8]) -> (String, String) {
    #[derive(serde::Deserialize)]
    struct Body {
        #[serde(default)]
        errors: Vec<Item>,
        // Token services say it so.
        #[serde(default)]
        details: String,
    }
    #[derive(serde::Deserialize)]
    struct Item {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    /// Enough for several errors, and readable in one line.
    const WORDS_MAX: usize = 400;

    let parsed: Option<Body> = serde_json::from_slice(body).ok();
    let code = parsed
        .as_ref()
        .and_then(|body| body.errors.first())
        .map_or_else(String::new, |item| item.code.chars().take(60).collect());
    let text = match parsed {
        Some(body) if !body.errors.is_empty() => body
            .errors
            .into_iter()
            .map(
                |Item { code, message }| match (code.as_str(), message.as_str()) {
                    (_, "") => code,
                    ("", _) => message,
                    _ => format!("{code}: {message}"),
                },
            )
            .filter(|words| !words.is_empty())
            .collect::<Vec<_>>()
            .join("; "),
        Some(body) if !body.details.is_empty() => body.details,
        _ => String::from_utf8_lossy(body).into_owned(),
    };
    let words: String = text
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .chars()
        .take(WORDS_MAX)
        .collect();
    (code, words)
}
