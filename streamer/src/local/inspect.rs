//! `inspect`: what an image in a registry is made of.

use std::io;
use std::time::Duration;

use firn_oci::registry::ManifestName;
use firn_oci::{Document, ImageConfig, Index, Manifest, Reference, media_type};
use serde::Serialize;

use super::arguments::InspectArguments;
use super::explain::bytes;
use super::registry::Client;
use super::{Result, tell, unusable, usage};
use crate::recipe::{ANNOTATION_DIFF_ID, ANNOTATION_KEY};
use crate::target::failure;

/// How long a registry in trouble is asked again.
const PATIENCE: Duration = Duration::from_secs(20);
/// Most images of an index that are looked at.
const IMAGES_MAX: usize = 64;

/// What was found.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Inspected {
    digest: String,
    media_type: String,
    /// One, or those of an index.
    images: Vec<Image>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Image {
    platform: String,
    digest: String,
    size_bytes: u64,
    config: ImageConfig,
    layers: Vec<Layer>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Layer {
    digest: String,
    media_type: String,
    size_bytes: u64,
    /// What Firn knows it by. `None`: it was not made by Firn.
    #[serde(skip_serializing_if = "Option::is_none")]
    recipe: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    diff_id: Option<String>,
    /// From the history.
    #[serde(skip_serializing_if = "String::is_empty")]
    comment: String,
}

/// Does `inspect`.
pub(super) async fn inspect(arguments: InspectArguments) -> Result<()> {
    let text = &arguments.reference;
    let reference: Reference = text.parse().map_err(|error| unusable(text, &error))?;
    let client = Client::new(&arguments.registry, &reference, PATIENCE)?;
    let name = match (reference.digest, reference.tag) {
        (Some(digest), _) => ManifestName::Digest(digest),
        (None, Some(tag)) => ManifestName::Tag(tag),
        (None, None) => return Err(usage(format!("{text}: name a tag or a digest"))),
    };
    let document = client.manifest(&name).await?;
    let media_type = document.descriptor.media_type.clone();
    let mut images = Vec::new();
    if matches!(
        media_type.as_str(),
        media_type::INDEX | media_type::DOCKER_INDEX
    ) {
        let index = Index::from_bytes(&document.bytes).map_err(|error| unusable(text, &error))?;
        for entry in index.manifests.iter().take(IMAGES_MAX) {
            let manifest = client.manifest(&ManifestName::Digest(entry.digest)).await?;
            images.push(image(&client, &manifest, text).await?);
        }
    } else {
        images.push(image(&client, &document, text).await?);
    }
    let inspected = Inspected {
        digest: document.descriptor.digest.to_string(),
        media_type,
        images,
    };
    tell(arguments.json, &inspected, words)
}

impl Client {
    async fn manifest(&self, name: &ManifestName) -> Result<Document> {
        let found = self.registry.get_manifest(&self.repository, name).await;
        let found = found.map_err(|error| failure(&error))?;
        found.ok_or_else(|| {
            usage(format!(
                "{}/{} has no {name}",
                self.registry.host(),
                self.repository
            ))
        })
    }
}

async fn image(client: &Client, document: &Document, text: &str) -> Result<Image> {
    let manifest = Manifest::from_bytes(&document.bytes).map_err(|error| unusable(text, &error))?;
    let config = client
        .registry
        .read_blob(&client.repository, &manifest.config);
    let config = config.await.map_err(|error| failure(&error))?;
    let config = ImageConfig::from_bytes(&config).map_err(|error| unusable(text, &error))?;
    let steps = config.history.iter().filter(|step| !step.empty_layer);
    let comments = steps.map(|step| step.comment.clone());
    let comments = comments.chain(std::iter::repeat(String::new()));
    let layers = manifest
        .layers
        .iter()
        .zip(comments)
        .map(|(layer, comment)| {
            let annotation = |key: &str| layer.annotations.get(key).cloned();
            Layer {
                digest: layer.digest.to_string(),
                media_type: layer.media_type.clone(),
                size_bytes: layer.size,
                recipe: annotation(ANNOTATION_KEY),
                diff_id: annotation(ANNOTATION_DIFF_ID),
                comment,
            }
        });
    let sizes = manifest.layers.iter().map(|layer| layer.size);
    Ok(Image {
        platform: config.platform.to_string(),
        digest: document.descriptor.digest.to_string(),
        size_bytes: sizes.fold(manifest.config.size, u64::saturating_add),
        layers: layers.collect(),
        config,
    })
}

fn words(out: &mut dyn io::Write, inspected: &Inspected) -> io::Result<()> {
    writeln!(out, "{}  {}", inspected.digest, inspected.media_type)?;
    for image in &inspected.images {
        let config = &image.config.config;
        writeln!(
            out,
            "{}  {}  {} in {} layers",
            image.platform,
            image.digest,
            bytes(image.size_bytes),
            image.layers.len()
        )?;
        if !config.entrypoint.is_empty() || !config.cmd.is_empty() {
            let command: Vec<&str> = config
                .entrypoint
                .iter()
                .chain(&config.cmd)
                .map(String::as_str)
                .collect();
            writeln!(out, "runs {}", command.join(" "))?;
        }
        for (number, layer) in image.layers.iter().enumerate() {
            writeln!(
                out,
                "{:>4}  {:>11}  {}  {}",
                number + 1,
                bytes(layer.size_bytes),
                layer.digest,
                layer.comment
            )?;
        }
    }
    Ok(())
}
