//! What can go wrong on the way to an image.

use std::path::{Path, PathBuf};

use firn_oci::layout::LayoutError;
use firn_oci::tar::TarError;

use crate::debian;

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The declaration is not well-formed.
    #[error("failed to read the declared images: {problem}")]
    ParseDeclaration { problem: String },
    /// The Debian tree lacks something.
    #[error("failed to collect the files of the image from Debian")]
    Debian(#[source] debian::Error),
    /// Something in the file system failed.
    #[error("failed to {what} {path:?}")]
    File {
        what: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    /// Two different things are wanted at one path.
    #[error("{path:?} is wanted twice: as {one} and as {other}")]
    Conflict {
        path: String,
        one: String,
        other: String,
    },
    /// Programs that are built here do not run beside the pinned packages.
    #[error(
        "this machine is {machine}, and the Debian packages are pinned for {lock}: build on {lock}"
    )]
    Architecture { machine: String, lock: String },
    /// A program of Firn has not been built.
    #[error("{path:?} is missing: build it, or name the folder that has it with --programs")]
    NoProgram { path: PathBuf },
    /// cargo failed; it said why itself.
    #[error("failed to build Firn's programs: cargo ended with {status}")]
    Cargo { status: String },
    /// A layer could not be written.
    #[error("failed to write {path:?} into a layer")]
    Tar { path: String, source: TarError },
    /// A layout could not be written or read.
    #[error("failed to use the OCI layout {path:?}")]
    Layout {
        path: PathBuf,
        source: Box<LayoutError>,
    },
    /// A layout that is to be pushed holds no image, or several.
    #[error("{path:?} holds {count} images: only a layout of one can be pushed")]
    NotOneImage { path: PathBuf, count: usize },
    /// The manifest in a layout is none.
    #[error("failed to read the manifest {path:?}")]
    ParseManifest {
        path: PathBuf,
        source: Box<firn_oci::ParseError>,
    },
    /// The registry refuses or does not answer; it says so itself.
    #[error(transparent)]
    Registry(Box<firn_oci::registry::Error>),
    /// A name of an image is none.
    #[error("failed to name the image {name:?}: {problem}")]
    Name { name: String, problem: String },
}

/// `map_err` for file operations: names what was done to which file.
pub(super) fn file<'a>(
    what: &'static str,
    path: &'a Path,
) -> impl FnOnce(std::io::Error) -> Error + use<'a> {
    move |source| Error::File {
        what,
        path: path.to_owned(),
        source,
    }
}
