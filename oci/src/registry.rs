//! A client of one registry: one method per thing to ask, see the files below.
//! <https://github.com/opencontainers/distribution-spec/blob/main/spec.md>
//!
//! ```text
//! push pull images referrers      several requests with one purpose
//! blobs manifests upload chunks   what to ask and which answers are good
//!          exchange               one request with authorisation, retries and time limits
//!        auth  retry              tokens; when to ask again (pure)
//! ```
//!
//! HTTP/1.1 only, one connection per upload: HTTP/2 would share one receive window. Proxies are
//! those of the environment (`HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`). Credentials go to the
//! registry's own origin and to the token service it names, nowhere else.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use reqwest::redirect::Policy;
use reqwest::{Certificate, Method, Url};

use crate::{RegistryHost, Repository, provider};

pub(crate) mod auth;
mod blobs;
mod body;
pub(crate) mod challenge;
mod chunks;
mod credentials;
pub(crate) mod error;
mod exchange;
pub(crate) mod headers;
mod images;
mod indexes;
mod manifests;
mod mode;
mod pull;
mod push;
mod referrers;
pub(crate) mod retry;
mod secret;
mod settings;
pub(crate) mod upload;

use mode::Mode;

pub use body::ChunkSink;
pub use credentials::{Credentials, CredentialsError, Login, Reread};
pub use error::{Error, Place, Refusal};
pub use images::ResolvedImage;
pub use manifests::{Deletion, Fetched, ManifestName};
pub use pull::{BlobReader, Copied};
pub use push::PushError;
pub use referrers::Attached;
pub use secret::Secret;
pub use settings::{Limits, RegistrySettings, SettingsError};
pub use upload::{Mount, Started, Streamed, Upload};

/// More hops than a registry and its blob store need.
const REDIRECTS_MAX: usize = 5;

/// A client of one registry. Cheap to clone; clones share connections and tokens.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

struct Inner {
    host: RegistryHost,
    base: Url,
    client: reqwest::Client,
    auth: auth::Auth,
    mode: Mutex<Mode>,
    limits: Limits,
}

impl Registry {
    /// A client; nothing is sent yet.
    ///
    /// # Errors
    /// The CA certificates are none, or the TLS library cannot be set up.
    pub fn new(settings: RegistrySettings) -> Result<Self, SettingsError> {
        let client = client(&settings)?;
        Self::on(client, settings)
    }

    /// Another client with the connections and trust of this one, but nothing of what it learned.
    /// For tests that make hundreds: the certificates of the system are read once.
    ///
    /// # Errors
    /// See [`Registry::new`].
    #[cfg(feature = "testing")]
    pub fn another(&self, settings: RegistrySettings) -> Result<Self, SettingsError> {
        Self::on(self.inner.client.clone(), settings)
    }

    fn on(client: reqwest::Client, settings: RegistrySettings) -> Result<Self, SettingsError> {
        let RegistrySettings {
            host,
            plain_http,
            extra_ca_pem: _,
            credentials,
            reread,
            limits,
        } = settings;
        let scheme = if plain_http { "http" } else { "https" };
        let api_host = provider::api_host(host.as_str());
        // Hosts are parsed; what the URL parser still dislikes is reported as it reports it.
        let base = client
            .get(format!("{scheme}://{api_host}/"))
            .build()
            .map_err(|source| SettingsError::Client {
                registry: host.clone(),
                source,
            })?
            .url()
            .clone();
        Ok(Self {
            inner: Arc::new(Inner {
                host,
                base,
                client,
                auth: auth::Auth::new(credentials, reread),
                mode: Mutex::new(Mode::Streamed),
                limits,
            }),
        })
    }

    /// The registry.
    pub fn host(&self) -> &RegistryHost {
        &self.inner.host
    }

    /// Whether the registry answers and takes the credentials, as far as it tells.
    ///
    /// # Errors
    /// It does not answer, refuses the credentials, or is no registry.
    pub async fn ping(&self) -> Result<(), Error> {
        let ask = Ask::new(self, "ask for the API", Method::GET, "v2/");
        self.exchange(&ask, |request| request, &[200]).await?;
        Ok(())
    }
}

