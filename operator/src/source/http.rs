//! Smart HTTP of a poll: `info/refs`, then `ls-refs`. Answers are bounded, redirects are followed
//! a few times and never take credentials to another origin, TLS is always verified.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, LOCATION};
use reqwest::{Client, RequestBuilder, Response, Url};
use sha2::{Digest, Sha256};

use super::classify::{self, Asked};
use super::credentials::Trust;
use super::git_program::Place;
use super::ls_refs::{self, Advertisement, AnswerError, Ref};
use super::{Git, Kind, SourceFailure, Target};
use crate::settings::Network;

/// Longest answer that is read, in bytes: above what GitHub lists for its largest repositories
/// under one prefix. The bodies of at most 16 polls are in memory at once.
pub(crate) const ANSWER_MAX: usize = 8 * 1024 * 1024;
/// Redirects that are followed: a renamed repository plus a moved host need two.
const REDIRECTS_MAX: usize = 5;
/// Clients with a CA of their own that are kept; more images than that with different CAs build
/// theirs anew.
const CLIENTS_MAX: usize = 32;
/// Longest time to connect: a host that drops packets must not use up the whole timeout of a poll
/// that has several addresses to try.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Forges' filters against crawlers let git's own agent through, so the name begins like it.
pub(crate) const USER_AGENT: &str =
    concat!("git/2.45 (firn-operator/", env!("CARGO_PKG_VERSION"), ")");

/// Where a repository is, after redirects, and what goes there.
#[derive(Debug, Clone)]
pub(crate) struct Remote {
    /// The repository's URL.
    pub(crate) base: Url,
    /// Secret's name and content, if they may be sent to `base`.
    pub(crate) trust: Trust,
    /// Name of the Secret, for messages.
    pub(crate) secret: Option<String>,
}

impl Remote {
    /// The spec's URL, checked, with what the cluster gave for it.
    pub(crate) fn new(git: &Git, trust: Trust, plain_http: bool) -> Result<Self, SourceFailure> {
        let secret = trust
            .credentials
            .is_some()
            .then(|| git.secret.clone())
            .flatten();
        let base = parse_url(&git.url, plain_http)?;
        Ok(Self {
            base,
            trust,
            secret,
        })
    }

    /// What the git program is to know of it.
    pub(crate) fn place(&self) -> Place<'_> {
        Place {
            url: self.base.as_str(),
            trust: &self.trust,
            secret: self.secret.as_deref(),
        }
    }

    /// What messages may say about it.
    pub(crate) fn asked(&self) -> Asked<'_> {
        Asked {
            url: self.base.as_str(),
            secret: self.secret.as_deref(),
        }
    }

    /// The repository moved. To another origin nothing confidential goes along.
    fn moved_to(self, base: Url) -> Self {
        if base.origin() == self.base.origin() {
            return Self { base, ..self };
        }
        let trust = Trust {
            credentials: None,
            ..self.trust
        };
        Self {
            base,
            trust,
            secret: None,
        }
    }
}

/// The clients of all polls.
pub(crate) struct Http {
    network: Network,
    /// For tests with servers on this machine; the API takes no `http://` URL at all.
    allows_plain: bool,
    usual: Client,
    with_ca: Mutex<HashMap<[u8; 32], Client>>,
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http")
            .field("network", &self.network)
            .finish_non_exhaustive()
    }
}

impl Http {
    /// Clients that reach the world as the settings say.
    pub(crate) fn new(network: Network, plain_http: bool) -> Result<Self, reqwest::Error> {
        let usual = build(&network, plain_http, None)?;
        Ok(Self {
            network,
            allows_plain: plain_http,
            usual,
            with_ca: Mutex::default(),
        })
    }

    /// Asks what the server can do; follows the repository to where it is now.
    pub(crate) async fn discover(
        &self,
        remote: Remote,
    ) -> Result<(Remote, Advertisement), SourceFailure> {
        let client = self.client(&remote)?;
        let mut remote = remote;
        for _ in 0..=REDIRECTS_MAX {
            let url = endpoint(&remote.base, "info/refs", Some("service=git-upload-pack"));
            let response = send(
                authorized(client.get(url.clone()).header(ACCEPT, "*/*"), &remote)?,
                &remote,
            )
            .await?;
            if response.status().is_redirection() {
                let base = redirected(&response, &url, &remote, self.allows_plain)?;
                remote = remote.moved_to(base);
                continue;
            }
            let body = body(
                response,
                "application/x-git-upload-pack-advertisement",
                &remote,
            )
            .await?;
            let advertisement =
                ls_refs::parse_advertisement(&body).map_err(|e| not_git(&e, &remote))?;
            return Ok((remote, advertisement));
        }
        Err(SourceFailure::new(
            Kind::Invalid,
            format!(
                "{:?} redirects more than {REDIRECTS_MAX} times: write the final URL into source.git.url",
                remote.base.as_str()
            ),
        ))
    }

