//! Each blob to its place in the registry, and how it got there.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use firn_oci::registry::{Copied, PushError, Registry};
use firn_oci::{Compression, Compressors, Descriptor, Document, Layer, Repository};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};

use crate::closure::Closure;
use crate::failure::{Failure, Result};
use crate::input::{self, Contents, Remote};
use crate::layer::{LayerError, Streams};
use crate::maker::{Maker, unwritable};
use crate::recipe::{self, Key, Known, KnownLayer};
use crate::target::{Target, failure};
use crate::watch::Watch;

/// Layers that are made at once. Each has a thread that reads and hashes; what compresses is shared.
/// One more than two cores, so that none waits while a layer begins or ends: 3.1 s instead of 3.8 s
/// for 853 MB.
pub const IN_FLIGHT: usize = 3;
/// Layers whose contents are below this are kept in memory between being made and being sent, so
/// that one which the registry has under another recipe is not sent. In bytes. Larger ones are
/// sent while they are made: what is not known by its recipe is new, as a rule.
pub const KEEP_MAX: u64 = 16 << 20;

/// How a blob came to be in the repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// It was there.
    Reused,
    /// The registry took it from another of its repositories.
    Mounted,
    /// It was sent.
    Sent,
}

impl From<Copied> for Placement {
    fn from(copied: Copied) -> Self {
        match copied {
            Copied::Present => Self::Reused,
            Copied::Mounted => Self::Mounted,
            Copied::Sent => Self::Sent,
        }
    }
}

/// A layer that is in the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// The layer, its descriptor annotated.
    pub layer: Layer,
    /// How it got there.
    pub placement: Placement,
}

pub(super) struct Blobs<'a> {
    pub(super) target: &'a Target,
    pub(super) store: PathBuf,
    pub(super) compression: Compression,
    pub(super) pool: Compressors,
    pub(super) known: &'a Known,
    pub(super) streams: Streams,
    /// Where the layers of the base image are.
    pub(super) base: Option<&'a Registry>,
    pub(super) watch: &'a Arc<dyn Watch>,
}

