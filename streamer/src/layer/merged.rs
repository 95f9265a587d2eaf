//! A layer of nix2container whose paths are moved, or have modes and owners of their own: all
//! entries are collected, sorted by where they will be, and written.
//!
//! Only paths with such options are collected, and those that meet them; the rest streams. NAR
//! hashes of collected paths are compared while they are collected: contents are read twice.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Slot;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt as _;

use firn_oci::tar::Format;
use firn_oci::{Metadata, TarWriter};
use rustix::fs::{Mode, OFlags};

use super::name::Name;
use super::tree::{Style, Tree};
use super::walk::{self, Entry, Visit, printable};
use super::{LayerError, compare};
use crate::closure::Closure;
use crate::input::nix2container::{Options, PathEntry, Perm, Rewrite};
use crate::nar::NarHasher;
use crate::store::Store;
use crate::store_path::StorePath;

/// Most entries that are collected: about 300 bytes each.
const ENTRIES_MAX: usize = 400_000;
/// Largest compiled regular expression in bytes: rules are short.
const REGEX_MAX: usize = 1 << 20;

pub(super) fn write<W: Write>(
    store: &Store,
    closure: &Closure,
    entries: &[PathEntry],
    tar: &mut TarWriter<W>,
) -> Result<(), LayerError> {
    let moved = collect(store, closure, entries, |entry| entry.options.is_some())?;
    // A plain path under which something was moved cannot be streamed.
    let met = |path: &StorePath| {
        let name = Name(format!("nix/store/{}", path.base_name()).into_bytes());
        let next = moved.nodes.range(&name..).next();
        next.is_some_and(|(other, _)| is_within(&other.0, &name.0))
    };
    let is_plain = |entry: &PathEntry| entry.options.is_none();
    let mut all = if entries
        .iter()
        .any(|entry| is_plain(entry) && met(&entry.path))
    {
        collect(store, closure, entries, |entry| {
            entry.options.is_some() || met(&entry.path)
        })?
    } else {
        moved.clone()
    };
    for entry in entries.iter().filter(|entry| is_plain(entry)) {
        if !met(&entry.path) {
            let name = format!("nix/store/{}", entry.path.base_name());
            let node = Node::Stream(entry.path.clone());
            all.nodes.insert(Name(name.into_bytes()), node);
        }
    }
    all.add_parents()?;
    for (name, node) in &all.nodes {
        node.write(store, closure, &all.options, &name.0, tar)?;
    }
    Ok(())
}

fn is_within(name: &[u8], directory: &[u8]) -> bool {
    name.strip_prefix(directory)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

/// What will be at a name.
#[derive(Debug, Clone)]
enum Node {
    /// A directory that no path brought along.
    Parent,
    /// A whole store path at its own place.
    Stream(StorePath),
    /// One entry of a path.
    Entry(Source),
}

#[derive(Debug, Clone)]
struct Source {
    /// Below the store.
    path: Vec<u8>,
    kind: Kind,
    /// As the file system has it.
    mode: u32,
    /// Position of the path's options.
    options: Option<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Directory,
    File(u64),
    Symlink(Vec<u8>),
}

/// All entries of some paths, by where they will be.
#[derive(Debug, Clone, Default)]
struct Collected {
    nodes: BTreeMap<Name, Node>,
    options: Vec<Compiled>,
}

fn collect(
    store: &Store,
    closure: &Closure,
    entries: &[PathEntry],
    wanted: impl Fn(&PathEntry) -> bool,
) -> Result<Collected, LayerError> {
    let mut collected = Collected::default();
    for entry in entries.iter().filter(|entry| wanted(entry)) {
        let options = match &entry.options {
            Some(options) => {
                collected.options.push(Compiled::new(options)?);
                Some(collected.options.len() - 1)
            }
            None => None,
        };
        let mut collector = Collector {
            collected: &mut collected,
            options,
            nar: NarHasher::new(),
        };
        walk::walk(store, &entry.path, &mut collector)?;
        let (actual, _) = collector.nar.finish();
        compare(closure, &entry.path, actual)?;
    }
    Ok(collected)
}

struct Collector<'a> {
    collected: &'a mut Collected,
    options: Option<usize>,
    nar: NarHasher,
}

