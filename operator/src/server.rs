//! `/metrics`, `/healthz` and `/readyz`, over plain HTTP for the cluster's own scrapers and probes.
//! Liveness never depends on the API server: a cluster in trouble must not restart its operators.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

/// What must have happened before the operator is ready. Starts with everything missing.
#[derive(Debug, Clone)]
pub struct Readiness {
    missing: Arc<Mutex<BTreeSet<&'static str>>>,
}

impl Readiness {
    /// Not ready until each of `parts` was reported by [`Self::done`]: `"CRD niximages.firn.dev"`.
    pub fn waiting_for(parts: impl IntoIterator<Item = &'static str>) -> Self {
        Self {
            missing: Arc::new(Mutex::new(parts.into_iter().collect())),
        }
    }

    /// This part is there.
    pub fn done(&self, part: &'static str) {
        self.lock().remove(part);
    }

    /// This part is gone again.
    pub fn lost(&self, part: &'static str) {
        self.lock().insert(part);
    }

    /// What is missing, sorted.
    pub fn missing(&self) -> Vec<&'static str> {
        self.lock().iter().copied().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeSet<&'static str>> {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone)]
struct Served {
    registry: Arc<Registry>,
    readiness: Readiness,
}

/// The routes.
pub fn router(registry: Arc<Registry>, readiness: Readiness) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .with_state(Served {
            registry,
            readiness,
        })
}

/// Serves until `shutdown` ends.
pub async fn serve(
    listener: TcpListener,
    registry: Arc<Registry>,
    readiness: Readiness,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    axum::serve(listener, router(registry, readiness))
        .with_graceful_shutdown(shutdown)
        .await
}

async fn metrics(State(served): State<Served>) -> Response {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &served.registry) {
        Ok(()) => (
            [(
                header::CONTENT_TYPE,
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
            )],
            text,
        )
            .into_response(),
        Err(_) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "metrics could not be encoded\n",
        )
            .into_response(),
    }
}

async fn readyz(State(served): State<Served>) -> (StatusCode, String) {
    let missing = served.readiness.missing();
    if missing.is_empty() {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("missing: {}\n", missing.join(", ")),
        )
    }
}
