//! Authorisation: which header a request carries. The registry says how it wants to be asked
//! (once, then it is remembered); tokens are fetched once per set of scopes and shared.
//! <https://distribution.github.io/distribution/spec/auth/token/>

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Method, Response, Url};
use tokio::time::Instant;

use super::challenge::{self, Challenge};
use super::credentials::{Credentials, Login, Reread};
use super::secret::Secret;
use super::{Ask, Error, Registry, may_follow};

/// A token is not used in its last seconds: it could end on the way.
const MARGIN: Duration = Duration::from_secs(30);
/// What a token lives if the service does not say, by the specification.
const LIFE: u64 = 60;
/// A token with its envelope; those of Azure are a few KiB.
const TOKEN_MAX: usize = 64 * 1024;
/// Sets of scopes are repositories times actions: a few per push. More means a loop over
/// repositories, for which forgetting is cheap.
const SLOTS_MAX: usize = 256;

pub(super) struct Auth {
    credentials: RwLock<Arc<Credentials>>,
    reread: Option<Reread>,
    /// Serialises reading credentials again.
    rereading: tokio::sync::Mutex<()>,
    /// `None`: the registry was not asked yet.
    scheme: RwLock<Option<Scheme>>,
    /// Serialises the first question.
    asking: tokio::sync::Mutex<()>,
    slots: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<Slot>>>>,
}

#[derive(Clone)]
enum Scheme {
    Open,
    Basic,
    Bearer { realm: Url, service: Option<String> },
}

/// The token for one set of scopes; the lock makes fetching it single-flight.
#[derive(Default)]
struct Slot {
    token: Option<(HeaderValue, Instant)>,
    /// A scope that the registry asked for besides ours.
    wanted: Option<String>,
}

impl Auth {
    pub(super) fn new(credentials: Credentials, reread: Option<Reread>) -> Self {
        Self {
            credentials: RwLock::new(Arc::new(credentials)),
            reread,
            rereading: tokio::sync::Mutex::new(()),
            scheme: RwLock::new(None),
            asking: tokio::sync::Mutex::new(()),
            slots: Mutex::new(BTreeMap::new()),
        }
    }

