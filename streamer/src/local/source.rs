//! From what the command line names to an image, its closure, and the files.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

use firn_crd::exit::Reason;
use firn_crd::run::ImageSpec;
use firn_oci::{Compression, Platform, Reference, RegistryHost};
use jiff::Timestamp;

use super::arguments::{
    AccessArguments, BaseArguments, ImageArguments, InputArguments, RegistryArguments,
};
use super::nix::{self, Made};
use super::registry::Client;
use super::{Result, Trouble, unusable, usage};
use crate::closure::Closure;
use crate::compression;
use crate::describe::{self, Described, Document, Output};
use crate::entry_point::{self, EntryPoint};
use crate::failure::{Failure, chain};
use crate::input::Image;
use crate::input::detect;
use crate::input::foreign::Wanted;
use crate::layer::Streams;
use crate::nix::path_info;
use crate::push::base::Places;
use crate::push::{BaseLogin, BaseSource};
use crate::store_path::{STORE, StorePath};
use crate::target::PUSH_PATIENCE;

/// Largest description of a closure that is read: 100,000 paths are about 100 MB.
const CLOSURE_MAX: u64 = 128 << 20;

/// An image to be, and where its bytes are.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) image: Image,
    pub(super) closure: Arc<Closure>,
    pub(super) store: std::path::PathBuf,
    pub(super) streams: Streams,
    /// What a description says, or else the command line.
    pub(super) compression: Compression,
    /// Where the layers of a base image are.
    pub(super) base: Option<BaseSource>,
}

/// How the registry of a base image is reached.
#[derive(Debug, Clone, Copy)]
pub(super) struct BaseRegistries<'a> {
    /// Who is trusted, and with whose login.
    pub(super) access: &'a AccessArguments,
    /// The rest.
    pub(super) base: &'a BaseArguments,
    /// The registry that the command names besides, and whether it is one without TLS: a base
    /// image in it is reached in the same way.
    pub(super) named: Option<(&'a RegistryHost, bool)>,
}

impl BaseRegistries<'_> {
    fn source(self, reference: &Reference) -> crate::failure::Result<BaseSource> {
        let named = self.named.filter(|(host, _)| **host == reference.host);
        let arguments = RegistryArguments {
            plain_http: named.map_or(self.base.base_plain_http, |(_, plain_http)| plain_http),
            access: self.access.clone(),
        };
        let client =
            Client::new(&arguments, reference, PUSH_PATIENCE).map_err(|trouble| match trouble {
                Trouble::Failed(failure) => failure,
                Trouble::Usage(message) => Failure::new(Reason::ImageInvalid, message),
            })?;
        Ok(BaseSource {
            registry: client.registry,
            login: BaseLogin::Person,
        })
    }
}

impl Source {
    /// What each layer will have to read, about.
    pub(super) fn sizes(&self) -> Vec<u64> {
        let layers = self.image.layers.iter();
        layers
            .map(|layer| layer.contents.size(&self.closure))
            .collect()
    }
}

/// Reads, and builds before if a flake's attribute was named.
pub(super) async fn read(
    input: &InputArguments,
    wanted: &ImageArguments,
    bases: BaseRegistries<'_>,
) -> Result<Source> {
    let asked_for = compression::encoder(wanted.compression.into(), wanted.level)
        .map_err(|error| unusable("--level", &error))?;
    let named = input.input.as_deref().ok_or_else(|| {
        usage("say what the image is made of: a store path, or a flake's attribute like .#app")
    })?;
    let made = match store_path(named) {
        Some(path) => Made::Path(path, None),
        None => nix::make(named).await?,
    };
    let paths: BTreeSet<&StorePath> = match &made {
        Made::Path(path, _) => [path].into(),
        Made::Described(_, paths) => paths.iter().collect(),
    };
    let json = match &input.closure {
        Some(file) => read_file(file)?,
        None if paths.is_empty() => b"{}".to_vec(),
        None => nix::path_info(&paths).await?,
    };
    let closure = path_info::parse(&json)
        .map_err(|error| usage(format!("the closure of {named}: {}", chain(&error))))?;
    let closure =
        Closure::new(closure).map_err(|error| usage(format!("the closure of {named}: {error}")))?;
    if let Some(missing) = paths.iter().find(|path| !closure.contains(path)) {
        return Err(usage(format!("{missing} is not in its closure")));
    }
    let closure = Arc::new(closure);
    let store = &input.store;
    let (described, base) = match &made {
        Made::Described(document, _) => {
            let result = describe::Built::Described(document);
            described(result, &closure, store, wanted, bases).await?
        }
        Made::Path(out_path, main_program) => {
            if let Some(image) = foreign(out_path, &closure, store, wanted)? {
                let compression = asked_for;
                (Described { image, compression }, None)
            } else {
                let main_program = wanted.main_program.as_ref().or(main_program.as_ref());
                let wanted = ImageArguments {
                    main_program: main_program.cloned(),
                    ..wanted.clone()
                };
                package(out_path, &closure, store, &wanted, bases).await?
            }
        }
    };
    Ok(Source {
        image: described.image,
        compression: described.compression,
        closure,
        store: input.store.clone(),
        streams: Streams::default(),
        base,
    })
}

