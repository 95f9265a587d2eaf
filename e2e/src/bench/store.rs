//! A store of real contents without Nix: one store path for each Debian package of a pinned list,
//! and an application on top. Kept in the cache by what it is made of.
//!
//! ```text
//! <cache>/bench/<key>/store/<hash>-<package>-<version>   as in /nix/store, of all three closures
//!                    /base.json                          313 paths, 853 MB
//!                    /app.json                           the application, 1 KB, was changed
//!                    /libraries.json                     libc, OpenSSL and zlib were changed
//! ```
//! What a change of libraries renames has the same files under new names: hard links, but for the
//! file that names the references.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::closure::{Closure, PathInfo};
use super::graph::{Node, Package, base_names, order};
use super::on_all_cores;
use crate::cluster::build::cached;
use crate::cluster::pins;
use crate::cluster::progress::{say, step};
use crate::debian::{self, Fetched, Lock};
use crate::fixture::nar::nar;

/// The committed pins of the closure.
pub const LOCK: &str = include_str!("../../debian/closure-trixie-amd64.lock");
/// What it is made of: large and small, compiled and interpreted, a few deep graphs.
pub const ROOTS: [&str; 9] = [
    "ffmpeg",
    "git",
    "gunicorn",
    "nodejs",
    "openjdk-21-jre-headless",
    "postgresql-client-17",
    "python3-flask",
    "python3-numpy",
    "python3.13",
];
/// The libraries whose change renames nearly everything.
const LIBRARIES: [&str; 3] = ["libc6", "libssl3t64", "zlib1g"];
/// The application on top.
const APP: &str = "bigapp";
/// Changes when the store is made otherwise of the same packages.
const FORM: &str = "1";
/// What no program needs; Nix packages have it in other outputs.
const LEFT_OUT: [&str; 4] = [
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/lintian",
];
/// Where a store path of this kind names its references.
const PROPAGATED: &str = "nix-support/propagated";

/// The store and the closures in it.
#[derive(Debug)]
pub struct Store {
    /// The folder that stands for `/nix/store`.
    pub directory: PathBuf,
    /// What is pushed first.
    pub base: Described,
    /// [`Self::base`] after a change of the application's one path.
    pub app: Described,
    /// [`Self::base`] after a change of three libraries, and so of nearly all.
    pub libraries: Described,
}

/// A closure and the file that tells it.
#[derive(Debug)]
pub struct Described {
    /// As `nix path-info --json` writes it.
    pub file: PathBuf,
    /// The same.
    pub closure: Closure,
    /// Base name of the application's path.
    pub app: String,
}

/// The store of the committed packages, made if the cache does not have it.
///
/// Errors: no network, or a full disk.
pub fn store(cache: &Path) -> Result<Store> {
    let lock: Lock = LOCK.parse()?;
    let fetched = step("Debian packages of the closure", || {
        Ok(debian::packages(&lock, cache)?)
    })?;
    let key = pins::key([("form", FORM), ("packages", &fetched.lock.id())]);
    let folder = cache.join("bench").join(key);
    cached(cache, &folder, |partial| {
        say("unpacking the closure");
        step("store of 853 MB", || make(&fetched, partial))
    })?;
    let described = |name: &str| -> Result<Described> {
        let file = folder.join(name).with_extension("json");
        let text = fs::read_to_string(&file)
            .with_context(|| format!("failed to read {}", file.display()))?;
        let closure = Closure::from_json(&text)?;
        let app = closure
            .paths
            .keys()
            .find(|base| base.contains(APP))
            .with_context(|| format!("{} has no {APP}", file.display()))?
            .clone();
        Ok(Described { file, closure, app })
    };
    Ok(Store {
        base: described("base")?,
        app: described("app")?,
        libraries: described("libraries")?,
        directory: folder.join("store"),
    })
}

