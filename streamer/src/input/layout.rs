//! OCI image layouts: a directory or an archive with an image, or several. Blobs and config stay
//! as they are, so that their digests do.
//! <https://github.com/opencontainers/image-spec/blob/main/image-layout.md>

use std::collections::{BTreeMap, BTreeSet};

use firn_oci::decompress::Encoding;
use firn_oci::{Descriptor, Digest, ImageConfig, Index, Manifest, Platform, media_type};

use super::blob::{Blob, Form, Member};
use super::foreign::{Files, InputError, LAYERS_MAX, Wanted, shortened};
use super::verbatim::{self, Verbatim};
use super::{Contents, Image, Layer};
use crate::store::Place;

/// Deepest nesting of indexes.
const DEPTH_MAX: usize = 4;
/// Most manifests of all indexes together.
const MANIFESTS_MAX: usize = 500;
/// An entry's name.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// What an entry is that is no image but says something about one.
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";

/// Where the parts of a layout are.
pub trait Source {
    /// For messages.
    fn name(&self) -> String;
    /// A document by its name in the layout.
    fn document(&self, name: &str) -> Result<Vec<u8>, InputError>;
    /// Where a blob is.
    fn blob(&self, digest: &Digest) -> Result<(Place, Option<Member>), InputError>;
}

/// A directory of the store.
#[derive(Debug)]
pub struct Directory<'a> {
    files: Files<'a>,
    place: Place,
}

impl<'a> Directory<'a> {
    /// The layout at `place`.
    pub fn new(files: Files<'a>, place: Place) -> Self {
        Self { files, place }
    }
}

impl Source for Directory<'_> {
    fn name(&self) -> String {
        self.place.to_string()
    }

    fn document(&self, name: &str) -> Result<Vec<u8>, InputError> {
        self.files.read(&self.place.join(name))
    }

    fn blob(&self, digest: &Digest) -> Result<(Place, Option<Member>), InputError> {
        let name = format!("blobs/sha256/{}", digest.hex());
        Ok((self.place.join(&name), None))
    }
}

/// A layout.
pub struct Layout<'a> {
    source: &'a dyn Source,
}

impl std::fmt::Debug for Layout<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Layout({})", self.source.name())
    }
}

/// Reads the image for the wanted platform.
pub fn image(layout: &Layout<'_>, wanted: &Wanted) -> Result<Image, InputError> {
    let manifest = layout.choose(wanted)?;
    let (config_bytes, config) = layout.config(&manifest)?;
    wanted.check(&config.platform)?;
    if manifest.layers.len() > LAYERS_MAX {
        return Err(InputError::TooMany {
            what: "the manifest of an OCI layout",
            count: manifest.layers.len(),
            of: "layers",
            limit: LAYERS_MAX,
        });
    }
    if manifest.layers.len() != config.rootfs.diff_ids.len() {
        return Err(InputError::Field {
            what: "the config of an OCI layout",
            field: "diff_ids".to_owned(),
            expected: "as many as there are layers",
        });
    }
    let mut histories = verbatim::histories(&config).into_iter();
    let mut layers = Vec::new();
    for (descriptor, diff_id) in manifest.layers.iter().zip(&config.rootfs.diff_ids) {
        layers.push(Layer {
            contents: Contents::Blob(layout.layer(descriptor, *diff_id)?),
            annotations: BTreeMap::new(),
            history: histories.next().unwrap_or_default(),
            why: "a layer of the OCI layout".to_owned(),
        });
    }
    let mut annotations = manifest.annotations.clone();
    annotations.extend(wanted.annotations.clone());
    Ok(Image {
        platform: Platform {
            extra: BTreeMap::new(),
            ..config.platform.clone()
        },
        layers,
        config: super::Config::Verbatim(Verbatim::new(config_bytes, config, wanted)),
        annotations,
    })
}

impl<'a> Layout<'a> {
    /// The layout of a source.
    pub fn new(source: &'a dyn Source) -> Self {
        Self { source }
    }

