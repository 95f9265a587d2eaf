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

pub mod package;

use std::collections::BTreeMap;

use firn_oci::{ContainerConfig, Digest, History, ImageConfig, Platform, RootFs};

use crate::closure::Closure;
use crate::store_path::StorePath;

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
}

/// Store paths as a tar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// Whose tar format.
    pub profile: Profile,
    /// In the order in which they are written.
    pub paths: Vec<StorePath>,
}

/// Whose tar format a layer of store paths has, byte for byte. Other bytes need another version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Profile {
    /// Firn's own: what a NAR encodes and nothing else.
    #[default]
    Nar1,
}

impl Profile {
    /// Name and version.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nar1 => "nar/1",
        }
    }
}

/// How the config's bytes are made.
#[derive(Debug, Clone, PartialEq)]
pub enum Config {
    /// By Firn, of these fields. Layers and history are put in when the layers are known; a history
    /// that is there already is of steps after the last layer.
    Firn(Box<ImageConfig>),
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
        }
    }
}

impl Contents {
    /// Bytes that will have to be read if it is made, as far as they are known beforehand.
    pub fn size(&self, closure: &Closure) -> u64 {
        match self {
            Self::Paths(layer) => layer
                .paths
                .iter()
                .filter_map(|path| closure.paths().get(path))
                .fold(0, |sum, info| sum.saturating_add(info.nar_size)),
        }
    }

    /// How many store paths are in it.
    pub fn paths(&self) -> usize {
        match self {
            Self::Paths(layer) => layer.paths.len(),
        }
    }

    /// What is in it, by names for people, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = match self {
            Self::Paths(layer) => layer.paths.iter().map(|p| p.name().to_owned()).collect(),
        };
        names.sort_unstable();
        names
    }
}
