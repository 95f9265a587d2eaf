//! The bytes of a layer. Store paths become a tar in one of three styles; blobs that exist already
//! are copied. What is read is compared with what was said of it: store paths with their NAR
//! hashes, blobs with their digests.
//!
//! The store is hostile: it was written by build code. See [`crate::store`]. Synchronous.
//!
//! ```text
//! store paths ──walk──► entries, sorted ──► tar ──► diffID, compressor, digest ──► sink
//!                    └► NAR hash, compared with Nix's own
//! blob ─────────► decompressed: diffID, compared with what was declared
//!          └────► as it is: digest, compared too ──► sink
//! ```

mod blob;
mod files;
mod merged;
mod name;
mod nix_database;
mod tree;
mod walk;

use std::io::{self, Write};

use firn_oci::tar::{Format, TarError};
use firn_oci::{Digest, Metadata, TarWriter};

pub(crate) use blob::{CopyError, copy_uncompressed, copy_verbatim};
pub use blob::{Streams, write_tar, write_verbatim};

use crate::closure::Closure;
use crate::input::{Contents, Profile};
use crate::nar_hash::NarHash;
use crate::sqlite::TooLarge;
pub use crate::store::Store;
use crate::store::StoreError;
use crate::store_path::StorePath;
use tree::{Style, Tree};

/// Why a layer could not be made.
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
    /// A blob of the store cannot be opened.
    #[error(transparent)]
    Open(StoreError),
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
    /// A blob is not what was said of it.
    #[error("{place} is damaged: its {what} was declared as {expected} and is {actual}")]
    Damaged {
        /// The blob.
        place: String,
        /// `digest` or `diffID`.
        what: &'static str,
        /// What was declared.
        expected: Digest,
        /// What is there.
        actual: Digest,
    },
    /// A layer with rules for modes and names is not what was declared.
    #[error(
        "a layer was declared as {expected} and is {actual}: its rules for names or modes are read in another way than nix2container does; write them without special forms"
    )]
    OtherRules {
        /// What was declared.
        expected: Digest,
        /// What Firn makes.
        actual: Digest,
    },
    /// Two paths want to be at the same place in the image, and are not alike.
    #[error("two paths of a layer are both {name:?} in the image: {first} and {second} ({why})")]
    Overlap {
        /// The name in the image.
        name: String,
        /// The first source.
        first: String,
        /// The other.
        second: String,
        /// In what they differ.
        why: &'static str,
    },
    /// A rule moves a file to where no file can be.
    #[error("the rule {regex:?} moves {source_name} to {name:?}, which is no absolute path")]
    Destination {
        /// The rule.
        regex: String,
        /// The file in the store.
        source_name: String,
        /// Where it would be.
        name: String,
    },
    /// A rule that is not understood.
    #[error("the rule {regex:?} for names or modes cannot be used")]
    Rule {
        /// The regular expression.
        regex: String,
        /// Why.
        source: Box<regex::Error>,
    },
    /// Two files for one place.
    #[error(
        "{path} is wanted by {first} and by {second}, and they differ: leave one of them out, or \
         give them different places"
    )]
    Conflict {
        /// The place in the image.
        path: String,
        /// Who was first.
        first: String,
        /// Who came later.
        second: String,
    },
    /// A rule without effect is a mistake.
    #[error(
        "no file of the image fits the pattern {pattern:?} of a rule: correct it, or leave it out"
    )]
    NothingFits {
        /// The rule's pattern.
        pattern: String,
    },
    /// Symbolic links have no mode.
    #[error(
        "the rule {pattern:?} gives a mode or attributes to /{path}, a symbolic link that leads to \
         no file of the image's store: name the file it leads to"
    )]
    LinkWithMode {
        /// The link.
        path: String,
        /// The rule's pattern.
        pattern: String,
    },
    /// A store path of no Nix.
    #[error("the Nix database of the image cannot be written")]
    NixDatabase(#[source] TooLarge),
    /// It is copied from a registry to a registry, and not made.
    #[error("layers of the base image {repository} are in a registry: push the image to one")]
    Remote {
        /// Where.
        repository: String,
    },
    /// The layer cannot be written.
    #[error(transparent)]
    Write(TarError),
}

impl LayerError {
    /// Whether the sink is at fault and not the store.
    pub fn is_sink(&self) -> bool {
        matches!(self, Self::Write(TarError::Write(_)))
    }

    pub(crate) fn sink(error: io::Error) -> Self {
        Self::Write(TarError::Write(error))
    }

