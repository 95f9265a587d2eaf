//! Firn's own images as OCI layouts, without Docker: Debian's files, what maintainer scripts would
//! have made, and one Rust program on top.
//!
//! ```text
//! images.json ──► Declaration ─┐
//! debian::tree ────────────────┼─► contents ─► Tree, Tree ─► layout (firn-oci) ─► push
//! cargo build --release ───────┘               system  program
//! ```
//!
//! The same declaration is what `Dockerfile` is tested against and what `flake.nix` reads. Bytes
//! are a function of the declaration, the Debian packages and the program: nothing is taken from
//! the machine but whether a file is executable.

pub mod binaries;
mod contents;
pub mod declaration;
mod error;
mod layout;
mod packages;
mod push;
mod tree;

use std::path::{Path, PathBuf};

pub use declaration::{Declaration, Image};
pub use error::Error;
pub use layout::{Built, architecture, config};
pub use push::{Pushed, push};
pub use tree::{Node, Tree};

use crate::debian;

/// What images are made from.
#[derive(Debug)]
pub struct Parts<'a> {
    /// Debian's packages.
    pub debian: &'a debian::Tree,
    /// The folder of Firn's release programs.
    pub programs: &'a Path,
}

/// The two trees of an image: the system, which rarely changes, and Firn's program.
#[derive(Debug)]
pub struct Contents {
    /// Everything but the program.
    pub system: Tree,
    /// The program alone.
    pub program: Tree,
}

impl Contents {
    /// Collects them.
    pub fn of(image: &Image, parts: &Parts<'_>) -> Result<Self, Error> {
        contents::collect(image, parts)
    }

    /// Writes both into a folder: a root file system.
    pub fn write_to(&self, folder: &Path) -> Result<(), Error> {
        self.system.write_to(folder)?;
        self.program.write_to(folder)
    }
}

/// Writes every image of the declaration as an OCI layout into `out/<name>`. `version` becomes the
/// tag and a label.
pub fn build(
    declaration: &Declaration,
    parts: &Parts<'_>,
    version: &str,
    out: &Path,
) -> Result<Vec<Built>, Error> {
    declaration
        .images
        .iter()
        .map(|(name, image)| {
            let contents = Contents::of(image, parts)?;
            layout::write(name, image, &contents, version, &out.join(name))
        })
        .collect()
}

/// The default of everything that is kept: `$XDG_CACHE_HOME/firn` or `~/.cache/firn`.
pub fn default_cache() -> PathBuf {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(home)
        .unwrap_or_else(std::env::temp_dir)
        .join("firn")
}
