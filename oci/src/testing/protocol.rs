//! The fake registry's side of the protocol.

use std::io;

use axum::body::{Body, Bytes};
use axum::extract::State as Handle;
use axum::http::header::HeaderValue;
use axum::http::{Method, Request, Response, StatusCode};
use futures::StreamExt as _;

use super::access::{self, fields, header, plain};
use super::{Answer, Seen, Shared, State, lock};
use crate::Digest;

/// A request with its body read.
struct Asked {
    method: Method,
    /// Path after `/v2/`.
    path: String,
    query: Vec<(String, String)>,
    authorization: String,
    content_type: String,
    range: String,
    body: Bytes,
}

pub(super) async fn answer(
    Handle(shared): Handle<Shared>,
    request: Request<Body>,
) -> Response<Body> {
    let method = request.method().clone();
    let uri = request.uri().clone();
    let path = uri
        .path_and_query()
        .map_or("", |path| path.as_str())
        .to_owned();
    let authorization = header(&request, "authorization");
    let (index, fault, refusal) = {
        let mut state = lock(&shared);
        state.seen.push(Seen {
            method: method.to_string(),
            path: path.clone(),
            authorization: Some(authorization.clone()).filter(|sent| !sent.is_empty()),
            body: 0,
        });
        let index = state.seen.len() - 1;
        let at = state
            .faults
            .iter()
            .position(|fault| fault.method == method.as_str() && path.contains(fault.path));
        let fault = at
            .and_then(|at| state.faults.remove(at))
            .map(|fault| fault.answer);
        let refusal = path
            .starts_with("/v2/")
            .then(|| access::refusal(&state, &request))
            .flatten();
        (index, fault, refusal)
    };
    match &fault {
        Some(Answer::Deafness) => std::future::pending().await,
        Some(Answer::AfterBytes(limit, status)) => {
            read(request.into_body(), *limit).await;
            return refused(*status, &[("connection", "close".to_owned())], "");
        }
        _ => {}
    }
    if let Some(refusal) = refusal {
        // Before the body, as registries do it.
        return refusal;
    }
    let asked = Asked {
        method: method.clone(),
        path: uri
            .path()
            .strip_prefix("/v2/")
            .unwrap_or_default()
            .to_owned(),
        query: fields(uri.query().unwrap_or_default()),
        authorization: authorization.clone(),
        content_type: header(&request, "content-type"),
        range: header(&request, "range"),
        body: match read_all(request.into_body()).await {
            Ok(body) => body,
            // The client gave up.
            Err(_) => return plain(StatusCode::BAD_REQUEST, ""),
        },
    };
    let response = {
        let mut state = lock(&shared);
        if let Some(seen) = state.seen.get_mut(index) {
            seen.body = asked.body.len();
        }
        if let Some(Answer::Status(status, headers, body)) = &fault {
            return refused(*status, headers, body);
        }
        if uri.path() == "/token" {
            access::token(&mut state, &method, &uri, &authorization, &asked.body)
        } else {
            carry_out(&mut state, &asked)
        }
    };
    match fault {
        Some(Answer::Silence) => std::future::pending().await,
        Some(fault) => spoiled(response, &fault),
        None => response,
    }
}

fn spoiled(mut response: Response<Body>, fault: &Answer) -> Response<Body> {
    match fault {
        Answer::DoneBut(status) => refused(*status, &[], ""),
        Answer::StatusOnly(status) => {
            if let Ok(status) = StatusCode::from_u16(*status) {
                *response.status_mut() = status;
            }
            response
        }
        Answer::Location(location) => {
            if let Ok(location) = HeaderValue::from_str(location) {
                response.headers_mut().insert("location", location);
            }
            response
        }
        Answer::Truncated => {
            let pieces = response.into_body().into_data_stream().map(|piece| {
                let piece = piece.map_err(io::Error::other)?;
                Ok::<_, io::Error>(piece.slice(..piece.len() / 2))
            });
            let cut = futures::stream::once(async { Err(io::Error::other("cut")) });
            Response::new(Body::from_stream(pieces.chain(cut)))
        }
        _ => response,
    }
}

fn carry_out(state: &mut State, asked: &Asked) -> Response<Body> {
    if asked.path.is_empty() {
        return plain(StatusCode::OK, "{}");
    }
    for (kind, serve) in [
        (
            "/blobs/uploads/",
            upload as fn(&mut State, &Asked, &str, &str) -> Response<Body>,
        ),
        ("/blobs/", blob),
        ("/manifests/", manifest),
        ("/tags/", tags),
    ] {
        if let Some((repository, rest)) = asked.path.split_once(kind) {
            return serve(state, asked, repository, rest);
        }
    }
    plain(StatusCode::NOT_FOUND, "")
}