    /// Whether what was asked for is at fault.
    pub fn is_request(&self) -> bool {
        matches!(
            self,
            Self::Conflict { .. } | Self::NothingFits { .. } | Self::LinkWithMode { .. }
        )
    }
}

impl Contents {
    /// Whose tar these contents are written as. Blobs have theirs.
    pub fn format(&self) -> Format {
        match self {
            Self::Paths(layer) => match layer.profile {
                Profile::Nar1 => Format::Nar1,
                Profile::Nix2container => Format::Go,
                Profile::DockerTools => Format::Python,
            },
            Self::Nix2container(_) => Format::Go,
            Self::DockerTools(_) => Format::Python,
            Self::Blob(_) | Self::Files(_) | Self::NixDatabase(_) | Self::Remote(_) => Format::Nar1,
        }
    }

    /// What is still to be compared when the layer was made.
    pub fn compare(&self, diff_id: &Digest) -> Result<(), LayerError> {
        match self {
            Self::Paths(_)
            | Self::DockerTools(_)
            | Self::Files(_)
            | Self::NixDatabase(_)
            | Self::Remote(_) => Ok(()),
            Self::Nix2container(layer) => layer.compare(diff_id),
            Self::Blob(blob) => blob::compare(blob, "diffID", &blob.diff_id, diff_id),
        }
    }
}

impl Store {
    /// Writes a layer into `tar`, of [`Contents::format`], and compares each store path with what
    /// `closure` says. Not for blobs, which are no entries: see [`write_tar`].
    pub fn write<W: Write>(
        &self,
        closure: &Closure,
        contents: &Contents,
        tar: &mut TarWriter<W>,
    ) -> Result<(), LayerError> {
        match contents {
            Contents::Paths(layer) => {
                let style = match layer.profile {
                    Profile::Nar1 => Style::Nar1,
                    Profile::Nix2container => Style::Canonical(Format::Go.parent_metadata()),
                    Profile::DockerTools => Style::Canonical(Format::Python.parent_metadata()),
                };
                self.write_styled(closure, &layer.paths, style, tar)
            }
            Contents::DockerTools(layer) => {
                let style = Style::OnDisk(layer.owner.metadata());
                self.write_styled(closure, &layer.paths, style, tar)
            }
            Contents::Nix2container(layer) if layer.has_options() => {
                merged::write(self, closure, &layer.entries, tar)
            }
            Contents::Nix2container(layer) => {
                let paths = layer.sorted_paths();
                if paths.is_empty() {
                    return Ok(());
                }
                let style = Style::OnDisk(Format::Go.parent_metadata());
                self.write_styled(closure, &paths, style, tar)
            }
            Contents::Blob(_) => Ok(()),
            Contents::Files(tree) => self.write_files(closure, tree, tar),
            Contents::NixDatabase(database) => nix_database::write(closure, database, tar),
            Contents::Remote(remote) => Err(LayerError::Remote {
                repository: remote.repository.to_string(),
            }),
        }
    }

    /// Whole store paths in Firn's own profile.
    fn write_paths<W: Write>(
        &self,
        closure: &Closure,
        paths: &[StorePath],
        tar: &mut TarWriter<W>,
    ) -> Result<(), LayerError> {
        self.write_styled(closure, paths, Style::Nar1, tar)
    }

    fn write_styled<W: Write>(
        &self,
        closure: &Closure,
        paths: &[StorePath],
        style: Style<'_>,
        tar: &mut TarWriter<W>,
    ) -> Result<(), LayerError> {
        let root: &[&[u8]] = match tar.format() {
            Format::Go => &[b"", b"nix", b"nix/store"],
            Format::Nar1 | Format::Python => &[b"nix", b"nix/store"],
        };
        let above = match style {
            Style::Nar1 => Format::Nar1.parent_metadata(),
            Style::OnDisk(owner) | Style::Canonical(owner) => Metadata {
                mode: 0o755,
                ..owner
            },
        };
        for parent in root {
            tar.directory(parent, above).map_err(LayerError::Write)?;
        }
        for path in paths {
            tar.begin_subtree();
            let mut tree = Tree::new(tar, style);
            walk::walk(self, path, &mut tree)?;
            let actual = tree.finish();
            compare(closure, path, actual)?;
        }
        Ok(())
    }
}

/// Compares a path's contents with what Nix recorded.
fn compare(closure: &Closure, path: &StorePath, actual: NarHash) -> Result<(), LayerError> {
    match closure.paths().get(path) {
        Some(info) if info.nar_hash != actual => Err(LayerError::Altered {
            path: path.clone(),
            expected: info.nar_hash,
            actual,
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
