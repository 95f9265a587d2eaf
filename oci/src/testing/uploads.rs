//! The fake registry's upload sessions.

use axum::body::{Body, Bytes};
use axum::http::header::HeaderValue;
use axum::http::{Method, Response, StatusCode};

use super::access::{self, plain};
use super::protocol::{Asked, problem, with_digest};
use super::{State, Uploads};
use crate::Digest;

/// An upload that was neither committed nor cancelled.
#[derive(Debug, Clone, Default)]
pub(super) struct Session {
    held: Vec<u8>,
    /// Bodies that were taken: the address changes with each, and clients must follow it.
    step: u32,
    /// A body without a range was sent, which may be the only one.
    streamed: bool,
}

pub(super) fn answer(
    state: &mut State,
    asked: &Asked,
    repository: &str,
    session: &str,
) -> Response<Body> {
    let too_large = match state.habits.uploads {
        Uploads::Capped(limit) => asked.body.len() > limit,
        _ => false,
    };
    if too_large {
        return plain(StatusCode::PAYLOAD_TOO_LARGE, "<html>too large</html>");
    }
    if asked.method == Method::POST {
        return start(state, asked, repository);
    }
    let number: u64 = session.parse().unwrap_or_default();
    let unknown = || problem(StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN");
    let Some(session) = state.uploads.get(&number).cloned() else {
        return unknown();
    };
    if asked.method == Method::DELETE {
        state.uploads.remove(&number);
        return plain(StatusCode::NO_CONTENT, "");
    }
    if asked.query("state") != Some(&session.step.to_string()) {
        return unknown();
    }
    match asked.method {
        Method::GET => at(state, StatusCode::NO_CONTENT, repository, number),
        Method::PATCH => patch(state, asked, repository, number, session),
        Method::PUT => commit(state, asked, repository, number, session),
        _ => unknown(),
    }
}

fn start(state: &mut State, asked: &Asked, repository: &str) -> Response<Body> {
    if let (Some(digest), Some(from)) = (asked.query("mount"), asked.query("from"))
        && state.habits.mounts
        && let Ok(digest) = digest.parse::<Digest>()
        && access::may_pull(state, &asked.authorization, from)
        && let Some(blob) = state.blobs.get(&(from.to_owned(), digest)).cloned()
    {
        state.blobs.insert((repository.to_owned(), digest), blob);
        return plain(StatusCode::CREATED, "");
    }
    state.next += 1;
    let number = state.next;
    state.uploads.insert(number, Session::default());
    let mut response = at(state, StatusCode::ACCEPTED, repository, number);
    if let Uploads::Chunks { min, .. } = state.habits.uploads {
        let min = HeaderValue::from(min);
        response.headers_mut().insert("oci-chunk-min-length", min);
    }
    response
}

fn patch(
    state: &mut State,
    asked: &Asked,
    repository: &str,
    number: u64,
    mut session: Session,
) -> Response<Body> {
    let range = range(&asked.content_range);
    match (state.habits.uploads, range) {
        (Uploads::Whole, _) => return problem(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED"),
        (Uploads::Chunks { otherwise, .. }, None) => {
            let status = StatusCode::from_u16(otherwise).unwrap_or(StatusCode::BAD_REQUEST);
            return problem(status, "UNSUPPORTED");
        }
        (Uploads::Chunks { max, .. }, Some(_)) if asked.body.len() > max => {
            return plain(StatusCode::RANGE_NOT_SATISFIABLE, "");
        }
        (Uploads::FirstOnly, _) => {
            if session.step == 0 {
                session.held.extend_from_slice(&asked.body);
            }
        }
        (_, Some((first, last))) => {
            let fits = first == session.held.len() && last + 1 - first == asked.body.len();
            if !fits {
                return at(state, StatusCode::RANGE_NOT_SATISFIABLE, repository, number);
            }
            session.held.extend_from_slice(&asked.body);
        }
        (_, None) if session.streamed || !session.held.is_empty() => {
            return problem(StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID");
        }
        (_, None) => {
            session.held.extend_from_slice(&asked.body);
            session.streamed = true;
        }
    }
    session.step += 1;
    state.uploads.insert(number, session);
    at(state, StatusCode::ACCEPTED, repository, number)
}

fn commit(
    state: &mut State,
    asked: &Asked,
    repository: &str,
    number: u64,
    mut session: Session,
) -> Response<Body> {
    session.held.extend_from_slice(&asked.body);
    let digest = Digest::of(&session.held);
    if asked.query("digest") != Some(&digest.to_string()) {
        return problem(StatusCode::BAD_REQUEST, "DIGEST_INVALID");
    }
    state.uploads.remove(&number);
    let blob = Bytes::from(session.held);
    state.blobs.insert((repository.to_owned(), digest), blob);
    with_digest(plain(StatusCode::CREATED, ""), &digest)
}

/// A PATCH ended in the middle: what came is kept, and the address does not change.
pub(super) fn interrupted(state: &mut State, method: &Method, path: &str, begun: &[u8]) {
    let number = path
        .rsplit_once("/blobs/uploads/")
        .and_then(|(_, number)| number.parse().ok());
    if *method == Method::PATCH
        && let Some(session) = number.and_then(|number: u64| state.uploads.get_mut(&number))
    {
        session.held.extend_from_slice(begun);
    }
}

/// `0-99`, without `bytes`.
fn range(header: &str) -> Option<(usize, usize)> {
    let (first, last) = header.split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()?))
}

fn at(state: &State, status: StatusCode, repository: &str, number: u64) -> Response<Body> {
    let session = state.uploads.get(&number).cloned().unwrap_or_default();
    let step = session.step;
    let location = format!("/v2/{repository}/blobs/uploads/{number}?state={step}");
    // As distribution says it: nothing and one byte look the same.
    let range = format!("0-{}", session.held.len().saturating_sub(1));
    let mut response = plain(status, "");
    for (name, value) in [("location", location), ("range", range)] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}
