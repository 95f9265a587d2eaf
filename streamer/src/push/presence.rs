//! Whether blobs are there that nobody has looked at: those that a manifest is known to name, and
//! those that the registry says it has mounted.
//!
//! A registry may take a manifest without looking for its blobs, and one that looks may ask a cache
//! of descriptors. So each blob is asked for by its first byte before a tag is moved to it.

use std::collections::BTreeSet;

use firn_crd::exit::Reason;
use firn_oci::registry::ManifestName;
use firn_oci::{Digest, Document, Index, Manifest, media_type};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};

use crate::failure::{Failure, Result};
use crate::target::{Target, failure};

/// Blobs that are asked for at once. Each has a connection, so that many layers cost a round trip
/// for each so many; registries limit the connections of a client, as a rule to a hundred or more.
pub(crate) const PROBES: usize = 32;

/// Those of `blobs` that the target's repository does not have.
pub(crate) async fn gone(target: &Target, blobs: BTreeSet<Digest>) -> Result<BTreeSet<Digest>> {
    stream::iter(blobs)
        .map(|digest| async move {
            let there = target.registry.probe_blob(&target.repository, &digest);
            let there = there.await.map_err(|error| failure(&error))?;
            Ok((!there).then_some(digest))
        })
        .buffer_unordered(PROBES)
        .try_filter_map(async |digest| Ok(digest))
        .try_collect()
        .await
}

/// Checks that all is there that `document`, a manifest or an index in the target's repository,
/// leads to.
pub(crate) async fn check(target: &Target, document: &Document) -> Result<()> {
    let mut blobs = BTreeSet::new();
    if media_type::is_index(&document.descriptor.media_type) {
        let index = Index::from_bytes(&document.bytes);
        let index = index.map_err(|error| Failure::internal(&error))?;
        for entry in &index.manifests {
            let name = ManifestName::Digest(entry.digest);
            let found = target.registry.get_manifest(&target.repository, &name);
            match found.await.map_err(|error| failure(&error))? {
                Some(found) => blobs.extend(named(&found)?),
                None => return Err(missing(target, &entry.digest)),
            }
        }
    } else {
        blobs = named(document)?;
    }
    match gone(target, blobs).await?.first() {
        Some(digest) => Err(missing(target, digest)),
        None => Ok(()),
    }
}

fn named(document: &Document) -> Result<BTreeSet<Digest>> {
    let manifest = Manifest::from_bytes(&document.bytes);
    let manifest = manifest.map_err(|error| Failure::internal(&error))?;
    let blobs = manifest.layers.iter().chain([&manifest.config]);
    Ok(blobs.map(|blob| blob.digest).collect())
}

fn missing(target: &Target, digest: &Digest) -> Failure {
    Failure::new(
        Reason::ManifestRejected,
        format!(
            "{} no longer has {digest}, which is a part of the image: build the image again",
            target.repository
        ),
    )
}
