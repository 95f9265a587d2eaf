//! Firn's own image description: a JSON document, recognised by its key `firnImage`, from which
//! everything about an image can be said. Also the maker of every image that Firn lays out itself:
//! a package is a short description. Pure.
//!
//! ```text
//! document ─► what it mentions ─► closure ─┬─► declared layers, layers of the rest ─┐
//!     │                                    └─► mount points (thin)                 ─┤
//!     ├─► files at the root, rules, removals ─► one layer on top                   ─┼─► Image
//!     ├─► database for Nix ─► last layer                                           ─┤
//! base image: its layers at the bottom, its config as far as it is inherited       ─┘
//! ```

mod asked;
mod container;
mod document;
mod files;

use std::collections::{BTreeMap, BTreeSet};

use firn_crd::run::ImageSpec;
use firn_oci::{ContainerConfig, History, ImageConfig, Platform};
use jiff::Timestamp;
use serde_json::Value;

pub(super) use container::set_variable;
pub use container::{Check, Container, Empty, Environment, Names};
pub use document::{
    Base, CopiedPath, CopyToRoot, Created, DOCUMENT_MAX, DeclaredLayer, Description, File, ForNix,
    Group, Inherited, LayerProfile, NixOwner, Permission, Program, Step, Strategy, Thin, User,
};

use super::root::RootError;
use super::tree::{InvalidPattern, InvalidRootPath, Tree};
use super::{Config, Contents, Image, Layer};
use crate::closure::{Closure, InvalidClosure, PathInfo};
use crate::compression::InvalidLevel;
use crate::layering::{self, InvalidLayout, Layout, Why};
use crate::nar_hash::NarHash;
use crate::nix_database::{self, NixDatabase};
use crate::store_path::{InvalidStorePath, STORE, StorePath};

/// The key that makes a JSON document an image description.
pub const MARKER: &str = "\"firnImage\"";
/// The version that this Firn reads.
const VERSION: u32 = 1;
/// What made a layer of files, for the image's history.
const FILES: &str = "firn files/1";

/// Annotation of a layer that the snapshotter of nix-snapshotter fills.
const THIN_LAYER: &str = "containerd.io/snapshot/nix-layer";
/// Prefix of the annotations that name its store paths.
const THIN_PATH: &str = "containerd.io/snapshot/nix-store-path.";
/// The annotation that names a closure instead.
const THIN_CLOSURE: &str = "containerd.io/snapshot/nix-closure";

/// Why a description is no image.
#[derive(Debug, thiserror::Error)]
pub enum DescriptionError {
    /// Not the document that the schema describes.
    #[error("the image description cannot be read")]
    Parse(#[source] serde_json::Error),
    /// Of a later format.
    #[error("the image description has version {0}; this Firn reads version {VERSION}")]
    Version(u32),
    /// Not in the closure.
    #[error(
        "{field} names {path}, which the description does not depend on: let Nix know of it, by \
         interpolating the package and not its path as a text"
    )]
    NotInClosure {
        /// The field.
        field: &'static str,
        /// What it names.
        path: StorePath,
    },
    /// Not a store path.
    #[error("{field}")]
    StorePath {
        /// The field.
        field: &'static str,
        /// Why.
        source: InvalidStorePath,
    },
    /// Not a path within the image.
    #[error("{field}")]
    RootPath {
        /// The field.
        field: &'static str,
        /// Why.
        source: InvalidRootPath,
    },
    /// Not a pattern.
    #[error("{field}")]
    Pattern {
        /// The field.
        field: &'static str,
        /// Why.
        source: InvalidPattern,
    },
    /// Only names and whole directories can be removed: base images are not read.
    #[error(
        "`remove` has {0:?}: name a file, a directory, or `<directory>/*` for all that is in it; \
         Firn does not look into base images for other patterns"
    )]
    Removal(String),
    /// Not permission bits.
    #[error("{0:?} is no mode: wanted octal digits, as in \"0755\" or \"4755\"")]
    Mode(String),
    /// Not file capabilities.
    #[error("`capabilities` of {path:?}")]
    Capabilities {
        /// The rule's pattern.
        path: String,
        /// Why.
        source: firn_oci::tar::CapabilityError,
    },
    /// Users, certificates, shells.
    #[error(transparent)]
    Root(#[from] RootError),
    /// None or several of `text`, `symlink` and `directory`.
    #[error("the file {0:?} must be exactly one of `text`, `symlink` and `directory`")]
    File(String),
    /// A rule that changes nothing.
    #[error("the rule for {0:?} says nothing: give a mode, an owner, capabilities or attributes")]
    IdleRule(String),
    /// More layers are asked for than there may be.
    #[error(transparent)]
    Layout(InvalidLayout),
    /// What it mentions is not closed. Nix's own closures are.
    #[error(transparent)]
    Closure(InvalidClosure),
    /// Not a level of the compression.
    #[error("`level`")]
    Level(#[source] InvalidLevel),
    /// Both or neither of `image` and `path`, or nobody has found it.
    #[error("`base` must have exactly one of `image` and `path`: {0:?}")]
    Base(Base),
    /// A variable without a name.
    #[error("`config.env` has {0:?}: wanted NAME=value")]
    Variable(String),
}

/// An image that another is built upon.
#[derive(Debug, Clone, PartialEq)]
pub struct BaseImage {
    /// Its config.
    pub config: ImageConfig,
    /// Its layers, bottom first, with their history.
    pub layers: Vec<Layer>,
}

/// What a description is made into an image with.
#[derive(Debug)]
pub struct Parts<'a> {
    /// What the image runs on.
    pub platform: Platform,
    /// All that the description refers to.
    pub closure: &'a Closure,
    /// Most layers, as the cluster's user says.
    pub max_layers: u32,
    /// `created` unless the description says something else.
    pub created: Created,
    /// The time of the commit.
    pub commit_time: Timestamp,
    /// The image of `base`.
    pub base: Option<&'a BaseImage>,
}

