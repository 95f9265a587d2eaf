//! An image to be, whatever described it: what every front end makes of its input, and all that
//! planning, writing and pushing know of it. Pure: plain data.
//!
//! ```text
//! package, nix2container, dockerTools, archive, layout, description ──► Image ──► push
//! ```
//!
//! A front end parses; it decides which layers there are and what is in each, and it opens no
//! layer's contents. Whatever it was given was written by build code: what it hands on are types
//! that cannot name a place outside the closure.

pub mod archive;
pub mod blob;
pub mod description;
pub mod detect;
pub mod docker_tools;
pub mod foreign;
pub mod json;
pub mod laid_over;
pub mod layout;
pub mod nix2container;
pub mod package;
pub mod root;
pub mod tree;
pub mod verbatim;

use std::collections::BTreeMap;

use firn_oci::decompress::Encoding;
use firn_oci::{
    ContainerConfig, Descriptor, Digest, History, ImageConfig, Platform, Repository, RootFs,
};

use crate::closure::Closure;
use crate::nix_database::NixDatabase;
use crate::store_path::StorePath;
use blob::{Blob, Form};
use docker_tools::{PythonConfig, StoreLayer};
use laid_over::LaidOver;
use nix2container::{GoConfig, PathsLayer};
use tree::Tree;
use verbatim::Verbatim;

/// An image to be.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// What it runs on.
    pub platform: Platform,
    /// Bottom first, those of a base image included.
    pub layers: Vec<Layer>,
    /// How the config's bytes are made.
    pub config: Config,
    /// Annotations of the manifest.
    pub annotations: BTreeMap<String, String>,
}

/// One layer to be.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// What its bytes are made of.
    pub contents: Contents,
    /// Annotations of its descriptor.
    pub annotations: BTreeMap<String, String>,
    /// Its entry in the image's history, after those of the steps before it that made no layer.
    pub history: Vec<History>,
    /// Why it is there, in words for `plan` and the log.
    pub why: String,
}

/// What a layer's bytes are made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contents {
    /// Store paths, each where it is in the store.
    Paths(Paths),
    /// Store paths in the tar of nix2container, moved and with modes where it was told so.
    Nix2container(Box<PathsLayer>),
    /// Store paths in the tar of dockerTools.
    DockerTools(Box<StoreLayer>),
    /// Bytes that are there already.
    Blob(Blob),
    /// Files that are no store paths.
    Files(Box<Tree>),
    /// What Nix in a container must know of the store paths.
    NixDatabase(Box<NixDatabase>),
    /// A layer of a base image, as it is in a registry.
    Remote(Box<Remote>),
}

/// Store paths as a tar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// Whose tar format.
    pub profile: Profile,
    /// In the order in which they are written.
    pub paths: Vec<StorePath>,
}

/// A layer that is in a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// Where in its registry.
    pub repository: Repository,
    /// Type, digest and size; the type is one of OCI's.
    pub descriptor: Descriptor,
    /// The digest of its uncompressed archive, as the base image's config has it.
    pub diff_id: Digest,
}

/// Whose tar format a layer of store paths has, byte for byte. Other bytes need another version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Profile {
    /// Firn's own: what a NAR encodes and nothing else.
    #[default]
    Nar1,
    /// nix2container's.
    Nix2container,
    /// That of dockerTools' streamed images, for root and as of one second after 1970.
    DockerTools,
}

impl Profile {
    /// Name and version.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nar1 => "nar/1",
            Self::Nix2container => "nix2container/1",
            Self::DockerTools => "docker-tools/1",
        }
    }

    /// Sorts a layer's paths as they are written.
    pub fn sort(self, paths: &mut [StorePath]) {
        match self {
            Self::Nar1 | Self::Nix2container => paths.sort(),
            // nixpkgs sorts by name first, and its archives keep the order.
            Self::DockerTools => {
                paths.sort_by(|a, b| (a.name(), a.hash_part()).cmp(&(b.name(), b.hash_part())));
            }
        }
    }
}

