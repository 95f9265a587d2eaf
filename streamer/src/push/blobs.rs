//! Each blob to its place in the registry, and whether it had to be sent.

use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use firn_crd::exit::Reason;
use firn_oci::registry::PushError;
use firn_oci::{Compression, Document, Layer, LayerWriter, layer as oci_layer};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};

use crate::closure::Closure;
use crate::failure::{Failure, Result, chain};
use crate::image::Placed;
use crate::layer::{LayerError, Store};
use crate::layering::PlannedLayer;
use crate::recipe::{self, Key, Known};
use crate::store_path::StorePath;
use crate::target::{Target, failure};

/// Layers that are made at once. Compression is the limit, and each encoder has a thread besides
/// the one that reads.
pub const IN_FLIGHT: usize = 2;
/// Largest blob that is kept in memory between being made and being sent, in bytes.
pub const KEEP_MAX: usize = 16 << 20;

pub(super) struct Blobs<'a> {
    pub(super) target: &'a Target,
    pub(super) store: PathBuf,
    pub(super) compression: Compression,
    pub(super) known: &'a Known,
    /// Nothing can be in the repository yet.
    pub(super) empty: bool,
}

impl Blobs<'_> {
    /// Places all layers, and says of each whether it was sent. The order stays.
    pub(super) async fn place_all(
        &self,
        closure: &Closure,
        planned: Vec<PlannedLayer>,
    ) -> Result<Vec<(Placed, bool)>> {
        let closure = Arc::new(closure.clone());
        stream::iter(planned)
            .map(|planned| self.place(Arc::clone(&closure), planned))
            .buffered(IN_FLIGHT)
            .try_collect()
            .await
    }

    async fn place(&self, closure: Arc<Closure>, planned: PlannedLayer) -> Result<(Placed, bool)> {
        let key = Key::of(&closure, &planned.paths, self.compression);
        let (mut layer, sent) = if let Some(known) = self.known.get(&key) {
            (known.clone(), false)
        } else {
            let maker = Maker {
                store: self.store.clone(),
                closure,
                paths: planned.paths.clone(),
                compression: self.compression,
            };
            self.make(maker, planned.nar_size).await?
        };
        tracing::info!(
            digest = %layer.descriptor.digest, size = layer.descriptor.size, sent,
            paths = planned.paths.len(), why = ?planned.why, "layer"
        );
        layer.descriptor = recipe::annotate(layer.descriptor, &key, &layer.diff_id);
        Ok((Placed { layer, planned }, sent))
    }

    async fn make(&self, maker: Maker, nar_size: u64) -> Result<(Layer, bool)> {
        if self.empty && nar_size > KEEP_MAX as u64 {
            return Ok((self.send(maker).await?, true));
        }
        let first = maker.clone();
        let (layer, kept) = blocking(move || first.write(Keep::default())).await?;
        let target = self.target;
        let there = target
            .registry
            .probe_blob(&target.repository, &layer.descriptor.digest);
        if there.await.map_err(|error| failure(&error))? {
            return Ok((layer, false));
        }
        if let Keep::All(bytes) = kept {
            let document = Document {
                descriptor: layer.descriptor.clone(),
                bytes,
            };
            let sent = target
                .registry
                .push_blob(&target.repository, &document)
                .await;
            sent.map_err(|error| failure(&error))?;
            return Ok((layer, true));
        }
        let again = self.send(maker).await?;
        if again == layer {
            Ok((layer, true))
        } else {
            Err(Failure::new(
                Reason::StorePathInvalid,
                "the store changed while it was read",
            ))
        }
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

    /// Sends a document unless it is there, and says whether it was sent.
    pub(super) async fn document(&self, document: &Document) -> Result<bool> {
        let Target {
            registry,
            repository,
            ..
        } = self.target;
        let digest = &document.descriptor.digest;
        let there = registry.probe_blob(repository, digest).await;
        if there.map_err(|error| failure(&error))? {
            return Ok(false);
        }
        let sent = registry.push_blob(repository, document).await;
        sent.map(|()| true).map_err(|error| failure(&error))
    }
}

/// All that a layer is made of; may be asked again and again for the same bytes.
#[derive(Clone)]
struct Maker {
    store: PathBuf,
    closure: Arc<Closure>,
    paths: Vec<StorePath>,
    compression: Compression,
}

impl Maker {
    fn write<W: Write>(&self, sink: W) -> std::result::Result<(Layer, W), LayerError> {
        let store = Store::open(&self.store).map_err(|source| LayerError::Read {
            path: self.printable_store(),
            source,
        })?;
        let failed = |error| LayerError::Write(firn_oci::tar::TarError::Write(error));
        let writer = LayerWriter::new(self.compression, NonZeroUsize::MIN, sink).map_err(failed)?;
        let mut tar = writer.into_tar();
        store.write(&self.closure, &self.paths, &mut tar)?;
        oci_layer::finish(tar).map_err(LayerError::Write)
    }

    fn printable_store(&self) -> String {
        Path::display(&self.store).to_string()
    }
}

/// Keeps what is written as long as it is small.
enum Keep {
    All(Vec<u8>),
    TooMuch,
}

impl Default for Keep {
    fn default() -> Self {
        Self::All(Vec::new())
    }
}

impl Write for Keep {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::All(bytes) if bytes.len() + buf.len() <= KEEP_MAX => bytes.extend_from_slice(buf),
            Self::All(_) => *self = Self::TooMuch,
            Self::TooMuch => {}
        }
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

/// A layer that cannot be made is the store's fault, and the store is the build's.
fn unwritable(error: &LayerError) -> Failure {
    let reason = if error.is_sink() {
        Reason::InternalError
    } else {
        Reason::StorePathInvalid
    };
    Failure::new(
        reason,
        format!("the image could not be made: {}", chain(error)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_small_is_kept_and_what_is_large_is_not() {
        let mut keep = Keep::default();
        keep.write_all(&[1; 100]).unwrap();
        assert!(matches!(&keep, Keep::All(bytes) if bytes.len() == 100));
        keep.write_all(&vec![1; KEEP_MAX]).unwrap();
        assert!(matches!(keep, Keep::TooMuch));
    }
}
