//! `push`: the closure as an image in the registry. What build left is hostile: it is checked word
//! by word, and contents are hashed again while they are read.
//!
//! ```text
//! build.json ──► closure ──► image ──► each layer: known by its recipe? ──► reused, or mounted
//!                                            small: made; there by its digest? ──► reused
//!                                            sent while it is made ──► config ──► manifest ──► tags, last
//! ```
//!
//! A layer's digest is known only when it was made. Small ones are kept in memory meanwhile; a large
//! one that no recipe knows is sent while it is made, for it is new as a rule. No disk is needed.
//!
//! Memory, whatever the image's size: [`IN_FLIGHT`] × ([`KEEP_MAX`] or an upload's channel of 4.5 MiB,
//! and buffers below 5 MiB), the compressors' own (see [`firn_oci::Compressors`]), and the closure's
//! metadata. `make bench` pushes 1 GB and 10 GB within 96 MiB.

pub(crate) mod base;
mod blobs;
pub(crate) mod presence;
mod transfer;
pub mod verify;

use std::path::Path;
use std::sync::Arc;

use firn_crd::exit::Reason;
use firn_crd::report::{Outcome, Pushed, StageName};
use firn_crd::run::{Build, Timestamp as Created};
use firn_oci::{Platform, Reference};
use jiff::Timestamp;

use crate::closure::Closure;
use crate::describe::{self, Described, Document, Output};
use crate::failure::{Failure, Result, chain};
use crate::handoff::{self, Built, Checked, Fetched, Image};
use crate::input;
use crate::input::detect;
use crate::input::foreign::{self, InputError};
use crate::publish;
use crate::settings::Settings;
use crate::stages::Stages;
use crate::stop::Stop;
use crate::store_path::StorePath;
use crate::target::{PUSH_PATIENCE, Target};
use crate::watch::Unwatched;

use base::Places;
pub use base::{BaseLogin, BaseSource};
pub use blobs::{IN_FLIGHT, KEEP_MAX, Placed, Placement};
pub(crate) use transfer::documents;
pub use transfer::{Previous, Transfer, Transferred};

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
            if target.has_tags() {
                publish::tag(&target, digest, stages, stop).await?;
            }
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
    left: Image,
    stages: &mut Stages,
    stop: &Stop,
) -> Result<Outcome> {
    let running = Stages::begin(StageName::Push);
    let fetched = handoff::read(&settings.paths.fetched());
    let fetched: Fetched = fetched.map_err(|error| Failure::internal(&error))?;
    let closure = Arc::new(verify::closure(&left)?);
    let store = settings.paths.store();
    let platform: Platform = build
        .platform
        .parse()
        .map_err(|error| Failure::internal(&error))?;
    let time = fetched.commit_time;
    let foreign = made_by_others(build, &platform, &left, &closure, time, &store).await?;
    let mut output = output(build, platform.clone(), &left, &closure, time);
    let document = match &foreign {
        Some(_) => None,
        None => describe::read(&store, &closure, output.result)?,
    };
    let places = Places {
        store: store.clone(),
        closure: &closure,
        platform: &platform,
    };
    let base = match document.as_ref().and_then(Document::base) {
        Some(named) => Some(
            places
                .find(named, |reference| base::source(settings, target, reference))
                .await?,
        ),
        None => None,
    };
    output.base = base.as_ref().map(|base| &base.image);
    let Described { image, compression } = match foreign {
        Some(image) => Described {
            image,
            compression: describe::asked_compression(&build.image)?,
        },
        None => describe::image(&output, document)?,
    };
    drop(output);
    let previous = previous(build, target)?;
    let transfer = Transfer {
        target,
        image: &image,
        closure: Arc::clone(&closure),
        store,
        compression,
        previous: &previous,
        base: base.and_then(|base| base.source),
        watch: Arc::new(Unwatched),
    };
    let done = transfer.run().await;
    stages.end(&running);
    let done = done?;
    let mut pushed = report(build, &left, &done);
    tracing::info!(
        digest = pushed.digest,
        bytes = pushed.bytes_pushed,
        "image pushed"
    );

    let unkept = target.keep(&done.manifest, stop).await?;
    pushed.note = pushed.note.or(unkept.map(|words| verify::note(&words)));
    if target.has_tags() {
        let running = Stages::begin(StageName::Tag);
        let tagged = target
            .move_tags(&done.tags.stale, &done.manifest, stop)
            .await;
        stages.end(&running);
        tagged?;
    }
    Ok(Outcome::Pushed(Box::new(pushed)))
}

/// The image that the output is already. `None`: it is a package, or described.
async fn made_by_others(
    build: &Build,
    platform: &Platform,
    left: &Image,
    closure: &Arc<Closure>,
    commit_time: Timestamp,
    store: &Path,
) -> Result<Option<input::Image>> {
    let Some(output) = left.out_path.clone() else {
        return Ok(None);
    };
    let spec = &build.image;
    let wanted = foreign::Wanted {
        platform: platform.clone(),
        labels: spec.labels.clone(),
        annotations: spec.annotations.clone(),
        created: match spec.timestamp {
            Created::Epoch => None,
            Created::Source => Some(commit_time),
        },
        now: commit_time,
    };
    let closure = Arc::clone(closure);
    let store = store.to_owned();
    // An archive may have to be passed over as a whole.
    let read =
        tokio::task::spawn_blocking(move || detect::image_in(&store, &closure, &output, &wanted));
    let found = read.await.map_err(|error| Failure::internal(&error))?;
    let unusable = |error: InputError| error.into_failure(&build.attribute);
    let Some(found) = found.map_err(unusable)? else {
        return Ok(None);
    };
    found.laid_over(spec).map(Some).map_err(unusable)
}

fn output<'a>(
    build: &'a Build,
    platform: Platform,
    left: &'a Image,
    closure: &'a Closure,
    commit_time: Timestamp,
) -> Output<'a> {
    Output {
        platform,
        result: match &left.out_path {
            Some(out_path) => describe::Built::Path {
                out_path,
                entry_point: left.entry_point.as_deref(),
                has_bin: left.has_bin,
            },
            None => describe::Built::Described(left.description.as_deref().unwrap_or_default()),
        },
        closure,
        asked: &build.image,
        commit_time,
        base: None,
    }
}

/// The images that the operator names, as far as they are on this registry.
fn previous(build: &Build, target: &Target) -> Result<Vec<Previous>> {
    let mut found = Vec::new();
    for text in &build.layers_from {
        let reference: Reference = text.parse().map_err(|error| Failure::internal(&error))?;
        let (true, Some(digest)) = (reference.host == *target.registry.host(), reference.digest)
        else {
            continue;
        };
        found.push(Previous {
            repository: reference.repository,
            digest,
        });
    }
    Ok(found)
}

fn report(build: &Build, left: &Image, done: &Transferred) -> Pushed {
    let bytes = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let layers = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    let manifest = &done.manifest.descriptor;
    Pushed {
        platform: build.platform.clone(),
        digest: manifest.digest.to_string(),
        media_type: manifest.media_type.clone(),
        size_bytes: bytes(done.size()),
        layers_total: layers(done.layers.len()),
        layers_pushed: layers(done.count(Placement::Sent)),
        layers_mounted: layers(done.count(Placement::Mounted)),
        layers_reused: layers(done.count(Placement::Reused)),
        bytes_pushed: bytes(done.sent()),
        drv_path: left.drv_path.to_string(),
        out_path: left
            .out_path
            .as_ref()
            .map(StorePath::to_string)
            .unwrap_or_default(),
        note: left.note.as_deref().map(verify::note),
        kept: done.tags.kept.clone(),
    }
}
