//! Layers that exist as bytes: an archive is copied into the compressor, a finished blob to its
//! place. What was declared of them is compared in the same pass.

use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};

use firn_oci::decompress::{Decoder, Encoding};
use firn_oci::{Descriptor, Digest, Digesting, Layer};

use super::LayerError;
use crate::closure::Closure;
use crate::input::blob::{Blob, Form, Member};
use crate::store::{OpenFile, Place, Store};

/// Bytes copied at once.
const BUFFER: usize = 256 * 1024;
/// Compressed archives that stay open at once: as many as layers are made at once, and the copies
/// that a second attempt leaves.
const STREAMS_MAX: usize = 4;

/// Compressed archives that are open, each at the end of a member. Members of an archive follow one
/// another as its layers do, so that making all of them takes as many passes over the archive as
/// layers are made at once, and no disk.
#[derive(Debug, Clone, Default)]
pub struct Streams(Arc<Mutex<Vec<Stream>>>);

#[derive(Debug)]
struct Stream {
    place: Place,
    position: u64,
    decoder: Decoder<std::fs::File>,
}

impl Streams {
    /// The open one that has the shortest way to `offset`.
    fn take(&self, place: &Place, offset: u64) -> Option<Stream> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let nearest = open
            .iter()
            .enumerate()
            .filter(|(_, stream)| stream.place == *place && stream.position <= offset)
            .max_by_key(|(_, stream)| stream.position);
        let index = nearest.map(|(index, _)| index)?;
        Some(open.swap_remove(index))
    }

    fn give(&self, stream: Stream) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= STREAMS_MAX {
            open.remove(0);
        }
        open.push(stream);
    }
}

/// Writes the archive that `blob` is into `sink`, uncompressed. That it is what was declared is
/// known when its digest is: see [`crate::input::Contents::compare`].
pub fn write_tar<W: Write>(
    store: &Store,
    streams: &Streams,
    closure: &Closure,
    blob: &Blob,
    sink: &mut W,
) -> Result<(), LayerError> {
    with_bytes(store, streams, closure, blob, |bytes| {
        copy(blob, bytes, sink).map(|_| ())
    })
}

/// Writes `blob` into `sink` as it is, and compares both digests that were declared.
pub fn write_verbatim<W: Write>(
    store: &Store,
    streams: &Streams,
    closure: &Closure,
    blob: &Blob,
    sink: W,
) -> Result<(Layer, W), LayerError> {
    let (encoding, declared) = match blob.form {
        Form::Verbatim { encoding, digest } => (encoding, digest),
        Form::Tar => (Encoding::Plain, None),
    };
    with_bytes(store, streams, closure, blob, |bytes| {
        let copied = copy_verbatim(encoding, bytes, sink).map_err(|error| match error {
            CopyError::Read(error) => unreadable(blob, error),
            CopyError::Write(error) => LayerError::sink(error),
        });
        let (layer, sink) = copied?;
        if let Some(declared) = declared {
            compare(blob, "digest", &declared, &layer.descriptor.digest)?;
        }
        compare(blob, "diffID", &blob.diff_id, &layer.diff_id)?;
        Ok((layer, sink))
    })
}

/// Which end of a copy failed.
#[derive(Debug)]
pub(crate) enum CopyError {
    /// The bytes cannot be read, or are not compressed as was said.
    Read(io::Error),
    /// The copy cannot be written.
    Write(io::Error),
}

/// Writes `bytes`, all of them, into `sink` as they are. What they are is seen in the same pass.
pub(crate) fn copy_verbatim<W: Write>(
    encoding: Encoding,
    bytes: &mut dyn Read,
    sink: W,
) -> Result<(Layer, W), CopyError> {
    let mut tee = Tee {
        bytes,
        copy: Digesting::new(sink),
        failed: None,
    };
    let inside = copy_uncompressed(encoding, &mut tee, io::sink());
    if let Some(error) = tee.failed.take() {
        return Err(CopyError::Write(error));
    }
    let (inside, _) = inside?;
    let (digest, size, sink) = tee.copy.finish();
    let layer = Layer {
        descriptor: Descriptor::new(encoding.layer_media_type(), digest, size),
        ..inside
    };
    Ok((layer, sink))
}

