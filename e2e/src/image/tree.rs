//! A file tree before it is written: what is where, owned by root and without times. What umask,
//! clock and directory order say has no way in.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use firn_oci::{Metadata, TarWriter};

use super::Error;
use super::error::file;

/// What is at one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A folder with its mode.
    Directory(u32),
    /// A copy of a file of the machine.
    Copy {
        /// The file.
        from: PathBuf,
        /// Whether everyone may execute it; nobody but root may write it.
        executable: bool,
    },
    /// A file of these bytes, which everyone may read.
    Bytes(Vec<u8>),
    /// A symbolic link with its text.
    Link(String),
}

/// Nodes by path, relative and without a slash at the end: `usr/bin/git`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree(BTreeMap<String, Node>);

impl Tree {
    /// Adds a node; folders on the way follow in [`Tree::with_parents`]. The same node twice is
    /// fine, two different ones are a conflict. `path` may be absolute.
    pub fn add(&mut self, path: &str, node: Node) -> Result<(), Error> {
        let path = path.trim_matches('/').to_owned();
        match self.0.entry(path) {
            Entry::Vacant(entry) => {
                entry.insert(node);
                Ok(())
            }
            Entry::Occupied(entry) if *entry.get() == node => Ok(()),
            Entry::Occupied(entry) => Err(Error::Conflict {
                path: entry.key().clone(),
                one: entry.get().describe(),
                other: node.describe(),
            }),
        }
    }

    /// Adds a copy of `from`.
    pub fn add_copy(&mut self, path: &str, from: &Path) -> Result<(), Error> {
        let metadata = fs::metadata(from).map_err(file("read", from))?;
        let executable = metadata.permissions().mode() & 0o111 != 0;
        self.add(
            path,
            Node::Copy {
                from: from.to_owned(),
                executable,
            },
        )
    }

    /// Whether something is at `path`.
    pub fn contains(&self, path: &str) -> bool {
        self.0.contains_key(path.trim_matches('/'))
    }

    /// All nodes, sorted by path.
    pub fn nodes(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.0.iter().map(|(path, node)| (path.as_str(), node))
    }

    /// With every folder on the way to a node, mode 0755. A link or a file in the middle of a path
    /// is a conflict: such a tree cannot be unpacked.
    pub fn with_parents(mut self) -> Result<Self, Error> {
        let paths: Vec<String> = self.0.keys().cloned().collect();
        for path in paths {
            for (at, _) in path.match_indices('/') {
                let (parent, _) = path.split_at(at);
                match self.0.get(parent) {
                    Some(Node::Directory(_)) => {}
                    None => drop(self.0.insert(parent.to_owned(), Node::Directory(0o755))),
                    Some(other) => {
                        return Err(Error::Conflict {
                            path: parent.to_owned(),
                            one: other.describe(),
                            other: format!("a folder for {path:?}"),
                        });
                    }
                }
            }
        }
        Ok(self)
    }

    /// Appends all nodes to an archive.
    pub(super) fn write_tar<W: Write>(&self, tar: &mut TarWriter<W>) -> Result<(), Error> {
        for (path, node) in &self.0 {
            let name = path.as_bytes();
            let failed = |source| Error::Tar {
                path: path.clone(),
                source,
            };
            match node {
                Node::Directory(mode) => tar.directory(name, epoch(*mode)).map_err(failed)?,
                Node::Link(text) => {
                    tar.symlink(name, epoch(0o777), text.as_bytes())
                        .map_err(failed)?;
                }
                Node::Bytes(bytes) => tar
                    .file(name, epoch(0o644), bytes.len() as u64, bytes.as_slice())
                    .map_err(failed)?,
                Node::Copy { from, executable } => {
                    let source = fs::File::open(from).map_err(file("read", from))?;
                    let size = source.metadata().map_err(file("read", from))?.len();
                    let mode = if *executable { 0o755 } else { 0o644 };
                    tar.file(name, epoch(mode), size, source).map_err(failed)?;
                }
            }
        }
        Ok(())
    }

