//! A deterministic tar writer: ustar with PAX records where ustar has no room, in the layout of
//! Firn's profile `nar/1`. What metadata an entry has is the caller's to say; how it is written
//! down is decided here, once.
//!
//! Nothing is read from the file system: no `stat`, no directory order, no clock, no user names.
//! Synchronous. Memory: one buffer of [`COPY_BUFFER`] bytes.
//!
//! ```
//! # use firn_oci::{Metadata, TarWriter};
//! let mut tar = TarWriter::new(Vec::new());
//! tar.directory(b"etc", Metadata::root(0o755))?;
//! tar.file(b"etc/motd", Metadata::root(0o644), 3, &b"hi\n"[..])?;
//! tar.symlink(b"etc/motd.d", Metadata::root(0o777), b"motd")?;
//! let bytes = tar.finish()?;
//! # assert_eq!(bytes.len(), 3072);
//! # Ok::<(), firn_oci::tar::TarError>(())
//! ```
//!
//! Rules of the profile (each fixed by the golden vectors in `tests/tar_vectors.rs`):
//! directories end in `/`; a name of more than 100 bytes goes into ustar's `prefix` if it is ASCII
//! and can be split there, else into a PAX record; so does a link target that is longer or not
//! ASCII; 1024 zero bytes end the archive. Other bytes need another profile version.

use std::cmp::Ordering;
use std::io::{self, Read, Write};

mod header;
mod name;

use header::Header;
pub use name::NameError;

/// Bytes read from a file at once: large enough for the disk, small beside an encoder's window.
pub const COPY_BUFFER: usize = 256 * 1024;

/// An archive consists of blocks of this size.
const BLOCK: usize = 512;

/// What an entry has besides its name and contents. Owners have no names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metadata {
    /// Permission bits, with setuid, setgid and sticky: `0o7777` at most.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Seconds since 1970.
    pub mtime: u64,
}

impl Metadata {
    /// Owned by root, with mtime 1: what everything in a Nix store has.
    pub const fn root(mode: u32) -> Self {
        Self {
            mode,
            uid: 0,
            gid: 0,
            mtime: 1,
        }
    }
}