impl Collector<'_> {
    fn add(&mut self, entry: Entry<'_>, kind: Kind) -> Result<(), LayerError> {
        let source = Source {
            path: entry.path.to_vec(),
            kind,
            mode: entry.mode,
            options: self.options,
        };
        let options = self.options.and_then(|at| self.collected.options.get(at));
        let Some(name) = destination(entry.path, options)? else {
            return Ok(());
        };
        if self.collected.nodes.len() >= ENTRIES_MAX {
            return Err(LayerError::TooLarge {
                path: printable(entry.path),
                what: "entries in a layer with rules for names or modes",
                limit: ENTRIES_MAX,
            });
        }
        match self.collected.nodes.entry(Name(name)) {
            Slot::Vacant(slot) => {
                slot.insert(Node::Entry(source));
            }
            Slot::Occupied(mut slot) => {
                if let Node::Entry(first) = slot.get() {
                    let perms = |source: &Source| {
                        let at = source.options?;
                        Some(&self.collected.options.get(at)?.perms_as_written)
                    };
                    if let Some(why) = first.differs(&source, perms(first), perms(&source)) {
                        return Err(LayerError::Overlap {
                            name: format!("/{}", printable(&slot.key().0)),
                            first: in_store(&first.path),
                            second: in_store(&source.path),
                            why,
                        });
                    }
                }
                // The last one wins.
                slot.insert(Node::Entry(source));
            }
        }
        Ok(())
    }
}

impl Source {
    /// In what two sources of one name differ so that neither may replace the other.
    fn differs(
        &self,
        other: &Self,
        perms: Option<&Vec<Perm>>,
        others: Option<&Vec<Perm>>,
    ) -> Option<&'static str> {
        match (&self.kind, &other.kind) {
            (Kind::Directory, Kind::Directory) | (Kind::Symlink(_), Kind::Symlink(_)) => {}
            (Kind::File(size), Kind::File(other)) if size == other => {}
            (Kind::File(_), Kind::File(_)) => return Some("their sizes differ"),
            _ => return Some("they are of different kinds"),
        }
        if self.mode != other.mode {
            return Some("their modes differ");
        }
        // nix2container compares rules if the first path has options, and fails in another way if
        // the second one has none.
        (perms.is_some() && perms != others).then_some("their rules for modes differ")
    }
}

impl Visit for Collector<'_> {
    fn directory(&mut self, entry: Entry<'_>) -> Result<(), LayerError> {
        self.nar.begin_directory(entry.name);
        self.add(entry, Kind::Directory)
    }

    fn end_directory(&mut self) {
        self.nar.end_directory();
    }

    fn file(&mut self, entry: Entry<'_>, size: u64, mut file: File) -> Result<(), LayerError> {
        self.nar
            .begin_file(entry.name, entry.mode & 0o100 != 0, size);
        let read = io::copy(&mut file, &mut self.nar);
        read.map_err(|source| LayerError::Read {
            path: printable(entry.path),
            source,
        })?;
        self.nar.end_file(size);
        self.add(entry, Kind::File(size))
    }

    fn symlink(&mut self, entry: Entry<'_>, target: &[u8]) -> Result<(), LayerError> {
        self.nar.symlink(entry.name, target);
        self.add(entry, Kind::Symlink(target.to_vec()))
    }
}

impl Collected {
    /// Directories above what there is that nothing brought along.
    fn add_parents(&mut self) -> Result<(), LayerError> {
        let mut parents: BTreeMap<Name, Node> = BTreeMap::new();
        for name in self.nodes.keys() {
            let slashes = name.0.iter().enumerate().filter(|(_, byte)| **byte == b'/');
            let above = slashes.map(|(at, _)| name.0.get(..at).unwrap_or_default());
            for parent in above.chain([&b""[..]]) {
                let parent = Name(parent.to_vec());
                match self.nodes.get(&parent) {
                    None => {
                        parents.entry(parent).or_insert(Node::Parent);
                    }
                    Some(Node::Entry(source)) if source.kind != Kind::Directory => {
                        return Err(LayerError::Overlap {
                            name: format!("/{}", printable(&parent.0)),
                            first: in_store(&source.path),
                            second: format!("the directory above /{}", printable(&name.0)),
                            why: "they are of different kinds",
                        });
                    }
                    Some(_) => {}
                }
            }
        }
        self.nodes.append(&mut parents);
        Ok(())
    }
}

impl Node {
    fn write<W: Write>(
        &self,
        store: &Store,
        closure: &Closure,
        options: &[Compiled],
        name: &[u8],
        tar: &mut TarWriter<W>,
    ) -> Result<(), LayerError> {
        let plain = Format::Go.parent_metadata();
        match self {
            Self::Parent => tar.directory(name, plain).map_err(LayerError::Write),
            Self::Stream(path) => {
                let mut tree = Tree::new(tar, Style::OnDisk(plain));
                walk::walk(store, path, &mut tree)?;
                let actual = tree.finish();
                compare(closure, path, actual)
            }
            Self::Entry(source) => {
                let options = source.options.and_then(|at| options.get(at));
                let metadata = source.metadata(options);
                match &source.kind {
                    Kind::Directory => tar.directory(name, metadata),
                    Kind::Symlink(target) => tar.symlink(name, metadata, target),
                    Kind::File(size) => {
                        let file = open(store, &source.path)?;
                        tar.file(name, metadata, *size, file)
                    }
                }
                .map_err(LayerError::Write)
            }
        }
    }
}

