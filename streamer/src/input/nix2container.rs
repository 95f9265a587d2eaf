//! Images of nix2container: the `image.json` that its `buildImage` leaves in the store. Layers are
//! store paths, moved and with modes where it was told so, or files that hold them ready.
//! <https://github.com/nlewo/nix2container> (format version 1)
//!
//! Keys are read in any case and unknown ones ignored, as Go does. What each layer's digest will be
//! is declared; the pass that makes the layer compares.

mod config;

use std::collections::BTreeSet;

use firn_oci::decompress::Encoding;
use firn_oci::{Digest, History, Platform};

use super::blob::{Blob, Form};
use super::foreign::{Fields, Files, InputError, LAYERS_MAX, Wanted, shortened};
use super::json::Json;
use super::{Contents, Image, Layer};
use crate::closure::PATHS_MAX;
use crate::layer::LayerError;
use crate::store_path::StorePath;

pub use config::GoConfig;

/// The document in words.
const WHAT: &str = "the description of an image of nix2container";
/// Most rules for modes of one path. Each is a regular expression.
const PERMS_MAX: usize = 100;

/// Store paths in the tar of nix2container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathsLayer {
    /// The paths, as declared.
    pub entries: Vec<PathEntry>,
    /// What nix2container says the digest is.
    pub declared: Digest,
}

/// A store path in a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathEntry {
    /// The store path.
    pub path: StorePath,
    /// What becomes of its files.
    pub options: Option<Options>,
}

/// What becomes of a path's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Where they go.
    pub rewrite: Rewrite,
    /// Their modes and owners; all that match apply, in this order.
    pub perms: Vec<Perm>,
}

/// Where a path's files go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rewrite {
    /// They stay.
    None,
    /// The path itself is replaced. Not by a regular expression, although it is written as one:
    /// there are names with `++`.
    Prefix {
        /// The path.
        prefix: String,
        /// What stands in its place; empty at the image's root.
        replacement: String,
    },
    /// All that matches is replaced.
    Regex {
        /// A regular expression of RE2.
        regex: String,
        /// With `$1` for groups.
        replacement: String,
    },
}

/// Mode and owner of files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Perm {
    /// Which files, by a regular expression of RE2 over their names in the store.
    pub regex: String,
    /// `None`: it stays.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Name of the owner; empty: it stays.
    pub user: String,
    /// Name of the group; empty: it stays.
    pub group: String,
}

impl PathsLayer {
    /// Whether any file is moved or has another mode.
    pub fn has_options(&self) -> bool {
        self.entries.iter().any(|entry| entry.options.is_some())
    }

    /// The paths in the order of the archive.
    pub fn sorted_paths(&self) -> Vec<StorePath> {
        let paths: BTreeSet<&StorePath> = self.entries.iter().map(|entry| &entry.path).collect();
        paths.into_iter().cloned().collect()
    }

    /// Compares the layer with what was declared. A difference is an error where rules were read
    /// that may mean something else to nix2container; contents alone have passed their NAR hashes,
    /// and what differs then are modes of files on another machine.
    pub fn compare(&self, actual: &Digest) -> Result<(), LayerError> {
        if *actual == self.declared {
            return Ok(());
        }
        let has_regex = |options: &Options| {
            !options.perms.is_empty() || matches!(options.rewrite, Rewrite::Regex { .. })
        };
        if self
            .entries
            .iter()
            .filter_map(|entry| entry.options.as_ref())
            .any(has_regex)
        {
            return Err(LayerError::OtherRules {
                expected: self.declared,
                actual: *actual,
            });
        }
        tracing::warn!(
            declared = %self.declared, %actual,
            "a layer is not what nix2container declared: its files had other modes where that was done"
        );
        Ok(())
    }
}

/// Whether `document` describes an image of nix2container.
pub fn is_image(document: &Json) -> bool {
    let has = |key| document.get_folded(key).is_some();
    has("version") && has("image-config")
}

/// Reads an image's description.
pub fn image(files: &Files<'_>, document: &Json, wanted: &Wanted) -> Result<Image, InputError> {
    let fields = Fields::of(WHAT, document, true)?;
    if fields.number("version")? != 1 {
        return Err(InputError::Unsupported {
            what: WHAT.to_owned(),
            why: "its version is not 1, the only one there is",
        });
    }
    // A base image by itself says nothing, nor does its config.
    let platform = match fields.text("arch")? {
        "" => wanted.platform.clone(),
        architecture => Platform::linux(architecture),
    };
    wanted.check(&platform)?;
    let listed = fields.list("layers")?;
    if listed.len() > LAYERS_MAX {
        return Err(InputError::TooMany {
            what: WHAT,
            count: listed.len(),
            of: "layers",
            limit: LAYERS_MAX,
        });
    }
    let mut config = GoConfig::new(&fields, &platform.architecture, wanted)?;
    let mut layers = Vec::new();
    for (index, listed) in listed.iter().enumerate() {
        let fields = Fields::of(WHAT, listed, true)?;
        let history = config.add_history(&fields)?;
        layers.push(layer(files, &fields, index, history)?);
    }
    Ok(Image {
        platform,
        layers,
        config: super::Config::Nix2container(Box::new(config)),
        annotations: wanted.annotations.clone(),
    })
}

