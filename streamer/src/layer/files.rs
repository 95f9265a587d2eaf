//! A [`Tree`] as a layer: what it asks for is looked up in the store, put into one order, and
//! written. As hostile as the store is, what is used of a store path has passed its NAR hash first.
//!
//! ```text
//! declared entries ─┐
//! copied paths ─────┼─► one map by name ─► defaults where room is ─► rules ─► parents ─► tar
//! paths that rules ─┘    two for a place: conflict, both named
//! name
//! ```

mod survey;

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;

use firn_oci::tar::{opaque_name, whiteout_name};
use firn_oci::{Metadata, TarWriter, Xattr};

use super::LayerError;
use super::name::Name;
use crate::closure::Closure;
use crate::input::tree::{
    Attributes, Copied, Entry, How, Node, Parents, Removal, RootPath, Rule, Strength, Tree,
};
use crate::store::Store;
use crate::store_path::StorePath;
use survey::{Kind, Seen};

/// Most entries of one layer of files: they are sorted in memory, about 200 bytes each.
const ENTRIES_MAX: usize = 500_000;
/// Longest chain of links that is followed from a file that gets another mode.
const LINKS_MAX: usize = 16;

/// A file to be written.
#[derive(Debug, Clone)]
struct Found {
    body: Body,
    attributes: Attributes,
    /// Who wants it there.
    origin: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Body {
    Directory,
    Text(String),
    Symlink(Vec<u8>),
    /// A file of the store, written again.
    Stored(Stored),
    /// A link to a file of the store, which is written again if it is to have other metadata.
    Linked(Stored),
    Whiteout(Vec<u8>),
    Opaque(Vec<u8>),
}

/// A file in a store path.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stored {
    path: StorePath,
    /// Within it; empty if the store path is the file.
    inside: Vec<u8>,
    size: u64,
    executable: bool,
}

impl Stored {
    fn target(&self) -> Vec<u8> {
        let path = self.path.to_string().into_bytes();
        if self.inside.is_empty() {
            path
        } else {
            [path, b"/".to_vec(), self.inside.clone()].concat()
        }
    }
}

impl Store {
    /// Writes `tree`. Store paths that it takes something from must be in the closure.
    pub(super) fn write_files<W: Write>(
        &self,
        closure: &Closure,
        tree: &Tree,
        tar: &mut TarWriter<W>,
    ) -> Result<(), LayerError> {
        for path in tree.sources(closure) {
            self.verify(closure, path)?;
        }
        let mut layout = Layout {
            store: self,
            closure,
            found: BTreeMap::new(),
        };
        layout.fill(tree)?;
        for (_, found) in layout.found {
            self.write_found(&found.0, &found.1, tar)?;
        }
        Ok(())
    }

    /// Reads a whole path to compare its hash, and keeps nothing of it.
    fn verify(&self, closure: &Closure, path: &StorePath) -> Result<(), LayerError> {
        let mut nowhere = TarWriter::new(std::io::sink());
        self.write_paths(closure, std::slice::from_ref(path), &mut nowhere)
    }

    fn write_found<W: Write>(
        &self,
        name: &[u8],
        found: &Found,
        tar: &mut TarWriter<W>,
    ) -> Result<(), LayerError> {
        let attributes = &found.attributes;
        let xattrs: Vec<Xattr<'_>> = attributes
            .xattrs
            .iter()
            .map(|(name, value)| Xattr { name, value })
            .collect();
        let metadata = Metadata {
            uid: attributes.uid.into(),
            gid: attributes.gid.into(),
            xattrs: &xattrs,
            ..Metadata::root(attributes.mode)
        };
        match &found.body {
            Body::Directory => tar.directory(name, metadata),
            Body::Text(text) => tar.file(name, metadata, text.len() as u64, text.as_bytes()),
            Body::Symlink(target) => tar.symlink(name, metadata, target),
            Body::Linked(stored) => tar.symlink(name, metadata, &stored.target()),
            Body::Stored(stored) => {
                let file = self.open_inside(&stored.path, &stored.inside)?;
                tar.file(name, metadata, stored.size, file)
            }
            Body::Whiteout(name) => tar.whiteout(name),
            Body::Opaque(name) => tar.opaque(name),
        }
        .map_err(LayerError::Write)
    }
}

