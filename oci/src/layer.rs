//! From an archive to a layer: the digests of both its forms and the blob, in one pass.
//!
//! ```text
//! TarWriter ─► Digesting ─► Encoder ─────────► Digesting ─► sink
//!               diffID      │ zstd|gzip  ▲      digest,size   file, upload, io::sink()
//!                           └► Compressors   threads of all layers
//! ```
//!
//! Each stage is a `Write` that knows one thing. Synchronous: a layer is written by one thread,
//! which may be a blocking one of an async program; a slow sink is the back-pressure. Memory
//! whatever the layers' sizes: for each, the tar writer's [`crate::tar::COPY_BUFFER`] and what the
//! sink holds; for all, [`Compressors::memory`].
//!
//! ```
//! # use firn_oci::{layer, Compression, Compressors, LayerWriter, Metadata};
//! # use std::num::NonZeroUsize;
//! let pool = Compressors::new(NonZeroUsize::MIN)?;
//! let mut tar = LayerWriter::new(Compression::ZSTD, &pool, Vec::new()).into_tar();
//! tar.directory(b"tmp", Metadata::root(0o1777))?;
//! let (layer, blob) = layer::finish(tar)?;
//! # assert_eq!(layer.descriptor.size, blob.len() as u64);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::io::{self, Write};

use crate::compress::Encoder;
use crate::tar::{Format, TarError, TarWriter};
use crate::{Compression, Compressors, Descriptor, Digest, Digesting};

/// A layer that was written: what a config (diffID) and a manifest (descriptor) say of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// The digest of the uncompressed archive.
    pub diff_id: Digest,
    /// The size of the uncompressed archive in bytes.
    pub uncompressed_size: u64,
    /// Type, digest and size of the blob.
    pub descriptor: Descriptor,
}

/// Takes the uncompressed archive and writes the blob into a sink. Also for archives that exist
/// already: copy them in. The bytes do not depend on the number of threads or the sizes of writes.
#[derive(Debug)]
pub struct LayerWriter<W: Write> {
    stack: Digesting<Encoder<Digesting<W>>>,
    compression: Compression,
}

impl<W: Write> LayerWriter<W> {
    /// A layer without a byte yet, which `pool` compresses.
    pub fn new(compression: Compression, pool: &Compressors, sink: W) -> Self {
        let encoder = Encoder::new(compression, pool, Digesting::new(sink));
        Self {
            stack: Digesting::new(encoder),
            compression,
        }
    }

    /// A tar writer into this layer, in Firn's own format; [`finish`] ends both.
    pub fn into_tar(self) -> TarWriter<Self> {
        self.into_tar_of(Format::default())
    }

    /// A tar writer into this layer, in the bytes of `format`; [`finish`] ends both.
    pub fn into_tar_of(self, format: Format) -> TarWriter<Self> {
        TarWriter::with_format(format, self)
    }

    /// Ends the blob. The sink is given back, not flushed.
    ///
    /// # Errors
    /// The sink cannot be written, or a part was not compressed.
    pub fn finish(self) -> io::Result<(Layer, W)> {
        let (diff_id, uncompressed_size, encoder) = self.stack.finish();
        let (digest, size, sink) = encoder.finish()?.finish();
        let layer = Layer {
            diff_id,
            uncompressed_size,
            descriptor: Descriptor::new(self.compression.layer_media_type(), digest, size),
        };
        Ok((layer, sink))
    }
}

impl<W: Write> Write for LayerWriter<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.stack.write(buf)
    }

    /// Does nothing: a flush in the middle would change the bytes.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Ends the archive and the blob.
///
/// # Errors
/// The sink cannot be written.
pub fn finish<W: Write>(tar: TarWriter<LayerWriter<W>>) -> Result<(Layer, W), TarError> {
    tar.finish()?.finish().map_err(TarError::Write)
}
