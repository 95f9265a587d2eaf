//! Trees become an OCI layout.

use std::path::{Path, PathBuf};

use firn_crd::run::CONTRACT;
use firn_oci::layout::{LayoutError, named};
use firn_oci::{
    Compression, Compressors, ContainerConfig, Descriptor, Digest, History, ImageBuilder, Layer,
    Layout, Platform, Reference,
};
use jiff::Timestamp;

use super::error::file;
use super::{Contents, Error, Image, Tree};

/// The images' names until they are pushed somewhere: no registry answers to it.
const HOST: &str = "firn.invalid";
/// Every registry, proxy and runtime takes gzip; zstd would save 15 % of 30 MB.
const COMPRESSION: Compression = Compression::GZIP;
/// Label: [`CONTRACT`], so that a person can see which operator and builder fit.
const LABEL_CONTRACT: &str = "dev.firn.contract";

/// An image in its layout.
#[derive(Debug)]
pub struct Built {
    /// `operator`.
    pub name: String,
    /// The layout's folder.
    pub layout: PathBuf,
    /// The image's digest.
    pub digest: Digest,
    /// Bytes of its layers, compressed.
    pub size: u64,
}

/// This machine's architecture in OCI's words: what its programs run on.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Writes the layout anew into `folder`.
pub(super) fn write(
    name: &str,
    image: &Image,
    contents: &Contents,
    version: &str,
    folder: &Path,
) -> Result<Built, Error> {
    let failed = failed(folder);
    if folder.join("oci-layout").exists() {
        std::fs::remove_dir_all(folder).map_err(file("remove", folder))?;
    }
    let layout = Layout::create(folder).map_err(failed)?;
    let mut builder = ImageBuilder::new(Platform::linux(architecture()))
        .created(Timestamp::UNIX_EPOCH)
        .config(config(name, image, version));
    for (tree, what) in [
        (&contents.system, "Debian"),
        (&contents.program, image.title.as_str()),
    ] {
        let history = History {
            created_by: format!("firn-images: {what}"),
            ..History::default()
        };
        builder = builder.layer(layer(&layout, tree, folder)?, history);
    }
    let built = builder.build();
    layout.put(&built.config).map_err(failed)?;
    layout.put(&built.manifest).map_err(failed)?;
    let reference = reference(name, version)?;
    let entry: Descriptor = named(built.manifest.descriptor.clone(), &reference);
    layout.set_index(vec![entry]).map_err(failed)?;
    Ok(Built {
        name: name.to_owned(),
        layout: folder.to_owned(),
        digest: built.manifest.descriptor.digest,
        size: built.layers.iter().map(|layer| layer.size).sum(),
    })
}

fn layer(layout: &Layout, tree: &Tree, folder: &Path) -> Result<Layer, Error> {
    let failed = failed(folder);
    let pool = Compressors::on_all_cores().map_err(file("compress", folder))?;
    let mut tar = layout.begin_layer(COMPRESSION, &pool).map_err(failed)?;
    tree.write_tar(&mut tar)?;
    layout.finish_layer(tar).map_err(failed)
}

/// How containers of image `name` start.
pub fn config(name: &str, image: &Image, version: &str) -> ContainerConfig {
    let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    ContainerConfig {
        user: image.user.clone(),
        env: image
            .env
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect(),
        entrypoint: image.entrypoint.clone(),
        working_dir: image.working_dir.clone(),
        labels: [
            label("org.opencontainers.image.title", &image.title),
            label("org.opencontainers.image.version", version),
            label("org.opencontainers.image.licenses", "Apache-2.0"),
            label(LABEL_CONTRACT, &CONTRACT.to_string()),
            label("dev.firn.image", name),
        ]
        .into(),
        ..ContainerConfig::default()
    }
}

/// `map_err` for what a layout refuses.
fn failed(folder: &Path) -> impl Fn(LayoutError) -> Error + Copy {
    |source| Error::Layout {
        path: folder.to_owned(),
        source: Box::new(source),
    }
}

fn reference(name: &str, version: &str) -> Result<Reference, Error> {
    let text = format!("{HOST}/firn/{name}:{version}");
    text.parse()
        .map_err(|error: firn_oci::reference::ReferenceError| Error::Name {
            name: text.clone(),
            problem: error.to_string(),
        })
}
