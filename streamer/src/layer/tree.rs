//! A store path into a tar, where it is in the store, and into a NAR's hash by the same pass.

use std::fs::File;
use std::io::{self, Read, Write};

use firn_oci::{Metadata, TarWriter};

use super::LayerError;
use super::walk::{Entry, Visit};
use crate::nar::NarHasher;
use crate::nar_hash::NarHash;

/// Which metadata entries have.
#[derive(Debug, Clone, Copy)]
pub(super) enum Style<'a> {
    /// Firn's: what a NAR encodes and nothing else. Modes, owners and times of the file system,
    /// its directory order, and who reads it make no difference.
    Nar1,
    /// Modes as of Firn's, which are those of every store that Nix wrote, and the rest of this.
    Canonical(Metadata<'a>),
    /// Modes of the file system, and the rest of this.
    OnDisk(Metadata<'a>),
}

impl Style<'_> {
    fn directory(&self, mode: u32) -> Metadata<'_> {
        match self {
            Self::Nar1 => Metadata::root(0o555),
            Self::Canonical(owner) => Metadata {
                mode: 0o555,
                ..*owner
            },
            Self::OnDisk(owner) => Metadata { mode, ..*owner },
        }
    }

    fn file(&self, mode: u32) -> Metadata<'_> {
        match self {
            Self::Nar1 => Metadata::root(canonical(mode)),
            Self::Canonical(owner) => Metadata {
                mode: canonical(mode),
                ..*owner
            },
            Self::OnDisk(owner) => Metadata { mode, ..*owner },
        }
    }

    fn symlink(&self) -> Metadata<'_> {
        match self {
            Self::Nar1 => Metadata::root(0o777),
            Self::Canonical(owner) | Self::OnDisk(owner) => Metadata {
                mode: 0o777,
                ..*owner
            },
        }
    }
}

/// All that a NAR knows of a file's mode.
const fn canonical(mode: u32) -> u32 {
    if mode & 0o100 == 0 { 0o444 } else { 0o555 }
}

/// One store path on its way into tar and NAR.
pub(super) struct Tree<'a, W> {
    tar: &'a mut TarWriter<W>,
    style: Style<'a>,
    nar: NarHasher,
    name: Vec<u8>,
}

impl<'a, W: Write> Tree<'a, W> {
    pub(super) fn new(tar: &'a mut TarWriter<W>, style: Style<'a>) -> Self {
        Self {
            tar,
            style,
            nar: NarHasher::new(),
            name: Vec::new(),
        }
    }

    /// The NAR's hash.
    pub(super) fn finish(self) -> NarHash {
        self.nar.finish().0
    }

    fn name(&mut self, entry: Entry<'_>) {
        self.name.clear();
        self.name.extend_from_slice(b"nix/store/");
        self.name.extend_from_slice(entry.path);
    }
}

impl<W: Write> Visit for Tree<'_, W> {
    fn directory(&mut self, entry: Entry<'_>) -> Result<(), LayerError> {
        self.name(entry);
        self.nar.begin_directory(entry.name);
        let metadata = self.style.directory(entry.mode);
        let added = self.tar.directory(&self.name, metadata);
        added.map_err(LayerError::Write)
    }

    fn end_directory(&mut self) {
        self.nar.end_directory();
    }

    fn file(&mut self, entry: Entry<'_>, size: u64, file: File) -> Result<(), LayerError> {
        self.name(entry);
        self.nar
            .begin_file(entry.name, entry.mode & 0o100 != 0, size);
        let contents = Tee {
            file,
            copy: &mut self.nar,
        };
        let metadata = self.style.file(entry.mode);
        let added = self.tar.file(&self.name, metadata, size, contents);
        added.map_err(LayerError::Write)?;
        self.nar.end_file(size);
        Ok(())
    }

    fn symlink(&mut self, entry: Entry<'_>, target: &[u8]) -> Result<(), LayerError> {
        self.name(entry);
        self.nar.symlink(entry.name, target);
        let added = self.tar.symlink(&self.name, self.style.symlink(), target);
        added.map_err(LayerError::Write)
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
