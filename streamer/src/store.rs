//! The store that build left, read as what it is: hostile. Files are opened below one directory
//! handle, one component at a time. A link is followed only where the name of a path was given,
//! and only to another path of the closure.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};

use crate::closure::Closure;
use crate::store_path::{STORE, StorePath};

/// Most links on the way to one file: what Linux follows at most.
const LINKS_MAX: usize = 40;
/// Most components of a name with all that links add to it.
const COMPONENTS_MAX: usize = 4096;

/// A file within a store path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The store path.
    pub path: StorePath,
    /// The name within it, without a slash at the beginning. Empty: the path itself.
    pub inside: String,
}

impl Place {
    /// The store path itself.
    pub fn of(path: &StorePath) -> Self {
        Self {
            path: path.clone(),
            inside: String::new(),
        }
    }

    /// The file `name` within the directory that `self` is.
    #[must_use]
    pub fn join(&self, name: &str) -> Self {
        let inside = if self.inside.is_empty() {
            name.to_owned()
        } else {
            format!("{}/{name}", self.inside)
        };
        Self {
            path: self.path.clone(),
            inside,
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.path)?;
        if self.inside.is_empty() {
            return Ok(());
        }
        // The name came from a document of build's.
        let inside: String = self.inside.chars().take(300).collect();
        write!(f, "/{}", inside.escape_debug())
    }
}

/// What is at a place.
#[derive(Debug)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// A directory.
    Directory,
    /// A regular file.
    File(OpenFile),
}

/// A regular file.
#[derive(Debug)]
pub struct OpenFile {
    /// Opened for reading.
    pub file: File,
    /// Its size in bytes.
    pub size: u64,
    /// Whether its owner may execute it.
    pub executable: bool,
}

/// Why a file of the store could not be read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be read.
    #[error("failed to read {place}")]
    Read {
        /// What was asked for.
        place: String,
        /// Why.
        source: io::Error,
    },
    /// It is not there.
    #[error("{place} does not exist")]
    Missing {
        /// What was asked for.
        place: String,
    },
    /// The name, or a link on the way, leads to what is no part of the closure.
    #[error("{place} leads out of the image's closure: {to:?} is not in it")]
    Outside {
        /// What was asked for.
        place: String,
        /// Where it leads.
        to: String,
    },
    /// Links go round in a circle, or there are too many of them.
    #[error("{place} is reached through too many symbolic links")]
    Links {
        /// What was asked for.
        place: String,
    },
    /// A pipe, a socket or a device.
    #[error("{place} is no regular file")]
    Special {
        /// What was asked for.
        place: String,
    },
    /// A document that is too large to be one.
    #[error("{place} has more than {limit} bytes")]
    TooLarge {
        /// What was asked for.
        place: String,
        /// The most that is read.
        limit: u64,
    },
}

/// The store as a directory handle.
#[derive(Debug)]
pub struct Store {
    pub(crate) directory: OwnedFd,
}

impl Store {
    /// Opens the store at `path`, which must not be a symbolic link: build code owns its parent.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(Self { directory })
    }

    /// The folder with the store paths.
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// What is at `place`.
    pub fn find(&self, closure: &Closure, place: &Place) -> Result<Found, StoreError> {
        Search::new(self, closure, place).run()
    }

    /// Opens the file at `place`.
    pub fn open_file(&self, closure: &Closure, place: &Place) -> Result<OpenFile, StoreError> {
        match self.find(closure, place)? {
            Found::File(file) => Ok(file),
            Found::Nothing => Err(StoreError::Missing {
                place: place.to_string(),
            }),
            Found::Directory => Err(StoreError::Special {
                place: place.to_string(),
            }),
        }
    }

    /// The whole file at `place`, of at most `limit` bytes.
    pub fn read(
        &self,
        closure: &Closure,
        place: &Place,
        limit: u64,
    ) -> Result<Vec<u8>, StoreError> {
        let OpenFile { file, .. } = self.open_file(closure, place)?;
        let mut bytes = Vec::new();
        let read = file.take(limit + 1).read_to_end(&mut bytes);
        read.map_err(|source| StoreError::Read {
            place: place.to_string(),
            source,
        })?;
        if bytes.len() as u64 > limit {
            return Err(StoreError::TooLarge {
                place: place.to_string(),
                limit,
            });
        }
        Ok(bytes)
    }
}

/// On the way to a file.
struct Search<'a> {
    store: &'a Store,
    closure: &'a Closure,
    place: &'a Place,
    /// Components that are still to be walked.
    ahead: VecDeque<Vec<u8>>,
    /// Directories from the store downwards, the store itself left out.
    above: Vec<OwnedFd>,
    links: usize,
}