    fn choose(&self, wanted: &Wanted) -> Result<Manifest, InputError> {
        let bytes = self.source.document("index.json")?;
        let mut entries = Vec::new();
        self.collect(&self.index("index.json", &bytes)?, 0, &mut entries)?;
        let mut platforms = BTreeSet::new();
        let mut fitting: Vec<(Descriptor, Manifest)> = Vec::new();
        for entry in entries {
            let manifest = self.manifest(&entry)?;
            let platform = match &entry.platform {
                Some(platform) => platform.clone(),
                None => self.config(&manifest)?.1.platform,
            };
            if wanted.check(&platform).is_ok() {
                fitting.push((entry, manifest));
            } else {
                platforms.insert(platform.to_string());
            }
        }
        let digests: BTreeSet<Digest> = fitting.iter().map(|(entry, _)| entry.digest).collect();
        if digests.len() > 1 {
            let is_latest = |entry: &Descriptor| {
                let name = entry.annotations.get(REF_NAME);
                name.is_some_and(|name| name == "latest" || name.ends_with(":latest"))
            };
            fitting.retain(|(entry, _)| is_latest(entry));
            if fitting.len() != 1 {
                return Err(InputError::Unsupported {
                    what: self.source.name(),
                    why: "it has several images for this platform, and not exactly one of them is named \"latest\" by org.opencontainers.image.ref.name",
                });
            }
        }
        let chosen = fitting.into_iter().next().map(|(_, manifest)| manifest);
        chosen.ok_or_else(|| {
            let platforms: Vec<String> = platforms.into_iter().take(10).collect();
            InputError::Platform {
                image: shortened(&platforms.join(", ")),
                wanted: wanted.platform.to_string(),
            }
        })
    }

    /// All manifests of images, those of nested indexes included.
    fn collect(
        &self,
        index: &Index,
        depth: usize,
        entries: &mut Vec<Descriptor>,
    ) -> Result<(), InputError> {
        if depth > DEPTH_MAX || entries.len() + index.manifests.len() > MANIFESTS_MAX {
            return Err(InputError::Unsupported {
                what: self.source.name(),
                why: "it has more or deeper indexes than any image needs",
            });
        }
        for entry in &index.manifests {
            let unknown = |platform: &Platform| platform.os == "unknown";
            if entry.platform.as_ref().is_some_and(unknown)
                || entry.annotations.contains_key(REFERENCE_TYPE)
            {
                continue;
            }
            if media_type::is_index(&entry.media_type) {
                let bytes = self.read(entry)?;
                let nested = self.index("an index", &bytes)?;
                self.collect(&nested, depth + 1, entries)?;
            } else if media_type::is_manifest(&entry.media_type) {
                entries.push(entry.clone());
            }
        }
        Ok(())
    }

    fn config(&self, manifest: &Manifest) -> Result<(Vec<u8>, ImageConfig), InputError> {
        let bytes = self.read(&manifest.config)?;
        let config = self.parse("the config", &bytes)?;
        Ok((bytes, config))
    }

    fn manifest(&self, entry: &Descriptor) -> Result<Manifest, InputError> {
        self.parse("a manifest", &self.read(entry)?)
    }

    fn index(&self, name: &str, bytes: &[u8]) -> Result<Index, InputError> {
        self.parse(name, bytes)
    }

    fn parse<T: serde::de::DeserializeOwned>(
        &self,
        name: &str,
        bytes: &[u8],
    ) -> Result<T, InputError> {
        serde_json::from_slice(bytes).map_err(|source| InputError::Json {
            place: format!("{name} in {}", self.source.name()),
            source,
        })
    }

    /// A document that a descriptor points to, compared with it.
    fn read(&self, descriptor: &Descriptor) -> Result<Vec<u8>, InputError> {
        let name = format!("blobs/sha256/{}", descriptor.digest.hex());
        let bytes = self.source.document(&name)?;
        let actual = Digest::of(&bytes);
        if actual == descriptor.digest {
            return Ok(bytes);
        }
        Err(InputError::Damaged {
            what: format!("{name} in {}", self.source.name()),
            expected: descriptor.digest,
            actual,
        })
    }

    fn layer(&self, descriptor: &Descriptor, diff_id: Digest) -> Result<Blob, InputError> {
        let encoding = Encoding::of_layer(&descriptor.media_type);
        let encoding = encoding.ok_or_else(|| InputError::Unsupported {
            what: format!(
                "a layer of type {:?} in {}",
                shortened(&descriptor.media_type),
                self.source.name()
            ),
            why: "such layers cannot be copied",
        })?;
        let (place, member) = self.source.blob(&descriptor.digest)?;
        Ok(Blob {
            place,
            member,
            form: Form::Verbatim {
                encoding,
                digest: Some(descriptor.digest),
            },
            diff_id,
        })
    }
}
