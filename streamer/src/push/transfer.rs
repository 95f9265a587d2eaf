//! An image into a repository: layers, then config, then manifest. Tags are the caller's.

use std::path::PathBuf;
use std::sync::Arc;

use firn_oci::registry::ManifestName;
use firn_oci::{
    Compression, Compressors, Digest, Document, Layer, Manifest, Repository, media_type,
};

use super::base::BaseSource;
use super::blobs::{Blobs, Placed, Placement, Wanted};
use crate::closure::Closure;
use crate::failure::{Failure, Result};
use crate::input::Image;
use crate::layer::Streams;
use crate::recipe::{Key, Known};
use crate::tag_policy::Moves;
use crate::target::{Target, failure};
use crate::watch::Watch;

/// An image, and all that is needed to make its layers.
#[derive(Debug)]
pub struct Transfer<'a> {
    /// Where it goes.
    pub target: &'a Target,
    /// The image.
    pub image: &'a Image,
    /// What its layers' store paths are.
    pub closure: Arc<Closure>,
    /// The folder with the store paths.
    pub store: PathBuf,
    /// How layers are compressed.
    pub compression: Compression,
    /// Images whose layers need not be made again, the likeliest first.
    pub previous: &'a [Previous],
    /// Where the layers of the base image are, if it is not the target.
    pub base: Option<BaseSource>,
    /// Who wants to know how it goes.
    pub watch: Arc<dyn Watch>,
}

/// An image that was published before on the same registry. Its digest comes from a place that
/// whoever can write to the registry cannot: status, or the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Previous {
    /// Where it is.
    pub repository: Repository,
    /// Its manifest.
    pub digest: Digest,
}

/// An image that is in its repository, untagged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transferred {
    /// Its manifest.
    pub manifest: Document,
    /// Its layers, bottom first.
    pub layers: Vec<Placed>,
    /// Size of its config in bytes.
    pub config_size: u64,
    /// How the config got there.
    pub config: Placement,
    /// What becomes of the target's tags.
    pub tags: Moves,
}

/// A failure, or one that making the layers again may heal.
enum Trouble {
    Missing(Failure),
    Failed(Failure),
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Transfer<'_> {
    /// Puts the image into its repository.
    ///
    /// Before a tag moves, each blob was sent, or asked for by its first byte. Only where the image
    /// is the published one and all tags are there already, nothing is asked: nothing moves.
    pub async fn run(&self) -> Result<Transferred> {
        let keys = self.image.layers.iter();
        let keys: Vec<Key> = keys
            .map(|layer| Key::of(&layer.contents, &self.closure, self.compression))
            .collect();
        let (known, there) = self.known(&keys).await?;
        let wanted = self.image.layers.iter().zip(&keys).enumerate();
        let wanted: Vec<Wanted<'_>> = wanted
            .map(|(index, (layer, key))| Wanted { layer, key, index })
            .collect();
        if let Some(unchanged) = self.unchanged(&known, &there, &wanted).await? {
            return Ok(unchanged);
        }
        match self.attempt(&known, &wanted).await {
            // It has them and will not see them: make every layer.
            Err(Trouble::Missing(failure)) if !known.is_empty() => {
                tracing::warn!("{}: making every layer again", failure.0.message);
                self.attempt(&Known::default(), &wanted).await
            }
            done => done,
        }
        .map_err(|trouble| match trouble {
            Trouble::Missing(failure) | Trouble::Failed(failure) => failure,
        })
    }

