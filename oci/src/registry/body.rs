//! The body of a streamed upload: a bounded channel between the blocking thread that makes a layer
//! and the connection that sends it.
//!
//! ```text
//! producer thread ─ ChunkSink ─► channel (16 × 256 KiB) ─ Body ─► connection
//! ```
//!
//! Who sends: the producer, blocked while the channel is full. Who receives: the HTTP client. An
//! explicit end closes the body; a producer that stops without it fails the upload, so that no
//! truncated layer is taken for a whole one. If the connection goes first, the producer's next
//! write fails with `BrokenPipe`. Memory for each upload: 18
//! chunks (the channel, one being filled, one being sent).

use std::io::{self, Write};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Large enough that the hand-over between threads costs nothing beside compression.
const CHUNK: usize = 256 * 1024;
/// Evens out the difference between a bursty encoder and a steady connection.
const DEPTH: usize = 16;
/// Where a producer writes a blob. Write on a blocking thread only: a full channel blocks.
#[derive(Debug)]
pub struct ChunkSink {
    buffer: Vec<u8>,
    sender: mpsc::Sender<Message>,
    /// The receiver left first.
    abandoned: Arc<AtomicBool>,
}

#[derive(Debug)]
enum Message {
    Chunk(Bytes),
    End,
}

/// The receiving end, as a stream for the HTTP client.
#[derive(Debug)]
pub(super) struct Body {
    receiver: Receiver,
    progress: Progress,
}

type Receiver = Arc<Mutex<mpsc::Receiver<Message>>>;

/// Closes the channel when it is dropped. A connection that is stuck in a write keeps its body
/// until the kernel gives up on the peer, half a minute later; the producer must not wait for that.
#[derive(Debug)]
pub(super) struct Closer(Receiver);

impl Drop for Closer {
    fn drop(&mut self) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .close();
    }
}

/// What the connection is doing, for the watchdog.
#[derive(Debug, Clone)]
pub(super) struct Progress(Arc<Mutex<(Doing, Instant)>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    /// A chunk was taken and no more was asked for yet: the connection's turn.
    Sending,
    /// The connection wants more: the producer's turn, for as long as it takes.
    Waiting,
    /// All was taken: the registry's turn to answer.
    Sent,
}

pub(super) fn channel() -> (ChunkSink, Body) {
    let (sender, receiver) = mpsc::channel(DEPTH);
    let sink = ChunkSink {
        buffer: Vec::with_capacity(CHUNK),
        sender,
        abandoned: Arc::new(AtomicBool::new(false)),
    };
    let progress = Progress(Arc::new(Mutex::new((Doing::Sending, Instant::now()))));
    let receiver = Arc::new(Mutex::new(receiver));
    (sink, Body { receiver, progress })
}

impl ChunkSink {
    /// Sends what is left and the end of the body.
    pub(super) fn end(mut self) -> io::Result<()> {
        if !self.buffer.is_empty() {
            self.send_buffer()?;
        }
        self.send(Message::End)
    }

    /// Sends a piece as it is, from a task. For a sink that nothing was written to.
    pub(super) async fn give(&mut self, piece: Bytes) -> io::Result<()> {
        self.send_async(Message::Chunk(piece)).await
    }

    /// The same as [`ChunkSink::end`], from a task.
    pub(super) async fn end_async(self) -> io::Result<()> {
        self.send_async(Message::End).await
    }

    async fn send_async(&self, message: Message) -> io::Result<()> {
        self.sender
            .send(message)
            .await
            .map_err(|_| self.left_alone())
    }

    /// Tells, also later, whether the connection ended before the producer.
    pub(super) fn abandoned(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.abandoned)
    }

    fn send_buffer(&mut self) -> io::Result<()> {
        let chunk = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK));
        self.send(Message::Chunk(Bytes::from(chunk)))
    }

    fn send(&self, message: Message) -> io::Result<()> {
        self.sender
            .blocking_send(message)
            .map_err(|_| self.left_alone())
    }

    fn left_alone(&self) -> io::Error {
        self.abandoned.store(true, Ordering::Release);
        io::Error::new(io::ErrorKind::BrokenPipe, "the upload was given up")
    }
}

impl Write for ChunkSink {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let room = CHUNK.saturating_sub(self.buffer.len());
        let part = buf.get(..room).unwrap_or(buf);
        self.buffer.extend_from_slice(part);
        if self.buffer.len() >= CHUNK {
            self.send_buffer()?;
        }
        Ok(part.len())
    }

    /// Does nothing: chunks are whole, the end is explicit.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Body {
    /// To be held for as long as anybody is interested in the upload.
    pub(super) fn closer(&self) -> Closer {
        Closer(Arc::clone(&self.receiver))
    }

    pub(super) fn progress(&self) -> Progress {
        self.progress.clone()
    }
}

impl Stream for Body {
    type Item = io::Result<Bytes>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.progress.set(Doing::Waiting);
        let mut receiver = self.receiver.lock().unwrap_or_else(PoisonError::into_inner);
        match ready!(receiver.poll_recv(cx)) {
            Some(Message::Chunk(chunk)) => {
                self.progress.set(Doing::Sending);
                Poll::Ready(Some(Ok(chunk)))
            }
            Some(Message::End) => {
                self.progress.set(Doing::Sent);
                Poll::Ready(None)
            }
            None => Poll::Ready(Some(Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the layer was not finished",
            )))),
        }
    }
}

impl Progress {
    fn set(&self, doing: Doing) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (doing, Instant::now());
    }

    /// Waits until the connection takes nothing for `stall`, or the registry does not answer for
    /// `answer` after the end; says which, and how long. A slow producer never ends it.
    pub(super) async fn stalled(
        &self,
        stall: Duration,
        answer: Duration,
    ) -> (&'static str, Duration) {
        loop {
            let (doing, since) = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let (what, limit) = match doing {
                Doing::Sending => ("nothing was taken", stall),
                Doing::Sent => ("no answer", answer),
                Doing::Waiting => {
                    // Its end is seen as late as one period after it: periods are short beside limits.
                    tokio::time::sleep(stall / 4).await;
                    continue;
                }
            };
            if since.elapsed() >= limit {
                return (what, limit);
            }
            tokio::time::sleep_until(since + limit).await;
        }
    }
}
