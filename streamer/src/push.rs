//! `push`: the closure as an image in the registry. What build left is hostile: it is checked word
//! by word, and contents are hashed again while they are read.
//!
//! ```text
//! build.json ──► closure ──► plan ──► each layer: known by its recipe? ─────────► reused
//!                                        made; there by its digest? ────────────► reused
//!                                        sent ──► config ──► manifest ──► tags, last
//! ```
//!
//! A layer's digest is known only when it was made. Small ones are kept in memory meanwhile; a
//! large one is made a second time for the upload, unless the repository is empty and nothing can
//! be there. So what is there is never sent, and no disk is needed.
//!
//! Memory, whatever the image's size: [`IN_FLIGHT`] × ([`KEEP_MAX`] + an encoder with one thread
//! (40 MiB for zstd) + an upload's channel (4.5 MiB) + buffers below 1 MiB) ≈ 124 MiB, and the
//! closure's metadata.

mod blobs;
mod verify;

use firn_crd::exit::Reason;
use firn_crd::report::{Outcome, Pushed, StageName};
use firn_crd::run::{Build, Compression as Wanted};
use firn_oci::registry::ManifestName;
use firn_oci::{BuiltImage, Compression, Descriptor, Digest, Manifest, Platform};

use crate::closure::Closure;
use crate::failure::{Failure, Result, chain};
use crate::handoff::{self, Built, Checked, Fetched, Image};
use crate::image::{self, Placed};
use crate::layering;
use crate::publish;
use crate::recipe::Known;
use crate::settings::Settings;
use crate::stages::Stages;
use crate::stop::Stop;
use crate::target::{PUSH_PATIENCE, Target, failure};
use blobs::Blobs;

pub use blobs::{IN_FLIGHT, KEEP_MAX};

/// Pushes what build left, or tells that nothing changed.
pub async fn push(
    settings: &Settings,
    build: &Build,
    stages: &mut Stages,
    stop: &Stop,
) -> Result<Outcome> {
    let left: Built = handoff::read(&settings.paths.built()).map_err(|error| {
        Failure::new(
            Reason::StorePathInvalid,
            format!("what build left cannot be used: {}", chain(&error)),
        )
    })?;
    let target = Target::new(settings, PUSH_PATIENCE)?;
    match left {
        Built::NotChanged { drv_path } => {
            let checked = handoff::read(&settings.paths.checked());
            let checked: Checked = checked.map_err(|error| Failure::internal(&error))?;
            let digest = verify::published(build, &checked, &drv_path)?;
            // New tags may have been asked for together with a commit that changes nothing.
            publish::tag(&target, digest, stages, stop).await?;
            Ok(Outcome::NotChanged {
                drv: drv_path.to_string(),
            })
        }
        Built::Image(image) => push_image(settings, build, &target, *image, stages, stop).await,
    }
}

async fn push_image(
    settings: &Settings,
    build: &Build,
    target: &Target,
    image: Image,
    stages: &mut Stages,
    stop: &Stop,
) -> Result<Outcome> {
    let running = Stages::begin(StageName::Push);
    let fetched = handoff::read(&settings.paths.fetched());
    let fetched: Fetched = fetched.map_err(|error| Failure::internal(&error))?;
    let closure = verify::closure(&image)?;
    let mut upload = Upload {
        settings,
        build,
        target,
        image: &image,
        fetched: &fetched,
        closure,
        known: known(target, build).await?,
    };
    let done = match upload.run().await {
        // What the old manifest kept alive was collected after all: make every layer.
        Err(Trouble::Missing(failure)) if !upload.known.is_empty() => {
            tracing::warn!("{}: making every layer again", failure.0.message);
            upload.known = Known::default();
            upload.run().await
        }
        done => done,
    };
    stages.end(&running);
    let (documents, pushed) = done.map_err(Trouble::into_failure)?;

    let running = Stages::begin(StageName::Tag);
    let tagged = target.tag(&documents.manifest, stop).await;
    stages.end(&running);
    tagged?;
    Ok(Outcome::Pushed(Box::new(pushed)))
}

/// The layers of the published image. None if there is no such image any more.
async fn known(target: &Target, build: &Build) -> Result<Known> {
    let Some(published) = &build.published else {
        return Ok(Known::default());
    };
    let digest: Digest = published
        .digest
        .parse()
        .map_err(|error: firn_oci::DigestError| {
            Failure::new(Reason::InternalError, error.to_string())
        })?;
    let document = target.manifest(&digest).await?;
    let manifest = document.and_then(|document| Manifest::from_bytes(&document.bytes).ok());
    Ok(manifest.as_ref().map(Known::of).unwrap_or_default())
}

