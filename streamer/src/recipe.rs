//! Recipe keys: what a layer is made of, so that it is known without being read. Pure.
//!
//! The key and the diffID of a layer stand as annotations on its descriptor in the manifest. Both
//! are functions of the inputs, so digests stay what they are. The next push reads the published
//! manifest, by the digest that the operator has in its status and never by a tag: nobody who can
//! write to the registry can plant anything.

use std::collections::BTreeMap;

use firn_oci::{Compression, Descriptor, Digest, Layer, Manifest};
use sha2::{Digest as _, Sha256};

use crate::closure::Closure;
use crate::layer::PROFILE;
use crate::store_path::StorePath;

/// Annotation of a layer: its key.
pub const ANNOTATION_KEY: &str = "dev.firn.layer.recipe";
/// Annotation of a layer: the digest of its uncompressed archive.
pub const ANNOTATION_DIFF_ID: &str = "dev.firn.layer.diff-id";

/// What a layer is made of: tar profile, encoder with its version, and paths with their contents.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(String);

impl Key {
    /// The key of the layer of `paths`, in their order.
    pub fn of(closure: &Closure, paths: &[StorePath], compression: Compression) -> Self {
        let mut hasher = Sha256::new();
        let mut add = |text: &str| {
            hasher.update((text.len() as u64).to_le_bytes());
            hasher.update(text);
        };
        add("firn/layer/1");
        add(PROFILE);
        add(&compression.identity());
        for path in paths {
            add(path.base_name());
            if let Some(info) = closure.paths().get(path) {
                add(&info.nar_hash.to_string());
            }
        }
        let digest = Digest::of(&hasher.finalize());
        Self(digest.hex())
    }
}

/// The layers of a published image by their keys.
#[derive(Debug, Clone, Default)]
pub struct Known(BTreeMap<Key, Layer>);

impl Known {
    /// What a manifest tells. Layers without annotations, or with broken ones, are left out.
    pub fn of(manifest: &Manifest) -> Self {
        let layers = manifest.layers.iter().filter_map(|descriptor| {
            let key = Key(descriptor.annotations.get(ANNOTATION_KEY)?.clone());
            let diff_id = descriptor
                .annotations
                .get(ANNOTATION_DIFF_ID)?
                .parse()
                .ok()?;
            let layer = Layer {
                diff_id,
                // Nobody needs it for a layer that is not made.
                uncompressed_size: 0,
                descriptor: descriptor.clone(),
            };
            Some((key, layer))
        });
        Self(layers.collect())
    }

    /// The layer with this key.
    pub fn get(&self, key: &Key) -> Option<&Layer> {
        self.0.get(key)
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The descriptor with its key and diffID written on it.
pub fn annotate(descriptor: Descriptor, key: &Key, diff_id: &Digest) -> Descriptor {
    Descriptor {
        annotations: BTreeMap::from([
            (ANNOTATION_KEY.into(), key.0.clone()),
            (ANNOTATION_DIFF_ID.into(), diff_id.to_string()),
        ]),
        ..descriptor
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nar_hash::NarHash;
    use crate::testing::{info, path};

    fn closure(hash: u8) -> Closure {
        let mut app = info(1, &[]);
        app.nar_hash = NarHash([hash; 32]);
        Closure::new([(path("app"), app), (path("lib"), info(1, &[]))].into()).unwrap()
    }

    #[test]
    fn the_key_follows_everything_the_bytes_depend_on() {
        let (app, both) = ([path("app")], [path("app"), path("lib")]);
        let key = Key::of(&closure(1), &app, Compression::Zstd);
        assert_eq!(key, Key::of(&closure(1), &app, Compression::Zstd));
        assert_ne!(key, Key::of(&closure(2), &app, Compression::Zstd));
        assert_ne!(key, Key::of(&closure(1), &app, Compression::Gzip));
        assert_ne!(key, Key::of(&closure(1), &both, Compression::Zstd));
    }

    #[test]
    fn a_manifest_tells_its_layers() {
        let key = Key::of(&closure(1), &[path("app")], Compression::Zstd);
        let diff_id = Digest::of(b"tar");
        let plain = Descriptor::of("application/vnd.oci.image.layer.v1.tar+zstd", b"blob");
        let annotated = annotate(plain.clone(), &key, &diff_id);
        let config = Descriptor::of("application/vnd.oci.image.config.v1+json", b"{}");
        let known = Known::of(&Manifest::new(config, vec![plain, annotated.clone()]));
        let layer = known.get(&key).unwrap();
        assert_eq!((layer.diff_id, &layer.descriptor), (diff_id, &annotated));
    }
}
