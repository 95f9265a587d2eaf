//! The fake registry's list of what refers to a manifest.

use axum::body::Body;
use axum::http::header::HeaderValue;
use axum::http::{Response, StatusCode};
use serde_json::{Value, json};

use super::State;
use super::access::plain;
use super::protocol::{Asked, problem};
use crate::{Digest, media_type};

/// Adds `OCI-Subject` to the answer to a manifest that has a subject.
pub(super) fn said(state: &State, mut response: Response<Body>, manifest: &[u8]) -> Response<Body> {
    if state.habits.referrers
        && let Some(subject) = subject(manifest)
        && let Ok(subject) = HeaderValue::from_str(&subject)
    {
        response.headers_mut().insert("oci-subject", subject);
    }
    response
}

/// One referrer a page, not filtered: clients must follow the link and filter by themselves.
pub(super) fn list(
    state: &mut State,
    asked: &Asked,
    repository: &str,
    digest: &str,
) -> Response<Body> {
    if !state.habits.referrers {
        return problem(StatusCode::NOT_FOUND, "UNSUPPORTED");
    }
    let after: usize = asked
        .query("after")
        .and_then(|after| after.parse().ok())
        .unwrap_or_default();
    let all: Vec<Value> = state
        .manifests
        .iter()
        .filter(|((of, name), (_, bytes))| {
            of == repository && name.contains(':') && subject(bytes).as_deref() == Some(digest)
        })
        .map(|(_, (media_type, bytes))| described(media_type, bytes))
        .collect();
    let page: Vec<&Value> = all.iter().skip(after).take(1).collect();
    let index = json!({ "schemaVersion": 2, "mediaType": media_type::INDEX, "manifests": page });
    let mut response = plain(StatusCode::OK, &index.to_string());
    let headers = response.headers_mut();
    headers.insert("content-type", HeaderValue::from_static(media_type::INDEX));
    if after + 1 < all.len() {
        let next = after + 1;
        let link = format!("</v2/{repository}/referrers/{digest}?after={next}>; rel=\"next\"");
        if let Ok(link) = HeaderValue::from_str(&link) {
            headers.insert("link", link);
        }
    }
    response
}

fn described(media_type: &str, bytes: &[u8]) -> Value {
    let manifest: Value = serde_json::from_slice(bytes).unwrap_or_default();
    json!({
        "mediaType": media_type,
        "digest": Digest::of(bytes).to_string(),
        "size": bytes.len(),
        "artifactType": manifest.get("artifactType").unwrap_or(&Value::Null),
        "annotations": manifest.get("annotations").unwrap_or(&Value::Null),
    })
}

fn subject(manifest: &[u8]) -> Option<String> {
    let manifest: Value = serde_json::from_slice(manifest).ok()?;
    let digest = manifest.get("subject")?.get("digest")?.as_str()?;
    Some(digest.to_owned())
}
