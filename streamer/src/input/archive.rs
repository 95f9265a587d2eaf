//! Images as one tar archive, compressed or not: what `docker save`, `buildImage` and
//! `buildLayeredImage` of dockerTools write (docker-archive), and OCI layouts in an archive.
//!
//! The archive is passed over once, and only where its members are is kept, with the documents.

use std::collections::BTreeMap;
use std::io::Read as _;

use firn_oci::decompress::{Decoder, Encoding};
use firn_oci::tar::{MemberKind, Skip, TarReader};
use firn_oci::{Digest, ImageConfig, Platform};

use super::blob::{Blob, Form, Member};
use super::foreign::{DOCUMENT_MAX, Fields, Files, InputError, LAYERS_MAX, Wanted, shortened};
use super::json::Json;
use super::layout::{self, Layout};
use super::verbatim::{self, Verbatim};
use super::{Contents, Image, Layer};
use crate::store::{Place, StoreError};

/// Most members. An image has three for each layer.
const MEMBERS_MAX: usize = 10_000;
/// Largest document in an archive: what registries take.
const CONFIG_MAX: u64 = 4 << 20;
/// Most links from one member to the next.
const LINKS_MAX: usize = 8;

/// What is in an archive, and where.
#[derive(Debug)]
pub struct Archive {
    place: Place,
    encoding: Encoding,
    members: BTreeMap<String, Found>,
    documents: BTreeMap<String, Vec<u8>>,
}

#[derive(Debug, Clone)]
enum Found {
    File {
        member: Member,
        encoding: Encoding,
    },
    /// To another member, by its name.
    Link(String),
}

/// An image of a docker-archive.
#[derive(Debug)]
pub struct DockerImage {
    /// Its config, in its bytes.
    pub config_bytes: Vec<u8>,
    /// Its config.
    pub config: Json,
    /// Its layers, bottom first.
    pub layers: Vec<DockerLayer>,
}

/// A layer of a docker-archive.
#[derive(Debug)]
pub struct DockerLayer {
    /// The member's name.
    pub name: String,
    /// Its bytes.
    pub blob: Blob,
}

impl Archive {
    /// Passes over an archive.
    pub fn open(files: &Files<'_>, place: &Place) -> Result<Self, InputError> {
        let failed = |source| {
            InputError::Store(StoreError::Read {
                place: place.to_string(),
                source,
            })
        };
        let open = || {
            let opened = files.store.open_file(files.closure, place);
            opened.map(|found| found.file).map_err(InputError::Store)
        };
        let mut start = Vec::new();
        let magic = Encoding::MAGIC as u64;
        open()?
            .take(magic)
            .read_to_end(&mut start)
            .map_err(failed)?;
        let mut archive = Self {
            place: place.clone(),
            encoding: Encoding::sniff(&start),
            members: BTreeMap::new(),
            documents: BTreeMap::new(),
        };
        let file = open()?;
        let scanned = if archive.encoding == Encoding::Plain {
            archive.scan(TarReader::new(file))
        } else {
            let decoder = Decoder::new(archive.encoding, file).map_err(failed)?;
            archive.scan(TarReader::new(decoder))
        };
        scanned.map_err(|source| InputError::Archive {
            place: place.to_string(),
            source,
        })?;
        Ok(archive)
    }

