//! A package with its closure: what a flake's ordinary attribute is. Firn decides on layers, entry
//! point and environment: it writes the description that the package has not. Pure.

use firn_crd::run::{ImageSpec, Timestamp as Wanted};
use firn_oci::{History, Platform};
use jiff::Timestamp;

use super::description::{
    self, Container, Created, Description, DescriptionError, Environment, Parts,
};
use super::{Contents, Image, Layer, Paths, Profile};
use crate::closure::Closure;
use crate::layering::PlannedLayer;
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
    /// What was asked for.
    pub asked: &'a ImageSpec,
    /// The time of the commit.
    pub commit_time: Timestamp,
}

/// The image of a package. Errors: what is asked for does not go together, or needs what the
/// closure has not.
pub fn image(package: &Package<'_>) -> Result<Image, DescriptionError> {
    let description = Description {
        contents: vec![package.out_path.to_string()],
        config: Container {
            entrypoint: package.entry_point.map(|program| vec![program.to_owned()]),
            // With several programs a Pod's `command` finds them by name.
            env: Environment::List(if package.has_bin {
                vec![format!("PATH={}/bin", package.out_path)]
            } else {
                Vec::new()
            }),
            ..Container::default()
        },
        ..Description::default()
    };
    let parts = Parts {
        platform: package.platform.clone(),
        closure: package.closure,
        max_layers: package.asked.max_layers,
        created: created(package.asked.timestamp),
        commit_time: package.commit_time,
        base: None,
    };
    let mentioned = [package.out_path.clone()].into();
    description::image(&description.with(package.asked), &mentioned, &parts)
}

/// `created` as a NixImage says it.
pub fn created(wanted: Wanted) -> Created {
    match wanted {
        Wanted::Epoch => Created::Epoch,
        Wanted::Source => Created::Source,
    }
}

/// A layer of store paths in a tar of `profile`, made at `created`.
pub(super) fn layer(planned: PlannedLayer, profile: Profile, created: Timestamp) -> Layer {
    let mut paths = planned.paths;
    profile.sort(&mut paths);
    let history = History {
        created: Some(created),
        created_by: format!("firn {}", profile.name()),
        comment: comment(&paths),
        ..History::default()
    };
    Layer {
        why: planned.why.to_string(),
        contents: Contents::Paths(Paths { profile, paths }),
        annotations: std::collections::BTreeMap::new(),
        history: vec![history],
    }
}

/// The names of the paths, without their hashes: for people who look at an image's history.
fn comment(paths: &[StorePath]) -> String {
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