/// Why an archive could not be written.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The name cannot stand in a layer.
    #[error("failed to add {name:?} to a layer: {rule}")]
    Name {
        /// As given, not UTF-8 replaced.
        name: String,
        /// The rule it breaks.
        rule: NameError,
    },
    /// A number has no place in the format.
    #[error("failed to add {name:?} to a layer: {what} {value} is too large for a tar header")]
    Number {
        /// The entry.
        name: String,
        /// `mode` or `mtime`.
        what: &'static str,
        /// The number.
        value: u64,
    },
    /// Entries come in strictly ascending order, see [`compare_names`].
    #[error("failed to add {name:?} to a layer: it must come before {previous:?}, once")]
    Order {
        /// The entry that came late or twice.
        name: String,
        /// The one before it.
        previous: String,
    },
    /// A file has fewer bytes than was announced in its header.
    #[error("failed to add {name:?} to a layer: it ended after {actual} of {expected} bytes")]
    Truncated {
        /// The file.
        name: String,
        /// Bytes announced.
        expected: u64,
        /// Bytes there were.
        actual: u64,
    },
    /// A file has more bytes than was announced.
    #[error("failed to add {name:?} to a layer: it has more than {expected} bytes")]
    Grown {
        /// The file.
        name: String,
        /// Bytes announced.
        expected: u64,
    },
    /// The contents could not be read.
    #[error("failed to read {name:?} for a layer")]
    Read {
        /// The file.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// The archive could not be written: the sink (a disk, an upload) gave up.
    #[error("failed to write a layer")]
    Write(#[source] io::Error),
}

/// Writes one archive into `W`. An entry is written whole by one call, so that a half-written one
/// cannot be followed by another; after an error the archive is useless and `finish` must not be
/// called.
#[derive(Debug)]
pub struct TarWriter<W> {
    sink: W,
    previous: Vec<u8>,
    buffer: Box<[u8]>,
}

impl<W: Write> TarWriter<W> {
    /// An archive without entries.
    pub fn new(sink: W) -> Self {
        Self {
            sink,
            previous: Vec::new(),
            buffer: vec![0; COPY_BUFFER].into_boxed_slice(),
        }
    }

    /// Adds a directory. `name` is relative, without a slash at its end.
    ///
    /// # Errors
    /// See [`TarError`]; nothing was written unless it is `Write`.
    pub fn directory(&mut self, name: &[u8], metadata: Metadata) -> Result<(), TarError> {
        self.check(name)?;
        let mut with_slash = name.to_vec();
        with_slash.push(b'/');
        self.header(&Header::directory(&with_slash, metadata))
    }

    /// Adds a regular file of exactly `size` bytes. Hard links do not exist: give the contents again.
    ///
    /// # Errors
    /// See [`TarError`].
    pub fn file(
        &mut self,
        name: &[u8],
        metadata: Metadata,
        size: u64,
        mut contents: impl Read,
    ) -> Result<(), TarError> {
        self.check(name)?;
        self.header(&Header::file(name, metadata, size))?;
        let mut left = size;
        loop {
            // One byte more than is left, to notice a file that has grown.
            let ask = usize::try_from(left.saturating_add(1)).unwrap_or(usize::MAX);
            let room = self.buffer.len().min(ask);
            let buffer = self.buffer.get_mut(..room).unwrap_or_default();
            let got = match contents.read(buffer) {
                Ok(got) => got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => {
                    return Err(TarError::Read {
                        name: printable(name),
                        source,
                    });
                }
            };
            if got == 0 {
                break;
            }
            left = left
                .checked_sub(got as u64)
                .ok_or_else(|| TarError::Grown {
                    name: printable(name),
                    expected: size,
                })?;
            let bytes = buffer.get(..got).unwrap_or_default();
            self.sink.write_all(bytes).map_err(TarError::Write)?;
        }
        if left > 0 {
            return Err(TarError::Truncated {
                name: printable(name),
                expected: size,
                actual: size - left,
            });
        }
        self.pad(size)
    }

    /// Adds a symbolic link. `target` may be anything but empty or with a NUL.
    ///
    /// # Errors
    /// See [`TarError`]; nothing was written unless it is `Write`.
    pub fn symlink(
        &mut self,
        name: &[u8],
        metadata: Metadata,
        target: &[u8],
    ) -> Result<(), TarError> {
        self.check(name)?;
        name::check_target(target).map_err(|rule| TarError::Name {
            name: printable(name),
            rule,
        })?;
        self.header(&Header::symlink(name, metadata, target))
    }

    /// Ends the archive and gives the sink back, not flushed.
    ///
    /// # Errors
    /// The sink cannot be written.
    pub fn finish(mut self) -> Result<W, TarError> {
        self.sink
            .write_all(&[0; 2 * BLOCK])
            .map_err(TarError::Write)?;
        Ok(self.sink)
    }

    fn check(&mut self, name: &[u8]) -> Result<(), TarError> {
        name::check(name).map_err(|rule| TarError::Name {
            name: printable(name),
            rule,
        })?;
        if !self.previous.is_empty() && compare_names(&self.previous, name) != Ordering::Less {
            return Err(TarError::Order {
                name: printable(name),
                previous: printable(&self.previous),
            });
        }
        self.previous.clear();
        self.previous.extend_from_slice(name);
        Ok(())
    }

    fn header(&mut self, header: &Header<'_>) -> Result<(), TarError> {
        let blocks = header.to_blocks()?;
        self.sink.write_all(&blocks).map_err(TarError::Write)
    }

    fn pad(&mut self, size: u64) -> Result<(), TarError> {
        self.sink.write_all(padding(size)).map_err(TarError::Write)
    }
}

/// The order of entries: component by component, each by its bytes. A directory comes right
/// before what is in it, and `a/c` before `a-b`.
pub fn compare_names(a: &[u8], b: &[u8]) -> Ordering {
    a.split(|byte| *byte == b'/')
        .cmp(b.split(|byte| *byte == b'/'))
}

/// The zeros that fill `size` bytes up to whole blocks.
fn padding(size: u64) -> &'static [u8] {
    const ZEROS: [u8; BLOCK] = [0; BLOCK];
    // Below 512, so it fits.
    let over = usize::try_from(size % BLOCK as u64).unwrap_or_default();
    ZEROS.get(over..).filter(|_| over != 0).unwrap_or_default()
}

/// A name for an error message: bounded, and readable even if it is no UTF-8.
fn printable(name: &[u8]) -> String {
    String::from_utf8_lossy(name).chars().take(300).collect()
}