    /// The refs that may be `target`.
    pub(crate) async fn refs(
        &self,
        remote: &Remote,
        advertisement: Advertisement,
        target: &Target,
    ) -> Result<Vec<Ref>, SourceFailure> {
        let object_format = match advertisement {
            Advertisement::V0 { refs } => return Ok(refs),
            Advertisement::V2 { object_format } => object_format,
        };
        let request = self
            .client(remote)?
            .post(endpoint(&remote.base, "git-upload-pack", None))
            .header(CONTENT_TYPE, "application/x-git-upload-pack-request")
            .header(ACCEPT, "application/x-git-upload-pack-result")
            .body(ls_refs::request(target, object_format.as_deref()));
        let response = send(authorized(request, remote)?, remote).await?;
        let body = body(response, "application/x-git-upload-pack-result", remote).await?;
        ls_refs::parse_refs(&body).map_err(|e| not_git(&e, remote))
    }

    fn client(&self, remote: &Remote) -> Result<Client, SourceFailure> {
        let Some(pem) = &remote.trust.ca else {
            return Ok(self.usual.clone());
        };
        let key: [u8; 32] = Sha256::digest(pem).into();
        let mut clients = self.with_ca.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&key) {
            return Ok(client.clone());
        }
        let client = build(&self.network, self.allows_plain, Some(pem)).map_err(|error| {
            tracing::debug!(%error, "failed to use the CA bundle of a source");
            SourceFailure::new(
                Kind::Invalid,
                "the CA bundle of this source holds no usable PEM certificate: check \
                 source.git.caConfigMapRef, and ca.crt in the Secret of source.git.secretRef",
            )
        })?;
        if clients.len() >= CLIENTS_MAX {
            clients.clear();
        }
        clients.insert(key, client.clone());
        Ok(client)
    }
}

fn build(
    network: &Network,
    plain_http: bool,
    pem: Option<&[u8]>,
) -> Result<Client, reqwest::Error> {
    // One poll in some minutes: kept connections would only go stale.
    let mut builder = Client::builder()
        .user_agent(USER_AGENT)
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_max_idle_per_host(1)
        .pool_idle_timeout(Duration::from_secs(10))
        .https_only(!plain_http)
        .no_proxy();
    for pem in [network.ca_pem.as_deref(), pem].into_iter().flatten() {
        builder = builder.tls_certs_merge(reqwest::Certificate::from_pem_bundle(pem)?);
    }
    let none_for = || {
        network
            .proxies
            .none_for
            .as_deref()
            .and_then(reqwest::NoProxy::from_string)
    };
    if let Some(url) = &network.proxies.http {
        builder = builder.proxy(reqwest::Proxy::http(url)?.no_proxy(none_for()));
    }
    if let Some(url) = &network.proxies.https {
        builder = builder.proxy(reqwest::Proxy::https(url)?.no_proxy(none_for()));
    }
    builder.build()
}

/// The spec's URL. The API refuses most of what is refused here; objects may be older than a rule.
pub(crate) fn parse_url(text: &str, plain_http: bool) -> Result<Url, SourceFailure> {
    let invalid = |why: &str| {
        SourceFailure::new(
            Kind::Invalid,
            format!("source.git.url {why}: give a URL such as https://git.example.com/team/repo"),
        )
    };
    let mut url = Url::parse(text).map_err(|error| invalid(&format!("is no URL ({error})")))?;
    // Nothing of a URL with credentials is shown.
    if !url.username().is_empty() || url.password().is_some() {
        return Err(invalid(
            "carries credentials, which belong in source.git.secretRef",
        ));
    }
    if url.scheme() != "https" && !(plain_http && url.scheme() == "http") {
        return Err(invalid(&format!("{:?} is not https", url.as_str())));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(invalid(
            "has a query or a fragment, which no repository has",
        ));
    }
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    Ok(url)
}

fn endpoint(base: &Url, service: &str, query: Option<&str>) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}/{service}", base.path().trim_end_matches('/')));
    url.set_query(query);
    url
}

/// Where a redirect of `url` leads the repository: git's own rule, the new place must end as the
/// old one did.
fn redirected(
    response: &Response,
    url: &Url,
    remote: &Remote,
    plain_http: bool,
) -> Result<Url, SourceFailure> {
    let shown = remote.base.as_str();
    let refused = |why: &str| {
        SourceFailure::new(
            Kind::Invalid,
            format!(
                "{shown:?} redirects {why}: write the URL of the repository itself into source.git.url"
            ),
        )
    };
    let target = response
        .headers()
        .get(LOCATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| url.join(value).ok())
        .ok_or_else(|| refused("to nowhere"))?;
    let path = target.path().strip_suffix("/info/refs").map(str::to_owned);
    let Some(path) = path.filter(|_| target.query() == Some("service=git-upload-pack")) else {
        // A login page, mostly.
        return Err(refused("to something that is no git repository"));
    };
    let mut base = target;
    base.set_path(&path);
    base.set_query(None);
    base.set_fragment(None);
    parse_url(base.as_str(), plain_http)
        .map_err(|_| refused("to a URL that is not https or carries credentials"))
}

