//! From an archive to a layer: the digests of both its forms and the blob, in one pass.
//!
//! ```text
//! TarWriter ─► Digesting ─► Encoder ─► Digesting ─► sink
//!               diffID     zstd|gzip   digest,size   file, upload, io::sink()
//! ```
//!
//! Each stage is a `Write` that knows one thing. Synchronous: runs on a blocking thread; a slow
//! sink is the back-pressure. Memory whatever the layer's size: the tar writer's
//! [`crate::tar::COPY_BUFFER`], the encoder's [`Compression::memory`], and what the sink holds.
//!
//! ```
//! # use firn_oci::{layer, Compression, LayerWriter, Metadata};
//! # use std::num::NonZeroUsize;
//! let mut tar = LayerWriter::new(Compression::Zstd, NonZeroUsize::MIN, Vec::new())?.into_tar();
//! tar.directory(b"tmp", Metadata::root(0o1777))?;
//! let (layer, blob) = layer::finish(tar)?;
//! # assert_eq!(layer.descriptor.size, blob.len() as u64);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::io::{self, Write};
use std::num::NonZeroUsize;

use crate::compress::Encoder;
use crate::tar::{TarError, TarWriter};
use crate::{Compression, Descriptor, Digest, Digesting};

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
    /// A layer without a byte yet; `threads` compress besides the caller's.
    ///
    /// # Errors
    /// The compressor cannot be set up.
    pub fn new(compression: Compression, threads: NonZeroUsize, sink: W) -> io::Result<Self> {
        let encoder = Encoder::new(compression, threads, Digesting::new(sink))?;
        Ok(Self {
            stack: Digesting::new(encoder),
            compression,
        })
    }

    /// A tar writer into this layer; [`finish`] ends both.
    pub fn into_tar(self) -> TarWriter<Self> {
        TarWriter::new(self)
    }

    /// Ends the blob. The sink is given back, not flushed.
    ///
    /// # Errors
    /// The sink cannot be written.
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