    fn credentials(&self) -> Arc<Credentials> {
        let credentials = self.credentials.read();
        Arc::clone(&credentials.unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes other credentials; what was got by the old ones is forgotten.
    fn replace(&self, credentials: Credentials) {
        let mut held = self
            .credentials
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *held = Arc::new(credentials);
        drop(held);
        self.slots
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    fn scheme(&self) -> Option<Scheme> {
        // A poisoned lock still holds a whole value.
        let scheme = self.scheme.read().unwrap_or_else(PoisonError::into_inner);
        scheme.clone()
    }

    fn set_scheme(&self, scheme: Scheme) {
        *self.scheme.write().unwrap_or_else(PoisonError::into_inner) = Some(scheme);
    }

    fn slot(&self, scopes: &[String]) -> Arc<tokio::sync::Mutex<Slot>> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= SLOTS_MAX {
            slots.clear();
        }
        Arc::clone(slots.entry(scopes.join(" ")).or_default())
    }
}

impl Registry {
    pub(super) fn login(&self, ask: &Ask<'_>) -> Option<Login> {
        let credentials = self.inner.auth.credentials();
        credentials.login(&self.inner.host, ask.repository).cloned()
    }

    /// After a refusal of `used`: whether there is another login by now.
    pub(super) async fn reread_login(&self, ask: &Ask<'_>, used: Option<&Login>) -> bool {
        let auth = &self.inner.auth;
        let Some(reread) = auth.reread.clone() else {
            return false;
        };
        let _one_reads = auth.rereading.lock().await;
        if self.login(ask).as_ref() != used {
            return true;
        }
        let read = tokio::task::spawn_blocking(move || reread.read()).await;
        let Some(credentials) = read.ok().flatten() else {
            return false;
        };
        if credentials.login(&self.inner.host, ask.repository) == used {
            return false;
        }
        tracing::info!(
            registry = self.inner.host.as_str(),
            "the credentials were refused; there are others by now"
        );
        auth.replace(credentials);
        true
    }

    /// Whether the registry is known to want tokens.
    pub(super) fn uses_tokens(&self) -> bool {
        matches!(self.inner.auth.scheme(), Some(Scheme::Bearer { .. }))
    }

    pub(super) fn has_helper(&self) -> bool {
        self.inner.auth.credentials().has_helper(&self.inner.host)
    }

    /// The header for a request to the registry itself. `None`: anonymous.
    pub(super) async fn authorization(&self, ask: &Ask<'_>) -> Result<Option<HeaderValue>, Error> {
        let login = self.login(ask);
        if let Some(Login::Bearer(token)) = &login {
            return Ok(Some(bearer(ask, token.expose())?));
        }
        match (self.known_scheme().await?, login) {
            (Scheme::Bearer { realm, service }, _) => {
                self.token(ask, &realm, service.as_deref()).await.map(Some)
            }
            (Scheme::Basic, Some(Login::Password { username, password })) => {
                Ok(Some(basic(&username, &password)))
            }
            (Scheme::Basic | Scheme::Open, _) => Ok(None),
        }
    }

    /// Learns from a 401 what the registry wants, and forgets the token that it did not take.
    /// Whether asking again can end differently.
    pub(super) async fn learn(
        &self,
        ask: &Ask<'_>,
        headers: &HeaderMap,
        sent: Option<&HeaderValue>,
    ) -> Result<bool, Error> {
        if matches!(self.login(ask), Some(Login::Bearer(_))) {
            return Ok(false);
        }
        match challenge_of(headers) {
            None => Ok(false),
            Some(Challenge::Basic) => {
                self.inner.auth.set_scheme(Scheme::Basic);
                let sent_it = sent.is_some_and(|sent| sent.as_bytes().starts_with(b"Basic "));
                Ok(!sent_it && matches!(self.login(ask), Some(Login::Password { .. })))
            }
            Some(Challenge::Bearer {
                realm,
                service,
                scope,
            }) => {
                let realm = self.realm(ask, &realm)?;
                self.inner
                    .auth
                    .set_scheme(Scheme::Bearer { realm, service });
                let slot = self.inner.auth.slot(&ask.scopes);
                let mut slot = slot.lock().await;
                // Another request may have renewed it meanwhile.
                if slot.token.as_ref().map(|(token, _)| token) == sent {
                    slot.token = None;
                }
                slot.wanted = scope;
                Ok(true)
            }
        }
    }

    async fn known_scheme(&self) -> Result<Scheme, Error> {
        if let Some(scheme) = self.inner.auth.scheme() {
            return Ok(scheme);
        }
        let _one_asks = self.inner.auth.asking.lock().await;
        if let Some(scheme) = self.inner.auth.scheme() {
            return Ok(scheme);
        }
        let ask = Ask::new(self, "ask for the API", Method::GET, "v2/");
        let request = self.inner.client.get(ask.url.clone());
        let response = self.dispatch(&ask, request, None).await?;
        let scheme = match response.status().as_u16() {
            401 => match challenge_of(response.headers()) {
                Some(Challenge::Bearer { realm, service, .. }) => Scheme::Bearer {
                    realm: self.realm(&ask, &realm)?,
                    service,
                },
                Some(Challenge::Basic) => Scheme::Basic,
                None => return Err(self.refusal(&ask, response).await),
            },
            // 403, 404: some proxies let the API's root through to nowhere; the request will tell.
            200 | 403 | 404 => Scheme::Open,
            _ => return Err(self.refusal(&ask, response).await),
        };
        self.inner.auth.set_scheme(scheme.clone());
        Ok(scheme)
    }

    /// The token service's address, if credentials may be sent there.
    fn realm(&self, ask: &Ask<'_>, realm: &str) -> Result<Url, Error> {
        let url = Url::parse(realm)
            .map_err(|_| Error::protocol(ask, "names a token service without an address"))?;
        if may_follow(&self.inner.base, &url) {
            Ok(url)
        } else {
            let host = url.host_str().unwrap_or_default();
            Err(Error::protocol(
                ask,
                format!("names a token service, {host:?}, that is not safe to send credentials to"),
            ))
        }
    }

    async fn token(
        &self,
        ask: &Ask<'_>,
        realm: &Url,
        service: Option<&str>,
    ) -> Result<HeaderValue, Error> {
        let slot = self.inner.auth.slot(&ask.scopes);
        let mut slot = slot.lock().await;
        if let Some((token, until)) = &slot.token
            && Instant::now() < *until
        {
            return Ok(token.clone());
        }
        let mut scopes = ask.scopes.clone();
        let wanted = slot.wanted.as_deref().unwrap_or_default();
        scopes.extend(wanted.split(' ').map(str::to_owned));
        scopes.retain(|scope| !scope.is_empty());
        scopes.sort();
        scopes.dedup();
        let (token, life) = self.fetch_token(ask, realm, service, &scopes).await?;
        let life = Duration::from_secs(life);
        let usable = life.saturating_sub(MARGIN).max(life / 2);
        slot.token = Some((token.clone(), Instant::now() + usable));
        Ok(token)
    }

    /// A token, with another login if the first is refused and there is another by now.
    async fn fetch_token(
        &self,
        ask: &Ask<'_>,
        realm: &Url,
        service: Option<&str>,
        scopes: &[String],
    ) -> Result<(HeaderValue, u64), Error> {
        let login = self.login(ask);
        let first = self
            .fetch_token_as(login.as_ref(), ask, realm, service, scopes)
            .await;
        match first {
            Err(error) if error.is_login_refused() => {
                if !self.reread_login(ask, login.as_ref()).await {
                    return Err(error);
                }
                let login = self.login(ask);
                self.fetch_token_as(login.as_ref(), ask, realm, service, scopes)
                    .await
            }
            done => done,
        }
    }

    async fn fetch_token_as(
        &self,
        login: Option<&Login>,
        ask: &Ask<'_>,
        realm: &Url,
        service: Option<&str>,
        scopes: &[String],
    ) -> Result<(HeaderValue, u64), Error> {
        let ask = Ask {
            what: "get a token for the work",
            method: Method::GET,
            url: realm.clone(),
            of_manifest: false,
            ..ask.clone()
        };
        let request = if let Some(Login::Identity(token)) = login {
            let scopes = scopes.join(" ");
            let mut fields = vec![
                ("grant_type", "refresh_token"),
                ("client_id", "firn"),
                ("scope", &scopes),
                ("refresh_token", token.expose()),
            ];
            fields.extend(service.map(|service| ("service", service)));
            self.inner
                .client
                .post(realm.clone())
                .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(form(realm, &fields))
        } else {
            let service = service.map(|service| ("service", service));
            let scopes = scopes.iter().map(|scope| ("scope", scope.as_str()));
            let fields: Vec<(&str, &str)> = service.into_iter().chain(scopes).collect();
            self.inner.client.get(realm.clone()).query(&fields)
        };
        let header = match login {
            Some(Login::Password { username, password }) => Some(basic(username, password)),
            _ => None,
        };
        let response = self.dispatch(&ask, request, header.as_ref()).await?;
        if response.status() != 200 {
            let host = realm.host_str().unwrap_or_default().to_owned();
            return Err(self.refusal_of_token(&ask, response, host).await);
        }
        self.read_token(&ask, response).await
    }

    async fn read_token(
        &self,
        ask: &Ask<'_>,
        response: Response,
    ) -> Result<(HeaderValue, u64), Error> {
        let body = self.read_body(ask, response, TOKEN_MAX).await?;
        let (token, life) = token_in(&body).map_err(|what| Error::protocol(ask, what))?;
        Ok((bearer(ask, token.expose())?, life))
    }
}

/// The token in a service's answer and its life in seconds, or what is wrong with the answer.
pub(crate) fn token_in(body: &[u8]) -> Result<(Secret, u64), &'static str> {
    #[derive(serde::Deserialize)]
    struct Answer {
        token: Option<Secret>,
        access_token: Option<Secret>,
        expires_in: Option<u64>,
    }
    // serde's error would quote the token.
    let answer: Answer =
        serde_json::from_slice(body).map_err(|_| "is no token in the form of the specification")?;
    let token = answer
        .token
        .or(answer.access_token)
        .filter(|token| !token.expose().is_empty())
        .ok_or("holds no token")?;
    // At most a day: the number is foreign, and an Instant has an end.
    let life = answer.expires_in.filter(|life| *life > 0).unwrap_or(LIFE);
    Ok((token, life.min(86_400)))
}

fn challenge_of(headers: &HeaderMap) -> Option<Challenge> {
    let lines: Vec<&str> = headers
        .get_all(WWW_AUTHENTICATE)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .collect();
    challenge::parse(&lines.join(", "))
}

fn bearer(ask: &Ask<'_>, token: &str) -> Result<HeaderValue, Error> {
    let mut header = HeaderValue::from_str(&format!("Bearer {token}"))
        .map_err(|_| Error::protocol(ask, "holds a token that no header can carry"))?;
    header.set_sensitive(true);
    Ok(header)
}

fn basic(username: &str, password: &Secret) -> HeaderValue {
    let text = STANDARD.encode(format!("{username}:{}", password.expose()));
    // Base64 is always a legal header.
    let mut header = HeaderValue::from_str(&format!("Basic {text}"))
        .unwrap_or_else(|_| HeaderValue::from_static("Basic"));
    header.set_sensitive(true);
    header
}

/// `application/x-www-form-urlencoded`, which is how a query is written too.
fn form(any: &Url, fields: &[(&str, &str)]) -> String {
    let mut url = any.clone();
    url.set_query(None);
    url.query_pairs_mut().extend_pairs(fields);
    url.query().unwrap_or_default().to_owned()
}

/// Sets the header, if there is one.
pub(super) fn authorized(
    request: reqwest::RequestBuilder,
    header: Option<&HeaderValue>,
) -> reqwest::RequestBuilder {
    match header {
        Some(header) => request.header(AUTHORIZATION, header.clone()),
        None => request,
    }
}
