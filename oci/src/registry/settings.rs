//! What a client of one registry must know.

use std::time::Duration;

use super::{Credentials, Reread};
use crate::RegistryHost;

/// Which registry, how to trust it, and how to log in.
#[derive(Debug, Clone)]
pub struct RegistrySettings {
    /// The registry.
    pub host: RegistryHost,
    /// Speak HTTP without TLS. Certificates are never merely not verified.
    pub plain_http: bool,
    /// PEM bundles of authorities to trust besides the system's.
    pub extra_ca_pem: Vec<Vec<u8>>,
    /// Logins; those for other registries do no harm.
    pub credentials: Credentials,
    /// Where newer logins are to be had when these are refused: a mounted Secret changes while a
    /// push runs. `None`: nowhere.
    pub reread: Option<Reread>,
    /// Times and sizes.
    pub limits: Limits,
}

impl RegistrySettings {
    /// A registry by HTTPS, anonymously, with the usual limits.
    pub fn new(host: RegistryHost) -> Self {
        Self {
            host,
            plain_http: false,
            extra_ca_pem: Vec::new(),
            credentials: Credentials::default(),
            reread: None,
            limits: Limits::default(),
        }
    }
}

/// How long and how much. Nothing a client does is without a bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// For a connection with its TLS handshake. Default 15 s.
    pub connect: Duration,
    /// From the end of a request to the head of its answer. A registry hashes a whole blob before
    /// it answers the commit: 10 GB at 100 MB/s are 100 s. Default 3 min.
    pub answer: Duration,
    /// Without a byte moving while bytes wait, in either direction. Default 60 s.
    pub stall: Duration,
    /// Before the first retry; later pauses double. Registries that restart or hand over are back
    /// within seconds. Default 500 ms.
    pub first_pause: Duration,
    /// For all attempts of one request with the pauses between; an attempt that runs is not cut
    /// off by it. Default 5 min.
    pub retry_budget: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            answer: Duration::from_secs(180),
            stall: Duration::from_secs(60),
            first_pause: Duration::from_millis(500),
            retry_budget: Duration::from_secs(300),
        }
    }
}

/// Settings that no client can be made of.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A bundle holds something that is no certificate, or nothing.
    #[error(
        "failed to read the CA certificates for registry \"{registry}\": there must be at least one PEM certificate in the bundle, and nothing broken"
    )]
    Certificates {
        /// The registry.
        registry: RegistryHost,
        /// Why, if it is known.
        #[source]
        source: Option<reqwest::Error>,
    },
    /// The TLS library cannot be set up.
    #[error("failed to set up a client for registry \"{registry}\"")]
    Client {
        /// The registry.
        registry: RegistryHost,
        /// Why.
        source: reqwest::Error,
    },
}
