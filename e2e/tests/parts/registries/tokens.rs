//! A server of tokens for a registry that asks for them: whoever knows the password gets one for all
//! that was asked, signed by a key that the registry trusts. The registry verifies them itself.
//!
//! distribution, "Token Authentication Specification" (3.1).

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use firn_e2e::cluster::services::{REGISTRY_PASSWORD, REGISTRY_USER};
use rcgen::{KeyPair, PKCS_ED25519, PublicKeyData as _, SigningKey as _};
use serde_json::{Value, json};

use super::front::{Identity, serve};

/// What registry and tokens call each other.
const SERVICE: &str = "registry-of-the-test";
const ISSUER: &str = "tokens-of-the-test";
/// How long a token is good, in seconds.
const LIFE: u64 = 300;

/// The server. It ends with the runtime.
#[derive(Debug, Clone)]
pub(super) struct Tokens {
    realm: String,
    key: Arc<KeyPair>,
    asked: Arc<Mutex<BTreeSet<BTreeSet<String>>>>,
}

impl Tokens {
    pub(super) async fn start(identity: &Identity) -> Result<Self> {
        let mut tokens = Self {
            realm: String::new(),
            key: Arc::new(KeyPair::generate_for(&PKCS_ED25519)?),
            asked: Arc::default(),
        };
        let router = Router::new()
            .route("/token", get(token))
            .with_state(tokens.clone());
        tokens.realm = format!("https://{}/token", serve(router, identity).await?);
        Ok(tokens)
    }

    /// The registry's `auth.token`, whose keys are in the file `jwks`.
    pub(super) fn settings(&self, jwks: &std::path::Path) -> Value {
        json!({"token": {"realm": self.realm, "service": SERVICE, "issuer": ISSUER, "jwks": jwks}})
    }

    /// The key that the registry has to trust.
    pub(super) fn jwks(&self) -> Value {
        let x = URL_SAFE_NO_PAD.encode(self.key.der_bytes());
        json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": "test", "x": x}]})
    }

    /// The scopes of each token that was asked for.
    pub(super) fn asked(&self) -> BTreeSet<BTreeSet<String>> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.clone()
    }

    fn sign(&self, scopes: &BTreeSet<String>) -> Result<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let access: Vec<Value> = scopes.iter().filter_map(|scope| granted(scope)).collect();
        let parts = [
            json!({"typ": "JWT", "alg": "EdDSA", "kid": "test"}),
            json!({
                "iss": ISSUER, "aud": SERVICE, "sub": REGISTRY_USER, "jti": "1",
                "iat": now, "nbf": now, "exp": now + LIFE, "access": access,
            }),
        ];
        let signed = parts
            .map(|part| URL_SAFE_NO_PAD.encode(part.to_string()))
            .join(".");
        let signature = URL_SAFE_NO_PAD.encode(self.key.sign(signed.as_bytes())?);
        Ok(format!("{signed}.{signature}"))
    }
}

/// `repository:team/app:pull,push` as a token has it.
fn granted(scope: &str) -> Option<Value> {
    let (kind, rest) = scope.split_once(':')?;
    let (name, actions) = rest.rsplit_once(':')?;
    let actions: Vec<&str> = actions.split(',').collect();
    Some(json!({"type": kind, "name": name, "actions": actions}))
}

async fn token(
    State(tokens): State<Tokens>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<String, StatusCode> {
    let login = STANDARD.encode(format!("{REGISTRY_USER}:{REGISTRY_PASSWORD}"));
    let sent = headers.get(header::AUTHORIZATION);
    if sent.is_none_or(|sent| sent.as_bytes() != format!("Basic {login}").as_bytes()) {
        return Err(StatusCode::UNAUTHORIZED);
    }
    let query = format!("http://x/?{}", query.unwrap_or_default());
    let query = reqwest::Url::parse(&query).map_err(|_| StatusCode::BAD_REQUEST)?;
    let scopes: BTreeSet<String> = query
        .query_pairs()
        .filter(|(name, _)| name == "scope")
        .flat_map(|(_, value)| value.split(' ').map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let token = tokens.sign(&scopes);
    let mut asked = tokens.asked.lock().unwrap_or_else(PoisonError::into_inner);
    asked.insert(scopes);
    let token = token.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok(json!({"token": token, "expires_in": LIFE}).to_string())
}
