//! A compressing writer over a sink: cuts, hands over, and collects in order.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, TryRecvError};

use super::pool::{Buffer, Compressed, gone};
use super::{Algorithm, CHUNK, Compression, Compressors};

/// A compressing writer over a sink. Must be finished: dropped, its blob is cut short. After an
/// error nothing more is written, and `finish` is an error too.
///
/// The sink is written by the thread that writes into this one; that it blocks is the
/// back-pressure.
pub struct Encoder<W> {
    sink: W,
    compression: Compression,
    pool: Compressors,
    filling: Option<Buffer>,
    /// Chunks in flight, in their order.
    pending: VecDeque<Pending>,
    is_reserve_used: bool,
    is_begun: bool,
    is_failed: bool,
}

struct Pending {
    answer: Receiver<io::Result<Compressed>>,
    /// This is the one chunk that needs no permit.
    is_reserve: bool,
}

impl<W> std::fmt::Debug for Encoder<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder")
            .field("compression", &self.compression)
            .field("pending", &self.pending.len())
            .finish_non_exhaustive()
    }
}

impl<W: Write> Encoder<W> {
    /// An encoder whose chunks are compressed by `pool`.
    pub fn new(compression: Compression, pool: &Compressors, sink: W) -> Self {
        Self {
            sink,
            compression,
            pool: pool.clone(),
            filling: None,
            pending: VecDeque::new(),
            is_reserve_used: false,
            is_begun: false,
            is_failed: false,
        }
    }

    /// Writes what is left and gives the sink back, not flushed.
    ///
    /// # Errors
    /// The sink cannot be written, or a chunk was not compressed.
    pub fn finish(mut self) -> io::Result<W> {
        self.guarded(Self::write_rest)?;
        Ok(self.sink)
    }

    fn write_rest(&mut self) -> io::Result<()> {
        if self.compression.algorithm() == Algorithm::None {
            return Ok(());
        }
        // No input at all is still a frame.
        if self.filling.is_some() || !self.is_begun {
            self.submit()?;
        }
        while let Some(oldest) = self.pending.pop_front() {
            let answer = oldest.answer.recv();
            self.collect(oldest.is_reserve, answer.unwrap_or_else(|_| Err(gone())))?;
        }
        Ok(())
    }

    fn fill(&mut self, buf: &[u8]) -> io::Result<usize> {
        let filling = self.filling.get_or_insert_with(|| self.pool.buffer());
        let room = CHUNK.saturating_sub(filling.bytes.len());
        let part = buf.get(..room).unwrap_or(buf);
        filling.bytes.extend_from_slice(part);
        if filling.bytes.len() == CHUNK {
            self.submit()?;
        }
        Ok(part.len())
    }

    /// Hands over the chunk that is being filled, when there is room for one more.
    fn submit(&mut self) -> io::Result<()> {
        self.collect_finished()?;
        let permit = loop {
            if !self.is_reserve_used {
                break None;
            }
            if let Some(permit) = self.pool.try_permit() {
                break Some(permit);
            }
            // The reserve is in flight, so there is an oldest one.
            let oldest = self.pending.pop_front().ok_or_else(gone)?;
            let answer = oldest.answer.recv();
            self.collect(oldest.is_reserve, answer.unwrap_or_else(|_| Err(gone())))?;
        };
        let is_reserve = permit.is_none();
        let chunk = self.filling.take().unwrap_or_else(|| self.pool.buffer());
        let answer = self.pool.submit(self.compression, chunk, permit)?;
        self.is_begun = true;
        self.is_reserve_used |= is_reserve;
        self.pending.push_back(Pending { answer, is_reserve });
        Ok(())
    }

    /// Writes what is done already, as far as its order allows.
    fn collect_finished(&mut self) -> io::Result<()> {
        while let Some(oldest) = self.pending.front() {
            let is_reserve = oldest.is_reserve;
            let answer = match oldest.answer.try_recv() {
                Ok(answer) => answer,
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => Err(gone()),
            };
            self.pending.pop_front();
            self.collect(is_reserve, answer)?;
        }
        Ok(())
    }

    fn collect(&mut self, is_reserve: bool, answer: io::Result<Compressed>) -> io::Result<()> {
        self.sink.write_all(&answer?.bytes.bytes)?;
        if is_reserve {
            self.is_reserve_used = false;
        }
        Ok(())
    }

    /// A chunk that is missing must never be followed by another.
    fn guarded<T>(&mut self, step: impl FnOnce(&mut Self) -> io::Result<T>) -> io::Result<T> {
        if self.is_failed {
            return Err(io::Error::other("a part of the layer could not be written"));
        }
        let done = step(self);
        self.is_failed = done.is_err();
        done
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if self.compression.algorithm() == Algorithm::None {
            return self.sink.write(buf);
        }
        self.guarded(|encoder| encoder.fill(buf))
    }

    /// Does nothing: a flush in the middle would change the bytes.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
