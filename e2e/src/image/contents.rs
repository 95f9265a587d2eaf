//! From a declaration to the files of an image.

use std::collections::BTreeSet;
use std::fs;

use super::error::file;
use super::{Contents, Error, Image, Node, Parts, Tree, architecture, packages};
use crate::debian::{self, Closure, Found};

const CA_BUNDLE: &str = "etc/ssl/certs/ca-certificates.crt";
/// Certificates and nothing else.
const CA_FOLDER: &str = "usr/share/ca-certificates/mozilla";

pub(super) fn collect(image: &Image, parts: &Parts<'_>) -> Result<Contents, Error> {
    let Parts { debian, programs } = parts;
    if debian.lock.arch != architecture() {
        return Err(Error::Architecture {
            machine: architecture().to_owned(),
            lock: debian.lock.arch.clone(),
        });
    }
    let binary = programs.join(image.package());
    if !binary.is_file() {
        return Err(Error::NoProgram { path: binary });
    }
    let mut system = Tree::default();
    for (path, mode) in &image.directories {
        system.add(path, Node::Directory(*mode))?;
    }
    for (path, text) in &image.links {
        system.add(path, Node::Link(text.clone()))?;
    }
    for (path, lines) in &image.files {
        let text = lines
            .iter()
            .fold(String::new(), |text, line| text + line + "\n");
        system.add(path, Node::Bytes(text.into_bytes()))?;
    }
    system.add(CA_BUNDLE, Node::Bytes(ca_bundle(debian)?))?;
    let mut closure = Closure::new(&debian.root, &debian.lock.arch);
    for path in &image.programs {
        closure.add(path).map_err(Error::Debian)?;
    }
    for name in &image.libraries {
        closure.add_library(name).map_err(Error::Debian)?;
    }
    closure.add_needs_of(&binary).map_err(Error::Debian)?;
    closure.add("usr/lib/os-release").map_err(Error::Debian)?;
    packages::add(&mut system, &mut closure, debian)?;
    for (path, found) in closure.found() {
        match found {
            Found::File => system.add_copy(path, &debian.root.join(path))?,
            Found::Link(text) => system.add(path, Node::Link(text.clone()))?,
        }
    }
    let mut own = Tree::default();
    own.add(
        &image.binary,
        Node::Copy {
            from: binary,
            executable: true,
        },
    )?;
    Ok(Contents {
        system: system.with_parents()?,
        program: own,
    })
}

/// What `update-ca-certificates` would have made, in the order of the names.
fn ca_bundle(debian: &debian::Tree) -> Result<Vec<u8>, Error> {
    let folder = debian.root.join(CA_FOLDER);
    let entries = fs::read_dir(&folder).map_err(file("list", &folder))?;
    let paths: Result<BTreeSet<_>, _> = entries.map(|entry| Ok(entry?.path())).collect();
    let mut bundle = Vec::new();
    for path in paths.map_err(file("list", &folder))? {
        bundle.extend(fs::read(&path).map_err(file("read", &path))?);
        if !bundle.ends_with(b"\n") {
            bundle.push(b'\n');
        }
    }
    Ok(bundle)
}
