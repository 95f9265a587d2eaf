//! Upload sessions: start or mount, one streamed body, commit.
//!
//! ```text
//! POST ─► Upload<Started> ─ PATCH (streamed) ─► Upload<Streamed> ─ PUT ?digest= ─► done
//!    └─201 mounted   └──────── PUT ?digest= (small) ─────────────────────────────► done
//! ```
//!
//! Each step consumes the session, so that none is done twice; one that is dropped is cancelled.
//! If that is refused: [`super::mode`].
//! One PATCH with chunked transfer encoding and no `Content-Range` is what `docker push` does and
//! what every registry takes (ECR silently drops the body of a second one:
//! <https://github.com/aws/containers-roadmap/issues/2831>). In the conformance suite:
//! <https://github.com/opencontainers/distribution-spec/issues/576>.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use reqwest::{Method, StatusCode, Url};
use tokio::runtime::Handle;

use super::blobs::same_digest;
use super::body::Body;
use super::exchange::Retries;
use super::mode::Mode;
use super::{Ask, Error, PULL, PUSH, Registry, may_follow, scope};
use crate::{Digest, Document, Repository, provider};

pub(super) const OCTETS: &str = "application/octet-stream";
/// For the request that cancels a session: a courtesy, since registries forget sessions by themselves.
const CANCEL_TIME: Duration = Duration::from_secs(5);

/// An upload session in the state `S`. Dropped before its commit, it is cancelled in the background.
pub struct Upload<S> {
    pub(super) session: Session,
    state: std::marker::PhantomData<S>,
}

/// Nothing was sent yet.
#[derive(Debug)]
pub enum Started {}

/// The whole body was sent; what it is remains to be said.
#[derive(Debug)]
pub enum Streamed {}

/// What a request to mount a blob came to.
#[derive(Debug)]
pub enum Mount {
    /// The blob is there; not a byte was sent.
    Mounted,
    /// The registry would not (no such blob there, no right to read it, no such feature) and
    /// opened an ordinary session instead.
    NotMounted(Upload<Started>),
}

pub(super) struct Session {
    registry: Registry,
    repository: Repository,
    scopes: Vec<String>,
    /// `None`: nothing to cancel any more.
    pub(super) location: Option<Url>,
    /// The smallest chunk that the registry takes, if it says it.
    pub(super) chunk_min: Option<usize>,
    /// What was taken from the body and not sent yet.
    pub(super) kept: Bytes,
}

impl Registry {
    /// Starts an upload.
    ///
    /// # Errors
    /// The registry refuses or does not answer.
    pub async fn start_upload(&self, repository: &Repository) -> Result<Upload<Started>, Error> {
        let ask = self.post(repository, "start an upload");
        let response = self.exchange(&ask, no_body, &[202]).await?;
        self.started(&ask, repository, response.headers())
    }

    /// Asks the registry to take a blob from another of its repositories. One that refuses to is
    /// asked for an ordinary session: some do so for a source that they do not know or do not show
    /// to us, where the specification would have them open one.
    ///
    /// # Errors
    /// The registry refuses even an upload, or does not answer.
    pub async fn mount(
        &self,
        repository: &Repository,
        digest: &Digest,
        from: &Repository,
    ) -> Result<Mount, Error> {
        let mut ask = self.post(repository, "mount a blob");
        // Both rights in one token, or the registry cannot see the source.
        ask.scopes.push(scope(from, PULL));
        ask.scopes.sort();
        ask.url
            .query_pairs_mut()
            .append_pair("mount", &digest.to_string())
            .append_pair("from", from.as_str());
        let response = match self.exchange(&ask, no_body, &[201, 202]).await {
            Ok(response) => response,
            Err(error) if error.is_mount_refused() => {
                tracing::debug!(reason = %error, "no mount");
                return self.start_upload(repository).await.map(Mount::NotMounted);
            }
            Err(error) => return Err(error),
        };
        if response.status() == StatusCode::CREATED {
            return Ok(Mount::Mounted);
        }
        self.started(&ask, repository, response.headers())
            .map(Mount::NotMounted)
    }

    /// Whether these credentials may push here: starts an upload and cancels it.
    ///
    /// # Errors
    /// They may not, or the registry does not answer.
    pub async fn can_push(&self, repository: &Repository) -> Result<(), Error> {
        self.start_upload(repository).await?.cancel().await;
        Ok(())
    }

