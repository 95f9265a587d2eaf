//! Images of dockerTools' `streamLayeredImage`: the JSON file that its stream script reads. Layers
//! are those of a base image, store paths, and one archive that is ready.
//! <https://github.com/NixOS/nixpkgs/tree/master/pkgs/build-support/docker>

mod config;
mod script;

use firn_oci::{Digest, History, Metadata, Platform};

use super::archive::{self, Archive};
use super::blob::{Blob, Form};
use super::foreign::{Fields, Files, InputError, LAYERS_MAX, Wanted, shortened};
use super::json::Json;
use super::{Contents, Image, Layer};
use crate::closure::PATHS_MAX;
use crate::store_path::StorePath;

pub use config::PythonConfig;
pub use script::conf_of_script;

/// The document in words.
const WHAT: &str = "the description of a dockerTools image";

/// Store paths in the tar of dockerTools' streamed images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreLayer {
    /// The paths, in the order of the archive.
    pub paths: Vec<StorePath>,
    /// Whose files they are, and from when.
    pub owner: Owner,
}

/// Whose files they are, and from when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Name of the owner.
    pub user: String,
    /// Name of the group.
    pub group: String,
    /// Seconds since 1970.
    pub mtime: u64,
}

impl Owner {
    /// Metadata of a directory above the store paths.
    pub fn metadata(&self) -> Metadata<'_> {
        Metadata {
            mode: 0o755,
            uid: self.uid,
            gid: self.gid,
            user: &self.user,
            group: &self.group,
            mtime: self.mtime,
            xattrs: &[],
        }
    }
}

/// Whether `document` describes an image of dockerTools.
pub fn is_conf(document: &Json) -> bool {
    let has = |key| document.get(key).is_some();
    has("store_layers") && has("customisation_layer") && has("repo_tag")
}

/// Reads an image's description.
pub fn image(files: &Files<'_>, document: Json, wanted: &Wanted) -> Result<Image, InputError> {
    let document = document.as_python_reads();
    let fields = Fields::of(WHAT, &document, false)?;
    if fields.text("store_dir")? != "/nix/store" {
        return Err(InputError::Field {
            what: WHAT,
            field: "store_dir".to_owned(),
            expected: "/nix/store",
        });
    }
    let variant = fields.text("variant")?;
    let platform = Platform {
        variant: (!variant.is_empty()).then(|| variant.to_owned()),
        ..Platform::linux(fields.required("architecture")?)
    };
    wanted.check(&platform)?;
    let base = match fields.text("from_image")? {
        "" => None,
        name => {
            let place = files.place(WHAT, name)?;
            Some(archive::docker_image(&Archive::open(files, &place)?)?)
        }
    };
    let owner = owner(&fields)?;
    let mut config = PythonConfig::new(&fields, &platform, base.as_ref(), wanted)?;
    let mut layers = Vec::new();
    for layer in base.into_iter().flat_map(|base| base.layers) {
        let why = format!("{} of the base image", shortened(&layer.name));
        let history = config.add_history(&[&layer.name]);
        layers.push(ready(layer.blob, history, why));
    }
    for listed in fields.list("store_layers")? {
        layers.push(store_layer(files, listed, &owner, &mut config)?);
    }
    let customisation = fields.required("customisation_layer")?;
    let history = config.add_history(&[customisation]);
    let blob = customisation_layer(files, customisation)?;
    layers.push(ready(
        blob,
        history,
        "customisation of dockerTools".to_owned(),
    ));
    if layers.len() > LAYERS_MAX {
        return Err(InputError::TooMany {
            what: WHAT,
            count: layers.len(),
            of: "layers",
            limit: LAYERS_MAX,
        });
    }
    Ok(Image {
        platform,
        layers,
        config: super::Config::DockerTools(Box::new(config)),
        annotations: wanted.annotations.clone(),
    })
}

fn ready(blob: Blob, history: History, why: String) -> Layer {
    Layer {
        contents: Contents::Blob(blob),
        annotations: std::collections::BTreeMap::new(),
        history: vec![history],
        why,
    }
}

fn store_layer(
    files: &Files<'_>,
    listed: &Json,
    owner: &Owner,
    config: &mut PythonConfig,
) -> Result<Layer, InputError> {
    let wrong = || InputError::Field {
        what: WHAT,
        field: "store_layers".to_owned(),
        expected: "lists of store paths",
    };
    let Json::List(listed) = listed else {
        return Err(wrong());
    };
    if listed.len() > PATHS_MAX {
        return Err(wrong());
    }
    let mut names = Vec::new();
    let mut paths = Vec::new();
    for item in listed {
        let Json::Text(name) = item else {
            return Err(wrong());
        };
        names.push(name.as_str());
        paths.push(files.path(WHAT, name)?);
    }
    let history = config.add_history(&names);
    Ok(Layer {
        contents: Contents::DockerTools(Box::new(StoreLayer {
            paths,
            owner: owner.clone(),
        })),
        annotations: std::collections::BTreeMap::new(),
        history: vec![history],
        why: "a store layer of dockerTools".to_owned(),
    })
}

fn customisation_layer(files: &Files<'_>, name: &str) -> Result<Blob, InputError> {
    let directory = files.place(WHAT, name)?;
    let checksum = files.read(&directory.join("checksum"))?;
    let checksum = String::from_utf8_lossy(&checksum);
    let diff_id: Digest =
        format!("sha256:{}", checksum.trim())
            .parse()
            .map_err(|_| InputError::Field {
                what: WHAT,
                field: "checksum of the customisation layer".to_owned(),
                expected: "64 hexadecimal digits",
            })?;
    Ok(Blob {
        place: directory.join("layer.tar"),
        member: None,
        form: Form::Tar,
        diff_id,
    })
}

fn owner(fields: &Fields<'_>) -> Result<Owner, InputError> {
    let text_or_root = |field| match fields.text(field)? {
        // Producers before owners could be chosen.
        "" => Ok("root".to_owned()),
        name => Ok(name.to_owned()),
    };
    Ok(Owner {
        uid: decimal(fields, "uid")?,
        gid: decimal(fields, "gid")?,
        user: text_or_root("uname")?,
        group: text_or_root("gname")?,
        mtime: config::mtime(fields)?,
    })
}

/// A number that is written as a string.
fn decimal(fields: &Fields<'_>, field: &str) -> Result<u64, InputError> {
    match fields.get(field) {
        Some(Json::Text(text)) => text.trim().parse().map_err(|_| InputError::Field {
            what: WHAT,
            field: field.to_owned(),
            expected: "a number from 0 on",
        }),
        _ => fields.number(field),
    }
}