fn layer(
    files: &Files<'_>,
    fields: &Fields<'_>,
    index: usize,
    history: History,
) -> Result<Layer, InputError> {
    let digest = fields.digest("digest")?;
    let diff_id = fields.digest("diff_ids")?;
    let ready = fields.text("layer-path")?;
    let (contents, why) = if ready.is_empty() {
        let entries = entries(files, fields)?;
        let paths = PathsLayer {
            entries,
            declared: diff_id,
        };
        (
            Contents::Nix2container(Box::new(paths)),
            format!("layer {index} of nix2container"),
        )
    } else {
        let place = files.place(WHAT, ready)?;
        let form = form(fields.text("mediatype")?, digest)?;
        let blob = Blob {
            place,
            member: None,
            form,
            diff_id,
        };
        (
            Contents::Blob(blob),
            format!(
                "layer {index} of nix2container, ready in {}",
                shortened(ready)
            ),
        )
    };
    Ok(Layer {
        contents,
        annotations: std::collections::BTreeMap::new(),
        history: vec![history],
        why,
    })
}

/// An archive is compressed by Firn, everything else stays as it is.
fn form(media_type: &str, digest: Digest) -> Result<Form, InputError> {
    match Encoding::of_layer(media_type) {
        Some(Encoding::Plain) => Ok(Form::Tar),
        Some(encoding) => Ok(Form::Verbatim {
            encoding,
            digest: Some(digest),
        }),
        None => Err(InputError::Unsupported {
            what: format!("a layer of type {:?}", shortened(media_type)),
            why: "such layers cannot be copied",
        }),
    }
}

fn entries(files: &Files<'_>, fields: &Fields<'_>) -> Result<Vec<PathEntry>, InputError> {
    let listed = fields.list("paths")?;
    if listed.is_empty() || listed.len() > PATHS_MAX {
        return Err(InputError::Field {
            what: WHAT,
            field: "paths".to_owned(),
            expected: "store paths, or a layer-path",
        });
    }
    listed
        .iter()
        .map(|entry| {
            let fields = Fields::of(WHAT, entry, true)?;
            let path = files.path(WHAT, fields.text("path")?)?;
            let options = match fields.get("options") {
                Some(found) => Some(options(&Fields::of(WHAT, found, true)?, &path)?),
                None => None,
            };
            Ok(PathEntry { path, options })
        })
        .collect()
}

fn options(fields: &Fields<'_>, path: &StorePath) -> Result<Options, InputError> {
    let listed = fields.list("perms")?;
    if listed.len() > PERMS_MAX {
        return Err(InputError::TooMany {
            what: WHAT,
            count: listed.len(),
            of: "rules for the modes of one path",
            limit: PERMS_MAX,
        });
    }
    let perms = listed.iter().map(perm).collect::<Result<_, _>>()?;
    let rewrite = match fields.get("rewrite") {
        Some(found) => rewrite(&Fields::of(WHAT, found, true)?, path)?,
        None => Rewrite::None,
    };
    Ok(Options { rewrite, perms })
}

fn rewrite(fields: &Fields<'_>, path: &StorePath) -> Result<Rewrite, InputError> {
    let regex = fields.text("regex")?;
    let replacement = fields.text("repl")?.to_owned();
    let prefix = path.to_string();
    Ok(if regex.is_empty() {
        Rewrite::None
    } else if regex.strip_prefix('^') == Some(&prefix) && !replacement.contains('$') {
        Rewrite::Prefix {
            prefix,
            replacement,
        }
    } else {
        Rewrite::Regex {
            regex: regex.to_owned(),
            replacement,
        }
    })
}

fn perm(listed: &Json) -> Result<Perm, InputError> {
    let fields = Fields::of(WHAT, listed, true)?;
    let mode = fields.text("mode")?;
    let mode = match mode {
        "" => None,
        octal => Some(
            u32::from_str_radix(octal, 8)
                .ok()
                .filter(|mode| *mode <= 0o7777 && !octal.starts_with('+'))
                .ok_or_else(|| InputError::Field {
                    what: WHAT,
                    field: "mode".to_owned(),
                    expected: "an octal number up to 7777",
                })?,
        ),
    };
    Ok(Perm {
        regex: fields.text("regex")?.to_owned(),
        mode,
        uid: fields.number("uid")?,
        gid: fields.number("gid")?,
        user: fields.text("uname")?.to_owned(),
        group: fields.text("gname")?.to_owned(),
    })
}