    fn scan<R: Skip>(&mut self, mut tar: TarReader<R>) -> Result<(), firn_oci::tar::ReadError> {
        let mut documents = DOCUMENT_MAX;
        let mut count = 0;
        while let Some(member) = tar.next_member()? {
            count += 1;
            if count > MEMBERS_MAX {
                return Err(firn_oci::tar::ReadError::TooMany { limit: MEMBERS_MAX });
            }
            // No part of an image has a name that is no UTF-8.
            let Some(name) = std::str::from_utf8(&member.name).ok().and_then(plain_name) else {
                continue;
            };
            let found = match &member.kind {
                MemberKind::File => {
                    let start = tar.peek(Encoding::MAGIC)?;
                    // Documents come anywhere, and there is no way back in a compressed archive.
                    let limit = CONFIG_MAX.min(documents);
                    if member.size <= limit && may_be_document(&name, &start) {
                        let rest = tar.read_contents(limit)?;
                        documents -= member.size;
                        let bytes = [start.as_slice(), &rest].concat();
                        self.documents.insert(name.clone(), bytes);
                    }
                    Found::File {
                        encoding: Encoding::sniff(&start),
                        member: Member {
                            archive: self.encoding,
                            offset: member.offset,
                            size: member.size,
                        },
                    }
                }
                MemberKind::HardLink(to) => match text(to).and_then(plain_name) {
                    Some(to) => Found::Link(to),
                    None => continue,
                },
                MemberKind::Symlink(to) => match text(to).and_then(|to| beside(&name, to)) {
                    Some(to) => Found::Link(to),
                    None => continue,
                },
                MemberKind::Directory | MemberKind::Other(_) => continue,
            };
            // The last one of a name counts, as it does when the archive is unpacked.
            self.members.insert(name, found);
        }
        Ok(())
    }

    /// A file, and how it is compressed itself.
    fn file(&self, name: &str) -> Option<(Member, Encoding)> {
        let mut name = name;
        for _ in 0..LINKS_MAX {
            match self.members.get(name)? {
                Found::File { member, encoding } => return Some((*member, *encoding)),
                Found::Link(to) => name = to,
            }
        }
        None
    }

    fn missing(&self, name: &str) -> InputError {
        InputError::Missing {
            what: self.place.to_string(),
            name: shortened(name),
        }
    }
}

impl layout::Source for Archive {
    fn name(&self) -> String {
        self.place.to_string()
    }

    fn document(&self, name: &str) -> Result<Vec<u8>, InputError> {
        let found = self.documents.get(name);
        found.cloned().ok_or_else(|| self.missing(name))
    }

    fn blob(&self, digest: &Digest) -> Result<(Place, Option<Member>), InputError> {
        let name = format!("blobs/sha256/{}", digest.hex());
        let (member, _) = self.file(&name).ok_or_else(|| self.missing(&name))?;
        Ok((self.place.clone(), Some(member)))
    }
}

/// Reads the image in an archive.
pub fn image(files: &Files<'_>, place: &Place, wanted: &Wanted) -> Result<Image, InputError> {
    let archive = Archive::open(files, place)?;
    if archive.documents.contains_key("oci-layout") {
        // Also what newer `docker save` write: it has the digests of everything.
        return layout::image(&Layout::new(&archive), wanted);
    }
    let image = docker_image(&archive)?;
    let config = parse_config(&archive.place.to_string(), &image.config_bytes)?;
    wanted.check(&config.platform)?;
    let mut histories = verbatim::histories(&config).into_iter();
    let layers = image.layers.into_iter().map(|layer| Layer {
        contents: Contents::Blob(layer.blob),
        annotations: BTreeMap::new(),
        history: histories.next().unwrap_or_default(),
        why: format!("{} of the archive", shortened(&layer.name)),
    });
    Ok(Image {
        platform: Platform {
            extra: BTreeMap::new(),
            ..config.platform.clone()
        },
        layers: layers.collect(),
        config: super::Config::Verbatim(Verbatim::new(image.config_bytes, config, wanted)),
        annotations: wanted.annotations.clone(),
    })
}

fn parse_config(place: &str, bytes: &[u8]) -> Result<ImageConfig, InputError> {
    serde_json::from_slice(bytes).map_err(|source| InputError::Json {
        place: format!("the config in {place}"),
        source,
    })
}

