//! The threads that compress, shared by all layers that are being written, and the memory they
//! share.
//!
//! ```text
//! layer a ─► filling ─┐                                    ┌─► pending, in order ─► sink of a
//! layer b ─► filling ─┼─► jobs ─► worker, worker, … (spare)┼─► pending, in order ─► sink of b
//! layer c ─► filling ─┘                                    └─► pending, in order ─► sink of c
//! ```
//!
//! Who fills a chunk also collects: a layer's own thread hands chunks over, and writes results into
//! its sink when it needs room. It waits for nothing but its own oldest chunk, so that layers
//! cannot wait for each other in a circle. A chunk in flight needs one of the permits that all
//! layers share, or is the one that each layer may always have, so that a layer whose sink is slow
//! never stops another.
//!
//! When the last handle is gone, the channel of jobs closes and the workers end. A job that is not
//! answered (its worker is gone) is an error for its layer.

use std::io;
use std::num::NonZeroUsize;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::{mem, thread};

use super::Compression;
use super::codec::{self, Codec, OUTPUT_MAX};

/// Permits per worker: one for the chunk it works on, and one that waits, so that it finds work
/// while a layer's thread is busy with its sink.
const PERMITS_PER_WORKER: usize = 2;

/// A pool of threads that compress chunks of layers. A handle: clones share the threads.
///
/// The bytes of a layer depend neither on the number of workers nor on what else they do.
#[derive(Clone)]
pub struct Compressors {
    shared: Arc<Shared>,
}

struct Shared {
    workers: NonZeroUsize,
    jobs: Sender<Job>,
    permits: Arc<AtomicUsize>,
    buffers: Arc<Buffers>,
}

impl Compressors {
    /// Starts `workers` threads.
    ///
    /// # Errors
    /// The system gives no more threads.
    pub fn new(workers: NonZeroUsize) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel();
        let queue = Arc::new(Mutex::new(queue));
        let buffers = Arc::new(Buffers::default());
        for index in 0..workers.get() {
            let (queue, buffers) = (Arc::clone(&queue), Arc::clone(&buffers));
            thread::Builder::new()
                .name(format!("compress-{index}"))
                .spawn(move || work(&queue, &buffers))?;
        }
        let permits = Arc::new(AtomicUsize::new(PERMITS_PER_WORKER * workers.get()));
        Ok(Self {
            shared: Arc::new(Shared {
                workers,
                jobs,
                permits,
                buffers,
            }),
        })
    }

    /// Starts a thread for each core that this process may use, also by its control group.
    ///
    /// # Errors
    /// The system gives no more threads.
    pub fn on_all_cores() -> io::Result<Self> {
        Self::new(thread::available_parallelism().unwrap_or(NonZeroUsize::MIN))
    }

    /// The number of threads.
    pub fn workers(&self) -> NonZeroUsize {
        self.shared.workers
    }

    /// The most bytes that a pool holds while `layers` are written at once, whatever their size:
    /// 2 MiB for each of `3 × workers + 2 × layers` buffers, and the libraries' tables. A worker
    /// has a spare buffer and two permits; a layer has the buffer that it fills, and one chunk
    /// that needs no permit.
    pub const fn memory(compression: Compression, workers: NonZeroUsize, layers: usize) -> usize {
        let workers = workers.get();
        let buffers = (1 + PERMITS_PER_WORKER) * workers + 2 * layers;
        buffers * OUTPUT_MAX + workers * codec::memory(compression)
    }

    pub(super) fn buffer(&self) -> Buffer {
        Buffers::take(&self.shared.buffers)
    }

    pub(super) fn try_permit(&self) -> Option<Permit> {
        let permits = &self.shared.permits;
        permits
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| {
                left.checked_sub(1)
            })
            .ok()?;
        Some(Permit(Arc::clone(permits)))
    }

    /// Hands a chunk to the workers. What comes back has the same permit.
    pub(super) fn submit(
        &self,
        compression: Compression,
        input: Buffer,
        permit: Option<Permit>,
    ) -> io::Result<Receiver<io::Result<Compressed>>> {
        // Room for the answer, so that a worker never waits for a layer.
        let (reply, answer) = mpsc::sync_channel(1);
        let job = Job {
            compression,
            input,
            permit,
            reply,
        };
        self.shared.jobs.send(job).map_err(|_| gone())?;
        Ok(answer)
    }
}