    /// The image as it was published, if it is that and all tags point to it.
    async fn unchanged(
        &self,
        known: &Known,
        there: &[&Previous],
        wanted: &[Wanted<'_>],
    ) -> Result<Option<Transferred>> {
        let here = &self.target.repository;
        let taken = wanted.iter().map(|layer| layer.taken(known, here));
        let taken: Option<Vec<Placed>> = taken.collect();
        let Some(layers) = taken else {
            return Ok(None);
        };
        let (config, manifest) = documents(self.image, layers.iter().map(|placed| &placed.layer));
        let itself = Previous {
            repository: here.clone(),
            digest: manifest.descriptor.digest,
        };
        // Without a tag somebody else moves one, to this.
        if !there.contains(&&itself) || !self.target.has_tags() {
            return Ok(None);
        }
        let tags = self.target.moves(&manifest).await?;
        if !tags.stale.is_empty() {
            return Ok(None);
        }
        // It is there; but the registry may look whether it still has every blob.
        match self.put_manifest(&manifest).await {
            Ok(()) => {}
            Err(Trouble::Missing(failure)) => {
                tracing::warn!("{}", failure.0.message);
                return Ok(None);
            }
            Err(Trouble::Failed(failure)) => return Err(failure),
        }
        for (wanted, placed) in wanted.iter().zip(&layers) {
            self.watch.placed(wanted.index, placed);
        }
        Ok(Some(Transferred {
            config_size: config.descriptor.size,
            config: Placement::Reused,
            manifest,
            layers,
            tags,
        }))
    }

    /// The layers of previous images, and which of these images are there. Those that are gone tell
    /// nothing. No more of them are read than are needed.
    async fn known(&self, wanted: &[Key]) -> Result<(Known, Vec<&Previous>)> {
        let mut known = Known::default();
        let mut there = Vec::new();
        for previous in self.previous {
            if !there.is_empty() && wanted.iter().all(|key| known.get(key).is_some()) {
                break;
            }
            let Previous { repository, digest } = previous;
            let name = ManifestName::Digest(*digest);
            let found = self.target.registry.get_manifest(repository, &name).await;
            let found = match found {
                Ok(found) => found,
                // Another repository, which these credentials may not read, is only a lost chance.
                Err(error) if *repository != self.target.repository && error.is_auth() => None,
                Err(error) => return Err(failure(&error)),
            };
            let manifest = found.and_then(|found| Manifest::from_bytes(&found.bytes).ok());
            if let Some(manifest) = manifest {
                known.add(&manifest, repository);
                there.push(previous);
            }
        }
        Ok((known, there))
    }

    async fn attempt(
        &self,
        known: &Known,
        wanted: &[Wanted<'_>],
    ) -> std::result::Result<Transferred, Trouble> {
        let blobs = Blobs {
            target: self.target,
            store: self.store.clone(),
            compression: self.compression,
            pool: Compressors::on_all_cores().map_err(|error| Failure::internal(&error))?,
            known,
            streams: Streams::default(),
            base: self.base.as_ref(),
            watch: &self.watch,
        };
        let layers = blobs.place_all(&self.closure, wanted).await?;
        let (config, manifest) = documents(self.image, layers.iter().map(|placed| &placed.layer));
        let config_size = config.descriptor.size;
        let config = blobs.config(&config).await?;
        self.put_manifest(&manifest).await?;
        let tags = self.target.moves(&manifest).await?;
        Ok(Transferred {
            manifest,
            layers,
            config_size,
            config,
            tags,
        })
    }

    async fn put_manifest(&self, manifest: &Document) -> std::result::Result<(), Trouble> {
        let name = ManifestName::Digest(manifest.descriptor.digest);
        let target = self.target;
        let put = target
            .registry
            .put_manifest(&target.repository, &name, manifest);
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

/// Config and manifest of an image with these layers, bottom first. Pure.
pub(crate) fn documents<'l>(
    image: &Image,
    layers: impl Iterator<Item = &'l Layer> + Clone,
) -> (Document, Document) {
    let described: Vec<_> = layers
        .clone()
        .zip(&image.layers)
        .map(|(layer, wanted)| (layer.diff_id, wanted.history.as_slice()))
        .collect();
    let config = Document::new(media_type::CONFIG, image.config.to_bytes(&described));
    let descriptors = layers.map(|layer| layer.descriptor.clone());
    let manifest = Manifest {
        annotations: image.annotations.clone(),
        ..Manifest::new(config.descriptor.clone(), descriptors.collect())
    };
    let mut manifest = Document::new(media_type::MANIFEST, manifest.to_bytes());
    manifest.descriptor.platform = Some(image.platform.clone());
    (config, manifest)
}

impl Transferred {
    /// Bytes of all blobs.
    pub fn size(&self) -> u64 {
        self.layers
            .iter()
            .map(|placed| placed.layer.descriptor.size)
            .fold(self.config_size, u64::saturating_add)
    }

    /// Bytes of the blobs that were sent.
    pub fn sent(&self) -> u64 {
        let config = match self.config {
            Placement::Sent => self.config_size,
            Placement::Reused | Placement::Mounted => 0,
        };
        self.layers
            .iter()
            .filter(|placed| placed.placement == Placement::Sent)
            .map(|placed| placed.layer.descriptor.size)
            .fold(config, u64::saturating_add)
    }

    /// How many layers got there so.
    pub fn count(&self, placement: Placement) -> usize {
        let same = |placed: &&Placed| placed.placement == placement;
        self.layers.iter().filter(same).count()
    }
}
