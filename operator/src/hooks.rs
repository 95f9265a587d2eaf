//! Pushes that forges tell of: `POST /hooks/<namespace>/<name>`. A request that proves itself makes
//! the source be asked now instead of at its next interval, and nothing else: its body is read for
//! its signature only, never kept and never understood. Whoever forges one gains a poll.
//!
//! What is refused is refused alike (401), whether there is such an object or not. Off unless the
//! operator is given an address.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use futures::StreamExt as _;
use kube::Client;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::source::{ImageKey, Sources, webhook_secret};

mod limit;
mod signature;

use limit::Limit;
use signature::{Hmac, Proof};

/// Longest body, in bytes: GitHub's own limit. It is hashed as it comes, so that no memory depends
/// on it.
const BODY_MAX: usize = 25 * 1024 * 1024;
/// Longest time for one request. Forges wait for 10 s.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Requests that are looked at together.
const REQUESTS_MAX: usize = 32;

/// What a request may cost and lead to.
struct Hooks {
    client: Client,
    sources: Sources,
    limit: Mutex<Limit>,
    places: Semaphore,
}

/// The route.
pub fn router(client: Client, sources: Sources) -> Router {
    let hooks = Arc::new(Hooks {
        client,
        sources,
        limit: Mutex::default(),
        places: Semaphore::new(REQUESTS_MAX),
    });
    Router::new()
        .route("/hooks/{namespace}/{name}", post(push))
        .with_state(hooks)
}

/// Serves until `shutdown` ends.
pub async fn serve(
    listener: TcpListener,
    client: Client,
    sources: Sources,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    axum::serve(listener, router(client, sources))
        .with_graceful_shutdown(shutdown)
        .await
}

async fn push(
    State(hooks): State<Arc<Hooks>>,
    Path((namespace, name)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> (StatusCode, &'static str) {
    // What no object can be called is remembered nowhere.
    if namespace.len() > 63 || name.len() > 253 {
        return REFUSED;
    }
    let key = ImageKey { namespace, name };
    let permitted = {
        let mut limit = hooks.limit.lock().unwrap_or_else(PoisonError::into_inner);
        limit.permits(&key, Instant::now())
    };
    let Some(_place) = permitted.then(|| hooks.places.try_acquire().ok()).flatten() else {
        return (
            StatusCode::TOO_MANY_REQUESTS,
            "too many requests: the source is asked at its interval all the same\n",
        );
    };
    let Some(proof) = Proof::of(&headers) else {
        return REFUSED;
    };
    tokio::time::timeout(TIMEOUT, hooks.prove(&key, &proof, body))
        .await
        .unwrap_or((StatusCode::REQUEST_TIMEOUT, "the request took too long\n"))
}

const REFUSED: (StatusCode, &str) = (
    StatusCode::UNAUTHORIZED,
    "there is no webhook here for this secret\n",
);

impl Hooks {
    async fn prove(&self, key: &ImageKey, proof: &Proof, body: Body) -> (StatusCode, &'static str) {
        let secret = self.secret(key).await;
        // Without a secret everything is done all the same: how long it takes tells nothing.
        let known = secret.is_some();
        let secret = secret.unwrap_or_default();
        let mut signature = Hmac::new(&secret);
        let mut length = 0;
        let mut pieces = body.into_data_stream();
        while let Some(piece) = pieces.next().await {
            let Ok(piece) = piece else {
                return (StatusCode::BAD_REQUEST, "the body did not arrive\n");
            };
            length += piece.len();
            if length > BODY_MAX {
                return (
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "the body is larger than 25 MiB\n",
                );
            }
            signature.update(&piece);
        }
        if !(proof.holds(&secret, signature) && known) {
            return REFUSED;
        }
        let hastened = self.sources.hasten(key);
        tracing::debug!(namespace = %key.namespace, image = %key.name, hastened, "told of a push");
        (StatusCode::ACCEPTED, "the source is asked now\n")
    }

    /// The secret of an object that is polled and has a webhook. `None`: there is none, or it
    /// cannot be read, which the log tells.
    async fn secret(&self, key: &ImageKey) -> Option<Vec<u8>> {
        let name = self.sources.webhook(key)?;
        match webhook_secret(&self.client, &key.namespace, &name).await {
            Ok(secret) => Some(secret),
            Err(failure) => {
                tracing::warn!(
                    namespace = %key.namespace, image = %key.name, message = %failure.message,
                    "a push cannot be verified"
                );
                None
            }
        }
    }
}
