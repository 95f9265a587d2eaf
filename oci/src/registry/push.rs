//! Pushing a blob that is made while it is sent.
//!
//! The producer is called again for each attempt: a retry means producing again, never replaying,
//! so nothing is kept. Memory for each push in flight: the channel of 16 chunks of 256 KiB with one
//! being filled and one being sent (4.5 MiB), and whatever the producer holds (see
//! [`crate::layer`]).

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use reqwest::{Method, StatusCode};
use tokio::task::JoinHandle;

use super::body::{self, ChunkSink};
use super::exchange::Retries;
use super::mode::Mode;
use super::upload::{Started, Upload};
use super::{Ask, Error, PUSH, Registry};
use crate::{Descriptor, Document, Repository};

/// Whose fault a failed push is.
#[derive(Debug, thiserror::Error)]
pub enum PushError<E> {
    /// The producer's own error; not tried again.
    #[error("failed to make a blob")]
    Produce(#[source] E),
    /// The registry's, after the retries.
    #[error(transparent)]
    Registry(Error),
}

/// What a producer comes to.
pub(super) type Produced<T, E> = Result<(Descriptor, T), E>;

/// Where one attempt failed.
enum Failed<E> {
    Produce(E),
    /// While the body was sent.
    Body(Error),
    Commit(Error),
}

impl Registry {
    /// Pushes a blob of unknown size and digest. `produce` writes it on a blocking thread and
    /// then says what it was, with a value of its own; see [`crate::LayerWriter`]. It must make the
    /// same bytes each time. It ends early with a `BrokenPipe` from the sink if the registry gives
    /// up. The call returns after the producer has.
    ///
    /// ```no_run
    /// # use firn_oci::{layer, Compression, Compressors, Layer, LayerWriter, Metadata, Repository};
    /// # use firn_oci::registry::{PushError, Registry};
    /// # async fn f(registry: Registry, repository: Repository) -> Result<Layer, PushError<Box<dyn std::error::Error + Send + Sync>>> {
    /// # let io_error = |error: std::io::Error| PushError::Produce(error.into());
    /// let pool = Compressors::on_all_cores().map_err(io_error)?;
    /// registry.push_stream(&repository, move |sink| {
    ///     let mut tar = LayerWriter::new(Compression::ZSTD, &pool, sink).into_tar();
    ///     tar.directory(b"tmp", Metadata::root(0o1777))?;
    ///     let (layer, _) = layer::finish(tar)?;
    ///     Ok((layer.descriptor.clone(), layer))
    /// }).await
    /// # }
    /// ```
    ///
    /// # Errors
    /// The producer's or the registry's.
    pub async fn push_stream<T, E, P>(
        &self,
        repository: &Repository,
        produce: P,
    ) -> Result<T, PushError<E>>
    where
        P: Fn(&mut ChunkSink) -> Result<(Descriptor, T), E> + Send + Sync + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        let first = self
            .start_upload(repository)
            .await
            .map_err(PushError::Registry)?;
        first.push(produce).await
    }

    /// Sends a blob from memory in chunks.
    pub(super) async fn push_chunked(
        &self,
        repository: &Repository,
        blob: &Document,
    ) -> Result<(), Error> {
        let bytes = Bytes::from(blob.bytes.clone());
        let descriptor = blob.descriptor.clone();
        let start = move |mut sink: ChunkSink| {
            let (bytes, descriptor) = (bytes.clone(), descriptor.clone());
            tokio::spawn(async move {
                if sink.give(bytes).await.is_ok() {
                    let _ = sink.end_async().await;
                }
                Ok::<_, Infallible>((descriptor, ()))
            })
        };
        let upload = self.start_upload(repository).await?;
        match upload.push_in(Mode::Chunked, start).await {
            Ok(()) => Ok(()),
            Err(PushError::Registry(error)) => Err(error),
            Err(PushError::Produce(never)) => match never {},
        }
    }
}