fn upload(state: &mut State, asked: &Asked, repository: &str, session: &str) -> Response<Body> {
    let query = |name: &str| {
        let found = asked.query.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.clone())
    };
    if asked.method == Method::POST {
        if let (Some(digest), Some(from)) = (query("mount"), query("from"))
            && let Ok(digest) = digest.parse::<Digest>()
            && access::may_pull(state, &asked.authorization, &from)
            && let Some(blob) = state.blobs.get(&(from, digest)).cloned()
        {
            state.blobs.insert((repository.to_owned(), digest), blob);
            return plain(StatusCode::CREATED, "");
        }
        state.next += 1;
        let number = state.next;
        state.uploads.insert(number, Some(Bytes::new()));
        return at(StatusCode::ACCEPTED, repository, number, "a");
    }
    let number: u64 = session.parse().unwrap_or_default();
    let unknown = || problem(StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN");
    let Some(held) = state.uploads.get(&number).cloned() else {
        return unknown();
    };
    match asked.method {
        Method::DELETE => {
            state.uploads.remove(&number);
            plain(StatusCode::NO_CONTENT, "")
        }
        // The address changes with each step, and the old one is dead: clients must follow it.
        Method::PATCH if query("state").as_deref() == Some("a") => {
            if held.is_none_or(|held| !held.is_empty()) {
                return problem(StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID");
            }
            state.uploads.insert(number, Some(asked.body.clone()));
            at(StatusCode::ACCEPTED, repository, number, "b")
        }
        Method::PUT if query("state").is_some() => {
            let sent = if asked.body.is_empty() {
                held.unwrap_or_default()
            } else {
                asked.body.clone()
            };
            let digest = Digest::of(&sent);
            if query("digest") != Some(digest.to_string()) {
                return problem(StatusCode::BAD_REQUEST, "DIGEST_INVALID");
            }
            state.uploads.remove(&number);
            state.blobs.insert((repository.to_owned(), digest), sent);
            with_digest(plain(StatusCode::CREATED, ""), &digest)
        }
        _ => unknown(),
    }
}

fn blob(state: &mut State, asked: &Asked, repository: &str, digest: &str) -> Response<Body> {
    let found = digest
        .parse::<Digest>()
        .ok()
        .and_then(|digest| state.blobs.get(&(repository.to_owned(), digest)));
    match found {
        None => problem(StatusCode::NOT_FOUND, "BLOB_UNKNOWN"),
        Some(blob) if asked.range == "bytes=0-0" => {
            let mut response = Response::new(Body::from(blob.slice(..blob.len().min(1))));
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            response
        }
        Some(blob) => Response::new(Body::from(blob.clone())),
    }
}

fn manifest(state: &mut State, asked: &Asked, repository: &str, name: &str) -> Response<Body> {
    let key = (repository.to_owned(), name.to_owned());
    match asked.method {
        Method::PUT => {
            let digest = Digest::of(&asked.body);
            let stored = (asked.content_type.clone(), asked.body.clone());
            let by_digest = (repository.to_owned(), digest.to_string());
            state.manifests.insert(by_digest, stored.clone());
            state.manifests.insert(key, stored);
            with_digest(plain(StatusCode::CREATED, ""), &digest)
        }
        Method::DELETE => match state.manifests.remove(&key) {
            Some(_) => plain(StatusCode::ACCEPTED, ""),
            None => problem(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN"),
        },
        _ => match state.manifests.get(&key) {
            None => problem(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN"),
            Some((media_type, bytes)) => {
                let digest = Digest::of(bytes);
                let mut response = Response::new(Body::from(bytes.clone()));
                if let Ok(media_type) = HeaderValue::from_str(media_type) {
                    response.headers_mut().insert("content-type", media_type);
                }
                with_digest(response, &digest)
            }
        },
    }
}

/// Two tags a page, whatever is asked for: clients must follow the link.
fn tags(state: &mut State, asked: &Asked, repository: &str, _list: &str) -> Response<Body> {
    let last = asked
        .query
        .iter()
        .find(|(key, _)| key == "last")
        .map_or("", |(_, value)| value.as_str());
    let mut tags: Vec<&str> = state
        .manifests
        .keys()
        .filter(|(of, name)| of == repository && !name.contains(':') && name.as_str() > last)
        .map(|(_, name)| name.as_str())
        .collect();
    let more = tags.len() > 2;
    tags.truncate(2);
    let body = serde_json::json!({ "name": repository, "tags": tags }).to_string();
    let mut response = plain(StatusCode::OK, &body);
    let last = tags.last().copied().unwrap_or_default();
    let link = format!("</v2/{repository}/tags/list?last={last}&n=2>; rel=\"next\"");
    if let Some(link) = HeaderValue::from_str(&link).ok().filter(|_| more) {
        response.headers_mut().insert("link", link);
    }
    response
}

fn at(status: StatusCode, repository: &str, number: u64, step: &str) -> Response<Body> {
    let location = format!("/v2/{repository}/blobs/uploads/{number}?state={step}");
    let mut response = plain(status, "");
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert("location", location);
    }
    response
}

fn with_digest(mut response: Response<Body>, digest: &Digest) -> Response<Body> {
    if let Ok(digest) = HeaderValue::from_str(&digest.to_string()) {
        response
            .headers_mut()
            .insert("docker-content-digest", digest);
    }
    response
}

fn problem(status: StatusCode, code: &str) -> Response<Body> {
    let body = serde_json::json!({ "errors": [{ "code": code, "message": "said the fake" }] });
    plain(status, &body.to_string())
}

fn refused(status: u16, headers: &[(&'static str, String)], body: &str) -> Response<Body> {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::IM_A_TEAPOT);
    let mut response = plain(status, body);
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(*name, value);
        }
    }
    response
}

async fn read_all(body: Body) -> Result<Bytes, axum::Error> {
    axum::body::to_bytes(body, usize::MAX).await
}

/// Reads a body until so many bytes have come, and leaves the rest.
async fn read(body: Body, limit: usize) {
    let mut pieces = body.into_data_stream();
    let mut size = 0;
    while let Some(Ok(piece)) = pieces.next().await {
        size += piece.len();
        if size >= limit {
            break;
        }
    }
}
