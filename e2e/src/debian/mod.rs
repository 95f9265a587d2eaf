//! A file tree of pinned Debian packages, without installing anything: downloaded by apt's own
//! client into a private directory, unpacked, and slimmed to what the wanted programs need.
//! No maintainer script runs; what those would have made is the image's business (`crate::image`).
//!
//! ```text
//! forky-amd64.lock ──► fetch (apt, sha256) ──► unpack (dpkg-deb) ──► closure (ELF) ──► files
//!  committed pins        <cache>/debian/debs     <cache>/debian/tree-…   of some programs
//! ```

mod apt;
pub mod closure;
mod elf;
mod error;
mod fetch;
pub mod lock;
mod unpack;

use std::path::{Path, PathBuf};

pub use closure::{Closure, Found};
pub use error::Error;
pub use fetch::Fetched;
pub use lock::Lock;
pub use unpack::Owners;

use fetch::Mirror as _;

/// The committed pins of everything Firn's images take from Debian.
pub const LOCK: &str = include_str!("../../debian/forky-amd64.lock");

/// What the images take from Debian; their dependencies follow. forky is the oldest suite with
/// Nix 2.34.
pub const ROOTS: [&str; 8] = [
    "base-files",
    "bash-static",
    "busybox-static",
    "ca-certificates",
    "git",
    "nix-bin",
    "openssh-client",
    // For tests of sources by ssh: nothing of it gets into an image.
    "openssh-server",
];

/// An unpacked tree of packages and the versions that are really in it.
#[derive(Debug)]
pub struct Tree {
    /// Root of the unpacked files.
    pub root: PathBuf,
    /// Which package each file is from.
    pub owners: Owners,
    /// The pins it was made from: the committed ones, or those that had to replace them.
    pub lock: Lock,
}

/// The tree of `lock`, downloaded and unpacked under `cache` unless it is there already. If the
/// mirror lost a pinned version, all of `lock.roots` are resolved again: said on stderr on every
/// call, and recorded in `<cache>/debian`.
pub fn tree(lock: &Lock, cache: &Path) -> Result<Tree, Error> {
    let cache = cache.join("debian");
    let _guard = fetch::lock_directory(&cache)?;
    let open = || apt::Apt::open(&cache, &lock.suite, &lock.arch);
    let fetched = fetch::fetch(lock, &cache, open)?;
    let (root, owners) = unpack::unpack(&fetched.lock, &fetched.debs, &cache)?;
    Ok(Tree {
        root,
        owners,
        lock: fetched.lock,
    })
}

/// The .deb files of `lock`, downloaded into `cache` unless they are there already. As [`tree`] if
/// the mirror lost a pinned version.
pub fn packages(lock: &Lock, cache: &Path) -> Result<Fetched, Error> {
    let cache = cache.join("debian");
    let _guard = fetch::lock_directory(&cache)?;
    fetch::fetch(lock, &cache, || {
        apt::Apt::open(&cache, &lock.suite, &lock.arch)
    })
}

/// Resolves `roots` anew against the mirror: the newest versions of the suite.
pub fn resolve(suite: &str, arch: &str, roots: &[&str], cache: &Path) -> Result<Lock, Error> {
    let cache = cache.join("debian");
    let _guard = fetch::lock_directory(&cache)?;
    let apt = apt::Apt::open(&cache, suite, arch)?;
    apt.resolve(roots)
}
