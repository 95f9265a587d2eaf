//! A layer of a base image, read from its registry while it is written on this machine.
//!
//! ```text
//! registry ──► BlobReader ──► as it is ──────────────► sink    oci:DIR
//!              digest, size └► uncompressed: diffID └► sink    docker-archive
//! ```
//!
//! Nothing is kept but the piece in hand. Synchronous: for a blocking thread, which waits for the
//! runtime that reads.

use std::io::{self, Read, Write};
use std::sync::Arc;

use bytes::Bytes;
use firn_oci::decompress::Encoding;
use firn_oci::registry::{BlobReader, Error};
use firn_oci::{Descriptor, Layer};
use tokio::runtime::Handle;

use crate::failure::{Failure, Result, chain};
use crate::input::Remote;
use crate::layer::{CopyError, LayerError, copy_uncompressed, copy_verbatim};
use crate::maker::unwritable;
use crate::push::BaseSource;
use crate::push::base::invalid;
use crate::watch::{Watch, Watched};

/// All that it takes to read the layer; may be asked again and again for the same bytes.
#[derive(Debug, Clone)]
pub(super) struct BaseLayer {
    pub(super) source: BaseSource,
    pub(super) remote: Remote,
    pub(super) form: Form,
    /// What the registry's client runs on.
    pub(super) runtime: Handle,
    /// Which layer of the image it is, for those who watch.
    pub(super) index: usize,
    /// Who watches.
    pub(super) watch: Arc<dyn Watch>,
}

/// What is written of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// The blob.
    Verbatim,
    /// What is compressed in it.
    Uncompressed,
}

impl BaseLayer {
    /// Writes the layer. That it is what manifest and config of the base image say is known when
    /// it is written: until then it must be possible to take it back.
    pub(super) fn write<W: Write>(&self, sink: W) -> Result<(Layer, W)> {
        let mut blob = self.open()?;
        // What was copied from Docker's types has OCI's, all of which are known.
        let encoding =
            Encoding::of_layer(&self.remote.descriptor.media_type).unwrap_or(Encoding::Plain);
        let sink = Watched {
            sink,
            layer: self.index,
            watch: Arc::clone(&self.watch),
        };
        let copied = match self.form {
            Form::Verbatim => copy_verbatim(encoding, &mut blob, sink),
            Form::Uncompressed => copy_uncompressed(encoding, &mut blob, sink),
        };
        let (layer, sink) = match copied {
            Ok(copied) => copied,
            Err(CopyError::Write(error)) => return Err(unwritable(&LayerError::sink(error))),
            Err(CopyError::Read(error)) => return Err(self.unreadable(blob, &error)),
        };
        if layer.diff_id != self.remote.diff_id {
            return Err(self.invalid(&format!(
                "is {} uncompressed, and its config says {}",
                layer.diff_id, self.remote.diff_id
            )));
        }
        let descriptor = match self.form {
            Form::Verbatim => self.remote.descriptor.clone(),
            Form::Uncompressed => layer.descriptor,
        };
        Ok((
            Layer {
                descriptor,
                ..layer
            },
            sink.sink,
        ))
    }

    fn open(&self) -> Result<Blob> {
        let Remote {
            repository,
            descriptor,
            ..
        } = &self.remote;
        let opened = self.source.registry.open_blob(repository, descriptor);
        let reader = self.runtime.block_on(opened);
        Ok(Blob {
            runtime: self.runtime.clone(),
            reader: reader.map_err(|error| self.failure(&error))?,
            piece: Bytes::new(),
            failed: None,
        })
    }

    /// Why reading ended early. Bytes that cannot be decompressed are read to their end: if they
    /// are not those that were asked for, that is why.
    fn unreadable(&self, mut blob: Blob, error: &io::Error) -> Failure {
        if blob.failed.is_none() {
            let _ = io::copy(&mut blob, &mut io::sink());
        }
        if let Some(error) = blob.failed {
            return self.failure(&error);
        }
        let Descriptor { media_type, .. } = &self.remote.descriptor;
        self.invalid(&format!("is no {media_type}: {}", chain(error)))
    }

    fn invalid(&self, what: &str) -> Failure {
        let digest = &self.remote.descriptor.digest;
        invalid(&format!(
            "{} cannot be used: its layer {digest} {what}: whoever made the image must push it again",
            self.name()
        ))
    }

    fn failure(&self, error: &Error) -> Failure {
        self.source.login.failure(&self.name(), error)
    }

    fn name(&self) -> String {
        format!("{}/{}", self.source.registry.host(), self.remote.repository)
    }
}

/// A blob as a file. It ends well only if it is what its descriptor says.
struct Blob {
    runtime: Handle,
    reader: BlobReader,
    /// What is left of the last piece.
    piece: Bytes,
    /// What the registry's client said; whoever reads is told less.
    failed: Option<Error>,
}

impl Read for Blob {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.failed.is_some() {
            return Err(io::ErrorKind::Other.into());
        }
        while self.piece.is_empty() {
            match self.runtime.block_on(self.reader.next()) {
                Ok(Some(piece)) => self.piece = piece,
                Ok(None) => return Ok(0),
                Err(error) => {
                    self.failed = Some(error);
                    return Err(io::ErrorKind::Other.into());
                }
            }
        }
        let part = self.piece.split_to(buf.len().min(self.piece.len()));
        // Both are as long as the shorter of them.
        buf.get_mut(..part.len())
            .unwrap_or_default()
            .copy_from_slice(&part);
        Ok(part.len())
    }
}