    /// Writes all nodes into `folder`, with the modes said whatever the umask, as the user that
    /// runs this.
    pub(super) fn write_to(&self, folder: &Path) -> Result<(), Error> {
        fs::create_dir_all(folder).map_err(file("make", folder))?;
        let mut closed = Vec::new();
        for (path, node) in &self.0 {
            let to = folder.join(path);
            match node {
                Node::Directory(mode) => {
                    fs::create_dir_all(&to).map_err(file("make", &to))?;
                    closed.push((to, *mode));
                }
                Node::Link(text) => symlink(text, &to).map_err(file("link", &to))?,
                Node::Bytes(bytes) => {
                    fs::write(&to, bytes).map_err(file("write", &to))?;
                    set_mode(&to, 0o644)?;
                }
                Node::Copy { from, executable } => {
                    fs::copy(from, &to).map_err(file("write", &to))?;
                    set_mode(&to, if *executable { 0o755 } else { 0o644 })?;
                }
            }
        }
        closed
            .iter()
            .try_for_each(|(path, mode)| set_mode(path, *mode))
    }
}

impl Node {
    fn describe(&self) -> String {
        match self {
            Self::Directory(mode) => format!("a folder of mode {mode:o}"),
            Self::Copy { from, .. } => format!("a copy of {}", from.display()),
            Self::Bytes(bytes) => format!("a file of {} bytes", bytes.len()),
            Self::Link(text) => format!("a link to {text}"),
        }
    }
}

/// Root's, and as old as time: registries and scanners show it as 1970.
const fn epoch(mode: u32) -> Metadata<'static> {
    Metadata {
        mtime: 0,
        ..Metadata::root(mode)
    }
}

fn set_mode(path: &Path, mode: u32) -> Result<(), Error> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(file("change", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_are_made_and_keep_a_mode_that_was_said() {
        let mut tree = Tree::default();
        tree.add("/tmp/a/b", Node::Bytes(b"x".to_vec())).unwrap();
        tree.add("/tmp", Node::Directory(0o1777)).unwrap();
        let nodes: Vec<_> = tree.with_parents().unwrap().0.into_iter().collect();
        assert_eq!(
            nodes,
            [
                ("tmp".into(), Node::Directory(0o1777)),
                ("tmp/a".into(), Node::Directory(0o755)),
                ("tmp/a/b".into(), Node::Bytes(b"x".to_vec())),
            ]
        );
    }

    #[test]
    fn two_things_at_one_path_are_a_conflict() {
        let mut tree = Tree::default();
        tree.add("bin", Node::Link("usr/bin".into())).unwrap();
        tree.add("/bin/", Node::Link("usr/bin".into())).unwrap();
        let error = tree
            .add("bin", Node::Directory(0o755))
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "\"bin\" is wanted twice: as a link to usr/bin and as a folder of mode 755"
        );
    }

    #[test]
    fn a_path_through_a_link_is_a_conflict() {
        let mut tree = Tree::default();
        tree.add("bin", Node::Link("usr/bin".into())).unwrap();
        tree.add("bin/sh", Node::Link("busybox".into())).unwrap();
        assert!(
            tree.with_parents()
                .unwrap_err()
                .to_string()
                .contains("a folder for \"bin/sh\"")
        );
    }

    #[test]
    fn a_file_is_executable_for_all_or_for_none() {
        let dir = tempfile::tempdir().unwrap();
        for (mode, executable) in [(0o700, true), (0o640, false), (0o4755, true)] {
            let path = dir.path().join("file");
            fs::write(&path, "x").unwrap();
            set_mode(&path, mode).unwrap();
            let mut tree = Tree::default();
            tree.add_copy("file", &path).unwrap();
            let expected = Node::Copy {
                from: path.clone(),
                executable,
            };
            assert_eq!(tree.nodes().collect::<Vec<_>>(), [("file", &expected)]);
        }
    }
}
