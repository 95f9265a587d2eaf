//! `plan`: each layer, why it is there, and what would be pushed after a previous image.

use std::collections::BTreeSet;
use std::time::Duration;

use firn_oci::registry::ManifestName;
use firn_oci::{ImageConfig, Manifest, Reference};
use serde::Serialize;

use super::arguments::PlanArguments;
use super::registry::Client;
use super::source::{self, BaseRegistries, Source};
use super::{Result, tell, unusable, usage};
use crate::recipe::{Key, Known};
use crate::target::failure;

/// How long a registry in trouble is asked again.
const PATIENCE: Duration = Duration::from_secs(20);
/// Names of paths that are told of one layer in words. JSON has them all.
const NAMES: usize = 6;

/// All layers of an image to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Plan {
    /// Bottom first.
    pub(super) layers: Vec<PlannedLayer>,
    /// Bytes of all store paths.
    pub(super) size_bytes: u64,
    /// Bytes of what is in layers that would have to be made and sent, before compression.
    pub(super) push_bytes: u64,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PlannedLayer {
    /// What it holds, before compression.
    pub(super) size_bytes: u64,
    /// The names of what it holds.
    pub(super) contents: Vec<String>,
    /// Why these are together.
    pub(super) why: String,
    /// Against the previous image. `None`: there is none to compare with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) fate: Option<Fate>,
}

/// What a push would do with a layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "action")]
pub(super) enum Fate {
    /// The previous image has it.
    Reuse {
        /// Its digest.
        digest: String,
        /// Its size in the registry.
        bytes: u64,
    },
    /// It has to be made.
    Push {
        /// What the previous image has by no name; empty: everything by name, with other contents.
        new: Vec<String>,
    },
}

/// The previous image, as far as a plan needs it.
#[derive(Debug, Default)]
struct Previous {
    known: Known,
    /// Names in its history.
    names: BTreeSet<String>,
}

/// Does `plan`.
pub(super) async fn plan(arguments: PlanArguments) -> Result<()> {
    // Whatever is wrong with it shows when it is read.
    let host = arguments
        .previous
        .as_deref()
        .and_then(|text| text.parse().ok());
    let host = host.map(|previous: Reference| previous.host);
    let bases = BaseRegistries {
        access: &arguments.registry.access,
        base: &arguments.base,
        named: host
            .as_ref()
            .map(|host| (host, arguments.registry.plain_http)),
    };
    let source = source::read(&arguments.input, &arguments.image, bases).await?;
    let previous = match &arguments.previous {
        Some(text) => Some(previous(text, &arguments).await?),
        None => None,
    };
    let plan = explain(&source, previous.as_ref());
    tell(arguments.json, &plan, |out, plan| {
        for (number, layer) in plan.layers.iter().enumerate() {
            writeln!(out, "{}", line(number + 1, layer))?;
        }
        writeln!(
            out,
            "{} layers, {}{}",
            plan.layers.len(),
            bytes(plan.size_bytes),
            match &previous {
                Some(_) => format!("; to push, before compression: {}", bytes(plan.push_bytes)),
                None => String::new(),
            }
        )
    })
}

async fn previous(text: &str, arguments: &PlanArguments) -> Result<Previous> {
    let reference: Reference = text
        .parse()
        .map_err(|error| unusable("--previous", &error))?;
    let digest = reference.digest.ok_or_else(|| {
        usage(format!(
            "--previous {text}: name the image by its digest; a tag may have been moved by anybody"
        ))
    })?;
    let client = Client::new(&arguments.registry, &reference, PATIENCE)?;
    let name = ManifestName::Digest(digest);
    let found = client.registry.get_manifest(&client.repository, &name);
    let found = found.await.map_err(|error| failure(&error))?;
    let document =
        found.ok_or_else(|| usage(format!("--previous {text}: there is no such image")))?;
    let manifest =
        Manifest::from_bytes(&document.bytes).map_err(|error| unusable("--previous", &error))?;
    let mut known = Known::default();
    known.add(&manifest, &client.repository);
    let config = client
        .registry
        .read_blob(&client.repository, &manifest.config);
    let config = config.await.map_err(|error| failure(&error))?;
    let names = ImageConfig::from_bytes(&config)
        .map(|config| {
            let comments = config.history.iter().map(|step| step.comment.as_str());
            comments
                .flat_map(str::split_whitespace)
                .map(str::to_owned)
                .collect()
        })
        .unwrap_or_default();
    Ok(Previous { known, names })
}

/// Pure.
fn explain(source: &Source, previous: Option<&Previous>) -> Plan {
    let layers: Vec<PlannedLayer> = source
        .image
        .layers
        .iter()
        .map(|layer| {
            let contents = layer.contents.names();
            let key = Key::of(&layer.contents, &source.closure, source.compression);
            PlannedLayer {
                size_bytes: layer.contents.size(&source.closure),
                why: layer.why.clone(),
                fate: previous.map(|previous| fate(previous, &key, &contents)),
                contents,
            }
        })
        .collect();
    let sum = |layers: &mut dyn Iterator<Item = &PlannedLayer>| {
        layers.fold(0_u64, |sum, layer| sum.saturating_add(layer.size_bytes))
    };
    let pushed = |layer: &&PlannedLayer| !matches!(layer.fate, Some(Fate::Reuse { .. }));
    Plan {
        size_bytes: sum(&mut layers.iter()),
        push_bytes: sum(&mut layers.iter().filter(pushed)),
        layers,
    }
}

fn fate(previous: &Previous, key: &Key, contents: &[String]) -> Fate {
    match previous.known.get(key) {
        Some(known) => Fate::Reuse {
            digest: known.layer.descriptor.digest.to_string(),
            bytes: known.layer.descriptor.size,
        },
        None => Fate::Push {
            new: contents
                .iter()
                .filter(|name| !previous.names.contains(*name))
                .cloned()
                .collect(),
        },
    }
}

fn line(number: usize, layer: &PlannedLayer) -> String {
    let what = match &layer.fate {
        None => String::new(),
        Some(Fate::Reuse { .. }) => "reuse  ".to_owned(),
        Some(Fate::Push { .. }) => "push   ".to_owned(),
    };
    let size = bytes(layer.size_bytes);
    let mut line = format!(
        "{number:>4}  {size:>11}  {what}{}: {}",
        layer.why,
        some(&layer.contents)
    );
    match &layer.fate {
        Some(Fate::Push { new }) if new.is_empty() => {
            line.push_str(
                "\n                   by other contents or dependencies: the names are the same",
            );
        }
        Some(Fate::Push { new }) => {
            line.push_str("\n                   new here: ");
            line.push_str(&some(new));
        }
        Some(Fate::Reuse { .. }) | None => {}
    }
    line
}

/// The first few of many.
fn some(names: &[String]) -> String {
    let shown: Vec<&str> = names.iter().take(NAMES).map(String::as_str).collect();
    let rest = names.len().saturating_sub(NAMES);
    let text = shown.join(" ");
    if rest == 0 {
        text
    } else {
        format!("{text} and {rest} more")
    }
}

/// Bytes for people.
pub(super) fn bytes(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}