/// Names on their way to an archive.
struct Layout<'a> {
    store: &'a Store,
    closure: &'a Closure,
    found: BTreeMap<Name, (Vec<u8>, Found)>,
}

impl Layout<'_> {
    fn fill(&mut self, tree: &Tree) -> Result<(), LayerError> {
        let of = |strength| {
            let entries = tree.entries.iter();
            entries.filter(move |(_, entry)| entry.strength == strength)
        };
        for (name, entry) in of(Strength::Declared) {
            self.put(name.relative().as_bytes(), declared(entry))?;
        }
        for copied in &tree.copies {
            self.copy(copied)?;
        }
        self.take_ruled(&tree.rules)?;
        for path in &tree.mount_points {
            self.mount_point(path)?;
        }
        for (name, entry) in of(Strength::Default) {
            let name = name.relative().as_bytes();
            if self.has_room(name) {
                self.put(name, declared(entry))?;
            }
        }
        self.check_parents()?;
        if tree.parents == Parents::Written {
            self.add_parents();
        }
        self.apply(&tree.rules)?;
        self.remove(&tree.removals)
    }

    fn put(&mut self, name: &[u8], found: Found) -> Result<(), LayerError> {
        if self.found.len() >= ENTRIES_MAX {
            return Err(LayerError::TooLarge {
                path: printable(name),
                what: "files in the layer of the image's own files",
                limit: ENTRIES_MAX,
            });
        }
        let key = Name(name.to_vec());
        if let Some((_, other)) = self.found.get(&key) {
            let same = match (&other.body, &found.body) {
                (Body::Stored(a), Body::Stored(b)) => self.store.same_file(a, b)?,
                (a, b) => a == b,
            };
            // The first stays.
            return if same {
                Ok(())
            } else {
                Err(conflict(name, &other.origin, &found.origin))
            };
        }
        self.found.insert(key, (name.to_vec(), found));
        Ok(())
    }

    fn get(&self, name: &[u8]) -> Option<&Found> {
        self.found.get(&Name(name.to_vec())).map(|(_, found)| found)
    }

    /// Whether a default may go there.
    fn has_room(&self, name: &[u8]) -> bool {
        let free = self.get(name).is_none();
        free && ancestors(name).all(|above| {
            self.get(above)
                .is_none_or(|found| found.body == Body::Directory)
        })
    }

    fn copy(&mut self, copied: &Copied) -> Result<(), LayerError> {
        let origin: Arc<str> = copied.path.to_string().into();
        for Seen { inside, kind } in self.store.survey(&copied.path, b"")? {
            let name = join(copied.at.relative().as_bytes(), &inside);
            // The directory that everything goes into is no part of what is copied.
            if name.is_empty() || (inside.is_empty() && kind == Kind::Directory) {
                continue;
            }
            let usual = attributes(&kind);
            let body = self.body(&copied.path, inside, kind, copied.how);
            let found = Found {
                attributes: match body {
                    Body::Linked(_) => Attributes::root(0o777),
                    _ => usual,
                },
                body,
                origin: Arc::clone(&origin),
            };
            self.put(&name, found)?;
        }
        Ok(())
    }

    #[expect(clippy::unused_self, reason = "reads as a step of the layout")]
    fn body(&self, path: &StorePath, inside: Vec<u8>, kind: Kind, how: How) -> Body {
        match kind {
            Kind::Directory => Body::Directory,
            Kind::Symlink(target) => Body::Symlink(target),
            Kind::File { size, executable } => {
                let stored = Stored {
                    path: path.clone(),
                    inside,
                    size,
                    executable,
                };
                match how {
                    How::Copy => Body::Stored(stored),
                    How::Link => Body::Linked(stored),
                }
            }
        }
    }

    /// Files of the store that a rule gives other metadata.
    fn take_ruled(&mut self, rules: &[Rule]) -> Result<(), LayerError> {
        let closure = self.closure;
        for rule in rules {
            let mut any = false;
            for path in closure.paths().keys() {
                if !rule.pattern.is_of_path(path) {
                    continue;
                }
                let root = format!("nix/store/{}", path.base_name()).into_bytes();
                let origin: Arc<str> = path.to_string().into();
                for Seen { inside, kind } in self.store.survey(path, b"")? {
                    let name = join(&root, &inside);
                    if !rule.pattern.fits(&name) || matches!(kind, Kind::Symlink(_)) {
                        continue;
                    }
                    any = true;
                    let mut attributes = attributes(&kind);
                    if kind == Kind::Directory {
                        attributes.mode = 0o555;
                    }
                    let found = Found {
                        attributes,
                        body: self.body(path, inside, kind, How::Copy),
                        origin: Arc::clone(&origin),
                    };
                    self.put(&name, found)?;
                }
            }
            if !any && rule.pattern.is_of_store() {
                return Err(LayerError::NothingFits {
                    pattern: rule.pattern.to_string(),
                });
            }
        }
        Ok(())
    }

    fn mount_point(&mut self, path: &StorePath) -> Result<(), LayerError> {
        let (body, attributes) = match self.store.kind(path, b"")? {
            Kind::Directory => (Body::Directory, Attributes::root(0o555)),
            Kind::File { .. } => (Body::Text(String::new()), Attributes::root(0o555)),
            Kind::Symlink(target) => (Body::Symlink(target), Attributes::root(0o777)),
        };
        let name = format!("nix/store/{}", path.base_name());
        let origin = path.to_string().into();
        self.put(
            name.as_bytes(),
            Found {
                body,
                attributes,
                origin,
            },
        )
    }

    /// Nothing lies in what is no directory.
    fn check_parents(&self) -> Result<(), LayerError> {
        for (name, found) in self.found.values() {
            for above in ancestors(name) {
                match self.get(above) {
                    Some(parent) if parent.body != Body::Directory => {
                        return Err(conflict(above, &parent.origin, &found.origin));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn add_parents(&mut self) {
        let mut missing = Vec::new();
        for (name, _) in self.found.values() {
            missing.extend(ancestors(name).map(<[u8]>::to_vec));
        }
        for name in missing {
            // Directories within a store path are as its own layer has them.
            let mode = if name.starts_with(b"nix/store/") {
                0o555
            } else {
                0o755
            };
            let directory = || Found {
                body: Body::Directory,
                attributes: Attributes::root(mode),
                origin: "Firn".into(),
            };
            self.found
                .entry(Name(name.clone()))
                .or_insert_with(|| (name, directory()));
        }
    }

    fn apply(&mut self, rules: &[Rule]) -> Result<(), LayerError> {
        let mut found = std::mem::take(&mut self.found);
        for rule in rules {
            let mut any = false;
            for (name, found) in found.values_mut() {
                if rule.pattern.fits(name) {
                    any = true;
                    self.change(rule, name, found)?;
                }
            }
            if !any {
                return Err(LayerError::NothingFits {
                    pattern: rule.pattern.to_string(),
                });
            }
        }
        self.found = found;
        Ok(())
    }

    fn change(&self, rule: &Rule, name: &[u8], found: &mut Found) -> Result<(), LayerError> {
        let of_contents = rule.mode.is_some() || !rule.xattrs.is_empty();
        let is_link = matches!(found.body, Body::Linked(_) | Body::Symlink(_));
        if is_link && (of_contents || rule.uid.is_some() || rule.gid.is_some()) {
            // A link has no mode, and what it leads to is shared: the file comes here instead.
            if let Some(stored) = self.resolve(&found.body)? {
                found.attributes = attributes(&Kind::File {
                    size: stored.size,
                    executable: stored.executable,
                });
                found.body = Body::Stored(stored);
            }
        }
        let is_directory = found.body == Body::Directory;
        let is_file = matches!(found.body, Body::Text(_) | Body::Stored(_));
        let attributes = &mut found.attributes;
        if let (true, Some(mode)) = (is_directory, rule.directory_mode) {
            attributes.mode = mode;
        }
        if is_file {
            attributes.mode = rule.mode.unwrap_or(attributes.mode);
            attributes.xattrs.extend(rule.xattrs.clone());
        } else if of_contents && is_link {
            return Err(LayerError::LinkWithMode {
                path: printable(name),
                pattern: rule.pattern.to_string(),
            });
        }
        attributes.uid = rule.uid.unwrap_or(attributes.uid);
        attributes.gid = rule.gid.unwrap_or(attributes.gid);
        Ok(())
    }

    /// The file of the store that a link leads to.
    fn resolve(&self, body: &Body) -> Result<Option<Stored>, LayerError> {
        let mut target = match body {
            Body::Linked(stored) => return Ok(Some(stored.clone())),
            Body::Symlink(target) => target.clone(),
            _ => return Ok(None),
        };
        for _ in 0..LINKS_MAX {
            let Ok(text) = std::str::from_utf8(&target) else {
                return Ok(None);
            };
            let Ok((path, inside)) = StorePath::containing(text) else {
                return Ok(None);
            };
            let plain = inside.is_empty()
                || inside
                    .split('/')
                    .all(|part| !matches!(part, "" | "." | ".."));
            if !plain || !self.closure.contains(&path) {
                return Ok(None);
            }
            self.store.verify(self.closure, &path)?;
            match self.store.kind(&path, inside.as_bytes())? {
                Kind::File { size, executable } => {
                    return Ok(Some(Stored {
                        path,
                        inside: inside.as_bytes().to_vec(),
                        size,
                        executable,
                    }));
                }
                Kind::Symlink(next) if next.starts_with(b"/") => target = next,
                Kind::Symlink(next) => {
                    let directory = text.rsplit_once('/').map_or("", |(directory, _)| directory);
                    target = [directory.as_bytes(), b"/", &next].concat();
                }
                Kind::Directory => return Ok(None),
            }
        }
        Ok(None)
    }

    fn remove(&mut self, removals: &std::collections::BTreeSet<Removal>) -> Result<(), LayerError> {
        for removal in removals {
            let (path, whole) = match removal {
                Removal::Whole(path) => (path, true),
                Removal::Contents(path) => (path, false),
            };
            let name = path.relative().as_bytes();
            let there = self.get(name).map(|found| found.body == Body::Directory);
            let below = join(name, b"\0");
            let prefix = below.strip_suffix(b"\0").unwrap_or_default();
            let filled = self
                .found
                .values()
                .any(|(other, _)| other.starts_with(prefix));
            let body = match (whole, there) {
                // A file in its place replaces it.
                (true, Some(false)) => continue,
                (true, None) if !filled => Body::Whiteout(name.to_vec()),
                _ => Body::Opaque(name.to_vec()),
            };
            if matches!(body, Body::Opaque(_)) && there.is_none() {
                self.put(name, directory_for(path))?;
            }
            let marker = match &body {
                Body::Whiteout(name) => whiteout_name(name),
                _ => opaque_name(name),
            };
            let found = Found {
                body,
                attributes: Attributes::root(0o644),
                origin: "`remove`".into(),
            };
            self.put(&marker, found)?;
        }
        Ok(())
    }
}

fn directory_for(path: &RootPath) -> Found {
    Found {
        body: Body::Directory,
        attributes: Attributes::root(0o755),
        origin: format!("`remove` of {path}/*").into(),
    }
}

fn declared(entry: &Entry) -> Found {
    Found {
        body: match &entry.node {
            Node::Directory => Body::Directory,
            Node::File(text) => Body::Text(text.clone()),
            Node::Symlink(target) => Body::Symlink(target.clone().into_bytes()),
        },
        attributes: entry.attributes.clone(),
        origin: entry.origin.as_str().into(),
    }
}

/// Directories can be written to by root, as everywhere but in the store; files are what they are
/// in the store.
fn attributes(kind: &Kind) -> Attributes {
    Attributes::root(match kind {
        Kind::Directory => 0o755,
        Kind::File {
            executable: true, ..
        } => 0o555,
        Kind::File { .. } => 0o444,
        Kind::Symlink(_) => 0o777,
    })
}

fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    match (directory, name) {
        ([], name) => name.to_vec(),
        (directory, []) => directory.to_vec(),
        (directory, name) => [directory, b"/", name].concat(),
    }
}

/// The directories above, the outermost first.
fn ancestors(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    name.iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'/')
        .map(|(at, _)| name.get(..at).unwrap_or_default())
}

fn conflict(name: &[u8], first: &str, second: &str) -> LayerError {
    LayerError::Conflict {
        path: format!("/{}", printable(name)),
        first: first.to_owned(),
        second: second.to_owned(),
    }
}

fn printable(name: &[u8]) -> String {
    String::from_utf8_lossy(name).chars().take(300).collect()
}

#[cfg(test)]
mod tests;