impl Blobs<'_> {
    /// Places all layers. Theirs stays the order, but the largest are begun first, lest one of them
    /// is left alone in the end; and parts of a compressed archive as they follow in it.
    pub(super) async fn place_all(
        &self,
        closure: &Arc<Closure>,
        layers: &[input::Layer],
    ) -> Result<Vec<Placed>> {
        let mut order: Vec<(usize, &input::Layer)> = layers.iter().enumerate().collect();
        order.sort_by_key(|(_, layer)| {
            let contents = &layer.contents;
            let size = std::cmp::Reverse(contents.size(closure));
            (contents.bytes_passed_over(), size)
        });
        let mut all: Vec<(usize, Placed)> = stream::iter(order)
            .map(|(index, layer)| async move {
                let placed = self.place(closure, index, layer).await?;
                Ok::<_, Failure>((index, placed))
            })
            // Not `buffered`: a layer that is done must not wait for an earlier one.
            .buffer_unordered(IN_FLIGHT)
            .try_collect()
            .await?;
        all.sort_by_key(|(index, _)| *index);
        Ok(all.into_iter().map(|(_, placed)| placed).collect())
    }

    async fn place(
        &self,
        closure: &Arc<Closure>,
        index: usize,
        wanted: &input::Layer,
    ) -> Result<Placed> {
        let contents = &wanted.contents;
        let key = Key::of(contents, closure, self.compression);
        let mut placed = if let Some(placed) = self.find(&key).await? {
            placed
        } else if let Contents::Remote(remote) = contents {
            self.copy_base(remote).await?
        } else {
            let maker = Maker {
                store: self.store.clone(),
                closure: Arc::clone(closure),
                contents: contents.clone(),
                streams: self.streams.clone(),
                compression: self.compression,
                pool: self.pool.clone(),
                index,
                watch: Arc::clone(self.watch),
            };
            self.make(maker).await?
        };
        tracing::info!(
            digest = %placed.layer.descriptor.digest, size = placed.layer.descriptor.size,
            placement = ?placed.placement, paths = contents.paths(), why = wanted.why, "layer"
        );
        let layer = &mut placed.layer;
        layer.descriptor = recipe::annotate(
            layer.descriptor.clone(),
            &key,
            &layer.diff_id,
            &wanted.annotations,
        );
        self.watch.placed(index, &placed);
        Ok(placed)
    }

    /// The layer by its recipe; from another repository it is mounted, or copied where the registry
    /// mounts nothing. `None`: it must be made.
    async fn find(&self, key: &Key) -> Result<Option<Placed>> {
        let Some(KnownLayer { layer, repository }) = self.known.get(key) else {
            return Ok(None);
        };
        let target = self.target;
        let placement = if *repository == target.repository {
            Some(Placement::Reused)
        } else {
            self.copy(&layer.descriptor, repository).await?
        };
        Ok(placement.map(|placement| Placed {
            layer: layer.clone(),
            placement,
        }))
    }

    /// A blob from another repository of the registry. `None`: it is gone, or not for us to read.
    async fn copy(&self, blob: &Descriptor, from: &Repository) -> Result<Option<Placement>> {
        let Target {
            registry,
            repository,
            ..
        } = self.target;
        match registry.copy_blob(repository, registry, from, blob).await {
            Ok(copied) => Ok(Some(copied.into())),
            Err(error) if error.is_not_found() || error.is_auth() => Ok(None),
            Err(error) => Err(failure(&error)),
        }
    }

    /// A base image's layer: mounted if it is on the same registry, else read there and sent here.
    async fn copy_base(&self, remote: &Remote) -> Result<Placed> {
        let Target {
            registry,
            repository,
            ..
        } = self.target;
        let from = self.base.unwrap_or(registry);
        let copied = registry
            .copy_blob(repository, from, &remote.repository, &remote.descriptor)
            .await;
        Ok(Placed {
            layer: Layer {
                diff_id: remote.diff_id,
                uncompressed_size: 0,
                descriptor: remote.descriptor.clone(),
            },
            placement: copied.map_err(|error| failure(&error))?.into(),
        })
    }

    async fn make(&self, maker: Maker) -> Result<Placed> {
        if maker.contents.size(&maker.closure) > KEEP_MAX {
            return Ok(Placed {
                layer: self.send(maker).await?,
                placement: Placement::Sent,
            });
        }
        let full = Arc::new(AtomicBool::new(false));
        let kept = Kept {
            bytes: Vec::new(),
            full: Arc::clone(&full),
        };
        let again = maker.clone();
        let (layer, kept) = match blocking(move || maker.write(kept)).await {
            Ok(made) => made,
            // Sizes of paths are claims of the build.
            Err(_) if full.load(Ordering::Relaxed) => {
                return Ok(Placed {
                    layer: self.send(again).await?,
                    placement: Placement::Sent,
                });
            }
            Err(failure) => return Err(failure),
        };
        let blob = Document {
            descriptor: layer.descriptor.clone(),
            bytes: kept.bytes,
        };
        let placement = self.document(&blob).await?;
        Ok(Placed { layer, placement })
    }

    /// Makes the layer while it is sent.
    async fn send(&self, maker: Maker) -> Result<Layer> {
        let target = self.target;
        let produce = move |sink: &mut firn_oci::registry::ChunkSink| {
            let (layer, _) = maker.write(sink)?;
            Ok((layer.descriptor.clone(), layer))
        };
        let pushed = target
            .registry
            .push_stream(&target.repository, produce)
            .await;
        pushed.map_err(|error| match error {
            PushError::Produce(error) => unwritable(&error),
            PushError::Registry(error) => failure(&error),
        })
    }

    /// Places a config: mounted if a previous image in another repository has the same.
    pub(super) async fn config(&self, document: &Document) -> Result<Placement> {
        let there = self.known.config(&document.descriptor.digest);
        if let Some(from) = there.filter(|from| **from != self.target.repository)
            && let Some(placement) = self.copy(&document.descriptor, from).await?
        {
            return Ok(placement);
        }
        self.document(document).await
    }

    /// Sends a blob that is in memory unless it is there.
    pub(super) async fn document(&self, document: &Document) -> Result<Placement> {
        let Target {
            registry,
            repository,
            ..
        } = self.target;
        let digest = &document.descriptor.digest;
        let there = registry.probe_blob(repository, digest).await;
        if there.map_err(|error| failure(&error))? {
            return Ok(Placement::Reused);
        }
        let sent = registry.push_blob(repository, document).await;
        sent.map_err(|error| failure(&error))?;
        Ok(Placement::Sent)
    }
}

/// A blob in memory, of at most [`KEEP_MAX`] bytes.
struct Kept {
    bytes: Vec<u8>,
    /// It would have been larger.
    full: Arc<AtomicBool>,
}

impl Write for Kept {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if (self.bytes.len() + buf.len()) as u64 > KEEP_MAX {
            self.full.store(true, Ordering::Relaxed);
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.bytes.extend_from_slice(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::result::Result<T, LayerError> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| unwritable(&error)),
        Err(error) => Err(Failure::internal(&error)),
    }
}
