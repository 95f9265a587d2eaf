//! .deb files become one tree, as dpkg would lay it out, without dpkg's database and scripts.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::apt::succeed;
use super::error::file;
use super::{Error, Lock};

/// Unpacks `debs` into `<cache>/tree-<id>`; a tree that is there is whole.
pub(super) fn unpack(lock: &Lock, debs: &[PathBuf], cache: &Path) -> Result<PathBuf, Error> {
    let tree = cache.join(format!("tree-{}", lock.id()));
    if tree.exists() {
        return Ok(tree);
    }
    let folder = tempfile::tempdir_in(cache).map_err(file("make a folder in", cache))?;
    // base-files brings the links of the merged /usr: it goes first.
    let is_base = |deb: &&PathBuf| {
        deb.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("base-files_"))
    };
    let (base, rest): (Vec<_>, Vec<_>) = debs.iter().partition(is_base);
    for deb in base.into_iter().chain(rest) {
        extract(deb, folder.path())?;
    }
    fs::rename(folder.path(), &tree).map_err(file("name the tree", &tree))?;
    // Its folder moved away: there is nothing to remove.
    drop(folder.keep());
    Ok(tree)
}

fn extract(deb: &Path, into: &Path) -> Result<(), Error> {
    let what = format!("unpack {}", deb.display());
    let mut command = Command::new("dpkg-deb");
    command.arg("-x").arg(deb).arg(into);
    succeed(&mut command, "dpkg-deb", &what).map(drop)
}
