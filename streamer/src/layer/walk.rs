//! One store path, entry by entry: depth first, siblings sorted by their names' bytes. No symbolic
//! link is followed.

use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};

use super::LayerError;
use crate::store::Store;
use crate::store_path::StorePath;

/// Deepest nesting of directories. Nix itself has no limit; paths end at 4096 bytes.
const DEPTH_MAX: usize = 512;
/// Most entries of one directory, since they are sorted in memory.
const ENTRIES_MAX: usize = 2_000_000;

/// An entry of a store path.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry<'a> {
    /// Below the store: `<hash>-<name>/bin/app`.
    pub(super) path: &'a [u8],
    /// The last component; `None` for the store path itself.
    pub(super) name: Option<&'a [u8]>,
    /// As the file system has them, with setuid, setgid and sticky; no type.
    pub(super) mode: u32,
}

/// Whom entries are shown to.
pub(super) trait Visit {
    /// A directory, before what is in it.
    fn directory(&mut self, entry: Entry<'_>) -> Result<(), LayerError>;
    /// What is in the directory that was shown last and has not ended was shown.
    fn end_directory(&mut self);
    /// A regular file of `size` bytes.
    fn file(&mut self, entry: Entry<'_>, size: u64, file: File) -> Result<(), LayerError>;
    /// A symbolic link.
    fn symlink(&mut self, entry: Entry<'_>, target: &[u8]) -> Result<(), LayerError>;
}

/// Shows all of `path` to `visit`.
pub(super) fn walk<V: Visit>(
    store: &Store,
    path: &StorePath,
    visit: &mut V,
) -> Result<(), LayerError> {
    let mut walk = Walk {
        visit,
        path: path.base_name().as_bytes().to_vec(),
    };
    walk.node(store.directory(), path.base_name().as_bytes(), 0)
}

struct Walk<'a, V> {
    visit: &'a mut V,
    path: Vec<u8>,
}

impl<V: Visit> Walk<'_, V> {
    fn node(&mut self, parent: impl AsFd, name: &[u8], depth: usize) -> Result<(), LayerError> {
        let os_name = OsStr::from_bytes(name);
        let parent = parent.as_fd();
        let stat = rustix::fs::statat(parent, os_name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| self.read(error))?;
        let name = (depth > 0).then_some(name);
        let mode = stat.st_mode & 0o7777;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY;
                let directory = self.open(parent, os_name, flags)?;
                self.directory(&directory, name, mode, depth)
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(parent, os_name, Vec::new())
                    .map_err(|error| self.read(error))?;
                let entry = entry(&self.path, name, mode);
                self.visit.symlink(entry, target.to_bytes())
            }
            FileType::RegularFile => {
                // Never waits for the other end of what became a pipe in between.
                let file = self.open(parent, os_name, OFlags::RDONLY | OFlags::NONBLOCK)?;
                self.file(File::from(file), name)
            }
            _ => Err(self.special()),
        }
    }

    /// `name` is a single component that the kernel gave us, so `NOFOLLOW` alone keeps the walk
    /// below the store; `openat2` would say no more, and some sandboxes lack it.
    fn open(&self, parent: impl AsFd, name: &OsStr, flags: OFlags) -> Result<OwnedFd, LayerError> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(|error| self.read(error))
    }

    fn directory(
        &mut self,
        directory: &OwnedFd,
        name: Option<&[u8]>,
        mode: u32,
        depth: usize,
    ) -> Result<(), LayerError> {
        if depth > DEPTH_MAX {
            return Err(self.too_large("nested directories", DEPTH_MAX));
        }
        self.visit.directory(entry(&self.path, name, mode))?;
        let length = self.path.len();
        for child in self.entries(directory)? {
            self.path.push(b'/');
            self.path.extend_from_slice(&child);
            self.node(directory, &child, depth + 1)?;
            self.path.truncate(length);
        }
        self.visit.end_directory();
        Ok(())
    }

    fn entries(&self, directory: &OwnedFd) -> Result<Vec<Vec<u8>>, LayerError> {
        let mut names = Vec::new();
        for found in Dir::read_from(directory).map_err(|error| self.read(error))? {
            let found = found.map_err(|error| self.read(error))?;
            let name = CStr::to_bytes(found.file_name());
            if name != b"." && name != b".." {
                names.push(name.to_vec());
            }
            if names.len() > ENTRIES_MAX {
                return Err(self.too_large("entries", ENTRIES_MAX));
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn file(&mut self, file: File, name: Option<&[u8]>) -> Result<(), LayerError> {
        let stat = rustix::fs::fstat(&file).map_err(|error| self.read(error))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(self.special());
        }
        let size = u64::try_from(stat.st_size).unwrap_or_default();
        let entry = entry(&self.path, name, stat.st_mode & 0o7777);
        self.visit.file(entry, size, file)
    }

    fn read(&self, error: rustix::io::Errno) -> LayerError {
        LayerError::Read {
            path: printable(&self.path),
            source: error.into(),
        }
    }

    fn special(&self) -> LayerError {
        LayerError::Special {
            path: printable(&self.path),
        }
    }

    fn too_large(&self, what: &'static str, limit: usize) -> LayerError {
        LayerError::TooLarge {
            path: printable(&self.path),
            what,
            limit,
        }
    }
}

const fn entry<'a>(path: &'a [u8], name: Option<&'a [u8]>, mode: u32) -> Entry<'a> {
    Entry { path, name, mode }
}

/// A name for a message.
pub(super) fn printable(name: &[u8]) -> String {
    String::from_utf8_lossy(name).chars().take(300).collect()
}
