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
use crate::layer::{LayerError, Store};
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
        let failed = |error| LayerError::Write(firn_oci::tar::TarError::Write(error));
        let writer = LayerWriter::new(self.compression, &self.pool, sink);
        let mut tar = TarWriter::new(Watched {
            sink: writer,
            layer: self.index,
            watch: Arc::clone(&self.watch),
        });
        store.write(&self.closure, &self.contents, &mut tar)?;
        let writer = tar.finish().map_err(LayerError::Write)?.sink;
        writer.finish().map_err(failed)
    }

    fn printable_store(&self) -> String {
        Path::display(&self.store).to_string()
    }
}

/// A layer that cannot be made is the store's fault, and the store is the build's.
pub fn unwritable(error: &LayerError) -> Failure {
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
