//! Making a layer: its contents from the store through tar and compressor into a sink.
//! Synchronous: for a blocking thread.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use firn_crd::exit::Reason;
use firn_oci::{Compression, Compressors, Layer, LayerWriter, TarWriter};

use crate::closure::Closure;
use crate::failure::{Failure, chain};
use crate::input::Contents;
use crate::input::blob::Blob;
use crate::layer::{self, LayerError, Store, Streams};
use crate::watch::{Watch, Watched};

/// All that a layer is made of; may be asked again and again for the same bytes.
#[derive(Debug, Clone)]
pub struct Maker {
    /// The folder with the store paths.
    pub store: PathBuf,
    /// What Nix says of them.
    pub closure: Arc<Closure>,
    /// Which, and how.
    pub contents: Contents,
    /// Archives that are open, shared by the layers of an image.
    pub streams: Streams,
    /// How the blob is compressed.
    pub compression: Compression,
    /// The threads that do it.
    pub pool: Compressors,
    /// Which layer of the image it is, for those who watch.
    pub index: usize,
    /// Who watches.
    pub watch: Arc<dyn Watch>,
}

impl Maker {
    /// Makes the blob. What it is is known afterwards.
    pub fn write<W: Write>(&self, sink: W) -> Result<(Layer, W), LayerError> {
        let store = Store::open(&self.store).map_err(|source| LayerError::Read {
            path: self.printable_store(),
            source,
        })?;
        if let Some(blob) = self.contents.verbatim() {
            return self.copy(&store, blob, sink);
        }
        let writer = LayerWriter::new(self.compression, &self.pool, sink);
        let mut watched = self.watched(writer);
        let watched = if let Contents::Blob(blob) = &self.contents {
            layer::write_tar(&store, &self.streams, &self.closure, blob, &mut watched)?;
            watched
        } else {
            let mut tar = TarWriter::with_format(self.contents.format(), watched);
            store.write(&self.closure, &self.contents, &mut tar)?;
            tar.finish().map_err(LayerError::Write)?
        };
        let (layer, sink) = watched.sink.finish().map_err(LayerError::sink)?;
        self.contents.compare(&layer.diff_id)?;
        Ok((layer, sink))
    }

    /// A blob as it is.
    fn copy<W: Write>(
        &self,
        store: &Store,
        blob: &Blob,
        sink: W,
    ) -> Result<(Layer, W), LayerError> {
        let sink = self.watched(sink);
        let copied = layer::write_verbatim(store, &self.streams, &self.closure, blob, sink);
        copied.map(|(layer, watched)| (layer, watched.sink))
    }

    fn watched<W>(&self, sink: W) -> Watched<W> {
        Watched {
            sink,
            layer: self.index,
            watch: Arc::clone(&self.watch),
        }
    }

    fn printable_store(&self) -> String {
        Path::display(&self.store).to_string()
    }
}

/// A layer that cannot be made is the store's fault, and the store is the build's.
pub fn unwritable(error: &LayerError) -> Failure {
    let reason = if error.is_sink() {
        Reason::InternalError
    } else if error.is_request() {
        Reason::ImageInvalid
    } else {
        Reason::StorePathInvalid
    };
    Failure::new(
        reason,
        format!("the image could not be made: {}", chain(error)),
    )
}
