//! Assembles an image: config and layers become the bytes of a config and of a manifest.
//! Pure: no client, no clock, no randomness.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::{
    ContainerConfig, Descriptor, History, ImageConfig, Layer, Manifest, Platform, RootFs,
    media_type,
};

/// An image under construction. Layers are added bottom first.
#[derive(Debug, Clone)]
pub struct ImageBuilder {
    platform: Platform,
    created: Option<Timestamp>,
    config: ContainerConfig,
    layers: Vec<(Layer, History)>,
    annotations: BTreeMap<String, String>,
}

/// A document and what points to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Type, digest and size of `bytes`.
    pub descriptor: Descriptor,
    /// What is stored and sent.
    pub bytes: Vec<u8>,
}

/// A finished image. Its layers' blobs are wherever they were written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltImage {
    /// The config blob.
    pub config: Document,
    /// The manifest; its descriptor carries the platform, ready for an index.
    pub manifest: Document,
    /// The layers, bottom first.
    pub layers: Vec<Descriptor>,
}

impl ImageBuilder {
    /// An image without layers that starts nothing.
    pub fn new(platform: Platform) -> Self {
        Self {
            platform,
            created: None,
            config: ContainerConfig::default(),
            layers: Vec::new(),
            annotations: BTreeMap::new(),
        }
    }

    /// The time that the config gives. Never "now": the digest depends on it.
    #[must_use]
    pub fn created(self, created: Timestamp) -> Self {
        Self {
            created: Some(created),
            ..self
        }
    }

    /// How containers are started.
    #[must_use]
    pub fn config(self, config: ContainerConfig) -> Self {
        Self { config, ..self }
    }

    /// Puts a layer on top.
    #[must_use]
    pub fn layer(mut self, layer: Layer, history: History) -> Self {
        self.layers.push((layer, history));
        self
    }

    /// Adds an annotation to the manifest.
    #[must_use]
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.annotations.insert(key.to_owned(), value.to_owned());
        self
    }

    /// The documents. The same image gives the same bytes, everywhere and always.
    pub fn build(self) -> BuiltImage {
        let (layers, history): (Vec<Layer>, Vec<History>) = self.layers.into_iter().unzip();
        let config = ImageConfig {
            created: self.created,
            author: None,
            platform: self.platform.clone(),
            config: self.config,
            rootfs: RootFs {
                kind: "layers".to_owned(),
                diff_ids: layers.iter().map(|layer| layer.diff_id).collect(),
            },
            history,
        };
        let config = Document::new(media_type::CONFIG, config.to_bytes());
        let layers: Vec<Descriptor> = layers.into_iter().map(|layer| layer.descriptor).collect();
        let manifest = Manifest {
            annotations: self.annotations,
            ..Manifest::new(config.descriptor.clone(), layers.clone())
        };
        let mut manifest = Document::new(media_type::MANIFEST, manifest.to_bytes());
        manifest.descriptor.platform = Some(self.platform);
        BuiltImage {
            config,
            manifest,
            layers,
        }
    }
}

impl Document {
    /// A document of a given type.
    pub fn new(media_type: &str, bytes: Vec<u8>) -> Self {
        Self {
            descriptor: Descriptor::of(media_type, &bytes),
            bytes,
        }
    }
}
