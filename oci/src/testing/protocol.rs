//! The fake registry's side of the protocol.

use std::io;

use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, State as Handle};
use axum::http::header::HeaderValue;
use axum::http::{Method, Request, Response, StatusCode, Uri};
use futures::StreamExt as _;

use super::access::{self, fields, header, plain};
use super::wire::{End, Wire};
use super::{Answer, Deletions, Habits, Harm, Seen, Shared, State, lock, referrers, uploads};
use crate::{Digest, Index, Manifest};

/// A request with its body read.
pub(super) struct Asked {
    pub(super) method: Method,
    /// Path after `/v2/`.
    path: String,
    pub(super) query: Vec<(String, String)>,
    pub(super) authorization: String,
    content_type: String,
    range: String,
    pub(super) content_range: String,
    if_match: String,
    pub(super) body: Bytes,
}

impl Asked {
    pub(super) fn query(&self, name: &str) -> Option<&str> {
        let found = self.query.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }
}

pub(super) async fn answer(
    ConnectInfo(wire): ConnectInfo<Wire>,
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
            let begun = read(request.into_body(), *limit).await;
            uploads::interrupted(&mut lock(&shared), &method, uri.path(), &begun);
            return refused(*status, &[("connection", "close".to_owned())], "");
        }
        Some(Answer::Before(limit, harm)) => {
            let (wire, harm) = (wire.clone(), *harm);
            let begun = read(request.into_body(), *limit).await;
            let mut state = lock(&shared);
            uploads::interrupted(&mut state, &method, uri.path(), &begun);
            if harm == Harm::Close {
                // The beginning of an answer: a closed connection without a byte would do, too,
                // and is what a reset looks like.
                end(&wire, "HTTP/1.1 50".len(), harm);
                return plain(StatusCode::INTERNAL_SERVER_ERROR, "");
            }
            return harmed(&state, &wire, 0, harm, &method, &uri);
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
        content_range: header(&request, "content-range"),
        if_match: header(&request, "if-match"),
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
        Some(Answer::After(bytes, harm)) => {
            if let Harm::Status(_) = harm {
                return harmed(&lock(&shared), &wire, bytes, harm, &method, &uri);
            }
            end(&wire, bytes, harm);
            response
        }
        Some(fault) => spoiled(response, &fault),
        None => response,
    }
}

fn end(wire: &Wire, bytes: usize, harm: Harm) {
    let how = match harm {
        Harm::Reset => End::Reset,
        Harm::Hang => End::Hang,
        Harm::Close | Harm::Status(_) => End::Close,
    };
    wire.end_after(bytes, how);
}

/// More than the head of a refusal has.
const HEAD_MAX: usize = 400;

/// The answer to a spoiled request. If the connection ends with it, what it says is lost.
fn harmed(
    state: &State,
    wire: &Wire,
    bytes: usize,
    harm: Harm,
    method: &Method,
    uri: &Uri,
) -> Response<Body> {
    let Harm::Status(status) = harm else {
        end(wire, bytes, harm);
        return plain(StatusCode::INTERNAL_SERVER_ERROR, "");
    };
    let mut headers = vec![("connection", "close".to_owned())];
    match status {
        401 => {
            headers.extend(access::challenge(state, method, uri).map(|c| ("www-authenticate", c)));
        }
        429 => headers.push(("retry-after", "0".to_owned())),
        _ => {}
    }
    let words = "x".repeat(bytes.min(1) * 2 * HEAD_MAX);
    let response = refused(status, &headers, &words);
    if bytes > 0 {
        end(wire, HEAD_MAX + bytes, harm);
    }
    response
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
            uploads::answer as fn(&mut State, &Asked, &str, &str) -> Response<Body>,
        ),
        ("/blobs/", blob),
        ("/manifests/", manifest),
        ("/tags/", tags),
        ("/referrers/", referrers::list),
    ] {
        if let Some((repository, rest)) = asked.path.split_once(kind) {
            return serve(state, asked, repository, rest);
        }
    }
    plain(StatusCode::NOT_FOUND, "")
}

fn blob(state: &mut State, asked: &Asked, repository: &str, digest: &str) -> Response<Body> {
    let found = digest
        .parse::<Digest>()
        .ok()
        .and_then(|digest| state.blobs.get(&(repository.to_owned(), digest)));
    let Some(blob) = found else {
        return problem(StatusCode::NOT_FOUND, "BLOB_UNKNOWN");
    };
    match wanted(&asked.range).filter(|_| state.habits.ranges) {
        None => Response::new(Body::from(blob.clone())),
        Some((first, _)) if first >= blob.len() => plain(StatusCode::RANGE_NOT_SATISFIABLE, ""),
        Some((first, last)) => {
            let end = last.map_or(blob.len(), |last| blob.len().min(last.saturating_add(1)));
            let mut response = Response::new(Body::from(blob.slice(first..end.max(first))));
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let range = format!("bytes {first}-{}/{}", end - 1, blob.len());
            if let Ok(range) = HeaderValue::from_str(&range) {
                response.headers_mut().insert("content-range", range);
            }
            response
        }
    }
}