impl<'a> Search<'a> {
    fn new(store: &'a Store, closure: &'a Closure, place: &'a Place) -> Self {
        let mut ahead = components(place.inside.as_bytes());
        ahead.push_front(place.path.base_name().as_bytes().to_vec());
        Self {
            store,
            closure,
            place,
            ahead,
            above: Vec::new(),
            links: 0,
        }
    }

    fn run(mut self) -> Result<Found, StoreError> {
        while let Some(name) = self.ahead.pop_front() {
            if name == b".." {
                // Above a store path is the store, whose other paths are checked as the first was.
                if self.above.pop().is_none() {
                    return Err(self.outside(STORE.as_bytes()));
                }
                continue;
            }
            if self.above.is_empty() {
                self.check_store_path(&name)?;
            }
            let name = OsStr::from_bytes(&name);
            let stat = match rustix::fs::statat(self.here(), name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(rustix::io::Errno::NOENT) => return Ok(Found::Nothing),
                Err(error) => return Err(self.read(error)),
            };
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Symlink => self.follow(name)?,
                FileType::Directory => {
                    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
                    let directory = self.open(name, flags)?;
                    self.above.push(directory);
                }
                FileType::RegularFile if self.ahead.is_empty() => return self.file(name),
                FileType::RegularFile => return Ok(Found::Nothing),
                _ => {
                    return Err(StoreError::Special {
                        place: self.place.to_string(),
                    });
                }
            }
        }
        if self.above.is_empty() {
            return Err(self.outside(STORE.as_bytes()));
        }
        Ok(Found::Directory)
    }

    fn here(&self) -> BorrowedFd<'_> {
        self.above
            .last()
            .map_or_else(|| self.store.directory(), AsFd::as_fd)
    }

    fn check_store_path(&self, name: &[u8]) -> Result<(), StoreError> {
        let path = std::str::from_utf8(name)
            .ok()
            .and_then(|name| StorePath::of_base_name(name).ok());
        match path {
            Some(path) if self.closure.contains(&path) => Ok(()),
            _ => Err(self.outside(name)),
        }
    }

    fn follow(&mut self, name: &OsStr) -> Result<(), StoreError> {
        self.links += 1;
        let target = rustix::fs::readlinkat(self.here(), name, Vec::new())
            .map_err(|error| self.read(error))?;
        let target = target.to_bytes();
        let mut steps = match target.strip_prefix(STORE.as_bytes()) {
            Some(rest) => {
                self.above.clear();
                components(rest)
            }
            None if target.starts_with(b"/") => return Err(self.outside(target)),
            None => components(target),
        };
        steps.append(&mut self.ahead);
        self.ahead = steps;
        if self.links > LINKS_MAX || self.ahead.len() > COMPONENTS_MAX {
            return Err(StoreError::Links {
                place: self.place.to_string(),
            });
        }
        Ok(())
    }

    fn file(&self, name: &OsStr) -> Result<Found, StoreError> {
        // Never waits for the other end of what became a pipe in between.
        let file = File::from(self.open(name, OFlags::RDONLY | OFlags::NONBLOCK)?);
        let stat = rustix::fs::fstat(&file).map_err(|error| self.read(error))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(StoreError::Special {
                place: self.place.to_string(),
            });
        }
        Ok(Found::File(OpenFile {
            file,
            size: u64::try_from(stat.st_size).unwrap_or_default(),
            executable: stat.st_mode & 0o100 != 0,
        }))
    }

    /// `name` is a single component, so `NOFOLLOW` alone keeps the search below the store.
    fn open(&self, name: &OsStr, flags: OFlags) -> Result<OwnedFd, StoreError> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(self.here(), name, flags, Mode::empty())
            .map_err(|error| self.read(error))
    }

    fn read(&self, error: rustix::io::Errno) -> StoreError {
        StoreError::Read {
            place: self.place.to_string(),
            source: error.into(),
        }
    }

    fn outside(&self, to: &[u8]) -> StoreError {
        StoreError::Outside {
            place: self.place.to_string(),
            to: String::from_utf8_lossy(to).chars().take(300).collect(),
        }
    }
}

fn components(name: &[u8]) -> VecDeque<Vec<u8>> {
    name.split(|byte| *byte == b'/')
        .filter(|part| !matches!(*part, b"" | b"."))
        .map(<[u8]>::to_vec)
        .collect()
}

#[cfg(test)]
mod tests;