fn client(settings: &RegistrySettings) -> Result<reqwest::Client, SettingsError> {
    let registry = &settings.host;
    let mut authorities = Vec::new();
    for bundle in &settings.extra_ca_pem {
        let certificates =
            Certificate::from_pem_bundle(bundle).map_err(|source| SettingsError::Certificates {
                registry: registry.clone(),
                source: Some(source),
            })?;
        if certificates.is_empty() {
            return Err(SettingsError::Certificates {
                registry: registry.clone(),
                source: None,
            });
        }
        authorities.extend(certificates);
    }
    reqwest::Client::builder()
        .user_agent(concat!("firn/", env!("CARGO_PKG_VERSION")))
        .http1_only()
        .connect_timeout(settings.limits.connect)
        .tls_certs_merge(authorities)
        .redirect(redirects())
        .referer(false)
        .build()
        .map_err(|source| SettingsError::Client {
            registry: registry.clone(),
            source,
        })
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("base", &self.inner.base.as_str())
            .field("limits", &self.inner.limits)
            .finish_non_exhaustive()
    }
}

/// One thing to ask: the request's line, the rights it needs, and its words for messages.
#[derive(Clone)]
pub(crate) struct Ask<'a> {
    /// Reads on after "failed to".
    what: &'static str,
    registry: &'a RegistryHost,
    repository: Option<&'a Repository>,
    method: Method,
    url: Url,
    /// Sorted, without duplicates: the key of the token.
    scopes: Vec<String>,
    of_manifest: bool,
    of_zstd: bool,
}

impl<'a> Ask<'a> {
    fn new(registry: &'a Registry, what: &'static str, method: Method, path: &str) -> Self {
        let mut url = registry.inner.base.clone();
        url.set_path(path);
        Self {
            what,
            registry: &registry.inner.host,
            repository: None,
            method,
            url,
            scopes: Vec::new(),
            of_manifest: false,
            of_zstd: false,
        }
    }

    /// Something of a repository: `path` follows its name, `actions` are the rights it needs.
    fn of(
        registry: &'a Registry,
        repository: &'a Repository,
        what: &'static str,
        method: Method,
        path: &str,
        actions: &str,
    ) -> Self {
        let path = format!("v2/{repository}/{path}");
        Self {
            repository: Some(repository),
            scopes: vec![scope(repository, actions)],
            ..Self::new(registry, what, method, &path)
        }
    }

    fn place(&self) -> Place {
        Place {
            what: self.what,
            registry: self.registry.clone(),
            repository: self.repository.cloned(),
        }
    }
}

const PULL: &str = "pull";
const PUSH: &str = "pull,push";
/// The distribution registry asks for this action besides the other two.
const DELETE: &str = "delete,pull,push";

fn scope(repository: &Repository, actions: &str) -> String {
    format!("repository:{repository}:{actions}")
}

/// Blob stores are other hosts; reqwest leaves the credentials behind there.
fn redirects() -> Policy {
    Policy::custom(|attempt| {
        let from = attempt.previous().last().cloned();
        if attempt.previous().len() > REDIRECTS_MAX {
            return attempt.error("too many redirects");
        }
        match from {
            Some(from) if !may_follow(&from, attempt.url()) => {
                attempt.error("a redirect to a place that is not safe to follow")
            }
            _ => attempt.follow(),
        }
    })
}

/// Whether an address that a registry names may be used: never without TLS after TLS, and never a
/// private address on another host, which is how a registry would reach into the cluster.
fn may_follow(from: &Url, to: &Url) -> bool {
    let downgraded = from.scheme() == "https" && to.scheme() != "https";
    let elsewhere = from.host_str() != to.host_str();
    matches!(to.scheme(), "http" | "https") && !downgraded && !(elsewhere && is_private(to))
}

/// By its look alone: names are resolved later, and by whatever proxy is in use.
fn is_private(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    match address
        .parse::<IpAddr>()
        .map(|address| address.to_canonical())
    {
        Ok(IpAddr::V4(v4)) => {
            v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_unspecified()
        }
        Ok(IpAddr::V6(v6)) => {
            v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_unique_local()
                || v6.is_unicast_link_local()
        }
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_safe_places_are_followed() {
        for (from, to, expected) in [
            ("https://r.x/", "https://blobs.y/a", true),
            ("https://r.x/", "http://r.x/a", false),
            ("http://r.x/", "http://blobs.y/a", true),
            ("https://r.x/", "https://169.254.169.254/a", false),
            ("https://r.x/", "https://10.0.0.1/a", false),
            ("https://r.x/", "https://[fd00::1]/a", false),
            ("https://r.x/", "https://[::ffff:10.0.0.1]/a", false),
            ("https://r.x/", "https://localhost/a", false),
            ("https://10.0.0.1:5000/", "https://10.0.0.1:6000/a", true),
            ("https://r.x/", "https://8.8.8.8/a", true),
            ("https://r.x/", "file:///etc/passwd", false),
        ] {
            let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
            assert_eq!(may_follow(&from, &to), expected, "{from} {to}");
        }
    }
}