/// The image that the path is already. `None`: it is a package.
fn foreign(
    out_path: &StorePath,
    closure: &Closure,
    store: &Path,
    wanted: &ImageArguments,
) -> Result<Option<Image>> {
    let image = detect::image_in(
        store,
        closure,
        out_path,
        &Wanted {
            platform: platform(wanted)?,
            labels: wanted.labels.iter().cloned().collect(),
            annotations: wanted.annotations.iter().cloned().collect(),
            created: None,
            now: Timestamp::from_second(1).unwrap_or_default(),
        },
    );
    let image = image.map_err(|error| usage(format!("{out_path}: {}", chain(&error))))?;
    if image.is_some() && (wanted.entry_point.is_some() || wanted.main_program.is_some()) {
        return Err(usage(format!(
            "{out_path} is an image already, which says itself what a container runs: leave out --entry-point and --main-program"
        )));
    }
    Ok(image)
}

async fn package(
    out_path: &StorePath,
    closure: &Arc<Closure>,
    store: &Path,
    wanted: &ImageArguments,
    bases: BaseRegistries<'_>,
) -> Result<(Described, Option<BaseSource>)> {
    let entry_point = entry_point(out_path, store, wanted)?;
    if let Some(note) = &entry_point.note {
        tracing::warn!("{note}");
    }
    let result = describe::Built::Path {
        out_path,
        entry_point: entry_point.program.as_deref(),
        has_bin: entry_point.has_bin,
    };
    described(result, closure, store, wanted, bases).await
}

async fn described(
    result: describe::Built<'_>,
    closure: &Arc<Closure>,
    store: &Path,
    wanted: &ImageArguments,
    bases: BaseRegistries<'_>,
) -> Result<(Described, Option<BaseSource>)> {
    let platform = platform(wanted)?;
    let document = describe::read(store, closure, result)?;
    let places = Places {
        store: store.to_owned(),
        closure,
        platform: &platform,
    };
    let base = match document.as_ref().and_then(Document::base) {
        Some(named) => Some(
            places
                .find(named, |reference| bases.source(reference))
                .await?,
        ),
        None => None,
    };
    let output = Output {
        platform: platform.clone(),
        result,
        closure,
        asked: &asked(wanted),
        commit_time: Timestamp::UNIX_EPOCH,
        base: base.as_ref().map(|base| &base.image),
    };
    let described = describe::image(&output, document)?;
    Ok((described, base.and_then(|base| base.source)))
}

/// What the command line asks for, in the words of a NixImage.
fn asked(wanted: &ImageArguments) -> ImageSpec {
    ImageSpec {
        labels: wanted.labels.iter().cloned().collect(),
        annotations: wanted.annotations.iter().cloned().collect(),
        max_layers: wanted.max_layers,
        strategy: wanted.strategy.into(),
        profile: wanted.profile.into(),
        compression: wanted.compression.into(),
        level: wanted.level,
        ..ImageSpec::default()
    }
}

/// A store path by its name, or by a link to it such as `./result`.
fn store_path(named: &str) -> Option<StorePath> {
    if named.starts_with(STORE) {
        return named.trim_end_matches('/').parse().ok();
    }
    let target = fs::canonicalize(named).ok()?;
    target.to_str()?.parse().ok()
}

fn entry_point(out_path: &StorePath, store: &Path, wanted: &ImageArguments) -> Result<EntryPoint> {
    let Some(program) = &wanted.entry_point else {
        let directory = store.join(out_path.base_name());
        let main = wanted.main_program.as_deref();
        return Ok(entry_point::find(out_path, &directory, main));
    };
    if !program.starts_with('/') {
        return Err(usage(format!(
            "--entry-point {program}: wanted an absolute path within the image"
        )));
    }
    Ok(EntryPoint {
        has_bin: program.starts_with(&format!("{out_path}/bin/")),
        program: Some(program.clone()),
        note: None,
    })
}

fn platform(wanted: &ImageArguments) -> Result<Platform> {
    let own = match std::env::consts::ARCH {
        "x86_64" => "linux/amd64",
        "aarch64" => "linux/arm64",
        "riscv64" => "linux/riscv64",
        other => {
            return Err(usage(format!(
                "say what the image runs on with --platform: {other} has no name that Firn knows"
            )));
        }
    };
    let text = wanted.platform.as_deref().unwrap_or(own);
    text.parse().map_err(|error| unusable("--platform", &error))
}

fn read_file(file: &Path) -> Result<Vec<u8>> {
    let failed = |error: io::Error| usage(format!("--closure {}: {error}", file.display()));
    let mut bytes = Vec::new();
    File::open(file)
        .map_err(failed)?
        .take(CLOSURE_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > CLOSURE_MAX {
        return Err(usage(format!(
            "--closure {}: more than {CLOSURE_MAX} bytes",
            file.display()
        )));
    }
    Ok(bytes)
}
