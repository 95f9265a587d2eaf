//! What is in a store path: names and kinds, without contents. One directory handle at a time, no
//! symbolic link followed.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};

use super::{ENTRIES_MAX, Stored, printable};
use crate::layer::LayerError;
use crate::store::Store;
use crate::store_path::StorePath;

/// Deepest nesting of directories: paths end at 4096 bytes.
const DEPTH_MAX: usize = 512;
/// Bytes compared at once.
const COMPARED: usize = 64 * 1024;

/// Something in a store path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    /// Its name from the store path on; empty for the store path itself.
    pub(super) inside: Vec<u8>,
    /// What it is.
    pub(super) kind: Kind,
}

/// What something is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    File { size: u64, executable: bool },
    Symlink(Vec<u8>),
}

impl Store {
    /// Everything in `path` below `inside`, itself first, in no order that matters.
    pub(super) fn survey(&self, path: &StorePath, inside: &[u8]) -> Result<Vec<Seen>, LayerError> {
        let mut seen = Vec::new();
        let (parent, name) = self.parent(path, inside)?;
        look(&parent, &name, inside, 0, &mut seen).map_err(|trouble| match trouble {
            Trouble::Errno(errno, inside) => read(path, &inside, errno),
            Trouble::Layer(error) => error,
        })?;
        Ok(seen)
    }

    /// What `inside` of `path` is.
    pub(super) fn kind(&self, path: &StorePath, inside: &[u8]) -> Result<Kind, LayerError> {
        let (parent, name) = self.parent(path, inside)?;
        kind(&parent, &name)
            .map_err(|errno| read(path, inside, errno))?
            .ok_or_else(|| special(inside))
    }

    /// A regular file in a store path.
    pub(super) fn open_inside(&self, path: &StorePath, inside: &[u8]) -> Result<File, LayerError> {
        let (parent, name) = self.parent(path, inside)?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&parent, OsStr::from_bytes(&name), flags, Mode::empty())
            .map(File::from)
            .map_err(|errno| read(path, inside, errno))
    }

    /// Whether two files have the same contents and are programs alike.
    pub(super) fn same_file(&self, a: &Stored, b: &Stored) -> Result<bool, LayerError> {
        if a == b {
            return Ok(true);
        }
        if (a.size, a.executable) != (b.size, b.executable) {
            return Ok(false);
        }
        let mut files = [
            self.open_inside(&a.path, &a.inside)?,
            self.open_inside(&b.path, &b.inside)?,
        ];
        let mut left = a.size;
        let mut chunks = [vec![0; COMPARED], vec![0; COMPARED]];
        while left > 0 {
            let length = usize::try_from(left).unwrap_or(COMPARED).min(COMPARED);
            for (file, chunk) in files.iter_mut().zip(&mut chunks) {
                chunk.truncate(length);
                file.read_exact(chunk).map_err(|source| LayerError::Read {
                    path: printable(&a.target()),
                    source,
                })?;
            }
            let [first, second] = &chunks;
            if first != second {
                return Ok(false);
            }
            left -= length as u64;
        }
        Ok(true)
    }

    /// The directory that `inside` of `path` is in, and its name there.
    fn parent(&self, path: &StorePath, inside: &[u8]) -> Result<(OwnedFd, Vec<u8>), LayerError> {
        let failed = |errno| read(path, inside, errno);
        let mut directory = rustix::io::dup(self.directory.as_fd()).map_err(failed)?;
        let mut name = path.base_name().as_bytes().to_vec();
        let components = inside.split(|byte| *byte == b'/');
        for component in components.filter(|component| !component.is_empty()) {
            directory = open_directory(&directory, &name).map_err(failed)?;
            name = component.to_vec();
        }
        Ok((directory, name))
    }
}

enum Trouble {
    Errno(rustix::io::Errno, Vec<u8>),
    Layer(LayerError),
}

fn look(
    parent: &OwnedFd,
    name: &[u8],
    inside: &[u8],
    depth: usize,
    seen: &mut Vec<Seen>,
) -> Result<(), Trouble> {
    let failed = |errno| Trouble::Errno(errno, inside.to_vec());
    let too_large = |what, limit| {
        Trouble::Layer(LayerError::TooLarge {
            path: printable(inside),
            what,
            limit,
        })
    };
    if depth > DEPTH_MAX {
        return Err(too_large("nested directories", DEPTH_MAX));
    }
    if seen.len() >= ENTRIES_MAX {
        return Err(too_large("files", ENTRIES_MAX));
    }
    let kind = kind(parent, name)
        .map_err(failed)?
        .ok_or_else(|| Trouble::Layer(special(inside)))?;
    let is_directory = kind == Kind::Directory;
    seen.push(Seen {
        inside: inside.to_vec(),
        kind,
    });
    if is_directory {
        let directory = open_directory(parent, name).map_err(failed)?;
        for child in Dir::read_from(&directory).map_err(failed)? {
            let child = child.map_err(failed)?;
            let child = child.file_name().to_bytes();
            if child != b"." && child != b".." {
                let below = super::join(inside, child);
                look(&directory, child, &below, depth + 1, seen)?;
            }
        }
    }
    Ok(())
}

/// `None`: a device, a socket or a pipe.
fn kind(parent: &OwnedFd, name: &[u8]) -> Result<Option<Kind>, rustix::io::Errno> {
    let name = OsStr::from_bytes(name);
    let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(Some(match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Kind::Directory,
        FileType::RegularFile => Kind::File {
            size: u64::try_from(stat.st_size).unwrap_or_default(),
            executable: stat.st_mode & 0o100 != 0,
        },
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(parent, name, Vec::new())?;
            Kind::Symlink(target.into_bytes())
        }
        _ => return Ok(None),
    }))
}

fn open_directory(parent: &OwnedFd, name: &[u8]) -> Result<OwnedFd, rustix::io::Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, OsStr::from_bytes(name), flags, Mode::empty())
}

fn read(path: &StorePath, inside: &[u8], errno: rustix::io::Errno) -> LayerError {
    LayerError::Read {
        path: printable(&super::join(path.base_name().as_bytes(), inside)),
        source: errno.into(),
    }
}

fn special(inside: &[u8]) -> LayerError {
    LayerError::Special {
        path: printable(inside),
    }
}
