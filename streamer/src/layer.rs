//! Store paths as a layer in the tar profile `nar/1`: what a NAR encodes and nothing else. Modes,
//! owners and times of the file system, its directory order, and who reads it make no difference.
//!
//! The store is hostile: it was written by build code. It is opened below one directory handle,
//! one component at a time, and no symbolic link is followed. Synchronous.
//!
//! ```text
//! store ───openat──► directory entries, sorted ──► tar ──► diffID, compressor, digest ──► sink
//!                                            └───► NAR hash, compared with Nix's own
//! ```

use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use firn_oci::{Metadata, TarWriter};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};

use crate::closure::Closure;
use crate::input::{Contents, Profile};
use crate::nar::NarHasher;
use crate::nar_hash::NarHash;
use crate::store_path::StorePath;

/// Deepest nesting of directories. Nix itself has no limit; paths end at 4096 bytes.
const DEPTH_MAX: usize = 512;
/// Most entries of one directory, since they are sorted in memory.
const ENTRIES_MAX: usize = 2_000_000;

const PARENTS: Metadata<'_> = Metadata::root(0o755);
const DIRECTORY: Metadata<'_> = Metadata::root(0o555);
const EXECUTABLE: Metadata<'_> = Metadata::root(0o555);
const FILE: Metadata<'_> = Metadata::root(0o444);
const SYMLINK: Metadata<'_> = Metadata::root(0o777);

/// Why store paths could not be written as a layer.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// Something in the store cannot be read, or is reached through a symbolic link.
    #[error("failed to read {path:?} in the store")]
    Read {
        /// Where, below the store.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// Not a file, directory or symbolic link.
    #[error("{path:?} in the store is neither a file nor a directory nor a symbolic link")]
    Special {
        /// Where, below the store.
        path: String,
    },
    /// More than a layer can take.
    #[error("{path:?} in the store has more than {limit} {what}")]
    TooLarge {
        /// Where, below the store.
        path: String,
        /// Of what there is too much.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// The contents are not those that Nix registered.
    #[error(
        "{path} was altered after it was built: Nix recorded {expected}, its contents are {actual}"
    )]
    Altered {
        /// The store path.
        path: StorePath,
        /// What Nix has in its database.
        expected: NarHash,
        /// What is there.
        actual: NarHash,
    },
    /// The layer cannot be written.
    #[error(transparent)]
    Write(firn_oci::tar::TarError),
}

impl LayerError {
    /// Whether the sink is at fault and not the store.
    pub fn is_sink(&self) -> bool {
        matches!(self, Self::Write(firn_oci::tar::TarError::Write(_)))
    }
}

/// The store as a directory handle.
#[derive(Debug)]
pub struct Store {
    directory: OwnedFd,
}

