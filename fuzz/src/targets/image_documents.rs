//! Manifests, indexes and configs as registries and layouts give them.

use firn_oci::{ImageConfig, Index, Manifest, Platform, Repository};
use firn_streamer::recipe::Known;

pub(crate) fn run(data: &[u8]) {
    if let Ok(manifest) = Manifest::from_bytes(data) {
        let bytes = manifest.to_bytes();
        assert_eq!(Manifest::from_bytes(&bytes).ok().as_ref(), Some(&manifest));
        recipes(&manifest);
    }
    if let Ok(index) = Index::from_bytes(data) {
        let bytes = index.to_bytes();
        assert_eq!(Index::from_bytes(&bytes).ok().as_ref(), Some(&index));
        if let Ok(wanted) = "linux/arm64".parse::<Platform>() {
            let found = index.for_platform(&wanted);
            assert!(found.is_none_or(|found| index.manifests.contains(found)));
        }
    }
    if let Ok(config) = ImageConfig::from_bytes(data) {
        let bytes = config.to_bytes();
        assert_eq!(ImageConfig::from_bytes(&bytes).ok().as_ref(), Some(&config));
    }
}

/// A manifest that was read by its digest may still be anything.
fn recipes(manifest: &Manifest) {
    if let Ok(repository) = "team/app".parse::<Repository>() {
        let mut known = Known::default();
        known.add(manifest, &repository);
        assert!(!manifest.layers.is_empty() || known.is_empty());
    }
}