fn make(fetched: &Fetched, folder: &Path) -> Result<()> {
    let store = folder.join("store");
    fs::create_dir(&store)?;
    let debs: Vec<(&debian::lock::Package, &PathBuf)> =
        fetched.lock.packages.iter().zip(&fetched.debs).collect();
    let packages = on_all_cores(&debs, |(package, deb)| control(deb, &package.sha256))?;
    let mut nodes = order(&packages, &fetched.lock.roots);
    nodes.push(Node {
        name: APP.to_owned(),
        version: "1.0".to_owned(),
        seed: String::new(),
        references: ROOTS.map(str::to_owned).to_vec(),
    });
    let files: BTreeMap<&str, &Path> = debs
        .iter()
        .map(|(package, deb)| (&*package.name, deb.as_path()))
        .collect();
    let base = base_names(&nodes, &BTreeSet::new());
    on_all_cores(&nodes, |node| {
        let path = store.join(name_in(&base, &node.name)?);
        match files.get(&*node.name) {
            Some(deb) => unpack(deb, &path)?,
            None => application(&path, "version one")?,
        }
        propagate(node, &base, &path)
    })?;
    for (closure, changed) in [
        ("base", &[][..]),
        ("app", &[APP][..]),
        ("libraries", &LIBRARIES[..]),
    ] {
        let changed: BTreeSet<&str> = changed.iter().copied().collect();
        let names = base_names(&nodes, &changed);
        let described = on_all_cores(&nodes, |node| {
            let name = name_in(&names, &node.name)?;
            let path = store.join(name);
            if !path.exists() {
                link_tree(&store.join(name_in(&base, &node.name)?), &path)?;
                if node.name == APP {
                    fs::remove_file(path.join("bin/app"))?;
                    application(&path, "version two")?;
                } else if changed.contains(&*node.name) {
                    fs::write(path.join("nix-support/revision"), "2\n")?;
                }
                propagate(node, &names, &path)?;
            }
            let contents = nar(&path).with_context(|| format!("failed to hash {name}"))?;
            let references: Vec<String> = node
                .references
                .iter()
                .filter_map(|reference| names.get(reference).cloned())
                .collect();
            let info = PathInfo {
                nar_hash: contents.hash,
                nar_size: contents.size,
                references,
            };
            Ok((name.to_owned(), info))
        })?;
        let paths = described.into_iter().collect();
        fs::write(
            folder.join(closure).with_extension("json"),
            Closure { paths }.to_json(),
        )?;
    }
    Ok(())
}

fn name_in<'a>(names: &'a BTreeMap<String, String>, package: &str) -> Result<&'a str> {
    let name = names.get(package).map(String::as_str);
    name.with_context(|| format!("{package} has no store path"))
}

fn control(deb: &Path, sha256: &str) -> Result<Package> {
    let output = Command::new("dpkg-deb")
        .arg("--field")
        .arg(deb)
        .args(["Package", "Version", "Depends", "Pre-Depends", "Provides"])
        .env("LC_ALL", "C")
        .output()
        .context("failed to run dpkg-deb")?;
    Package::parse(&String::from_utf8_lossy(&output.stdout), sha256)
        .with_context(|| format!("{} is no package", deb.display()))
}

fn unpack(deb: &Path, to: &Path) -> Result<()> {
    let status = Command::new("dpkg-deb")
        .arg("--extract")
        .arg(deb)
        .arg(to)
        .status()
        .context("failed to run dpkg-deb")?;
    ensure!(status.success(), "failed to unpack {}", deb.display());
    for folder in LEFT_OUT {
        match fs::remove_dir_all(to.join(folder)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

/// A program of about 1 KB.
fn application(path: &Path, text: &str) -> Result<()> {
    let bin = path.join("bin");
    fs::create_dir_all(&bin)?;
    let line = format!("echo '{text}'\n");
    let program = format!("#!/bin/sh\n{}", line.repeat(1000 / line.len()));
    let file = bin.join("app");
    fs::write(&file, program)?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o555))?;
    Ok(())
}

/// Names the references, as a package's own files would.
fn propagate(node: &Node, names: &BTreeMap<String, String>, path: &Path) -> Result<()> {
    let file = path.join(PROPAGATED);
    fs::create_dir_all(path.join("nix-support"))?;
    // Not through a hard link into another path.
    match fs::remove_file(&file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let lines = node.references.iter().filter_map(|name| names.get(name));
    let lines: Vec<String> = lines.map(|base| format!("/nix/store/{base}\n")).collect();
    fs::write(&file, lines.concat()).with_context(|| format!("failed to write {}", file.display()))
}

/// The tree `from` again at `to`: folders and links of its own, files by hard links.
fn link_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (kind, copy) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            link_tree(&entry.path(), &copy)?;
        } else if kind.is_symlink() {
            symlink(fs::read_link(entry.path())?, &copy)?;
        } else {
            fs::hard_link(entry.path(), &copy)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_packages_are_those_the_closure_wants() {
        let lock: Lock = LOCK.parse().unwrap();
        assert_eq!(lock.roots, ROOTS);
        for library in LIBRARIES {
            assert!(lock.version(library).is_some(), "{library}");
        }
    }

    #[test]
    fn a_linked_tree_keeps_its_own_list_of_references() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (folder.path().join("old"), folder.path().join("new"));
        application(&old, "one").unwrap();
        symlink("app", old.join("bin/same")).unwrap();
        let node = Node {
            name: "n".into(),
            version: "1".into(),
            seed: String::new(),
            references: vec!["libc".into()],
        };
        let names = |base: &str| BTreeMap::from([("libc".to_owned(), base.to_owned())]);
        propagate(&node, &names("old-libc"), &old).unwrap();
        link_tree(&old, &new).unwrap();
        assert_eq!(nar(&old).unwrap(), nar(&new).unwrap());
        propagate(&node, &names("new-libc"), &new).unwrap();
        let text = fs::read_to_string(old.join(PROPAGATED)).unwrap();
        assert_eq!(text, "/nix/store/old-libc\n");
        assert_ne!(nar(&old).unwrap(), nar(&new).unwrap());
    }
}