/// `bytes=0-0`, `bytes=5-`.
fn wanted(range: &str) -> Option<(usize, Option<usize>)> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()))
}

/// Something that a manifest or index names and its repository does not have. What is neither
/// names nothing.
pub(super) fn missing(state: &State, repository: &str, bytes: &[u8]) -> Option<Digest> {
    if let Ok(manifest) = Manifest::from_bytes(bytes) {
        let mut blobs = manifest.layers.iter().chain([&manifest.config]);
        let is_there = |digest| state.blobs.contains_key(&(repository.to_owned(), digest));
        return blobs
            .find(|blob| !is_there(blob.digest))
            .map(|blob| blob.digest);
    }
    let index = Index::from_bytes(bytes).ok()?;
    let name = |digest: &Digest| (repository.to_owned(), digest.to_string());
    index
        .manifests
        .iter()
        .find(|entry| !state.manifests.contains_key(&name(&entry.digest)))
        .map(|entry| entry.digest)
}

fn manifest(state: &mut State, asked: &Asked, repository: &str, name: &str) -> Response<Body> {
    let key = (repository.to_owned(), name.to_owned());
    match asked.method {
        Method::PUT => put_manifest(state, asked, repository, name),
        Method::DELETE => delete_manifest(state, key),
        _ => match state.manifests.get(&key) {
            None => problem(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN"),
            Some((media_type, bytes)) => {
                let digest = Digest::of(bytes);
                let mut response = Response::new(Body::from(bytes.clone()));
                for (name, value) in [
                    ("content-type", media_type.clone()),
                    ("etag", etag(&digest)),
                ] {
                    if let Ok(value) = HeaderValue::from_str(&value) {
                        response.headers_mut().insert(name, value);
                    }
                }
                with_digest(response, &digest)
            }
        },
    }
}

fn delete_manifest(state: &mut State, key: (String, String)) -> Response<Body> {
    let is_tag = !key.1.contains(':');
    if is_tag && state.habits.deletions == Deletions::Refused {
        return problem(StatusCode::BAD_REQUEST, "DIGEST_INVALID");
    }
    let Some((_, bytes)) = state.manifests.remove(&key) else {
        return problem(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN");
    };
    if is_tag && state.habits.deletions == Deletions::Manifest {
        let (repository, _) = key;
        state
            .manifests
            .retain(|name, (_, other)| name.0 != repository || *other != bytes);
    }
    plain(StatusCode::ACCEPTED, "")
}

fn put_manifest(state: &mut State, asked: &Asked, repository: &str, name: &str) -> Response<Body> {
    let Habits {
        immutable_tags,
        zstd,
        checks,
        ..
    } = state.habits;
    let key = (repository.to_owned(), name.to_owned());
    let digest = Digest::of(&asked.body);
    let is_tag = !name.contains(':');
    let there = state
        .manifests
        .get(&key)
        .map(|(_, bytes)| Digest::of(bytes));
    if is_tag && immutable_tags && there.is_some() {
        let words = r#"{"errors":[{"code":"TAG_IMMUTABLE","message":"the tag is immutable"}]}"#;
        return plain(StatusCode::BAD_REQUEST, words);
    }
    if !zstd && String::from_utf8_lossy(&asked.body).contains("tar+zstd") {
        return problem(StatusCode::BAD_REQUEST, "MANIFEST_INVALID");
    }
    if !asked.if_match.is_empty() && there.as_ref().map(etag).as_ref() != Some(&asked.if_match) {
        return problem(StatusCode::PRECONDITION_FAILED, "PRECONDITION");
    }
    if missing(state, repository, &asked.body).is_some() {
        if is_tag {
            state.dangling.push(name.to_owned());
        }
        if checks {
            return problem(StatusCode::NOT_FOUND, "MANIFEST_BLOB_UNKNOWN");
        }
    }
    let stored = (asked.content_type.clone(), asked.body.clone());
    let by_digest = (repository.to_owned(), digest.to_string());
    state.manifests.insert(by_digest, stored.clone());
    state.manifests.insert(key, stored);
    let response = with_digest(plain(StatusCode::CREATED, ""), &digest);
    referrers::said(state, response, &asked.body)
}

fn etag(digest: &Digest) -> String {
    format!("\"{digest}\"")
}

/// Two tags a page, whatever is asked for: clients must follow the link.
fn tags(state: &mut State, asked: &Asked, repository: &str, _list: &str) -> Response<Body> {
    let last = asked.query("last").unwrap_or_default();
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

pub(super) fn with_digest(mut response: Response<Body>, digest: &Digest) -> Response<Body> {
    if let Ok(digest) = HeaderValue::from_str(&digest.to_string()) {
        response
            .headers_mut()
            .insert("docker-content-digest", digest);
    }
    response
}

pub(super) fn problem(status: StatusCode, code: &str) -> Response<Body> {
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
async fn read(body: Body, limit: usize) -> Vec<u8> {
    let mut pieces = body.into_data_stream();
    let mut begun = Vec::new();
    while begun.len() < limit {
        let Some(Ok(piece)) = pieces.next().await else {
            break;
        };
        begun.extend_from_slice(&piece);
    }
    begun.truncate(limit);
    begun
}
