//! `publish`: moves tags to an image that is in the registry, after making the index of several
//! platforms if it is to be one. Nothing is built.
//!
//! ```text
//! each platform's manifest and config read ──► index, by its digest ──► temporary tags removed
//!                                                                  ──► tags, last
//! ```

use std::time::Duration;

use firn_crd::exit::Reason;
use firn_crd::report::{Outcome, StageName};
use firn_crd::run::PlatformManifest;
use firn_oci::registry::{Deletion, ManifestName, ResolvedImage};
use firn_oci::{Descriptor, Digest, Document, Index, Platform, Tag};

use crate::failure::{Failure, Result, chain};
use crate::settings::Settings;
use crate::stages::Stages;
use crate::stop::Stop;
use crate::target::{PUSH_PATIENCE, Target, failure};

/// How long the removal of one temporary tag may take: what stays behind does no harm.
const REMOVAL_PATIENCE: Duration = Duration::from_secs(20);

/// Moves the run's tags to `digest`.
pub async fn publish(
    settings: &Settings,
    digest: &str,
    stages: &mut Stages,
    stop: &Stop,
) -> Result<Outcome> {
    let target = Target::new(settings, PUSH_PATIENCE)?;
    let kept = tag(&target, digest, stages, stop).await?;
    Ok(Outcome::Published {
        digest: digest.to_owned(),
        media_type: None,
        note: None,
        kept,
    })
}

/// Makes the index of `manifests` and moves the run's tags to it.
pub async fn index(
    settings: &Settings,
    manifests: &[PlatformManifest],
    stages: &mut Stages,
    stop: &Stop,
) -> Result<Outcome> {
    let target = Target::new(settings, PUSH_PATIENCE)?;
    let running = Stages::begin(StageName::Index);
    let made = make(&target, manifests).await;
    stages.end(&running);
    let (document, note) = made?;
    let running = Stages::begin(StageName::Tag);
    let tagged = target.tag(&document, stop).await;
    stages.end(&running);
    Ok(Outcome::Published {
        digest: document.descriptor.digest.to_string(),
        media_type: Some(document.descriptor.media_type),
        note,
        kept: tagged?,
    })
}

/// The index, stored by its digest. Temporary tags go before the real ones move: should a registry
/// take a manifest away with its tag, then nobody has the index yet.
async fn make(
    target: &Target,
    manifests: &[PlatformManifest],
) -> Result<(Document, Option<String>)> {
    let mut found = Vec::new();
    for manifest in manifests {
        found.push(read(target, manifest).await?);
    }
    let entries = found.iter().map(|(descriptor, _)| descriptor.clone());
    let index = Index::of_platforms(entries.collect())
        .map_err(|error| Failure::new(Reason::ManifestRejected, error.to_string()))?;
    let pushed = target.registry.push_index(&target.repository, &index, &[]);
    let document = pushed.await.map_err(|error| failure(&error))?;
    tracing::info!(digest = %document.descriptor.digest, "index pushed");
    let mut left = Vec::new();
    for (manifest, (_, image)) in manifests.iter().zip(&found) {
        if let Some(tag) = &manifest.temporary_tag
            && !forget(target, tag, &image.document).await?
        {
            left.push(tag.as_str());
        }
    }
    let note = (!left.is_empty()).then(|| {
        format!(
            "the registry did not let its temporary tags be deleted: {}",
            left.join(", ")
        )
    });
    Ok((document, note))
}

/// A platform's manifest as an entry of the index. What it is for is read from its config.
async fn read(target: &Target, wanted: &PlatformManifest) -> Result<(Descriptor, ResolvedImage)> {
    let digest = parsed(&wanted.digest)?;
    let platform: Platform = wanted
        .platform
        .parse()
        .map_err(|error| Failure::internal(&error))?;
    let name = ManifestName::Digest(digest);
    let found = target
        .registry
        .resolve_image(&target.repository, &name, &platform);
    let found = found.await.map_err(|error| {
        let failure = failure(&error);
        // What is there is wrong, and stays so.
        let reason = match failure.reason() {
            Reason::InternalError => Reason::ManifestRejected,
            reason => reason,
        };
        Failure::new(
            reason,
            format!("{}: {}", wanted.platform, failure.0.message),
        )
        .with_retry_after(failure.0.retry_after)
    })?;
    let image = found
        .filter(|image| image.document.descriptor.digest == digest)
        .ok_or_else(|| gone(target, &wanted.digest))?;
    let descriptor = Descriptor {
        platform: Some(platform),
        ..image.document.descriptor.clone()
    };
    Ok((descriptor, image))
}

/// Removes a temporary tag; false if it stays. The manifest is there afterwards, whatever the
/// registry takes the removal of a tag for: some delete a manifest with its last tag (ECR), some
/// with any.
async fn forget(target: &Target, tag: &str, manifest: &Document) -> Result<bool> {
    let Ok(tag) = tag.parse::<Tag>() else {
        return Ok(false);
    };
    let name = ManifestName::Tag(tag.clone());
    let digest = manifest.descriptor.digest;
    let there = target.registry.head_manifest(&target.repository, &name);
    match there.await {
        Ok(Some(there)) if there.digest == digest => {}
        // Somebody else's by now, or gone.
        Ok(_) => return Ok(true),
        Err(error) => {
            tracing::warn!(%tag, "a temporary tag stays: {}", chain(&error));
            return Ok(false);
        }
    }
    let deletion = target.registry.delete_manifest(&target.repository, &name);
    let removed = match tokio::time::timeout(REMOVAL_PATIENCE, deletion).await {
        Ok(Ok(Deletion::Deleted | Deletion::Missing)) => true,
        Ok(Ok(Deletion::Unsupported)) => {
            tracing::info!(%tag, "the registry does not delete tags: a temporary one stays");
            return Ok(false);
        }
        Ok(Err(error)) => {
            tracing::warn!(%tag, "a temporary tag stays: {}", chain(&error));
            false
        }
        Err(_) => {
            tracing::warn!(%tag, "a temporary tag stays: the registry takes too long");
            false
        }
    };
    if target.manifest(&digest).await?.is_none() {
        tracing::warn!(%tag, %digest, "the registry deleted a manifest with its tag: storing it again");
        let name = ManifestName::Digest(digest);
        let put = target
            .registry
            .put_manifest(&target.repository, &name, manifest);
        put.await.map_err(|error| failure(&error))?;
    }
    Ok(removed)
}

fn parsed(digest: &str) -> Result<Digest> {
    digest.parse().map_err(|error: firn_oci::DigestError| {
        Failure::new(Reason::InternalError, error.to_string())
    })
}

fn gone(target: &Target, digest: &str) -> Failure {
    Failure::new(
        Reason::ManifestRejected,
        format!(
            "{} no longer has {digest}: build the image again",
            target.repository
        ),
    )
}

/// Moves the target's tags to `digest`, which must be there; places of those that were kept.
pub async fn tag(
    target: &Target,
    digest: &str,
    stages: &mut Stages,
    stop: &Stop,
) -> Result<Vec<u8>> {
    let running = Stages::begin(StageName::Tag);
    let found = target.manifest(&parsed(digest)?).await?;
    let manifest = found.ok_or_else(|| gone(target, digest))?;
    let tagged = target.tag(&manifest, stop).await;
    stages.end(&running);
    tagged
}
