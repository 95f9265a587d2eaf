//! Each blob to its place in the registry, and how it got there.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use firn_crd::exit::Reason;
use firn_oci::registry::{Copied, Error, PushError};
use firn_oci::{Compression, Compressors, Descriptor, Digest, Document, Layer, Repository};
use futures::future;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};

use super::base::BaseSource;
use super::presence;
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
    pub(super) base: Option<&'a BaseSource>,
    pub(super) watch: &'a Arc<dyn Watch>,
}

/// A layer to be placed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) layer: &'a input::Layer,
    pub(super) key: &'a Key,
    /// Which of the image's layers it is.
    pub(super) index: usize,
}

impl Wanted<'_> {
    /// The layer as a previous image in the repository `here` has it.
    pub(super) fn taken(&self, known: &Known, here: &Repository) -> Option<Placed> {
        let KnownLayer { layer, repository } = known.get(self.key)?;
        let placed = Placed {
            layer: layer.clone(),
            placement: Placement::Reused,
        };
        (repository == here).then(|| annotated(placed, self))
    }
}

/// Whether a layer may be one that a previous image has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Taken,
    Not,
}

impl Blobs<'_> {
    /// Places all layers. What the published manifest has by its recipe is taken over, and asked
    /// for while the others are made: what turns out to be gone is made after all.
    pub(super) async fn place_all(
        &self,
        closure: &Arc<Closure>,
        wanted: &[Wanted<'_>],
    ) -> Result<Vec<Placed>> {
        let mut others = Vec::new();
        // What nobody has looked at yet.
        let mut claimed = Vec::new();
        for wanted in wanted {
            match wanted.taken(self.known, &self.target.repository) {
                Some(placed) => claimed.push((*wanted, placed)),
                None => others.push(*wanted),
            }
        }
        let (mut gone, made) = future::try_join(
            presence::gone(self.target, digests(&claimed)),
            self.place_each(closure, others, Found::Taken),
        )
        .await?;
        let is_mounted = |(_, placed): &(_, Placed)| placed.placement == Placement::Mounted;
        let (mounted, mut all): (Vec<_>, Vec<_>) = made.into_iter().partition(is_mounted);
        gone.extend(presence::gone(self.target, digests(&mounted)).await?);
        claimed.extend(mounted);
        let is_gone = |(_, placed): &(_, Placed)| gone.contains(&placed.layer.descriptor.digest);
        let (lost, proven): (Vec<_>, Vec<_>) = claimed.into_iter().partition(is_gone);
        for (wanted, placed) in proven {
            self.watch.placed(wanted.index, &placed);
            all.push((wanted, placed));
        }
        if !lost.is_empty() {
            tracing::warn!(
                layers = lost.len(), repository = %self.target.repository,
                "layers that should be in the registry are gone: they are made again"
            );
            let lost = lost.into_iter().map(|(wanted, _)| wanted).collect();
            let again = self.place_each(closure, lost, Found::Not).await?;
            let (mounted, made): (Vec<_>, Vec<_>) = again.into_iter().partition(is_mounted);
            // There is no other way in.
            if let Some(digest) = presence::gone(self.target, digests(&mounted))
                .await?
                .first()
            {
                return Err(self.not_mounted(digest));
            }
            all.extend(made);
            all.extend(mounted);
        }
        all.sort_by_key(|(wanted, _)| wanted.index);
        Ok(all.into_iter().map(|(_, placed)| placed).collect())
    }

    /// The largest are begun first, lest one of them is left alone in the end; and parts of a
    /// compressed archive as they follow in it.
    async fn place_each<'w>(
        &self,
        closure: &Arc<Closure>,
        mut wanted: Vec<Wanted<'w>>,
        found: Found,
    ) -> Result<Vec<(Wanted<'w>, Placed)>> {
        wanted.sort_by_key(|wanted| {
            let contents = &wanted.layer.contents;
            let size = std::cmp::Reverse(contents.size(closure));
            (contents.bytes_passed_over(), size)
        });
        stream::iter(wanted)
            .map(|wanted| async move {
                let placed = self.place(closure, wanted, found).await?;
                Ok::<_, Failure>((wanted, placed))
            })
            // Not `buffered`: a layer that is done must not wait for an earlier one.
            .buffer_unordered(IN_FLIGHT)
            .try_collect()
            .await
    }

    fn not_mounted(&self, digest: &Digest) -> Failure {
        Failure::new(
            Reason::RegistryUnavailable,
            format!(
                "the registry says that it has mounted {digest} into {}, and does not have it there",
                self.target.repository
            ),
        )
    }

    async fn place(
        &self,
        closure: &Arc<Closure>,
        wanted: Wanted<'_>,
        found: Found,
    ) -> Result<Placed> {
        let contents = &wanted.layer.contents;
        let known = match found {
            Found::Taken => self.find(wanted.key).await?,
            Found::Not => None,
        };
        let placed = if let Some(placed) = known {
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
                index: wanted.index,
                watch: Arc::clone(self.watch),
            };
            self.make(maker).await?
        };
        tracing::info!(
            digest = %placed.layer.descriptor.digest, size = placed.layer.descriptor.size,
            placement = ?placed.placement, paths = contents.paths(), why = wanted.layer.why, "layer"
        );
        let placed = annotated(placed, &wanted);
        // What was mounted is looked at before.
        if placed.placement != Placement::Mounted {
            self.watch.placed(wanted.index, &placed);
        }
        Ok(placed)
    }

    /// The layer by its recipe, from another repository: mounted, or copied where the registry
    /// mounts nothing. `None`: it must be made.
    async fn find(&self, key: &Key) -> Result<Option<Placed>> {
        let Some(KnownLayer { layer, repository }) = self.known.get(key) else {
            return Ok(None);
        };
        let placement = self.copy(&layer.descriptor, repository).await?;
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
        let from = self.base.map_or(registry, |base| &base.registry);
        let copied = registry
            .copy_blob(repository, from, &remote.repository, &remote.descriptor)
            .await;
        let copied = copied.map_err(|error| match self.base {
            Some(base) if is_of(&error, remote, base) => {
                let name = format!("{}/{}", base.registry.host(), remote.repository);
                base.login.failure(&name, &error)
            }
            _ => failure(&error),
        });
        Ok(Placed {
            layer: Layer {
                diff_id: remote.diff_id,
                uncompressed_size: 0,
                descriptor: remote.descriptor.clone(),
            },
            placement: copied?.into(),
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

/// Whether it is the base image's repository that refuses.
fn is_of(error: &Error, remote: &Remote, base: &BaseSource) -> bool {
    error.refused_at().is_some_and(|place| {
        place.registry == *base.registry.host()
            && place.repository.as_ref() == Some(&remote.repository)
    })
}

/// The layer with its recipe on it.
fn annotated(mut placed: Placed, wanted: &Wanted<'_>) -> Placed {
    let layer = &mut placed.layer;
    layer.descriptor = recipe::annotate(
        layer.descriptor.clone(),
        wanted.key,
        &layer.diff_id,
        &wanted.layer.annotations,
    );
    placed
}

fn digests(placed: &[(Wanted<'_>, Placed)]) -> BTreeSet<Digest> {
    let digests = placed
        .iter()
        .map(|(_, placed)| placed.layer.descriptor.digest);
    digests.collect()
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