fn authorized(request: RequestBuilder, remote: &Remote) -> Result<RequestBuilder, SourceFailure> {
    let request = request.header("Git-Protocol", "version=2");
    let Some(credentials) = &remote.trust.credentials else {
        return Ok(request);
    };
    let value = credentials.authorization().ok_or_else(|| {
        SourceFailure::new(
            Kind::Invalid,
            format!("the credentials in Secret {:?} cannot be sent in an HTTP header: they must be printable", remote.secret.as_deref().unwrap_or_default()),
        )
    })?;
    Ok(request.header(AUTHORIZATION, value))
}

async fn send(request: RequestBuilder, remote: &Remote) -> Result<Response, SourceFailure> {
    request
        .send()
        .await
        .map_err(|error| no_answer(&error, remote))
}

/// A successful answer's body, if it is what was asked for.
async fn body(
    mut response: Response,
    media_type: &str,
    remote: &Remote,
) -> Result<Vec<u8>, SourceFailure> {
    if !response.status().is_success() {
        return Err(classify::status(
            response.status(),
            response.headers(),
            remote.asked(),
        ));
    }
    let shown = remote.base.as_str();
    let content_type = response
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    if content_type != media_type {
        return Err(SourceFailure::new(
            Kind::Invalid,
            format!(
                "{shown:?} answers with {:?}, not as a git server: check source.git.url",
                super::failure::cut(content_type, 100)
            ),
        ));
    }
    let mut body = Vec::new();
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|error| no_answer(&error, remote))?
    {
        if body.len() + chunk.len() > ANSWER_MAX {
            return Err(SourceFailure::new(
                Kind::Invalid,
                format!(
                    "{shown:?} answers with more than {} MiB of refs: name a branch or tag in source.git.ref",
                    ANSWER_MAX >> 20
                ),
            ));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn not_git(error: &AnswerError, remote: &Remote) -> SourceFailure {
    SourceFailure::new(
        Kind::Invalid,
        format!(
            "{:?} does not answer as a git server ({error}): check source.git.url",
            remote.base.as_str()
        ),
    )
}

fn no_answer(error: &reqwest::Error, remote: &Remote) -> SourceFailure {
    // The outermost text repeats the URL; the causes say what happened.
    let mut causes = Vec::new();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        causes.push(cause.to_string());
        source = cause.source();
    }
    let causes = if causes.is_empty() {
        "no answer".to_owned()
    } else {
        causes.join(": ")
    };
    classify::connection(&causes, remote.base.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::credentials::Credentials;

    fn remote() -> Remote {
        let trust = Trust {
            credentials: Some(Credentials::Bearer("t".into())),
            ca: None,
        };
        Remote {
            base: Url::parse("https://git.example.com/a").unwrap(),
            trust,
            secret: Some("deploy".into()),
        }
    }

    #[test]
    fn credentials_stay_with_their_origin() {
        let moved = |to| remote().moved_to(Url::parse(to).unwrap());
        assert!(
            moved("https://git.example.com/b")
                .trust
                .credentials
                .is_some()
        );
        for other in [
            "https://git.example.com:8443/a",
            "https://evil.example.com/a",
            "http://git.example.com/a",
        ] {
            let moved = moved(other);
            assert_eq!(
                (moved.trust.credentials, moved.secret),
                (None, None),
                "{other}"
            );
        }
    }

    #[test]
    fn urls_that_cannot_be_used_are_refused_and_their_secrets_not_shown() {
        let kind = |url| parse_url(url, false).unwrap_err().kind;
        assert_eq!(kind("http://git.example.com/a"), Kind::Invalid);
        assert_eq!(kind("file:///etc"), Kind::Invalid);
        assert_eq!(kind("https://git.example.com/a?x=1"), Kind::Invalid);
        assert_eq!(kind("ssh://git@git.example.com/a"), Kind::Invalid);
        let message = parse_url("https://user:canary@git.example.com/a", false)
            .unwrap_err()
            .message;
        assert!(
            message.contains("secretRef") && !message.contains("canary"),
            "{message}"
        );
    }

    #[test]
    fn endpoints_lie_below_the_repository() {
        let base = parse_url("https://git.example.com/team/repo.git/", false).unwrap();
        assert_eq!(
            endpoint(&base, "info/refs", Some("service=git-upload-pack")).as_str(),
            "https://git.example.com/team/repo.git/info/refs?service=git-upload-pack"
        );
    }
}
