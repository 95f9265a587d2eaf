//! The image's config, from what was asked for and what was built. Pure.

use firn_crd::run::{ImageSpec, Timestamp as Created};
use firn_oci::{ContainerConfig, History, ImageBuilder, Layer, Platform};
use jiff::Timestamp;

use crate::handoff::Image;
use crate::layer::PROFILE;
use crate::layering::PlannedLayer;
use crate::store_path::StorePath;

/// Characters of a layer's comment, which names its packages.
const COMMENT_MAX: usize = 200;

/// A layer that is in the registry, with what it holds.
#[derive(Debug, Clone)]
pub struct Placed {
    /// The layer, its descriptor annotated.
    pub layer: Layer,
    /// What was planned.
    pub planned: PlannedLayer,
}

/// The image of `layers`, bottom first. `source_time` is the commit's.
pub fn describe(
    platform: Platform,
    spec: &ImageSpec,
    built: &Image,
    source_time: Timestamp,
    layers: Vec<Placed>,
) -> ImageBuilder {
    let created = match spec.timestamp {
        Created::Epoch => Timestamp::from_second(1).unwrap_or_default(),
        Created::Source => source_time,
    };
    let config = ContainerConfig {
        entrypoint: built.entry_point.iter().cloned().collect(),
        // With several programs a Pod's `command` finds them by name.
        env: if built.has_bin {
            vec![format!("PATH={}/bin", built.out_path)]
        } else {
            Vec::new()
        },
        labels: spec.labels.clone(),
        ..ContainerConfig::default()
    };
    let image = ImageBuilder::new(platform).created(created).config(config);
    let image = layers.into_iter().fold(image, |image, placed| {
        let history = History {
            created: Some(created),
            created_by: format!("firn {PROFILE}"),
            comment: comment(&placed.planned),
            ..History::default()
        };
        image.layer(placed.layer, history)
    });
    spec.annotations
        .iter()
        .fold(image, |image, (key, value)| image.annotation(key, value))
}

/// The names of the paths, without their hashes: for people who look at an image's history.
fn comment(layer: &PlannedLayer) -> String {
    let mut names: Vec<&str> = layer.paths.iter().map(StorePath::name).collect();
    names.sort_unstable();
    let mut text = names.join(" ");
    if text.len() > COMMENT_MAX {
        // Names of store paths are ASCII.
        text.truncate(COMMENT_MAX - 4);
        text.push_str(" ...");
    }
    text
}