    /// Sends a small blob from memory (a config): POST and PUT, or chunks where requests may not
    /// be as large.
    ///
    /// # Errors
    /// The registry refuses or does not answer.
    pub async fn push_blob(&self, repository: &Repository, blob: &Document) -> Result<(), Error> {
        let mut retries = Retries::new(self);
        loop {
            let upload = self.start_upload(repository).await?;
            match upload.commit_whole(blob).await {
                Err(error) if error.has_status(StatusCode::PAYLOAD_TOO_LARGE) => {
                    return if provider::takes_chunks(self.host().as_str()) {
                        self.push_chunked(repository, blob).await
                    } else {
                        Err(error)
                    };
                }
                Err(error) if error.is_upload_unknown() => retries.pause_whatever(error).await?,
                done => return done,
            }
        }
    }

    fn post<'a>(&'a self, repository: &'a Repository, what: &'static str) -> Ask<'a> {
        Ask::of(self, repository, what, Method::POST, "blobs/uploads/", PUSH)
    }

    fn started(
        &self,
        ask: &Ask<'_>,
        repository: &Repository,
        headers: &HeaderMap,
    ) -> Result<Upload<Started>, Error> {
        let location = location(ask, headers)?
            .ok_or_else(|| Error::protocol(ask, "does not say where to upload (no Location)"))?;
        Ok(Upload::new(Session {
            registry: self.clone(),
            repository: repository.clone(),
            scopes: ask.scopes.clone(),
            location: Some(location),
            chunk_min: headers
                .get("oci-chunk-min-length")
                .and_then(|min| min.to_str().ok()?.trim().parse().ok()),
            kept: Bytes::new(),
        }))
    }
}

impl<S> Upload<S> {
    pub(super) const fn new(session: Session) -> Self {
        Self {
            session,
            state: std::marker::PhantomData,
        }
    }

    pub(super) fn registry(&self) -> Registry {
        self.session.registry.clone()
    }

    pub(super) fn repository(&self) -> Repository {
        self.session.repository.clone()
    }

    /// Cancels the session and waits until the registry knows, at most 5 s.
    pub async fn cancel(mut self) {
        if let Some(cancel) = self.session.take_cancel() {
            cancel.await;
        }
    }
}

impl Upload<Started> {
    /// Sends a body in the given form.
    pub(super) async fn send(self, body: Body, mode: Mode) -> Result<Upload<Streamed>, Error> {
        match mode {
            Mode::Streamed => self.stream(body).await,
            Mode::Chunked => self.send_chunks(body).await,
            Mode::Whole => self.keep(body).await,
        }
    }

    /// Sends a body in one request. Never repeated: the body is gone.
    async fn stream(mut self, body: Body) -> Result<Upload<Streamed>, Error> {
        let registry = self.session.registry.clone();
        let repository = self.session.repository.clone();
        let ask = self
            .session
            .ask(&registry, &repository, "upload a blob", Method::PATCH)?;
        let login = registry.login(&ask);
        // A token that is about to end is renewed now: a 401 in the middle costs the whole body.
        let header = registry.header_for(&ask).await?;
        let progress = body.progress();
        let _closer = body.closer();
        let request = super::auth::authorized(registry.request(&ask), header.as_ref())
            .header(CONTENT_TYPE, OCTETS)
            .body(reqwest::Body::wrap_stream(body));
        let limits = registry.inner.limits;
        let response = tokio::select! {
            response = request.send() => response.map_err(|error| Error::unreachable(&ask, error))?,
            (what, waited) = progress.stalled(limits.stall, limits.answer) => {
                return Err(Error::TimedOut { place: Box::new(ask.place()), what, waited });
            }
        };
        // ECR answers 201, older distribution 204.
        if !matches!(response.status().as_u16(), 201 | 202 | 204) {
            if response.status() == StatusCode::UNAUTHORIZED {
                // For the next attempt's token.
                let learned = registry
                    .learn(&ask, response.headers(), header.as_ref())
                    .await?;
                if !learned {
                    registry.reread_login(&ask, login.as_ref()).await;
                }
            }
            return Err(registry.refusal(&ask, response).await);
        }
        if let Some(next) = location(&ask, response.headers())? {
            self.session.location = Some(next);
        }
        Ok(Upload::new(self.session))
    }

    /// Sends a small blob and commits it.
    async fn commit_whole(mut self, blob: &Document) -> Result<(), Error> {
        let digest = blob.descriptor.digest;
        self.session.kept = Bytes::from(blob.bytes.clone());
        self.session.commit(&digest).await
    }
}

