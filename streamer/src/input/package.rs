//! A package with its closure: what a flake's ordinary attribute is. Firn decides on layers, entry
//! point and environment. Pure.

use std::collections::BTreeMap;

use firn_oci::{ContainerConfig, History, Platform};
use jiff::Timestamp;

use super::{Config, Contents, Image, Layer, Paths, Profile};
use crate::closure::Closure;
use crate::layering::{self, PlannedLayer, Strategy};
use crate::store_path::StorePath;

/// Characters of a layer's comment, which names its packages.
const COMMENT_MAX: usize = 200;

/// A package, and what was asked for besides.
#[derive(Debug, Clone)]
pub struct Package<'a> {
    /// What it runs on.
    pub platform: Platform,
    /// The output.
    pub out_path: &'a StorePath,
    /// The output with all it needs.
    pub closure: &'a Closure,
    /// Absolute path of the program that a container runs. `None`: there is not exactly one.
    pub entry_point: Option<&'a str>,
    /// Whether the output has a `bin` directory.
    pub has_bin: bool,
    /// Most layers.
    pub max_layers: u32,
    /// How its paths are split into them.
    pub strategy: Strategy,
    /// `created` of the image and of its layers.
    pub created: Timestamp,
    /// Labels of the config.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the manifest.
    pub annotations: BTreeMap<String, String>,
}

/// The image of a package.
pub fn image(package: &Package<'_>) -> Image {
    let config = ContainerConfig {
        entrypoint: package.entry_point.map(str::to_owned).into_iter().collect(),
        // With several programs a Pod's `command` finds them by name.
        env: if package.has_bin {
            vec![format!("PATH={}/bin", package.out_path)]
        } else {
            Vec::new()
        },
        labels: package.labels.clone(),
        ..ContainerConfig::default()
    };
    let mut fields = Config::firn(package.platform.clone());
    fields.created = Some(package.created);
    fields.config = config;
    let layers = layering::plan(package.closure, package.max_layers, package.strategy);
    Image {
        platform: package.platform.clone(),
        layers: layers
            .into_iter()
            .map(|planned| layer(planned, package.created))
            .collect(),
        config: Config::Firn(Box::new(fields)),
        annotations: package.annotations.clone(),
    }
}

fn layer(planned: PlannedLayer, created: Timestamp) -> Layer {
    let history = History {
        created: Some(created),
        created_by: format!("firn {}", Profile::Nar1.name()),
        comment: comment(&planned.paths),
        ..History::default()
    };
    Layer {
        why: planned.why.to_string(),
        contents: Contents::Paths(Paths {
            profile: Profile::Nar1,
            paths: planned.paths,
        }),
        history: vec![history],
    }
}

/// The names of the paths, without their hashes: for people who look at an image's history.
pub(super) fn comment(paths: &[StorePath]) -> String {
    let mut names: Vec<&str> = paths.iter().map(StorePath::name).collect();
    names.sort_unstable();
    let mut text = names.join(" ");
    if text.len() > COMMENT_MAX {
        // Names of store paths are ASCII.
        text.truncate(COMMENT_MAX - 4);
        text.push_str(" ...");
    }
    text
}
