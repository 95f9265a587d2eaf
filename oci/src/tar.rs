//! A deterministic tar writer: ustar with PAX records where ustar has no room, in the bytes of one
//! of three [`Format`]s. What metadata an entry has is the caller's to say; how it is written down
//! is the format's.
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
//! Names are given alike for every format: relative, and without a slash at the end.

use std::io::{self, Read, Write};

mod capability;
mod format;
mod header;
mod metadata;
mod name;
mod order;
mod pax;
mod reader;

pub use capability::{CAPABILITY_XATTR, CapabilityError, FileCapabilities};
pub use format::Format;
use header::Header;
pub use metadata::{Metadata, Xattr};
pub use name::{NameError, opaque_name, whiteout_name};
use order::Order;
pub use order::compare_names;
pub use reader::{Member, MemberKind, ReadError, Skip, TarReader};

/// Bytes read from a file at once: large enough for the disk, small beside an encoder's window.
pub const COPY_BUFFER: usize = 256 * 1024;

/// An archive consists of blocks of this size.
const BLOCK: usize = 512;

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
        /// `mode`, `mtime`, or bytes of records.
        what: &'static str,
        /// The number.
        value: u64,
    },
    /// Entries come in strictly ascending order, see [`Format::compare_names`].
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
    format: Format,
    order: Order,
    /// Bytes written.
    offset: u64,
    buffer: Box<[u8]>,
}

impl<W: Write> TarWriter<W> {
    /// An archive without entries, in Firn's own format.
    pub fn new(sink: W) -> Self {
        Self::with_format(Format::Nar1, sink)
    }

    /// An archive without entries, in the bytes of `format`.
    pub fn with_format(format: Format, sink: W) -> Self {
        Self {
            sink,
            format,
            order: Order::new(format),
            offset: 0,
            buffer: vec![0; COPY_BUFFER].into_boxed_slice(),
        }
    }

    /// The format of this archive.
    pub const fn format(&self) -> Format {
        self.format
    }

    /// The next entry begins a subtree: in [`Format::Python`] it may come before the entries there
    /// are, and what follows is in or below it. The other formats keep one order for everything.
    pub fn begin_subtree(&mut self) {
        self.order.begin_subtree();
    }

    /// Adds a directory. In [`Format::Go`] the empty name is the root, `/`.
    ///
    /// # Errors
    /// See [`TarError`]; nothing was written unless it is `Write`.
    pub fn directory(&mut self, name: &[u8], metadata: Metadata<'_>) -> Result<(), TarError> {
        if !(name.is_empty() && self.format == Format::Go) {
            name::check(name).map_err(|rule| refused(name, rule))?;
        }
        self.enter(name)?;
        self.header(&Header::directory(name, metadata))
    }

    /// Adds a regular file of exactly `size` bytes. Hard links do not exist: give the contents again.
    ///
    /// # Errors
    /// See [`TarError`].
    pub fn file(
        &mut self,
        name: &[u8],
        metadata: Metadata<'_>,
        size: u64,
        mut contents: impl Read,
    ) -> Result<(), TarError> {
        name::check(name).map_err(|rule| refused(name, rule))?;
        self.enter(name)?;
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
            self.offset += got as u64;
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
        metadata: Metadata<'_>,
        target: &[u8],
    ) -> Result<(), TarError> {
        name::check(name).map_err(|rule| refused(name, rule))?;
        name::check_target(target).map_err(|rule| refused(name, rule))?;
        self.enter(name)?;
        self.header(&Header::symlink(name, metadata, target))
    }

    /// Deletes `name` of the layers below. Its place in the order is that of [`whiteout_name`].
    ///
    /// # Errors
    /// See [`TarError`].
    pub fn whiteout(&mut self, name: &[u8]) -> Result<(), TarError> {
        name::check(name).map_err(|rule| refused(name, rule))?;
        self.marker(&whiteout_name(name))
    }

    /// Hides what the layers below have in the directory `name`. Its place in the order is that of
    /// [`opaque_name`], right after the directory.
    ///
    /// # Errors
    /// See [`TarError`].
    pub fn opaque(&mut self, name: &[u8]) -> Result<(), TarError> {
        name::check(name).map_err(|rule| refused(name, rule))?;
        self.marker(&opaque_name(name))
    }

    /// Ends the archive and gives the sink back, not flushed.
    ///
    /// # Errors
    /// The sink cannot be written.
    pub fn finish(mut self) -> Result<W, TarError> {
        self.put(&vec![0; self.format.trailer(self.offset)])?;
        Ok(self.sink)
    }

    /// An empty file that means a deletion.
    fn marker(&mut self, name: &[u8]) -> Result<(), TarError> {
        self.enter(name)?;
        self.header(&Header::file(name, Metadata::root(0o644), 0))
    }

    fn enter(&mut self, name: &[u8]) -> Result<(), TarError> {
        self.order.enter(name).map_err(|previous| TarError::Order {
            name: printable(name),
            previous: printable(&previous),
        })
    }

    fn header(&mut self, header: &Header<'_>) -> Result<(), TarError> {
        let blocks = header.to_blocks(self.format)?;
        self.put(&blocks)
    }

    fn pad(&mut self, size: u64) -> Result<(), TarError> {
        self.put(padding(size))
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), TarError> {
        self.sink.write_all(bytes).map_err(TarError::Write)?;
        self.offset += bytes.len() as u64;
        Ok(())
    }
}

fn refused(name: &[u8], rule: NameError) -> TarError {
    TarError::Name {
        name: printable(name),
        rule,
    }
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