struct Upload<'a> {
    settings: &'a Settings,
    build: &'a Build,
    target: &'a Target,
    image: &'a Image,
    fetched: &'a Fetched,
    closure: Closure,
    known: Known,
}

/// A failure, or one that making the layers again may heal.
enum Trouble {
    Missing(Failure),
    Failed(Failure),
}

impl Trouble {
    fn into_failure(self) -> Failure {
        match self {
            Self::Missing(failure) | Self::Failed(failure) => failure,
        }
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Upload<'_> {
    async fn run(&self) -> std::result::Result<(BuiltImage, Pushed), Trouble> {
        let spec = &self.build.image;
        let planned = layering::plan(&self.closure, spec.max_layers);
        tracing::info!(
            paths = self.closure.paths().len(),
            layers = planned.len(),
            "planned"
        );
        let blobs = Blobs {
            target: self.target,
            store: self.settings.paths.store(),
            compression: compression(spec.compression),
            known: &self.known,
            empty: self.is_empty().await?,
        };
        let mut layers = Vec::new();
        let mut counts = Counts::default();
        for (placed, sent) in blobs.place_all(&self.closure, planned).await? {
            counts.add(placed.layer.descriptor.size, sent);
            layers.push(placed);
        }
        let built = self.describe(layers)?;
        let config = &built.config;
        let sent = blobs.document(config).await?;
        counts.config(config.descriptor.size, sent);
        self.put_manifest(&built).await?;
        let pushed = counts.report(self.image, self.build, &built.manifest.descriptor);
        tracing::info!(digest = %built.manifest.descriptor.digest, bytes = pushed.bytes_pushed, "image pushed");
        Ok((built, pushed))
    }

    /// Whether the repository holds no tagged image, so that no layer can be there. A registry
    /// that does not tell holds something.
    async fn is_empty(&self) -> Result<bool> {
        if !self.known.is_empty() {
            return Ok(false);
        }
        match self.target.registry.tags(&self.target.repository).await {
            Ok(tags) => Ok(tags.is_empty()),
            Err(error) if error.is_not_found() => Ok(true),
            Err(error) if error.is_unavailable() || error.is_rate_limited() => Err(failure(&error)),
            Err(_) => Ok(false),
        }
    }

    fn describe(&self, layers: Vec<Placed>) -> Result<BuiltImage> {
        let platform = self.build.platform.parse::<Platform>();
        let platform = platform.map_err(|error| Failure::internal(&error))?;
        let time = self.fetched.commit_time;
        Ok(image::describe(platform, &self.build.image, self.image, time, layers).build())
    }

    async fn put_manifest(&self, built: &BuiltImage) -> std::result::Result<(), Trouble> {
        let name = ManifestName::Digest(built.manifest.descriptor.digest);
        let target = self.target;
        let put = target
            .registry
            .put_manifest(&target.repository, &name, &built.manifest);
        put.await.map_err(|error| {
            let failed = failure(&error);
            if error.is_blob_unknown() {
                Trouble::Missing(failed)
            } else {
                Trouble::Failed(failed)
            }
        })
    }
}

fn compression(wanted: Wanted) -> Compression {
    match wanted {
        Wanted::Zstd => Compression::Zstd,
        Wanted::Gzip => Compression::Gzip,
        Wanted::None => Compression::None,
    }
}

/// What was sent and what was there, in bytes and layers.
#[derive(Default)]
struct Counts {
    size: u64,
    sent: u64,
    pushed: usize,
    reused: usize,
}

impl Counts {
    fn add(&mut self, size: u64, sent: bool) {
        self.size = self.size.saturating_add(size);
        if sent {
            self.sent = self.sent.saturating_add(size);
            self.pushed += 1;
        } else {
            self.reused += 1;
        }
    }

    fn config(&mut self, size: u64, sent: bool) {
        self.size = self.size.saturating_add(size);
        self.sent = self.sent.saturating_add(if sent { size } else { 0 });
    }

    fn report(&self, image: &Image, build: &Build, manifest: &Descriptor) -> Pushed {
        let bytes = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let layers = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
        Pushed {
            platform: build.platform.clone(),
            digest: manifest.digest.to_string(),
            media_type: manifest.media_type.clone(),
            size_bytes: bytes(self.size),
            layers_total: layers(self.pushed + self.reused),
            layers_pushed: layers(self.pushed),
            layers_mounted: 0,
            layers_reused: layers(self.reused),
            bytes_pushed: bytes(self.sent),
            drv_path: image.drv_path.to_string(),
            out_path: image.out_path.to_string(),
            note: image.note.as_deref().map(verify::note),
        }
    }
}
