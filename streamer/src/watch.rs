//! Telling how a transfer goes while it does.

use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;

use crate::push::Placed;

/// Who wants to know. Called from several threads, for each block: must be quick.
pub trait Watch: fmt::Debug + Send + Sync {
    /// So many more bytes of a layer's uncompressed archive were made. `layer` counts from 0 at
    /// the bottom. A layer that is tried again tells again.
    fn made(&self, layer: usize, bytes: u64);

    /// A layer is in the registry.
    fn placed(&self, layer: usize, placed: &Placed);
}

/// Nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unwatched;

impl Watch for Unwatched {
    fn made(&self, _layer: usize, _bytes: u64) {}

    fn placed(&self, _layer: usize, _placed: &Placed) {}
}

/// A sink for a layer's archive that tells of each write.
pub(crate) struct Watched<W> {
    pub(crate) sink: W,
    pub(crate) layer: usize,
    pub(crate) watch: Arc<dyn Watch>,
}

impl<W: Write> Write for Watched<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let written = self.sink.write(buf)?;
        self.watch.made(self.layer, written as u64);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}
