//! Uploads for registries and proxies that take no body of unknown length: numbered chunks, or
//! all with the commit. A chunk is kept until it is acknowledged, so a connection that breaks is
//! continued from what the registry says it has.
//! <https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pushing-a-blob-in-chunks>
//!
//! Memory for each upload: one chunk, and the channel (see [`super::body`]).

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use reqwest::{Method, Response, StatusCode};

use super::body::Body;
use super::exchange::Retries;
use super::upload::{OCTETS, Started, Streamed, Upload, location};
use super::{Error, headers};

/// Small enough for the caps of proxies and for GHCR, which takes no larger one
/// (<https://github.com/oras-project/rust-oci-client/issues/35>).
const CHUNK: usize = 4 << 20;
/// The largest chunk that a registry may insist on: it is kept in memory.
const CHUNK_MAX: usize = 64 << 20;
/// The largest blob that is kept whole.
pub(super) const WHOLE_MAX: usize = 16 << 20;

impl Upload<Started> {
    /// Sends a body in chunks.
    pub(super) async fn send_chunks(mut self, mut body: Body) -> Result<Upload<Streamed>, Error> {
        let size = self.chunk_size()?;
        let _closer = body.closer();
        let mut at = 0_u64;
        loop {
            let (chunk, is_last) = self.collect(&mut body, size).await?;
            // A blob whose length is a multiple of the chunk's ends without another.
            if !chunk.is_empty() {
                let length = chunk.len() as u64;
                self.send_chunk(chunk, at).await?;
                at = at.saturating_add(length);
            }
            if is_last {
                return Ok(Upload::new(self.session));
            }
        }
    }

    /// Keeps a small body for the commit.
    pub(super) async fn keep(mut self, mut body: Body) -> Result<Upload<Streamed>, Error> {
        let _closer = body.closer();
        let (whole, is_last) = self.collect(&mut body, WHOLE_MAX).await?;
        if !is_last {
            let registry = self.registry();
            let repository = self.repository();
            let ask = self
                .session
                .ask(&registry, &repository, "upload a blob", Method::PUT)?;
            return Err(Error::TooLarge {
                place: Box::new(ask.place()),
                limit: WHOLE_MAX as u64,
            });
        }
        self.session.kept = whole;
        Ok(Upload::new(self.session))
    }

    fn chunk_size(&self) -> Result<usize, Error> {
        match self.session.chunk_min {
            Some(min) if min > CHUNK_MAX => {
                let registry = self.registry();
                let repository = self.repository();
                let ask =
                    self.session
                        .ask(&registry, &repository, "upload a blob", Method::PATCH)?;
                let what = format!("asks for chunks of at least {min} bytes, which is too much");
                Err(Error::protocol(&ask, what))
            }
            min => Ok(min.unwrap_or_default().max(CHUNK)),
        }
    }

    /// Up to `size` bytes of the body, and whether it has ended: a body that is exactly as long
    /// is known to have ended by one more look.
    async fn collect(&mut self, body: &mut Body, size: usize) -> Result<(Bytes, bool), Error> {
        let mut chunk = BytesMut::from(self.session.kept.split_off(0).as_ref());
        while chunk.len() <= size {
            match body.next().await {
                Some(Ok(piece)) => chunk.extend_from_slice(&piece),
                None => return Ok((chunk.freeze(), true)),
                Some(Err(_)) => {
                    // The producer says what happened to it.
                    let registry = self.registry();
                    let repository = self.repository();
                    let ask =
                        self.session
                            .ask(&registry, &repository, "upload a blob", Method::PATCH)?;
                    return Err(Error::ProducerLost {
                        place: Box::new(ask.place()),
                    });
                }
            }
        }
        self.session.kept = chunk.split_off(size).freeze();
        Ok((chunk.freeze(), false))
    }

    /// Sends one chunk, which begins at byte `at` of the blob, until the registry has all of it.
    async fn send_chunk(&mut self, chunk: Bytes, at: u64) -> Result<(), Error> {
        let registry = self.registry();
        let repository = self.repository();
        let end = at.saturating_add(chunk.len() as u64);
        let mut from = at;
        let mut retries = Retries::new(&registry);
        while from < end {
            let skip = usize::try_from(from.saturating_sub(at)).unwrap_or(usize::MAX);
            let rest = chunk.slice(skip.min(chunk.len())..);
            let ask = self
                .session
                .ask(&registry, &repository, "upload a blob", Method::PATCH)?;
            let shape = |request: reqwest::RequestBuilder| {
                request
                    .header(CONTENT_TYPE, OCTETS)
                    .header(CONTENT_LENGTH, rest.len())
                    .header(CONTENT_RANGE, format!("{from}-{}", end.saturating_sub(1)))
                    .body(rest.clone())
            };
            match registry.attempt(&ask, &shape, &[201, 202, 204]).await {
                Ok(response) => {
                    if let Some(next) = location(&ask, response.headers())? {
                        self.session.location = Some(next);
                    }
                    // What it does not say is believed to be all.
                    from = match held(&response) {
                        // One byte looks like nothing, see `headers::held`.
                        Some(0) if end == 1 => end,
                        held => held.unwrap_or(end),
                    };
                    if !(at..=end).contains(&from) {
                        return Err(Error::protocol(
                            &ask,
                            format!("says that it has {from} bytes, after {end} were sent"),
                        ));
                    }
                    if from < end {
                        let lost = Error::Truncated {
                            place: Box::new(ask.place()),
                            expected: end,
                            actual: from,
                        };
                        retries.pause_whatever(lost).await?;
                    }
                }
                Err(error) => {
                    let out_of_step = error.has_status(StatusCode::RANGE_NOT_SATISFIABLE);
                    // A first chunk that is refused is a matter of its form.
                    if out_of_step && from == 0 {
                        return Err(error);
                    }
                    if !out_of_step && !error.is_retryable() {
                        return Err(error);
                    }
                    let error = retries.pause(error).await?;
                    from = match self.ask_held(at, end).await {
                        // The next address went with the answer. What broke is the cause, and
                        // another session the remedy.
                        Err(unknown) if unknown.is_upload_unknown() => return Err(error),
                        held => held?,
                    };
                }
            }
        }
        Ok(())
    }

    /// Asks how far an upload got whose connection broke.
    async fn ask_held(&mut self, at: u64, end: u64) -> Result<u64, Error> {
        let registry = self.registry();
        let repository = self.repository();
        let ask = self
            .session
            .ask(&registry, &repository, "continue an upload", Method::GET)?;
        let response = registry
            .exchange(&ask, |request| request, &[200, 202, 204])
            .await?;
        if let Some(next) = location(&ask, response.headers())? {
            self.session.location = Some(next);
        }
        let held = held(&response).unwrap_or_default();
        if (at..=end).contains(&held) {
            return Ok(held);
        }
        Err(Error::protocol(
            &ask,
            format!("says that it has {held} bytes, after between {at} and {end} were sent"),
        ))
    }
}

/// What an answer says that the registry has.
fn held(response: &Response) -> Option<u64> {
    headers::held(response.headers().get(RANGE)?.to_str().ok()?)
}
