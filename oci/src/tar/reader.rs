//! Archives of others, read member by member: ustar, GNU and PAX. Only what an image archive can
//! hold is understood, and everything is bounded. Synchronous.
//!
//! Contents are not copied: a member says where in the archive they are.

use std::io::{self, Read};

use super::BLOCK;

/// Longest name or link target: what Linux takes.
const NAME_MAX: u64 = 4096;
/// Longest list of PAX records, in bytes.
const PAX_MAX: u64 = 64 * 1024;

/// Why an archive could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The bytes could not be read, or ended too soon.
    #[error("failed to read at byte {offset}")]
    Read {
        /// Where in the archive.
        offset: u64,
        /// Why.
        source: io::Error,
    },
    /// A header is broken.
    #[error("no valid tar header at byte {offset}")]
    Header {
        /// Where in the archive.
        offset: u64,
    },
    /// A name or a record is longer than any that is needed.
    #[error("a name or record at byte {offset} has more than {limit} bytes")]
    TooLong {
        /// Where in the archive.
        offset: u64,
        /// The most that is read.
        limit: u64,
    },
    /// More members than the caller takes.
    #[error("the archive has more than {limit} members")]
    TooMany {
        /// The most.
        limit: usize,
    },
}

/// A member of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// As written.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: MemberKind,
    /// Where its contents begin, in bytes from the archive's start.
    pub offset: u64,
    /// The size of its contents in bytes.
    pub size: u64,
}

/// What a member is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link to this, seen from where it is.
    Symlink(Vec<u8>),
    /// The same as the member of this name.
    HardLink(Vec<u8>),
    /// Something else: a device, a sparse file.
    Other(u8),
}

/// Passes over bytes, by whatever way is short.
pub trait Skip: Read {
    /// Passes over `count` bytes.
    ///
    /// # Errors
    /// There are fewer, as far as the reader can tell.
    fn skip(&mut self, count: u64) -> io::Result<()>;
}

impl Skip for std::fs::File {
    fn skip(&mut self, count: u64) -> io::Result<()> {
        let count = i64::try_from(count).map_err(io::Error::other)?;
        io::Seek::seek(self, io::SeekFrom::Current(count)).map(|_| ())
    }
}

impl Skip for &[u8] {
    fn skip(&mut self, count: u64) -> io::Result<()> {
        skip_by_reading(self, count)
    }
}

impl<R: Read> Skip for crate::decompress::Decoder<R> {
    fn skip(&mut self, count: u64) -> io::Result<()> {
        skip_by_reading(self, count)
    }
}

