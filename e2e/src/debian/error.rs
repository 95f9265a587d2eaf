//! What can go wrong between a list of packages and a tree of files.

use std::path::{Path, PathBuf};

/// Why there is no tree.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A line of a lock file is not what `firn-images lock` writes.
    #[error(
        "failed to read the lock file, line {line}: {problem}; rewrite it with `firn-images lock`"
    )]
    ParseLock { line: usize, problem: String },
    /// A program of the machine is missing or could not be started.
    #[error("failed to run {program:?}: install the packages apt, dpkg and debian-archive-keyring")]
    StartProgram {
        program: &'static str,
        source: std::io::Error,
    },
    /// The keyring that signs Debian's archive is missing.
    #[error("{path:?} is missing: install the package debian-archive-keyring")]
    NoKeyring { path: PathBuf },
    /// apt or dpkg ended with an error.
    #[error("failed to {what}: {program} said: {stderr}")]
    Program {
        what: String,
        program: &'static str,
        stderr: String,
    },
    /// apt printed something that is not understood.
    #[error("failed to read apt's answer: {line:?}")]
    ParseApt { line: String },
    /// The mirror's file is another one than the lock names: never accepted, never replaced.
    #[error(
        "{file:?} has sha256 {actual} and the lock says {expected}: the mirror or the lock is wrong"
    )]
    DigestMismatch {
        file: String,
        expected: String,
        actual: String,
    },
    /// Something in the file system failed.
    #[error("failed to {what} {path:?}")]
    File {
        what: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    /// A file is no ELF file although it claims to be one.
    #[error("failed to read {path:?} as an ELF file: {problem}")]
    ParseElf { path: PathBuf, problem: String },
    /// A wanted file is not in the tree.
    #[error("{path:?} is not in the Debian tree (needed by {needed_by})")]
    Missing { path: String, needed_by: String },
    /// Symbolic links lead in a circle.
    #[error("too many symbolic links in {path:?}")]
    LinkLoop { path: String },
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
