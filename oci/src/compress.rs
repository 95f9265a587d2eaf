//! Compressors whose bytes are a function of their input: independent of the number of threads
//! and of how the input is cut into writes. Synchronous.
//!
//! Memory: see [`Compression::memory`].

use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::thread;

use libdeflater::{CompressionLvl, Compressor};
use serde::{Deserialize, Serialize};
use zstd::zstd_safe::CParameter;

use crate::media_type;

/// Level 3: 252 MB/s on one core at a ratio of 0.326; level 6 costs 2.6 times the time for 7 %.
const ZSTD_LEVEL: i32 = 3;
/// Level 3's own window, 2 MiB, named because the bytes depend on it.
const ZSTD_WINDOW_LOG: u32 = 21;
/// Four windows, the library's own choice for this window, named because the bytes depend on it.
const ZSTD_JOB: u32 = 8 << 20;
/// What a job sees of the one before: an eighth of the window. Named for the same reason.
const ZSTD_OVERLAP_LOG: u32 = 6;
/// Level 4: 136 MB/s on one core; level 6 costs 1.5 times the time for 3 %.
const GZIP_LEVEL: i32 = 4;
/// The input of one gzip member. Members are joined: legal (RFC 1952) and read by Go, pigz, igzip.
const GZIP_MEMBER: usize = 1 << 20;

/// How a layer's blob is compressed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Compression {
    /// Not at all. Some clients cannot pull that.
    None,
    /// For clients without zstd.
    Gzip,
    /// The default: smaller and faster on both sides.
    #[default]
    Zstd,
}

impl Compression {
    /// The media type of a layer compressed so.
    pub const fn layer_media_type(self) -> &'static str {
        match self {
            Self::None => media_type::LAYER_TAR,
            Self::Gzip => media_type::LAYER_GZIP,
            Self::Zstd => media_type::LAYER_ZSTD,
        }
    }

    /// Everything the compressed bytes depend on besides the input: algorithm, parameters, and
    /// the library's version. Two equal identities make equal bytes. For recipe keys.
    pub fn identity(self) -> String {
        match self {
            Self::None => "none".to_owned(),
            // The library does not tell its version at run time; a test compares it with Cargo.lock.
            Self::Gzip => {
                format!("gzip;libdeflate={LIBDEFLATE};level={GZIP_LEVEL};member={GZIP_MEMBER}")
            }
            Self::Zstd => format!(
                "zstd;libzstd={};level={ZSTD_LEVEL};window={ZSTD_WINDOW_LOG};job={ZSTD_JOB};overlap={ZSTD_OVERLAP_LOG}",
                zstd::zstd_safe::version_string(),
            ),
        }
    }

    /// An upper bound of the bytes that an encoder with this many threads holds, beside the
    /// constant of its tables.
    pub const fn memory(self, threads: NonZeroUsize) -> usize {
        let threads = threads.get();
        match self {
            Self::None => 0,
            // A member in and a member out for each thread.
            Self::Gzip => threads * 2 * (GZIP_MEMBER + 4096),
            // Input ring for jobs in flight and one being filled, and output for each job.
            Self::Zstd => (2 * threads + 3) * ZSTD_JOB as usize,
        }
    }
}

/// The version in libdeflate-sys that the gzip bytes depend on.
const LIBDEFLATE: &str = "1.26.1";

/// A compressing writer over a sink. Must be finished: dropped, its blob is cut short.
pub struct Encoder<W: Write> {
    inner: Inner<W>,
}

enum Inner<W: Write> {
    None(W),
    Gzip(Gzip<W>),
    Zstd(zstd::Encoder<'static, W>),
}

impl<W: Write> std::fmt::Debug for Encoder<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.inner {
            Inner::None(_) => "Encoder(none)",
            Inner::Gzip(_) => "Encoder(gzip)",
            Inner::Zstd(_) => "Encoder(zstd)",
        })
    }
}