/// Writes what `bytes` are compressed into `sink`. All of `bytes` is read.
pub(crate) fn copy_uncompressed<R: Read, W: Write>(
    encoding: Encoding,
    bytes: &mut R,
    sink: W,
) -> Result<(Layer, W), CopyError> {
    let mut decoder = Decoder::new(encoding, bytes).map_err(CopyError::Read)?;
    let mut digesting = Digesting::new(sink);
    let mut buffer = vec![0; BUFFER];
    loop {
        let got = read(&mut decoder, &mut buffer).map_err(CopyError::Read)?;
        if got.is_empty() {
            break;
        }
        digesting.write_all(got).map_err(CopyError::Write)?;
    }
    // What follows the end of a compressed stream is part of the blob too.
    let mut rest = decoder.into_inner();
    while !read(&mut rest, &mut buffer)
        .map_err(CopyError::Read)?
        .is_empty()
    {}
    let (diff_id, size, sink) = digesting.finish();
    let layer = Layer {
        diff_id,
        uncompressed_size: size,
        descriptor: Descriptor::new(Encoding::Plain.layer_media_type(), diff_id, size),
    };
    Ok((layer, sink))
}

/// Calls `use_bytes` with the bytes of `blob`, neither more nor less.
fn with_bytes<T>(
    store: &Store,
    streams: &Streams,
    closure: &Closure,
    blob: &Blob,
    use_bytes: impl FnOnce(&mut dyn Read) -> Result<T, LayerError>,
) -> Result<T, LayerError> {
    let failed = |error| unreadable(blob, error);
    let open = || {
        store
            .open_file(closure, &blob.place)
            .map_err(LayerError::Open)
    };
    let Some(member) = blob.member else {
        let OpenFile { mut file, .. } = open()?;
        return use_bytes(&mut file);
    };
    let Member {
        archive,
        offset,
        size,
    } = member;
    if archive == Encoding::Plain {
        let OpenFile { mut file, .. } = open()?;
        io::Seek::seek(&mut file, io::SeekFrom::Start(offset)).map_err(failed)?;
        return use_bytes(&mut Exactly::new(&mut file, size));
    }
    let mut stream = match streams.take(&blob.place, offset) {
        Some(stream) => stream,
        None => Stream {
            place: blob.place.clone(),
            position: 0,
            decoder: Decoder::new(archive, open()?.file).map_err(failed)?,
        },
    };
    let skip = offset.saturating_sub(stream.position);
    let mut skipped = Exactly::new(&mut stream.decoder, skip);
    io::copy(&mut skipped, &mut io::sink()).map_err(failed)?;
    let done = use_bytes(&mut Exactly::new(&mut stream.decoder, size))?;
    stream.position = offset.saturating_add(size);
    streams.give(stream);
    Ok(done)
}

/// Copies all, and gives the number of bytes.
fn copy<W: Write>(blob: &Blob, bytes: &mut dyn Read, sink: &mut W) -> Result<u64, LayerError> {
    let mut buffer = vec![0; BUFFER];
    let mut size = 0;
    loop {
        let got = read(bytes, &mut buffer).map_err(|error| unreadable(blob, error))?;
        if got.is_empty() {
            return Ok(size);
        }
        sink.write_all(got).map_err(LayerError::sink)?;
        size += got.len() as u64;
    }
}

fn read<'b, R: Read + ?Sized>(reader: &mut R, buffer: &'b mut [u8]) -> io::Result<&'b [u8]> {
    loop {
        match reader.read(buffer) {
            Ok(got) => return Ok(buffer.get(..got).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn unreadable(blob: &Blob, source: io::Error) -> LayerError {
    LayerError::Read {
        path: blob.place.to_string(),
        source,
    }
}

/// Compares what was declared with what is there.
pub(super) fn compare(
    blob: &Blob,
    what: &'static str,
    expected: &Digest,
    actual: &Digest,
) -> Result<(), LayerError> {
    if expected == actual {
        return Ok(());
    }
    Err(LayerError::Damaged {
        place: blob.place.to_string(),
        what,
        expected: *expected,
        actual: *actual,
    })
}

/// So many bytes, or an error.
struct Exactly<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Exactly<R> {
    const fn new(inner: R, left: u64) -> Self {
        Self { inner, left }
    }
}

impl<R: Read> Read for Exactly<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(self.left).map_or(buf.len(), |left| left.min(buf.len()));
        let part = buf.get_mut(..room).unwrap_or_default();
        if part.is_empty() {
            return Ok(0);
        }
        match self.inner.read(part)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            got => {
                self.left -= got as u64;
                Ok(got)
            }
        }
    }
}

/// Bytes that are copied as they are read.
struct Tee<'a, W> {
    bytes: &'a mut dyn Read,
    copy: W,
    /// The copy could not be written: not the fault of who reads.
    failed: Option<io::Error>,
}

impl<W: Write> Read for Tee<'_, W> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let got = self.bytes.read(buf)?;
        if let Err(error) = self.copy.write_all(buf.get(..got).unwrap_or_default()) {
            self.failed = Some(error);
            return Err(io::ErrorKind::Other.into());
        }
        Ok(got)
    }
}