impl std::fmt::Debug for Compressors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Compressors({})", self.workers())
    }
}

/// The answer to a job that no worker answers.
pub(super) fn gone() -> io::Error {
    io::Error::other("the threads that compress layers have ended")
}

/// A chunk to compress.
struct Job {
    compression: Compression,
    input: Buffer,
    permit: Option<Permit>,
    reply: SyncSender<io::Result<Compressed>>,
}

/// A chunk that was compressed. Holds its permit until it is written.
pub(super) struct Compressed {
    pub(super) bytes: Buffer,
    _permit: Option<Permit>,
}

/// The right to have one more chunk in flight.
pub(super) struct Permit(Arc<AtomicUsize>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

fn work(queue: &Mutex<Receiver<Job>>, buffers: &Arc<Buffers>) {
    let mut codec = Codec::default();
    let mut spare = Buffers::take(buffers);
    loop {
        // One worker waits for a job, the others for it.
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job {
            compression,
            input,
            permit,
            reply,
        }) = next
        else {
            return;
        };
        let done = panic::catch_unwind(AssertUnwindSafe(|| {
            #[cfg(test)]
            tests::trap(&input.bytes);
            codec.compress(compression, &input.bytes, &mut spare.bytes)
        }));
        let answer = match done {
            Ok(Ok(())) => Ok(Compressed {
                // The input is not needed any more: it takes the next output.
                bytes: mem::replace(&mut spare, input),
                _permit: permit,
            }),
            Ok(Err(error)) => Err(error),
            // A release build has aborted instead.
            Err(_) => {
                codec = Codec::default();
                Err(io::Error::other("a thread that compresses layers panicked"))
            }
        };
        // An error here means that the layer was given up.
        let _ = reply.send(answer);
    }
}

/// Buffers for one chunk, or for what becomes of it. They are kept, since memory that is freed by
/// another thread than asked for it is often not given back.
#[derive(Default)]
struct Buffers {
    free: Mutex<Vec<Vec<u8>>>,
    made: AtomicUsize,
}