/// The first image of a docker-archive.
pub fn docker_image(archive: &Archive) -> Result<DockerImage, InputError> {
    const WHAT: &str = "the manifest of a docker-archive";
    let json = |name: &str, bytes: &[u8]| {
        Json::parse(bytes).map_err(|source| InputError::Json {
            place: format!("{} in {}", shortened(name), archive.place),
            source,
        })
    };
    let manifest = archive.documents.get("manifest.json");
    let manifest = manifest.ok_or_else(|| InputError::Unsupported {
        what: format!("the archive {}", archive.place),
        why: "it has neither a manifest.json nor an oci-layout, so it is no image",
    })?;
    let manifest = json("manifest.json", manifest)?;
    let first = match &manifest {
        Json::List(images) => images.first(),
        _ => None,
    };
    let fields = Fields::of(WHAT, first.unwrap_or(&Json::Null), false)?;
    let name = plain_name(fields.required("Config")?).unwrap_or_default();
    let config_bytes = archive.documents.get(&name);
    let config_bytes = config_bytes.ok_or_else(|| archive.missing(&name))?.clone();
    let config = json(&name, &config_bytes)?.as_python_reads();
    let names = fields.texts("Layers")?;
    let diff_ids = match config.get("rootfs") {
        Some(rootfs) => Fields::of("the config of a docker-archive", rootfs, false)?,
        None => return Err(archive.missing("rootfs")),
    };
    let diff_ids = diff_ids.texts("diff_ids")?;
    if names.len() != diff_ids.len() {
        return Err(InputError::Field {
            what: "the config of a docker-archive",
            field: "diff_ids".to_owned(),
            expected: "as many as there are layers",
        });
    }
    if names.len() > LAYERS_MAX {
        return Err(InputError::TooMany {
            what: WHAT,
            count: names.len(),
            of: "layers",
            limit: LAYERS_MAX,
        });
    }
    let layers = names.into_iter().zip(diff_ids);
    let layers = layers.map(|(name, diff_id)| docker_layer(archive, name, diff_id));
    Ok(DockerImage {
        layers: layers.collect::<Result<_, _>>()?,
        config_bytes,
        config,
    })
}

fn docker_layer(archive: &Archive, name: &str, diff_id: &str) -> Result<DockerLayer, InputError> {
    let plain = plain_name(name).unwrap_or_default();
    let (member, encoding) = archive.file(&plain).ok_or_else(|| archive.missing(name))?;
    let hex = diff_id.strip_prefix("sha256:").unwrap_or(diff_id);
    let diff_id: Digest = format!("sha256:{hex}")
        .parse()
        .map_err(|_| InputError::Field {
            what: "the config of a docker-archive",
            field: "diff_ids".to_owned(),
            expected: "sha256: and 64 hexadecimal digits",
        })?;
    let form = match encoding {
        Encoding::Plain => Form::Tar,
        encoding @ (Encoding::Gzip | Encoding::Zstd) => Form::Verbatim {
            encoding,
            digest: None,
        },
    };
    Ok(DockerLayer {
        name: name.to_owned(),
        blob: Blob {
            place: archive.place.clone(),
            member: Some(member),
            form,
            diff_id,
        },
    })
}

fn may_be_document(name: &str, start: &[u8]) -> bool {
    name == "oci-layout"
        || name.rsplit('.').next() == Some("json")
        || (name.starts_with("blobs/") && start.first() == Some(&b'{'))
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

/// Without `/` and `./` at the start. `None`: it leads elsewhere.
fn plain_name(name: &str) -> Option<String> {
    let parts: Vec<&str> = name
        .split('/')
        .filter(|part| !matches!(*part, "" | "."))
        .collect();
    (!parts.is_empty() && !parts.contains(&"..")).then(|| parts.join("/"))
}

/// Where a symbolic link leads within the archive.
fn beside(name: &str, to: &str) -> Option<String> {
    let mut parts: Vec<&str> = name.split('/').collect();
    parts.pop();
    for part in to.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    plain_name(&parts.join("/")).filter(|_| !to.starts_with('/'))
}