impl<W: Write> Encoder<W> {
    /// An encoder that may use `threads` threads besides the caller's.
    ///
    /// # Errors
    /// The library refuses its parameters or has no memory.
    pub fn new(compression: Compression, threads: NonZeroUsize, sink: W) -> io::Result<Self> {
        let inner = match compression {
            Compression::None => Inner::None(sink),
            Compression::Gzip => Inner::Gzip(Gzip::new(threads, sink)),
            Compression::Zstd => {
                let mut encoder = zstd::Encoder::new(sink, ZSTD_LEVEL)?;
                // 1, 2, 4 and 8 workers make the same bytes; 0, which compresses in the caller's
                // thread without jobs, makes others.
                encoder.multithread(u32::try_from(threads.get()).unwrap_or(u32::MAX).min(64))?;
                encoder.set_parameter(CParameter::WindowLog(ZSTD_WINDOW_LOG))?;
                encoder.set_parameter(CParameter::JobSize(ZSTD_JOB))?;
                encoder.set_parameter(CParameter::OverlapSizeLog(ZSTD_OVERLAP_LOG))?;
                Inner::Zstd(encoder)
            }
        };
        Ok(Self { inner })
    }

    /// Writes what is left and gives the sink back, not flushed.
    ///
    /// # Errors
    /// The sink cannot be written.
    pub fn finish(self) -> io::Result<W> {
        match self.inner {
            Inner::None(sink) => Ok(sink),
            Inner::Gzip(gzip) => gzip.finish(),
            Inner::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match &mut self.inner {
            Inner::None(sink) => sink.write(buf),
            Inner::Gzip(gzip) => gzip.write(buf),
            Inner::Zstd(encoder) => encoder.write(buf),
        }
    }

    /// Does nothing: a flush in the middle would change the bytes.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Members are collected, one per thread, and compressed together.
struct Gzip<W> {
    sink: W,
    threads: usize,
    pending: Vec<u8>,
    anything_written: bool,
}

impl<W: Write> Gzip<W> {
    fn new(threads: NonZeroUsize, sink: W) -> Self {
        Self {
            sink,
            threads: threads.get(),
            pending: Vec::with_capacity(threads.get() * GZIP_MEMBER),
            anything_written: false,
        }
    }

    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let room = self.threads * GZIP_MEMBER - self.pending.len();
        let part = buf.get(..room).unwrap_or(buf);
        self.pending.extend_from_slice(part);
        if part.len() == room {
            self.compress()?;
        }
        Ok(part.len())
    }

    fn compress(&mut self) -> io::Result<()> {
        let members = thread::scope(|scope| {
            let running: Vec<_> = self
                .pending
                .chunks(GZIP_MEMBER)
                .map(|member| scope.spawn(move || gzip_member(member)))
                .collect();
            running
                .into_iter()
                .map(|thread| {
                    thread
                        .join()
                        .unwrap_or_else(|_| Err(io::Error::other("a gzip thread panicked")))
                })
                .collect::<io::Result<Vec<_>>>()
        })?;
        for member in members {
            self.sink.write_all(&member)?;
            self.anything_written = true;
        }
        self.pending.clear();
        Ok(())
    }

    fn finish(mut self) -> io::Result<W> {
        if !self.pending.is_empty() {
            self.compress()?;
        }
        if !self.anything_written {
            // No input at all is still a gzip file.
            self.sink.write_all(&gzip_member(b"")?)?;
        }
        Ok(self.sink)
    }
}

/// One gzip member. libdeflate writes MTIME 0, no name, and 255 (unknown) as operating system.
fn gzip_member(input: &[u8]) -> io::Result<Vec<u8>> {
    let level = CompressionLvl::new(GZIP_LEVEL)
        .map_err(|_| io::Error::other("libdeflate does not know its own level"))?;
    let mut compressor = Compressor::new(level);
    let mut output = vec![0; compressor.gzip_compress_bound(input.len())];
    let length = compressor
        .gzip_compress(input, &mut output)
        .map_err(io::Error::other)?;
    output.truncate(length);
    Ok(output)
}