impl Upload<Streamed> {
    /// Says what was uploaded. The registry compares.
    pub(super) async fn commit(self, digest: &Digest) -> Result<(), Error> {
        self.session.commit(digest).await
    }
}

impl Session {
    pub(super) fn ask<'a>(
        &self,
        registry: &'a Registry,
        repository: &'a Repository,
        what: &'static str,
        method: Method,
    ) -> Result<Ask<'a>, Error> {
        let mut ask = Ask::of(registry, repository, what, method, "blobs/uploads/", PUSH);
        ask.scopes.clone_from(&self.scopes);
        let Some(location) = self.location.clone() else {
            return Err(Error::protocol(&ask, "came after the end of the session"));
        };
        ask.url = location;
        Ok(ask)
    }

    /// PUT with the digest. If it is not known whether it was carried out, the blob's presence is
    /// asked for before it is sent again.
    async fn commit(mut self, digest: &Digest) -> Result<(), Error> {
        let registry = self.registry.clone();
        let repository = self.repository.clone();
        let mut ask = self.ask(&registry, &repository, "commit a blob", Method::PUT)?;
        ask.url
            .query_pairs_mut()
            .append_pair("digest", &digest.to_string());
        let body = std::mem::take(&mut self.kept);
        let shape = |request: reqwest::RequestBuilder| {
            request
                .header(CONTENT_TYPE, OCTETS)
                .header(CONTENT_LENGTH, body.len())
                .body(body.clone())
        };
        let mut retries = Retries::new(&registry);
        let mut unsure = false;
        loop {
            match registry.attempt(&ask, &shape, &[201, 204]).await {
                Ok(response) => {
                    self.location = None;
                    return same_digest(&ask, digest, response.headers());
                }
                Err(error) if error.is_ambiguous() || unsure => {
                    unsure = true;
                    if registry.probe_blob(&repository, digest).await? {
                        self.location = None;
                        return Ok(());
                    }
                    retries.pause_after(error).await?;
                }
                Err(error) => retries.pause_after(error).await?,
            }
        }
    }

    /// The request that cancels, to be awaited or spawned.
    fn take_cancel(&mut self) -> Option<impl Future<Output = ()> + Send + 'static> {
        let location = self.location.take()?;
        let registry = self.registry.clone();
        let repository = self.repository.clone();
        let scopes = std::mem::take(&mut self.scopes);
        Some(async move {
            let mut ask = Ask::of(
                &registry,
                &repository,
                "cancel an upload",
                Method::DELETE,
                "blobs/uploads/",
                PUSH,
            );
            ask.url = location;
            ask.scopes = scopes;
            let request = registry.attempt(&ask, &|request| request, &[200, 202, 204, 404]);
            // Whatever comes of it: the registry forgets the session by itself.
            let _ = tokio::time::timeout(CANCEL_TIME, request).await;
        })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Outside of a runtime (a program that ends) nothing can be sent any more.
        if let Some(cancel) = self.take_cancel()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(cancel);
        }
    }
}

impl<S> fmt::Debug for Upload<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the location: whoever has it may write there.
        f.debug_struct("Upload")
            .field("repository", &self.session.repository)
            .finish_non_exhaustive()
    }
}

fn no_body(request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
    // Some proxies insist on a length for every POST.
    request.header(CONTENT_LENGTH, 0)
}

/// The header `Location`: absolute, or relative to what was asked.
pub(super) fn location(ask: &Ask<'_>, headers: &HeaderMap) -> Result<Option<Url>, Error> {
    let Some(header) = headers.get(LOCATION) else {
        return Ok(None);
    };
    let text = header.to_str().unwrap_or_default();
    let url = upload_place(&ask.url, text).map_err(|what| Error::protocol(ask, what))?;
    Ok(Some(url))
}

/// Where an upload goes on, or what is wrong with the place. Pure.
pub(crate) fn upload_place(asked: &Url, header: &str) -> Result<Url, String> {
    let mut url = asked
        .join(header)
        .ok()
        .filter(|_| !header.is_empty())
        .ok_or("names no place that could be one (Location)")?;
    provider::repair_scheme(&mut url, asked);
    if may_follow(asked, &url) {
        Ok(url)
    } else {
        Err(format!(
            "sends the upload to {:?}, which is not safe to follow",
            url.origin().ascii_serialization()
        ))
    }
}