/// Whether a document is an image description, by its beginning.
pub fn is_description(start: &[u8]) -> bool {
    let marker = MARKER.as_bytes();
    let text = start.trim_ascii_start();
    text.starts_with(b"{") && text.windows(marker.len()).any(|window| window == marker)
}

impl Description {
    /// Reads a document.
    pub fn parse(bytes: &[u8]) -> Result<Self, DescriptionError> {
        let found: Self = serde_json::from_slice(bytes).map_err(DescriptionError::Parse)?;
        if found.firn_image == VERSION {
            Ok(found)
        } else {
            Err(DescriptionError::Version(found.firn_image))
        }
    }
}

/// Every store path of `closure` that stands in the document, except below `base.path`. Known by
/// the hash part, as Nix knows references.
pub fn mentions(
    document: &[u8],
    closure: &Closure,
) -> Result<BTreeSet<StorePath>, DescriptionError> {
    let mut value: Value = serde_json::from_slice(document).map_err(DescriptionError::Parse)?;
    if let Some(base) = value.get_mut("base").and_then(Value::as_object_mut) {
        base.remove("path");
    }
    let by_hash: BTreeMap<&str, &StorePath> = closure
        .paths()
        .keys()
        .map(|path| (path.hash_part(), path))
        .collect();
    let mut found = BTreeSet::new();
    // Depth is bounded by the parser.
    let mut waiting = vec![&value];
    while let Some(value) = waiting.pop() {
        match value {
            Value::String(text) => scan(text, &by_hash, &mut found),
            Value::Array(items) => waiting.extend(items),
            Value::Object(fields) => {
                for (key, value) in fields {
                    scan(key, &by_hash, &mut found);
                    waiting.push(value);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    Ok(found)
}

fn scan(text: &str, by_hash: &BTreeMap<&str, &StorePath>, found: &mut BTreeSet<StorePath>) {
    for (at, _) in text.match_indices(STORE) {
        let start = at + STORE.len();
        let hash = text.get(start..start + 32);
        if let Some(path) = hash.and_then(|hash| by_hash.get(hash)) {
            found.insert((*path).clone());
        }
    }
}

/// The image that a description, which mentions these store paths, describes.
pub fn image(
    description: &Description,
    mentioned: &BTreeSet<StorePath>,
    parts: &Parts<'_>,
) -> Result<Image, DescriptionError> {
    if let (Some(base), None) = (&description.base, parts.base) {
        return Err(DescriptionError::Base(base.clone()));
    }
    let closure = reachable(parts.closure, mentioned)?;
    let made = Maker {
        description,
        parts,
        closure: &closure,
        created: created(description.created.unwrap_or(parts.created), parts),
    };
    made.image()
}

fn created(wanted: Created, parts: &Parts<'_>) -> Timestamp {
    match wanted {
        Created::Epoch => Timestamp::from_second(1).unwrap_or_default(),
        Created::Source => parts.commit_time,
        Created::At(time) => time,
    }
}

/// The part of a closure that `roots` need.
fn reachable(closure: &Closure, roots: &BTreeSet<StorePath>) -> Result<Closure, DescriptionError> {
    let mut paths = BTreeMap::new();
    let mut waiting: Vec<&StorePath> = roots.iter().collect();
    while let Some(path) = waiting.pop() {
        if let Some(info) = closure.paths().get(path)
            && !paths.contains_key(path)
        {
            paths.insert(path.clone(), info.clone());
            waiting.extend(&info.references);
        }
    }
    Closure::new(paths).map_err(DescriptionError::Closure)
}

/// What the user says of a layer.
fn name(history: &mut History, declared: &DeclaredLayer) {
    for (field, own) in [
        (&mut history.created_by, &declared.created_by),
        (&mut history.comment, &declared.comment),
        (&mut history.author, &declared.author),
    ] {
        if !own.is_empty() {
            field.clone_from(own);
        }
    }
}

/// The files that are asked for in an image that somebody else made, as a layer on top, and the
/// variables that go with them. `inside`: the store paths that are known to be in it. `None`: no
/// files are asked for.
pub fn on_top(
    asked: &ImageSpec,
    inside: &BTreeSet<StorePath>,
    created: Timestamp,
) -> Result<Option<(Layer, Vec<String>)>, DescriptionError> {
    // Packages are found by their names: what else there is to know of them makes no difference.
    let unknown = PathInfo {
        nar_hash: NarHash([0; 32]),
        nar_size: 0,
        references: Vec::new(),
    };
    let inside = inside.iter().map(|path| (path.clone(), unknown.clone()));
    let inside = Closure::new(inside.collect()).map_err(DescriptionError::Closure)?;
    // As upon a base image: nothing is there by default.
    let (tree, environment) = files::tree(&Description::default().with(asked), &inside, true)?;
    Ok((!tree.is_empty()).then(|| {
        let contents = Contents::Files(Box::new(tree));
        let layer = layer(contents, FILES, "files that were asked for", created);
        (layer, environment)
    }))
}

/// A layer that is made of no store paths.
fn layer(contents: Contents, created_by: &str, why: &str, created: Timestamp) -> Layer {
    let history = History {
        created: Some(created),
        created_by: created_by.to_owned(),
        comment: why.to_owned(),
        ..History::default()
    };
    Layer {
        contents,
        annotations: BTreeMap::new(),
        history: vec![history],
        why: why.to_owned(),
    }
}

struct Maker<'a> {
    description: &'a Description,
    parts: &'a Parts<'a>,
    /// What is in the image.
    closure: &'a Closure,
    created: Timestamp,
}

impl Maker<'_> {
    fn image(&self) -> Result<Image, DescriptionError> {
        let (files, environment) = files::tree(self.description, self.closure, self.has_base())?;
        let mut on_top = Vec::new();
        // Where there is room for one layer only, defaults have none.
        if !files.is_empty() && (self.max_layers() > 1 || !files.is_offered_only()) {
            on_top.push(self.files(files, "files at the image's root"));
        }
        if let Some(owner) = self.description.nix_database.owner() {
            on_top.push(self.nix_database(owner));
        }
        let below = self.parts.base.map_or(0, |base| base.layers.len());
        let store = match &self.description.thin {
            Some(thin) => self.thin(thin)?,
            None => self.store_layers(below + on_top.len())?,
        };
        let mut layers: Vec<Layer> = Vec::new();
        if let Some(base) = self.parts.base {
            layers.extend(base.layers.iter().cloned());
            if !self.inherits(Inherited::History) {
                for layer in &mut layers {
                    layer.history = vec![History {
                        comment: "base image".into(),
                        ..History::default()
                    }];
                }
            }
        }
        layers.extend(store);
        layers.extend(on_top);
        Ok(Image {
            platform: self.parts.platform.clone(),
            layers,
            config: Config::Firn(Box::new(self.config(&environment)?)),
            annotations: self.description.annotations.clone(),
        })
    }

    fn has_base(&self) -> bool {
        self.parts.base.is_some()
    }

    fn inherits(&self, field: Inherited) -> bool {
        let which = self.description.inherit.as_ref();
        which.is_none_or(|which| which.contains(&field))
    }

    fn config(&self, environment: &[String]) -> Result<ImageConfig, DescriptionError> {
        let description = self.description;
        let inherited = match self.parts.base {
            Some(base) => container::inherited(&base.config.config, description.inherit.as_deref()),
            None => ContainerConfig::default(),
        };
        let mut env = inherited.env.clone();
        for line in environment {
            set_variable(&mut env, line.clone());
        }
        let own = description.config.env.lines();
        let nameless =
            |line: &&String| line.split_once('=').is_none_or(|(name, _)| name.is_empty());
        if let Some(bad) = own.iter().find(nameless) {
            return Err(DescriptionError::Variable(bad.clone()));
        }
        let mut config = description.config.on(ContainerConfig { env, ..inherited });
        config.labels.extend(description.labels.clone());
        let step = |step: &Step| History {
            created: Some(self.created),
            created_by: step.created_by.clone(),
            author: step.author.clone(),
            comment: step.comment.clone(),
            empty_layer: true,
            ..History::default()
        };
        let mut fields = Config::firn(self.parts.platform.clone());
        fields.created = Some(self.created);
        fields.author.clone_from(&description.author);
        fields.config = config;
        fields.history = description.history.iter().map(step).collect();
        Ok(fields)
    }

    /// Declared layers, then those of the rest.
    fn store_layers(&self, others: usize) -> Result<Vec<Layer>, DescriptionError> {
        let description = self.description;
        let declared = description.layers.iter().map(|declared| {
            let roots = files::store_paths("layers.paths", &declared.paths, self.closure)?;
            let all = reachable(self.closure, &roots)?;
            Ok(all.paths().keys().cloned().collect())
        });
        let layout = Layout {
            strategy: match description.strategy {
                Strategy::Stable => layering::Strategy::Stable,
                Strategy::Popularity => layering::Strategy::Popularity,
                Strategy::BySize => layering::Strategy::BySize,
            },
            max_layers: self.max_layers(),
            other_layers: u32::try_from(others).unwrap_or(u32::MAX),
            head_room: description.head_room,
            declared: declared.collect::<Result<_, DescriptionError>>()?,
            ignored: BTreeSet::new(),
        };
        let planned = layout
            .plan(self.closure)
            .map_err(DescriptionError::Layout)?;
        let layers = planned.into_iter().map(|planned| {
            let declared = match planned.why {
                Why::Declared { number } => description.layers.get(number.saturating_sub(1)),
                _ => None,
            };
            let mut layer =
                super::package::layer(planned, description.profile.into(), self.created);
            if let (Some(declared), Some(history)) = (declared, layer.history.first_mut()) {
                name(history, declared);
            }
            layer
        });
        Ok(layers.collect())
    }

    fn max_layers(&self) -> u32 {
        let own = self.description.max_layers.unwrap_or(u32::MAX);
        own.min(self.parts.max_layers)
    }

    fn files(&self, tree: Tree, why: &str) -> Layer {
        layer(Contents::Files(Box::new(tree)), FILES, why, self.created)
    }

    fn nix_database(&self, owner: &NixOwner) -> Layer {
        let database = NixDatabase {
            paths: self.closure.paths().keys().cloned().collect(),
            uid: owner.uid,
            gid: owner.gid,
            has_base: self.has_base(),
        };
        let contents = Contents::NixDatabase(Box::new(database));
        let why = "what Nix must know of the store paths";
        layer(contents, nix_database::VERSION, why, self.created)
    }

    /// One layer of mount points, which the node fills.
    fn thin(&self, thin: &Thin) -> Result<Vec<Layer>, DescriptionError> {
        let tree = Tree {
            mount_points: self.closure.paths().keys().cloned().collect(),
            ..Tree::default()
        };
        let mut layer = self.files(tree, "mount points of store paths that the node has");
        layer
            .annotations
            .insert(THIN_LAYER.to_owned(), "true".to_owned());
        if let Some(info) = &thin.closure_info {
            let field = "thin.closureInfo";
            let paths = files::store_paths(field, std::slice::from_ref(info), self.parts.closure)?;
            for path in paths {
                layer
                    .annotations
                    .insert(THIN_CLOSURE.to_owned(), path.to_string());
            }
        } else {
            for (index, path) in self.closure.paths().keys().enumerate() {
                layer
                    .annotations
                    .insert(format!("{THIN_PATH}{index}"), path.to_string());
            }
        }
        Ok(vec![layer])
    }
}

#[cfg(test)]
mod tests;
