//! Reading blobs of any size: as a stream that is verified while it passes, and straight into
//! another repository. Nothing is kept but the piece in hand.

use std::fmt;

use bytes::Bytes;
use futures::Stream;
use http::header::{CONTENT_RANGE, RANGE};
use reqwest::{Method, Response};
use tokio::time::timeout;

use super::body::ChunkSink;
use super::exchange::Retries;
use super::push::PushError;
use super::{Ask, Error, Mount, PULL, Registry, headers};
use crate::digest::Digesting;
use crate::{Descriptor, Digest, Repository};

/// A connection that broke after at least so much came is no sign that the next one will not do:
/// the patience starts anew. Smaller, and a registry that drips would be asked for ever.
const PROGRESS: u64 = 1 << 20;

/// A blob that is being read. What [`BlobReader::next`] gives is verified as a whole when it ends:
/// whoever acts on the pieces must be able to take it back until `None` has come.
pub struct BlobReader {
    registry: Registry,
    repository: Repository,
    descriptor: Descriptor,
    hash: Option<Digesting<std::io::Sink>>,
    position: u64,
    /// `None`: to be asked for, from `position` on.
    response: Option<Response>,
    /// Bytes that come again, since the registry knows no ranges.
    skip: u64,
    retries: Retries,
    /// Where the last connection began.
    since: u64,
}

/// How a blob came to be where it was copied to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copied {
    /// It was there.
    Present,
    /// The registry took it from its other repository; not a byte was sent.
    Mounted,
    /// It was read and sent.
    Sent,
}

impl Registry {
    /// Begins to read a blob, whose digest and size are verified while it is read. A connection
    /// that breaks is continued where it broke.
    ///
    /// # Errors
    /// It is not there ([`Error::is_not_found`]), or the registry refuses or does not answer.
    pub async fn open_blob(
        &self,
        repository: &Repository,
        descriptor: &Descriptor,
    ) -> Result<BlobReader, Error> {
        let mut reader = BlobReader {
            registry: self.clone(),
            repository: repository.clone(),
            descriptor: descriptor.clone(),
            hash: Some(Digesting::new(std::io::sink())),
            position: 0,
            response: None,
            skip: 0,
            retries: Retries::new(self),
            since: 0,
        };
        reader.connect().await?;
        Ok(reader)
    }

    /// Copies a blob into a repository of this registry: mounted if it comes from another
    /// repository here, else read and sent at once, without being kept. A blob that is there
    /// already is left alone.
    ///
    /// # Errors
    /// Either registry refuses or does not answer, or the blob is not what its descriptor says.
    pub async fn copy_blob(
        &self,
        repository: &Repository,
        from: &Self,
        from_repository: &Repository,
        descriptor: &Descriptor,
    ) -> Result<Copied, Error> {
        let digest = &descriptor.digest;
        if self.probe_blob(repository, digest).await? {
            return Ok(Copied::Present);
        }
        let upload = if self.host() == from.host() {
            match self.mount(repository, digest, from_repository).await? {
                Mount::Mounted => return Ok(Copied::Mounted),
                Mount::NotMounted(upload) => upload,
            }
        } else {
            self.start_upload(repository).await?
        };
        let source = (from.clone(), from_repository.clone(), descriptor.clone());
        let copied = upload.push_from(move |sink| tokio::spawn(feed(source.clone(), sink)));
        match copied.await {
            Ok(()) => Ok(Copied::Sent),
            Err(PushError::Produce(error) | PushError::Registry(error)) => Err(error),
        }
    }
}

/// Reads a blob into an upload. Ends early, as if well, if the upload does.
async fn feed(
    (registry, repository, descriptor): (Registry, Repository, Descriptor),
    mut sink: ChunkSink,
) -> Result<(Descriptor, ()), Error> {
    let mut reader = registry.open_blob(&repository, &descriptor).await?;
    while let Some(piece) = reader.next().await? {
        if sink.give(piece).await.is_err() {
            return Ok((descriptor, ()));
        }
    }
    // If it cannot be ended, the upload has failed and says so itself.
    let _ = sink.end_async().await;
    Ok((descriptor, ()))
}

impl fmt::Debug for BlobReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the answer: the addresses of blob stores are capabilities.
        f.debug_struct("BlobReader")
            .field("repository", &self.repository)
            .field("descriptor", &self.descriptor)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