impl Source {
    fn metadata<'o>(&self, options: Option<&'o Compiled>) -> Metadata<'o> {
        let mode = match self.kind {
            Kind::Symlink(_) => 0o777,
            Kind::Directory | Kind::File(_) => self.mode,
        };
        let mut metadata = Metadata {
            mode,
            ..Format::Go.parent_metadata()
        };
        let full_name = [b"/nix/store/", self.path.as_slice()].concat();
        for (regex, perm) in options.into_iter().flat_map(|options| &options.perms) {
            if !regex.is_match(&full_name) {
                continue;
            }
            metadata.uid = perm.uid;
            metadata.gid = perm.gid;
            if !perm.user.is_empty() {
                metadata.user = &perm.user;
            }
            if !perm.group.is_empty() {
                metadata.group = &perm.group;
            }
            if let Some(mode) = perm.mode {
                metadata.mode = mode;
            }
        }
        metadata
    }
}

/// Opens a file again that the walk has seen, component by component.
fn open(store: &Store, path: &[u8]) -> Result<File, LayerError> {
    let failed = |error: rustix::io::Errno| LayerError::Read {
        path: printable(path),
        source: error.into(),
    };
    let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY | OFlags::NONBLOCK;
    let mut directory = None;
    for part in path.split(|byte| *byte == b'/') {
        let part = OsStr::from_bytes(part);
        let opened = match &directory {
            None => rustix::fs::openat(store.directory(), part, flags, Mode::empty()),
            Some(directory) => rustix::fs::openat(directory, part, flags, Mode::empty()),
        };
        directory = Some(opened.map_err(failed)?);
    }
    let file = directory.map(File::from);
    file.ok_or_else(|| failed(rustix::io::Errno::NOENT))
}

fn in_store(path: &[u8]) -> String {
    format!("/nix/store/{}", printable(path))
}

/// A path's options, ready for use.
#[derive(Debug, Clone)]
struct Compiled {
    rewrite: CompiledRewrite,
    perms: Vec<(regex::bytes::Regex, Perm)>,
    perms_as_written: Vec<Perm>,
}

#[derive(Debug, Clone)]
enum CompiledRewrite {
    None,
    Prefix(Vec<u8>, Vec<u8>),
    Regex(regex::bytes::Regex, Vec<u8>),
}

impl Compiled {
    fn new(options: &Options) -> Result<Self, LayerError> {
        let rewrite = match &options.rewrite {
            Rewrite::None => CompiledRewrite::None,
            Rewrite::Prefix {
                prefix,
                replacement,
            } => CompiledRewrite::Prefix(
                prefix.clone().into_bytes(),
                replacement.clone().into_bytes(),
            ),
            Rewrite::Regex { regex, replacement } => {
                CompiledRewrite::Regex(compile(regex)?, replacement.clone().into_bytes())
            }
        };
        let perms = options.perms.iter();
        let perms = perms.map(|perm| Ok((compile(&perm.regex)?, perm.clone())));
        Ok(Self {
            rewrite,
            perms: perms.collect::<Result<_, LayerError>>()?,
            perms_as_written: options.perms.clone(),
        })
    }
}

fn compile(regex: &str) -> Result<regex::bytes::Regex, LayerError> {
    regex::bytes::RegexBuilder::new(regex)
        .size_limit(REGEX_MAX)
        .dfa_size_limit(REGEX_MAX)
        .build()
        .map_err(|source| LayerError::Rule {
            regex: regex.chars().take(200).collect(),
            source: Box::new(source),
        })
}

/// Where a file will be, relative to the root. `None`: nowhere.
fn destination(path: &[u8], options: Option<&Compiled>) -> Result<Option<Vec<u8>>, LayerError> {
    let full = [b"/nix/store/", path].concat();
    let (name, rule) = match options.map(|options| &options.rewrite) {
        None | Some(CompiledRewrite::None) => (full, ""),
        Some(CompiledRewrite::Prefix(prefix, replacement)) => (
            full.strip_prefix(prefix.as_slice())
                .map_or_else(|| full.clone(), |rest| [replacement, rest].concat()),
            "",
        ),
        Some(CompiledRewrite::Regex(regex, replacement)) => (
            regex
                .replace_all(&full, replacement.as_slice())
                .into_owned(),
            regex.as_str(),
        ),
    };
    if name.is_empty() {
        return Ok(None);
    }
    let parts: Vec<&[u8]> = name
        .split(|byte| *byte == b'/')
        .filter(|part| !matches!(*part, b"" | b"."))
        .collect();
    if !name.starts_with(b"/") || parts.contains(&&b".."[..]) {
        return Err(LayerError::Destination {
            regex: rule.chars().take(200).collect(),
            source_name: in_store(path),
            name: printable(&name),
        });
    }
    Ok(Some(parts.join(&b'/')))
}
