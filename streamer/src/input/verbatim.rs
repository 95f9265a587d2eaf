//! Configs of images that are finished: their bytes stay, unless something was asked for besides.
//! Pure.

use firn_oci::{History, ImageConfig};

use super::foreign::Wanted;

/// A config in its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verbatim {
    bytes: Vec<u8>,
}

impl Verbatim {
    /// `bytes`, which are `config`, with the labels and the time that were asked for.
    pub fn new(bytes: Vec<u8>, config: ImageConfig, wanted: &Wanted) -> Self {
        if wanted.labels.is_empty() && wanted.created.is_none() {
            return Self { bytes };
        }
        let mut config = config;
        config.config.labels.extend(wanted.labels.clone());
        config.created = wanted.created.or(config.created);
        Self {
            bytes: config.to_bytes(),
        }
    }

    /// The blob.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.bytes.clone()
    }
}

/// For each layer its step, after the steps before it that made none.
pub fn histories(config: &ImageConfig) -> Vec<Vec<History>> {
    let mut layers = Vec::new();
    let mut steps = Vec::new();
    for step in &config.history {
        steps.push(step.clone());
        if !step.empty_layer {
            layers.push(std::mem::take(&mut steps));
        }
    }
    layers
}