impl BlobReader {
    /// The next piece; `None` after the last one, when the whole is verified.
    ///
    /// # Errors
    /// The registry stopped answering, or the blob is longer, shorter or other than its descriptor
    /// says. The reader is of no use after it.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            match self.piece().await {
                Ok(Some(piece)) => {
                    if let Some(piece) = self.take(piece)? {
                        return Ok(Some(piece));
                    }
                }
                Ok(None) if self.position < self.descriptor.size => {
                    let error = self.short();
                    self.again(error).await?;
                }
                Ok(None) => return self.verify().map(|()| None),
                Err(error) => self.again(error).await?,
            }
        }
    }

    /// The rest as a stream. After an error it ends.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes, Error>> + Send {
        futures::stream::try_unfold(self, |mut reader| async move {
            let piece = reader.next().await?;
            Ok(piece.map(|piece| (piece, reader)))
        })
    }

    async fn piece(&mut self) -> Result<Option<Bytes>, Error> {
        if self.response.is_none() {
            self.connect().await?;
        }
        let stall = self.registry.inner.limits.stall;
        let Some(response) = self.response.as_mut() else {
            return Ok(None);
        };
        let piece = timeout(stall, response.chunk()).await;
        let ask = self.ask();
        match piece {
            Ok(Ok(piece)) => Ok(piece),
            Ok(Err(error)) => Err(Error::unreachable(&ask, error)),
            Err(_) => Err(Error::TimedOut {
                place: Box::new(ask.place()),
                what: "nothing came",
                waited: stall,
            }),
        }
    }

    /// Hashes what is new of a piece. `None`: nothing is.
    fn take(&mut self, mut piece: Bytes) -> Result<Option<Bytes>, Error> {
        let known = usize::try_from(self.skip).map_or(piece.len(), |skip| skip.min(piece.len()));
        self.skip = self.skip.saturating_sub(known as u64);
        let piece = piece.split_off(known);
        if piece.is_empty() {
            return Ok(None);
        }
        self.position = self.position.saturating_add(piece.len() as u64);
        if self.position > self.descriptor.size {
            return Err(Error::SizeMismatch {
                place: Box::new(self.ask().place()),
                expected: self.descriptor.size,
                actual: self.position,
            });
        }
        if let Some(hash) = self.hash.as_mut() {
            // A sink takes everything.
            let _ = std::io::Write::write_all(hash, &piece);
        }
        Ok(Some(piece))
    }

    fn verify(&mut self) -> Result<(), Error> {
        // Asked again after the end, it says the end again.
        let Some(hash) = self.hash.take() else {
            return Ok(());
        };
        let (actual, _, _): (Digest, u64, _) = hash.finish();
        if actual == self.descriptor.digest {
            return Ok(());
        }
        Err(Error::DigestMismatch {
            place: Box::new(self.ask().place()),
            expected: self.descriptor.digest,
            actual,
        })
    }

    fn short(&self) -> Error {
        Error::Truncated {
            place: Box::new(self.ask().place()),
            expected: self.descriptor.size,
            actual: self.position,
        }
    }

    /// Waits before the connection that continues this one.
    async fn again(&mut self, error: Error) -> Result<(), Error> {
        self.response = None;
        if self.position.saturating_sub(self.since) >= PROGRESS {
            self.retries = Retries::new(&self.registry);
        }
        self.since = self.position;
        self.retries.pause_after(error).await
    }

    /// Asks for the blob from `position` on.
    async fn connect(&mut self) -> Result<(), Error> {
        let position = self.position;
        let ask = self.ask();
        let shape = |request: reqwest::RequestBuilder| match position {
            0 => request,
            from => request.header(RANGE, format!("bytes={from}-")),
        };
        let response = self.registry.exchange(&ask, shape, &[200, 206]).await?;
        let range = response
            .headers()
            .get(CONTENT_RANGE)
            .and_then(|header| headers::content_range(header.to_str().ok()?));
        let skip = match (response.status().as_u16(), range) {
            (206, Some((first, _))) if first == position => 0,
            (206, _) => return Err(Error::protocol(&ask, "is another part than was asked for")),
            _ => position,
        };
        self.skip = skip;
        self.response = Some(response);
        Ok(())
    }

    fn ask(&self) -> Ask<'_> {
        let path = format!("blobs/{}", self.descriptor.digest);
        Ask::of(
            &self.registry,
            &self.repository,
            "read a blob",
            Method::GET,
            &path,
            PULL,
        )
    }
}