impl Buffers {
    fn take(buffers: &Arc<Self>) -> Buffer {
        let free = buffers.lock().pop();
        let bytes = free.unwrap_or_else(|| {
            buffers.made.fetch_add(1, Ordering::Relaxed);
            Vec::with_capacity(OUTPUT_MAX)
        });
        Buffer {
            bytes,
            home: Arc::clone(buffers),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Vec<u8>>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of [`Buffers`], to which it returns.
pub(super) struct Buffer {
    pub(super) bytes: Vec<u8>,
    home: Arc<Buffers>,
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut bytes = mem::take(&mut self.bytes);
        bytes.clear();
        self.home.lock().push(bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Barrier;

    use super::super::{CHUNK, Encoder};
    use super::*;

    const TRAP: &[u8] = b"a chunk that begins so makes its worker panic";

    pub(super) fn trap(input: &[u8]) {
        assert!(!input.starts_with(TRAP), "as the test wants it");
    }

    fn pool(workers: usize) -> Compressors {
        Compressors::new(NonZeroUsize::new(workers).unwrap()).unwrap()
    }

    fn made(pool: &Compressors) -> usize {
        pool.shared.buffers.made.load(Ordering::Relaxed)
    }

    fn permits(pool: &Compressors) -> usize {
        pool.shared.permits.load(Ordering::Relaxed)
    }

    /// Until all jobs are answered: given up ones hold their permits as long.
    fn come_to_rest(pool: &Compressors) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while permits(pool) < PERMITS_PER_WORKER * pool.workers().get() {
            assert!(std::time::Instant::now() < deadline, "a permit is lost");
            thread::yield_now();
        }
    }

    /// All layers have as much in flight as they can get when their sinks go on.
    #[test]
    fn memory_is_bounded_whatever_the_layers_and_their_sizes() {
        const LAYERS: usize = 5;
        struct Slow<'a>(Option<&'a Barrier>);
        impl Write for Slow<'_> {
            fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
                if let Some(all) = self.0.take() {
                    all.wait();
                }
                Ok(buf.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let pool = pool(3);
        let all = Barrier::new(LAYERS);
        thread::scope(|scope| {
            for _ in 0..LAYERS {
                scope.spawn(|| {
                    let mut layer = Encoder::new(Compression::ZSTD, &pool, Slow(Some(&all)));
                    for _ in 0..20 {
                        layer.write_all(&vec![7; CHUNK]).unwrap();
                    }
                    layer.finish().unwrap();
                });
            }
        });
        come_to_rest(&pool);
        let made = made(&pool);
        assert!(made <= 3 * 3 + 2 * LAYERS, "{made}");
        assert!(
            made * OUTPUT_MAX <= Compressors::memory(Compression::ZSTD, pool.workers(), LAYERS)
        );
        assert!(
            pool.shared
                .buffers
                .lock()
                .iter()
                .all(|free| free.capacity() == OUTPUT_MAX),
            "a buffer has grown"
        );
    }

    #[test]
    fn a_panic_of_a_worker_is_an_error_and_the_worker_goes_on() {
        let pool = pool(1);
        for _ in 0..3 {
            let mut broken = Encoder::new(Compression::ZSTD, &pool, Vec::new());
            broken.write_all(TRAP).unwrap();
            let error = broken.finish().unwrap_err().to_string();
            assert_eq!(error, "a thread that compresses layers panicked");
        }
        let mut whole = Encoder::new(Compression::ZSTD, &pool, Vec::new());
        whole.write_all(b"whole").unwrap();
        let blob = whole.finish().unwrap();
        assert_eq!(zstd::decode_all(blob.as_slice()).unwrap(), b"whole");
    }

    #[test]
    fn after_an_error_a_layer_cannot_be_finished() {
        let pool = pool(1);
        let mut broken = Encoder::new(Compression::ZSTD, &pool, Vec::new());
        let mut first = TRAP.to_vec();
        first.resize(CHUNK, 0);
        let mut failed = false;
        for _ in 0..10 {
            failed |= broken.write_all(&first).is_err();
        }
        assert!(failed);
        broken.finish().unwrap_err();
        come_to_rest(&pool);
    }

    #[test]
    fn a_layer_that_is_given_up_gives_back_what_it_had() {
        let pool = pool(2);
        for _ in 0..50 {
            let mut dropped = Encoder::new(Compression::ZSTD, &pool, io::sink());
            dropped.write_all(&vec![1; CHUNK * 3 / 2]).unwrap();
        }
        come_to_rest(&pool);
        let bound = 3 * 2 + 2 * 50;
        assert!(made(&pool) <= bound, "{}", made(&pool));
    }

    #[test]
    fn without_a_worker_there_is_an_error_and_no_waiting() {
        let (jobs, queue) = mpsc::channel();
        let workers = NonZeroUsize::MIN;
        let shared = |jobs| Shared {
            workers,
            jobs,
            permits: Arc::new(AtomicUsize::new(2)),
            buffers: Arc::default(),
        };
        let pool = Compressors {
            shared: Arc::new(shared(jobs)),
        };
        let mut layer = Encoder::new(Compression::ZSTD, &pool, io::sink());
        layer.write_all(&vec![0; CHUNK]).unwrap();
        drop(queue);
        assert_eq!(layer.finish().unwrap_err().to_string(), gone().to_string());
        let mut layer = Encoder::new(Compression::ZSTD, &pool, io::sink());
        layer.write_all(&vec![0; CHUNK]).unwrap_err();
    }
}
