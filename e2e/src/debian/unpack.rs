//! .deb files become one tree, as dpkg would lay it out, without dpkg's database and scripts.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::apt::succeed;
use super::error::file;
use super::{Error, Lock};

/// Which package a file of the tree came from, by path (`usr/bin/git`). Names that are not ASCII
/// are escaped: tar lists them so.
pub type Owners = BTreeMap<String, String>;

/// Changes when other files are kept of a tree: what an older Firn unpacked is not taken for whole.
const FORM: u32 = 2;

/// Unpacks `debs` into `<cache>/tree-<id>`; what is there already is whole. `debs` are in the
/// order of the packages.
pub(super) fn unpack(
    lock: &Lock,
    debs: &[PathBuf],
    cache: &Path,
) -> Result<(PathBuf, Owners), Error> {
    let unpacked = cache.join(format!("tree-{FORM}-{}", lock.id()));
    let (root, owners) = (unpacked.join("root"), unpacked.join("owners"));
    if !unpacked.exists() {
        let folder = tempfile::tempdir_in(cache).map_err(file("make a folder in", cache))?;
        extract_all(lock, debs, folder.path())?;
        fs::rename(folder.path(), &unpacked).map_err(file("name the tree", &unpacked))?;
        // Its folder moved away: there is nothing to remove.
        drop(folder.keep());
    }
    let text = fs::read_to_string(&owners).map_err(file("read", &owners))?;
    let owners = text.lines().filter_map(|line| line.split_once(' '));
    Ok((
        root,
        owners
            .map(|(package, path)| (path.to_owned(), package.to_owned()))
            .collect(),
    ))
}

fn extract_all(lock: &Lock, debs: &[PathBuf], folder: &Path) -> Result<(), Error> {
    let root = folder.join("root");
    let mut owners = String::new();
    let packages = lock.packages.iter().zip(debs);
    // base-files brings the links of the merged /usr: it goes first.
    let (base, rest): (Vec<_>, Vec<_>) = packages.partition(|(p, _)| p.name == "base-files");
    for (package, deb) in base.into_iter().chain(rest) {
        for path in extract(deb, &root)?.lines() {
            let path = path.trim_start_matches("./");
            if !path.ends_with('/') && !path.is_empty() {
                // Writing into a String cannot fail.
                let _ = writeln!(owners, "{} {path}", package.name);
            }
        }
    }
    let path = folder.join("owners");
    fs::write(&path, owners).map_err(file("write", &path))
}

/// Unpacks one package; the names of what was in it.
fn extract(deb: &Path, into: &Path) -> Result<String, Error> {
    let what = format!("unpack {}", deb.display());
    let mut command = Command::new("dpkg-deb");
    command
        .arg("--vextract")
        .arg(deb)
        .arg(into)
        .env("LC_ALL", "C");
    succeed(&mut command, "dpkg-deb", &what)
}