/// How the config's bytes are made.
#[derive(Debug, Clone, PartialEq)]
pub enum Config {
    /// By Firn, of these fields. Layers and history are put in when the layers are known; a history
    /// that is there already is of steps after the last layer.
    Firn(Box<ImageConfig>),
    /// As nix2container's skopeo makes them.
    Nix2container(Box<GoConfig>),
    /// As dockerTools' stream script makes them.
    DockerTools(Box<PythonConfig>),
    /// They are there already.
    Verbatim(Verbatim),
    /// One of the others, with fields of a NixImage laid over it.
    LaidOver(Box<LaidOver>),
}

impl Config {
    /// A config of Firn's without layers.
    pub fn firn(platform: Platform) -> ImageConfig {
        ImageConfig {
            created: None,
            author: None,
            platform,
            config: ContainerConfig::default(),
            rootfs: RootFs {
                kind: "layers".to_owned(),
                diff_ids: Vec::new(),
            },
            history: Vec::new(),
        }
    }

    /// The config blob of an image with these layers, bottom first.
    pub fn to_bytes(&self, layers: &[(Digest, &[History])]) -> Vec<u8> {
        match self {
            Self::Firn(fields) => {
                let mut config = (**fields).clone();
                // What the fields have of history came after the last layer.
                let after = std::mem::take(&mut config.history);
                for (diff_id, history) in layers {
                    config.rootfs.diff_ids.push(*diff_id);
                    config.history.extend_from_slice(history);
                }
                config.history.extend(after);
                config.to_bytes()
            }
            Self::Nix2container(config) => {
                config.to_bytes(layers.iter().map(|(diff_id, _)| *diff_id))
            }
            Self::DockerTools(config) => {
                config.to_bytes(layers.iter().map(|(diff_id, _)| *diff_id))
            }
            Self::Verbatim(config) => config.to_bytes(),
            Self::LaidOver(config) => config.to_bytes(layers),
        }
    }
}

impl Contents {
    /// Bytes that will have to be read if it is made, as far as they are known beforehand.
    pub fn size(&self, closure: &Closure) -> u64 {
        match self {
            Self::Blob(Blob {
                member: Some(member),
                ..
            }) => return member.size,
            Self::Remote(remote) => return remote.descriptor.size,
            _ => {}
        }
        let paths: Vec<&StorePath> = match self {
            Self::Files(tree) => tree.sources(closure).into_iter().collect(),
            _ => self.store_paths(),
        };
        paths
            .into_iter()
            .filter_map(|path| closure.paths().get(path))
            .fold(0, |sum, info| sum.saturating_add(info.nar_size))
    }

    /// Bytes on the way to it: what is in a compressed archive has no other way in than from the
    /// archive's start.
    pub fn bytes_passed_over(&self) -> u64 {
        match self {
            Self::Blob(Blob {
                member: Some(member),
                ..
            }) if member.archive != Encoding::Plain => member.offset,
            _ => 0,
        }
    }

    /// How many store paths are in it.
    pub fn paths(&self) -> usize {
        match self {
            Self::Paths(_) | Self::Nix2container(_) | Self::DockerTools(_) => {
                self.store_paths().len()
            }
            Self::Blob(_) | Self::Files(_) | Self::NixDatabase(_) | Self::Remote(_) => 0,
        }
    }

    /// What is in it, by names for people, sorted.
    pub fn names(&self) -> Vec<String> {
        let paths = self.store_paths().into_iter();
        let mut names: Vec<String> = paths.map(|path| path.name().to_owned()).collect();
        names.sort_unstable();
        names
    }

    /// The store paths that it is made of.
    pub fn store_paths(&self) -> Vec<&StorePath> {
        match self {
            Self::Paths(layer) => layer.paths.iter().collect(),
            Self::Nix2container(layer) => layer.entries.iter().map(|entry| &entry.path).collect(),
            Self::DockerTools(layer) => layer.paths.iter().collect(),
            Self::Blob(blob) => vec![&blob.place.path],
            Self::Files(_) | Self::NixDatabase(_) | Self::Remote(_) => Vec::new(),
        }
    }

    /// The blob that goes to the registry as it is.
    pub fn verbatim(&self) -> Option<&Blob> {
        match self {
            Self::Blob(blob) if matches!(blob.form, Form::Verbatim { .. }) => Some(blob),
            _ => None,
        }
    }
}
