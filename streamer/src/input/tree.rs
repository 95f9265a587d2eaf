//! Files that are no store paths, as one layer: `/tmp`, certificates, users, what is copied to the
//! root, changed owners and modes, and what is removed of a base image. Pure: this says what is
//! wanted; [`crate::layer`] looks into the store for it when the layer has to be made.
//!
//! A store path's own layer never changes because of what is asked for here: a file with another
//! mode is written again, in this layer, which lies above. So store layers stay shared.

mod glob;
mod root_path;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::closure::Closure;
use crate::store_path::StorePath;

pub use glob::{InvalidPattern, Pattern};
pub use root_path::{InvalidRootPath, RootPath};

/// Files as one layer. Its serialisation is part of the layer's recipe key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Tree {
    /// Files whose contents Firn knows.
    pub entries: BTreeMap<RootPath, Entry>,
    /// What is taken from the store.
    pub copies: Vec<Copied>,
    /// Owners, modes and attributes by path. Every rule that fits applies, in order.
    pub rules: Vec<Rule>,
    /// What layers below have and the image shall not.
    pub removals: BTreeSet<Removal>,
    /// Store paths that a node puts in their place when the container starts: empty files and
    /// directories are made for them.
    pub mount_points: BTreeSet<StorePath>,
    /// Directories above all these that nobody declared.
    pub parents: Parents,
}

/// A file whose contents are known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// What it is.
    pub node: Node,
    /// Owner, mode and so on.
    pub attributes: Attributes,
    /// Who asked for it, in words for a message about two that want the same place.
    pub origin: String,
    /// Who wins if something else is in its place.
    pub strength: Strength,
}

/// What a file is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Node {
    /// A directory.
    Directory,
    /// A regular file with these contents.
    File(String),
    /// A symbolic link to this target.
    Symlink(String),
}

/// Who wins a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Strength {
    /// The user asked for it: anything else in its place is a conflict.
    Declared,
    /// One of Firn's defaults: it gives way to anything else.
    Default,
}

/// Owner, permissions and extended attributes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Attributes {
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Extended attributes.
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

impl Attributes {
    /// Root's, without extended attributes.
    pub const fn root(mode: u32) -> Self {
        Self {
            mode,
            uid: 0,
            gid: 0,
            xattrs: BTreeMap::new(),
        }
    }
}

/// A store path's contents at another place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Copied {
    /// The store path.
    pub path: StorePath,
    /// The directory its contents go to. If the store path is a file, its name is the last component.
    pub at: RootPath,
    /// How.
    pub how: How,
}

/// How something of the store comes to another place.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, serde::Deserialize, schemars::JsonSchema,
)]
pub enum How {
    /// Directories are made, files become symbolic links into the store: nothing is there twice,
    /// and what a program knows of its own place stays true.
    #[default]
    Link,
    /// Files are written again: for programs that follow no links, and for images whose root is
    /// used without its store.
    Copy,
}

/// Owner, mode and attributes of what fits a pattern. Store paths are looked through only by
/// patterns that begin with `/nix/store/` and name the path.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// Which files.
    pub pattern: Pattern,
    /// Of files.
    pub mode: Option<u32>,
    /// Of directories.
    pub directory_mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Of files.
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

/// Something of the layers below that is not to be seen.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Removal {
    /// A file, or a directory with everything in it.
    Whole(RootPath),
    /// Everything in a directory, which stays.
    Contents(RootPath),
}

/// Directories above declared files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub enum Parents {
    /// They are written, so that who unpacks the layer has no choice of modes.
    #[default]
    Written,
    /// They are not: a base image has its own, with modes that stay.
    Left,
}

impl Tree {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
            && self.copies.is_empty()
            && self.rules.is_empty()
            && self.removals.is_empty()
            && self.mount_points.is_empty()
    }

    /// Whether nobody asked for any of it.
    pub fn is_offered_only(&self) -> bool {
        let declared = |entry: &Entry| entry.strength == Strength::Declared;
        let entries = Self {
            entries: BTreeMap::new(),
            ..self.clone()
        };
        entries.is_empty() && !self.entries.values().any(declared)
    }

    /// The store paths whose contents are looked at for it.
    pub fn sources<'a>(&'a self, closure: &'a Closure) -> BTreeSet<&'a StorePath> {
        let copied = self.copies.iter().map(|copied| &copied.path);
        let ruled = closure
            .paths()
            .keys()
            .filter(|path| self.rules.iter().any(|rule| rule.pattern.is_of_path(path)));
        copied.chain(ruled).collect()
    }

    /// Adds a file of the user's.
    pub fn declare(&mut self, name: RootPath, node: Node, attributes: Attributes, origin: &str) {
        self.add(name, node, attributes, origin, Strength::Declared);
    }

    /// Adds a file that gives way to any other.
    pub fn offer(&mut self, name: RootPath, node: Node, attributes: Attributes, origin: &str) {
        self.add(name, node, attributes, origin, Strength::Default);
    }

    fn add(
        &mut self,
        name: RootPath,
        node: Node,
        attributes: Attributes,
        origin: &str,
        strength: Strength,
    ) {
        let entry = Entry {
            node,
            attributes,
            origin: origin.to_owned(),
            strength,
        };
        self.entries.insert(name, entry);
    }
}
