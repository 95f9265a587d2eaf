//! Pushing a blob that is made while it is sent.
//!
//! The producer is called again for each attempt: a retry means producing again, never replaying,
//! so nothing is kept. Memory for each push in flight: the channel of 16 chunks of 256 KiB with one
//! being filled and one being sent (4.5 MiB), and whatever the producer holds (see
//! [`crate::layer`]).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use reqwest::{Method, StatusCode};

use super::body::{self, ChunkSink};
use super::exchange::Retries;
use super::upload::{Started, Upload};
use super::{Ask, Error, PUSH, Registry};
use crate::{Descriptor, Repository};

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

impl Registry {
    /// Pushes a blob of unknown size and digest. `produce` writes it on a blocking thread and
    /// then says what it was, with a value of its own; see [`crate::LayerWriter`]. It must make the
    /// same bytes each time. It ends early with a `BrokenPipe` from the sink if the registry gives
    /// up. The call returns after the producer has.
    ///
    /// ```no_run
    /// # use firn_oci::{layer, Compression, Layer, LayerWriter, Metadata, Repository};
    /// # use firn_oci::registry::{PushError, Registry};
    /// # use std::num::NonZeroUsize;
    /// # async fn f(registry: Registry, repository: Repository) -> Result<Layer, PushError<Box<dyn std::error::Error + Send + Sync>>> {
    /// registry.push_stream(&repository, |sink| {
    ///     let mut tar = LayerWriter::new(Compression::Zstd, NonZeroUsize::MIN, sink)?.into_tar();
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
        let registry = self.registry();
        let repository = self.repository();
        let produce = Arc::new(produce);
        let mut retries = Retries::new(&registry);
        let mut renewed = false;
        let mut first = Some(self);
        loop {
            let upload = match first.take() {
                Some(upload) => upload,
                None => registry
                    .start_upload(&repository)
                    .await
                    .map_err(PushError::Registry)?,
            };
            let error = match upload.push_once(Arc::clone(&produce)).await {
                Ok(value) => return Ok(value),
                Err(PushError::Registry(error)) => error,
                Err(error) => return Err(error),
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

    async fn push_once<T, E, P>(self, produce: Arc<P>) -> Result<T, PushError<E>>
    where
        P: Fn(&mut ChunkSink) -> Result<(Descriptor, T), E> + Send + Sync + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        let registry = self.registry();
        let repository = self.repository();
        let (mut sink, body) = body::channel();
        let abandoned = sink.abandoned();
        let running = tokio::task::spawn_blocking(move || {
            let produced = produce(&mut sink)?;
            // If it cannot be ended, the upload has failed and says so itself.
            let _ = sink.end();
            Ok(produced)
        });
        // When this fails the body is dropped, and with it the producer's way on.
        let streamed = self.stream(body).await;
        let produced = running.await;
        match (streamed, produced) {
            (Ok(streamed), Ok(Ok((descriptor, value)))) => {
                let committed = streamed.commit(&descriptor.digest).await;
                committed.map(|()| value).map_err(PushError::Registry)
            }
            // Either may be the other's consequence: who left first?
            (Err(error), Ok(Err(_))) if abandoned.load(Ordering::Acquire) => {
                Err(PushError::Registry(error))
            }
            (_, Ok(Err(error))) => Err(PushError::Produce(error)),
            (Err(error), Ok(Ok(_))) => Err(PushError::Registry(error)),
            (_, Err(_)) => {
                let ask = Ask::of(
                    &registry,
                    &repository,
                    "upload a blob",
                    Method::PATCH,
                    "",
                    PUSH,
                );
                Err(PushError::Registry(Error::ProducerLost {
                    place: Box::new(ask.place()),
                }))
            }
        }
    }
}