fn skip_by_reading<R: Read>(reader: &mut R, count: u64) -> io::Result<()> {
    match io::copy(&mut reader.take(count), &mut io::sink())? {
        passed if passed == count => Ok(()),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Reads an archive.
#[derive(Debug)]
pub struct TarReader<R> {
    reader: R,
    offset: u64,
    /// Of the last member, with padding.
    unread: u64,
    padding: u64,
}

/// What extended headers say of the next member.
#[derive(Default)]
struct Extended {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
}

impl<R: Skip> TarReader<R> {
    /// An archive from its start.
    pub const fn new(reader: R) -> Self {
        Self {
            reader,
            offset: 0,
            unread: 0,
            padding: 0,
        }
    }

    /// The next member; `None` at the end.
    ///
    /// # Errors
    /// The archive is broken, or its headers have no bound.
    pub fn next_member(&mut self) -> Result<Option<Member>, ReadError> {
        self.pass(self.unread.saturating_add(self.padding))?;
        (self.unread, self.padding) = (0, 0);
        let mut extended = Extended::default();
        loop {
            let offset = self.offset;
            let Some(block) = self.block()? else {
                return Ok(None);
            };
            if block.iter().all(|byte| *byte == 0) {
                return Ok(None);
            }
            let broken = || ReadError::Header { offset };
            let header = Header(&block);
            if !header.is_intact() {
                return Err(broken());
            }
            let size = header.size().ok_or_else(broken)?;
            match header.kind() {
                b'L' => extended.name = Some(self.text(size, NAME_MAX)?),
                b'K' => extended.link = Some(self.text(size, NAME_MAX)?),
                b'x' => {
                    let records = self.contents(size, PAX_MAX)?;
                    extended.read_records(&records).ok_or_else(broken)?;
                }
                // Holds for the whole archive: a comment, as a rule.
                b'g' => {
                    self.contents(size, PAX_MAX)?;
                }
                kind => return self.member(&header, kind, size, extended).map(Some),
            }
        }
    }

    /// The contents of the member that came last.
    ///
    /// # Errors
    /// There are more than `limit` bytes, or they cannot be read.
    pub fn read_contents(&mut self, limit: u64) -> Result<Vec<u8>, ReadError> {
        let bytes = self.read_exactly(self.unread, limit)?;
        self.unread = 0;
        Ok(bytes)
    }

    /// The first bytes of the member that came last, fewer than `count` if it has fewer.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn peek(&mut self, count: usize) -> Result<Vec<u8>, ReadError> {
        let count = self.unread.min(count as u64);
        let bytes = self.read_exactly(count, count)?;
        self.unread -= count;
        Ok(bytes)
    }

    fn member(
        &mut self,
        header: &Header<'_>,
        kind: u8,
        size: u64,
        extended: Extended,
    ) -> Result<Member, ReadError> {
        let link = extended.link.unwrap_or_else(|| header.link());
        let kind = match kind {
            b'0' | 0 | b'7' => MemberKind::File,
            b'5' => MemberKind::Directory,
            b'2' => MemberKind::Symlink(link),
            b'1' => MemberKind::HardLink(link),
            other => MemberKind::Other(other),
        };
        let size = match kind {
            MemberKind::File | MemberKind::Other(_) => extended.size.unwrap_or(size),
            MemberKind::Directory | MemberKind::Symlink(_) | MemberKind::HardLink(_) => 0,
        };
        let offset = self.offset;
        let end = offset
            .checked_add(size)
            .and_then(|end| end.checked_add(BLOCK as u64));
        if end.is_none_or(|end| i64::try_from(end).is_err()) {
            return Err(ReadError::Header { offset });
        }
        (self.unread, self.padding) = (size, padding(size));
        Ok(Member {
            name: extended.name.unwrap_or_else(|| header.name()),
            kind,
            offset,
            size,
        })
    }

    /// A header. `None`: the archive ends without the zeros that it should end with.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, ReadError> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while let Some(room) = block.get_mut(filled..).filter(|room| !room.is_empty()) {
            match self.reader.read(room) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(self.failed(io::ErrorKind::UnexpectedEof.into())),
                Ok(got) => filled += got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(error)),
            }
        }
        self.offset += BLOCK as u64;
        Ok(Some(block))
    }

    fn text(&mut self, size: u64, limit: u64) -> Result<Vec<u8>, ReadError> {
        let mut text = self.contents(size, limit)?;
        text.truncate(
            text.iter()
                .position(|byte| *byte == 0)
                .unwrap_or(text.len()),
        );
        Ok(text)
    }

    /// The contents of an extended header, and what fills its last block.
    fn contents(&mut self, size: u64, limit: u64) -> Result<Vec<u8>, ReadError> {
        let bytes = self.read_exactly(size, limit)?;
        self.pass(padding(size))?;
        Ok(bytes)
    }

    fn read_exactly(&mut self, size: u64, limit: u64) -> Result<Vec<u8>, ReadError> {
        if size > limit {
            return Err(ReadError::TooLong {
                offset: self.offset,
                limit,
            });
        }
        let mut bytes = Vec::new();
        let read = (&mut self.reader).take(size).read_to_end(&mut bytes);
        match read {
            Ok(got) if got as u64 == size => {}
            Ok(_) => return Err(self.failed(io::ErrorKind::UnexpectedEof.into())),
            Err(error) => return Err(self.failed(error)),
        }
        self.offset += size;
        Ok(bytes)
    }

    fn pass(&mut self, count: u64) -> Result<(), ReadError> {
        self.reader
            .skip(count)
            .map_err(|error| self.failed(error))?;
        self.offset += count;
        Ok(())
    }

    const fn failed(&self, source: io::Error) -> ReadError {
        ReadError::Read {
            offset: self.offset,
            source,
        }
    }
}

const fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}

impl Extended {
    /// `<length> <key>=<value>\n`, the length counting itself. Others than three keys are passed
    /// over.
    fn read_records(&mut self, mut records: &[u8]) -> Option<()> {
        while !records.is_empty() {
            let space = records.iter().take(20).position(|byte| *byte == b' ')?;
            let length = std::str::from_utf8(records.get(..space)?).ok()?;
            let length: usize = length.parse().ok()?;
            let (record, rest) = records.split_at_checked(length)?;
            let record = record.get(space + 1..)?.strip_suffix(b"\n")?;
            let equals = record.iter().position(|byte| *byte == b'=')?;
            let (key, value) = (record.get(..equals)?, record.get(equals + 1..)?);
            match key {
                b"path" => self.name = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => self.size = Some(std::str::from_utf8(value).ok()?.parse().ok()?),
                _ => {}
            }
            records = rest;
        }
        Some(())
    }
}

struct Header<'a>(&'a [u8; BLOCK]);

impl Header<'_> {
    fn field(&self, from: usize, length: usize) -> &[u8] {
        self.0.get(from..from + length).unwrap_or_default()
    }

    /// Up to the first NUL.
    fn text(&self, from: usize, length: usize) -> &[u8] {
        let field = self.field(from, length);
        let end = field.iter().position(|byte| *byte == 0);
        field.get(..end.unwrap_or(length)).unwrap_or_default()
    }

    fn kind(&self) -> u8 {
        self.0.get(156).copied().unwrap_or_default()
    }

    fn name(&self) -> Vec<u8> {
        let name = self.text(0, 100);
        let prefix = self.text(345, 155);
        // GNU's older format has times in the place of the prefix, and another magic.
        if prefix.is_empty() || self.field(257, 6) != b"ustar\0" {
            return name.to_vec();
        }
        [prefix, b"/", name].concat()
    }

    fn link(&self) -> Vec<u8> {
        self.text(157, 100).to_vec()
    }

    /// The size of the contents. `None`: it is no number.
    fn size(&self) -> Option<u64> {
        let field = self.field(124, 12);
        match field {
            // GNU's way to write large numbers: binary, marked by the first bit.
            [0x80, rest @ ..] => {
                let (high, low) = rest.split_at_checked(3)?;
                let low: [u8; 8] = low.try_into().ok()?;
                high.iter()
                    .all(|byte| *byte == 0)
                    .then(|| u64::from_be_bytes(low))
            }
            _ => octal(field),
        }
    }

    /// Whether the checksum is right.
    fn is_intact(&self) -> bool {
        let sum: u64 = self
            .0
            .iter()
            .enumerate()
            .map(|(at, byte)| {
                if (148..156).contains(&at) {
                    b' '
                } else {
                    *byte
                }
            })
            .map(u64::from)
            .sum();
        octal(self.field(148, 8)) == Some(sum)
    }
}

/// Octal digits with spaces before, and spaces or NULs after. Empty is 0.
fn octal(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?;
    let digits = text.trim_start_matches(' ').trim_end_matches([' ', '\0']);
    if digits.is_empty() {
        return Some(0);
    }
    if digits.starts_with('+') {
        return None;
    }
    u64::from_str_radix(digits, 8).ok()
}

#[cfg(test)]
mod tests;