impl Upload<Started> {
    /// Like [`Registry::push_stream`], using this session (of a mount that was none) first.
    ///
    /// # Errors
    /// The producer's or the registry's.
    pub async fn push<T, E, P>(self, produce: P) -> Result<T, PushError<E>>
    where
        P: Fn(&mut ChunkSink) -> Result<(Descriptor, T), E> + Send + Sync + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        let produce = Arc::new(produce);
        let start = move |mut sink: ChunkSink| {
            let produce = Arc::clone(&produce);
            tokio::task::spawn_blocking(move || {
                let produced = produce(&mut sink)?;
                // If it cannot be ended, the upload has failed and says so itself.
                let _ = sink.end();
                Ok(produced)
            })
        };
        self.push_from(start).await
    }

    /// Like [`Upload::push`], with a producer that is started by `start`, once for each attempt.
    pub(super) async fn push_from<T, E, P>(self, start: P) -> Result<T, PushError<E>>
    where
        P: Fn(ChunkSink) -> JoinHandle<Produced<T, E>> + Send + Sync,
        T: Send + 'static,
        E: Send + 'static,
    {
        let mode = self.registry().mode();
        self.push_in(mode, start).await
    }

    async fn push_in<T, E, P>(self, mode: Mode, start: P) -> Result<T, PushError<E>>
    where
        P: Fn(ChunkSink) -> JoinHandle<Produced<T, E>> + Send + Sync,
        T: Send + 'static,
        E: Send + 'static,
    {
        let registry = self.registry();
        let repository = self.repository();
        let mut retries = Retries::new(&registry);
        let mut renewed = false;
        let mut mode = mode;
        // Why an earlier form was given up.
        let mut refused = None;
        let mut first = Some(self);
        loop {
            let upload = match first.take() {
                Some(upload) => upload,
                None => registry
                    .start_upload(&repository)
                    .await
                    .map_err(PushError::Registry)?,
            };
            let error = match upload.push_once(mode, &start).await {
                Ok(value) => {
                    registry.worked(mode);
                    return Ok(value);
                }
                Err(Failed::Produce(error)) => return Err(PushError::Produce(error)),
                Err(Failed::Body(error)) => {
                    if let Some(next) = mode.after(&error, registry.host().as_str()) {
                        tracing::debug!(?next, reason = %error, "trying another form of upload");
                        mode = next;
                        refused.get_or_insert(error);
                        continue;
                    }
                    match (error, refused.take()) {
                        // What would help is what the first refusal is about.
                        (Error::TooLarge { .. }, Some(first)) => {
                            return Err(PushError::Registry(first));
                        }
                        (error, before) => {
                            refused = before;
                            error
                        }
                    }
                }
                Err(Failed::Commit(error)) => error,
            };
            // A token that ended in mid-body was renewed; that it helps is tried once.
            let token_ended = error.has_status(StatusCode::UNAUTHORIZED) && !renewed;
            renewed |= token_ended;
            let pause = if token_ended || error.is_upload_unknown() {
                retries.pause_whatever(error).await
            } else {
                retries.pause_after(error).await
            };
            pause.map_err(PushError::Registry)?;
        }
    }

    async fn push_once<T, E, P>(self, mode: Mode, start: &P) -> Result<T, Failed<E>>
    where
        P: Fn(ChunkSink) -> JoinHandle<Produced<T, E>> + Send + Sync,
        T: Send + 'static,
        E: Send + 'static,
    {
        let registry = self.registry();
        let repository = self.repository();
        let (sink, body) = body::channel();
        let abandoned = sink.abandoned();
        let running = start(sink);
        // When this fails the body is dropped, and with it the producer's way on.
        let sent = self.send(body, mode).await;
        let produced = running.await;
        match (sent, produced) {
            (Ok(sent), Ok(Ok((descriptor, value)))) => {
                let committed = sent.commit(&descriptor.digest).await;
                committed.map(|()| value).map_err(Failed::Commit)
            }
            // Either may be the other's consequence: who left first?
            (Err(error), Ok(Err(_))) if abandoned.load(Ordering::Acquire) => {
                Err(Failed::Body(error))
            }
            (_, Ok(Err(error))) => Err(Failed::Produce(error)),
            (Err(error), Ok(Ok(_))) => Err(Failed::Body(error)),
            (_, Err(_)) => {
                let ask = Ask::of(
                    &registry,
                    &repository,
                    "upload a blob",
                    Method::PATCH,
                    "",
                    PUSH,
                );
                Err(Failed::Body(Error::ProducerLost {
                    place: Box::new(ask.place()),
                }))
            }
        }
    }
}
