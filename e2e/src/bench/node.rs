//! The node's side: what a container runtime that has unpacked one image has to fetch and to unpack
//! for the next. containerd keeps blobs by digest and unpacked layers by chain ID: the layer with
//! all below it. So a layer that changes low down makes it unpack everything above once more. Pure.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use firn_oci::{Digest, Manifest};
use serde::Deserialize;

/// What a runtime sees of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Digest and size of each blob, config and layers.
    blobs: Vec<(Digest, u64)>,
    /// Of each layer, lowest first.
    diff_ids: Vec<Digest>,
}

/// What the next image costs a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// Bytes of blobs that it does not have.
    pub pulled: u64,
    /// Layers that it has to unpack.
    pub unpacked: usize,
    /// Layers of the image.
    pub layers: usize,
}

#[derive(Deserialize)]
struct Config {
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<Digest>,
}

impl Image {
    /// From a manifest and the config that it names, which `blob` reads.
    ///
    /// Errors: one of them is something else.
    pub fn read(manifest: &[u8], blob: impl FnOnce(&Digest) -> Result<Vec<u8>>) -> Result<Self> {
        let manifest: Manifest =
            serde_json::from_slice(manifest).context("failed to read a manifest")?;
        let config: Config = serde_json::from_slice(&blob(&manifest.config.digest)?)
            .context("failed to read a config")?;
        let descriptors = std::iter::once(&manifest.config).chain(&manifest.layers);
        Ok(Self {
            blobs: descriptors.map(|d| (d.digest, d.size)).collect(),
            diff_ids: config.rootfs.diff_ids,
        })
    }

    fn chain_ids(&self) -> Vec<Digest> {
        let mut chain: Vec<Digest> = Vec::new();
        for diff_id in &self.diff_ids {
            let next = match chain.last() {
                Some(below) => Digest::of(format!("{below} {diff_id}").as_bytes()),
                None => *diff_id,
            };
            chain.push(next);
        }
        chain
    }

    /// What this image costs a node that has `before`.
    pub fn cost_after(&self, before: &Self) -> Cost {
        let had: BTreeSet<Digest> = before.blobs.iter().map(|(digest, _)| *digest).collect();
        let unpacked: BTreeSet<Digest> = before.chain_ids().into_iter().collect();
        Cost {
            pulled: self
                .blobs
                .iter()
                .filter(|(digest, _)| !had.contains(digest))
                .map(|(_, size)| size)
                .sum(),
            unpacked: self
                .chain_ids()
                .iter()
                .filter(|id| !unpacked.contains(*id))
                .count(),
            layers: self.diff_ids.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(layers: &[&str]) -> Image {
        let digests: Vec<Digest> = layers.iter().map(|l| Digest::of(l.as_bytes())).collect();
        Image {
            blobs: digests.iter().map(|digest| (*digest, 10)).collect(),
            diff_ids: digests,
        }
    }

    #[test]
    fn a_low_layer_that_changes_is_pulled_alone_and_unpacked_with_all_above() {
        let before = image(&["libc", "lib", "app"]);
        let top = image(&["libc", "lib", "app2"]).cost_after(&before);
        assert_eq!((top.pulled, top.unpacked), (10, 1));
        let low = image(&["libc2", "lib", "app"]).cost_after(&before);
        assert_eq!((low.pulled, low.unpacked, low.layers), (10, 3, 3));
        assert_eq!(before.cost_after(&before).unpacked, 0);
    }
}