impl Store {
    /// Opens the store at `path`, which must not be a symbolic link: build code owns its parent.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(Self { directory })
    }

    /// Writes a layer into `tar`, and compares each store path with what `closure` says.
    pub fn write<W: Write>(
        &self,
        closure: &Closure,
        contents: &Contents,
        tar: &mut TarWriter<W>,
    ) -> Result<(), LayerError> {
        match contents {
            Contents::Paths(layer) => match layer.profile {
                Profile::Nar1 => self.write_paths(closure, &layer.paths, tar),
            },
        }
    }

    fn write_paths<W: Write>(
        &self,
        closure: &Closure,
        paths: &[StorePath],
        tar: &mut TarWriter<W>,
    ) -> Result<(), LayerError> {
        for parent in [&b"nix"[..], b"nix/store"] {
            tar.directory(parent, PARENTS).map_err(LayerError::Write)?;
        }
        for path in paths {
            let mut walk = Walk {
                tar,
                nar: NarHasher::new(),
                name: format!("nix/store/{}", path.base_name()).into_bytes(),
            };
            walk.node(self.directory.as_fd(), path.base_name().as_bytes(), None, 0)?;
            let (actual, _) = walk.nar.finish();
            match closure.paths().get(path) {
                Some(info) if info.nar_hash != actual => {
                    return Err(LayerError::Altered {
                        path: path.clone(),
                        expected: info.nar_hash,
                        actual,
                    });
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// One store path on its way into tar and NAR.
struct Walk<'a, W> {
    tar: &'a mut TarWriter<W>,
    nar: NarHasher,
    /// The entry's name in the archive.
    name: Vec<u8>,
}

impl<W: Write> Walk<'_, W> {
    /// `entry` is the name within its directory for the NAR; `None` at the root.
    fn node(
        &mut self,
        parent: impl AsFd,
        name: &[u8],
        entry: Option<&[u8]>,
        depth: usize,
    ) -> Result<(), LayerError> {
        let os_name = OsStr::from_bytes(name);
        let parent = parent.as_fd();
        let stat = rustix::fs::statat(parent, os_name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| self.read(error))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let directory = self.open(parent, os_name, flags)?;
                self.directory(&directory, entry, depth)
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(parent, os_name, Vec::new())
                    .map_err(|error| self.read(error))?;
                self.symlink(entry, &target)
            }
            FileType::RegularFile => {
                // Never waits for the other end of what became a pipe in between.
                let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let file = self.open(parent, os_name, flags)?;
                self.file(File::from(file), entry)
            }
            _ => Err(LayerError::Special {
                path: self.printable(),
            }),
        }
    }

    /// `name` is a single component that the kernel gave us, so `NOFOLLOW` alone keeps the walk
    /// below the store; `openat2` would say no more, and some sandboxes lack it.
    fn open(&self, parent: impl AsFd, name: &OsStr, flags: OFlags) -> Result<OwnedFd, LayerError> {
        rustix::fs::openat(parent, name, flags | OFlags::NOFOLLOW, Mode::empty())
            .map_err(|error| self.read(error))
    }

    fn directory(
        &mut self,
        directory: &OwnedFd,
        entry: Option<&[u8]>,
        depth: usize,
    ) -> Result<(), LayerError> {
        if depth > DEPTH_MAX {
            return Err(self.too_large("nested directories", DEPTH_MAX));
        }
        self.tar
            .directory(&self.name, DIRECTORY)
            .map_err(LayerError::Write)?;
        self.nar.begin_directory(entry);
        let length = self.name.len();
        for child in self.entries(directory)? {
            self.name.push(b'/');
            self.name.extend_from_slice(&child);
            self.node(directory, &child, Some(&child), depth + 1)?;
            self.name.truncate(length);
        }
        self.nar.end_directory();
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

    fn file(&mut self, file: File, entry: Option<&[u8]>) -> Result<(), LayerError> {
        let stat = rustix::fs::fstat(&file).map_err(|error| self.read(error))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(LayerError::Special {
                path: self.printable(),
            });
        }
        let size = u64::try_from(stat.st_size).unwrap_or_default();
        let executable = stat.st_mode & 0o100 != 0;
        let metadata = if executable { EXECUTABLE } else { FILE };
        self.nar.begin_file(entry, executable, size);
        let contents = Tee {
            file,
            copy: &mut self.nar,
        };
        self.tar
            .file(&self.name, metadata, size, contents)
            .map_err(LayerError::Write)?;
        self.nar.end_file(size);
        Ok(())
    }

    fn symlink(&mut self, entry: Option<&[u8]>, target: &CStr) -> Result<(), LayerError> {
        self.nar.symlink(entry, target.to_bytes());
        self.tar
            .symlink(&self.name, SYMLINK, target.to_bytes())
            .map_err(LayerError::Write)
    }

    fn read(&self, error: rustix::io::Errno) -> LayerError {
        LayerError::Read {
            path: self.printable(),
            source: error.into(),
        }
    }

    fn too_large(&self, what: &'static str, limit: usize) -> LayerError {
        LayerError::TooLarge {
            path: self.printable(),
            what,
            limit,
        }
    }

    fn printable(&self) -> String {
        String::from_utf8_lossy(&self.name)
            .chars()
            .take(300)
            .collect()
    }
}

/// A file whose contents are hashed as they are read.
struct Tee<'a> {
    file: File,
    copy: &'a mut NarHasher,
}

impl Read for Tee<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let got = self.file.read(buf)?;
        self.copy.write_all(buf.get(..got).unwrap_or_default())?;
        Ok(got)
    }
}

#[cfg(test)]
mod tests;
