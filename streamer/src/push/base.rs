//! The base image that a description names: its manifest and config are read, its layers stay where
//! they are until they are copied.

use firn_crd::exit::Reason;
use firn_oci::registry::{Limits, ManifestName, Registry, RegistrySettings, ResolvedImage};
use firn_oci::{Descriptor, History, ImageConfig, Platform, Reference, media_type};

use crate::ca;
use crate::failure::{Failure, Result, chain};
use crate::input::description::BaseImage;
use crate::input::{Contents, Layer, Remote};
use crate::settings::Settings;
use crate::target::{PUSH_PATIENCE, Target, failure};

/// Docker's layer, not compressed.
const DOCKER_LAYER_TAR: &str = "application/vnd.docker.image.rootfs.diff.tar";

/// A base image, and where its layers are to be had.
pub(super) struct Base {
    pub(super) image: BaseImage,
    pub(super) registry: Registry,
}

/// Finds the base image `name` for `platform`.
///
/// A description is build's word, and build code could name any image that the push Secret opens.
/// So the Secret's logins are used on the registry that the image goes to, where whoever asks may
/// push anyway; other registries are asked without.
pub(super) async fn find(
    settings: &Settings,
    target: &Target,
    name: &str,
    platform: &Platform,
) -> Result<Base> {
    let invalid = |what: String| Failure::new(Reason::ImageInvalid, format!("base image {what}"));
    let reference: Reference = name
        .parse()
        .map_err(|error| invalid(format!("{name:?}: {}", chain(&error))))?;
    let digest = reference.digest.ok_or_else(|| {
        invalid(format!(
            "{name:?} has no digest: write {name}@sha256:…, so that the same description is the same image"
        ))
    })?;
    let registry = if reference.host == *target.registry.host() {
        target.registry.clone()
    } else {
        elsewhere(settings, &reference)?
    };
    let found = registry
        .resolve_image(
            &reference.repository,
            &ManifestName::Digest(digest),
            platform,
        )
        .await
        .map_err(|error| {
            if error.is_unsuitable() || error.is_auth() {
                invalid(format!("{name}: {}", chain(&error)))
            } else {
                failure(&error)
            }
        })?;
    let found = found.ok_or_else(|| {
        invalid(format!(
            "{name} is not there, or not shown to us: on the registry that the image goes to, the login of `pushSecretRef` must be able to read it; elsewhere it must be public"
        ))
    })?;
    let image = of(&reference, &found).map_err(|what| invalid(format!("{name} {what}")))?;
    Ok(Base { image, registry })
}

fn elsewhere(settings: &Settings, reference: &Reference) -> Result<Registry> {
    let client = RegistrySettings {
        extra_ca_pem: ca::extra(settings, &[]).map_err(|error| Failure::internal(&error))?,
        limits: Limits {
            retry_budget: PUSH_PATIENCE,
            ..Limits::default()
        },
        ..RegistrySettings::new(reference.host.clone())
    };
    Registry::new(client).map_err(|error| Failure::new(Reason::RegistryUnavailable, chain(&error)))
}

/// The parts of an image. Errors: what is wrong with it, in words. Pure.
fn of(reference: &Reference, found: &ResolvedImage) -> std::result::Result<BaseImage, String> {
    let config = ImageConfig::from_bytes(&found.config).map_err(|error| chain(&error))?;
    let (layers, diff_ids) = (&found.manifest.layers, &config.rootfs.diff_ids);
    if layers.len() != diff_ids.len() {
        return Err(format!(
            "has {} layers and {} diffIDs",
            layers.len(),
            diff_ids.len()
        ));
    }
    let history = histories(&config.history, layers.len());
    let layers = layers
        .iter()
        .zip(diff_ids)
        .zip(history)
        .map(|((descriptor, diff_id), history)| {
            Ok(Layer {
                contents: Contents::Remote(Box::new(Remote {
                    repository: reference.repository.clone(),
                    descriptor: translated(descriptor)?,
                    diff_id: *diff_id,
                })),
                annotations: std::collections::BTreeMap::new(),
                history,
                why: format!("of the base image {}", reference.repository),
            })
        })
        .collect::<std::result::Result<_, String>>()?;
    Ok(BaseImage { config, layers })
}

/// The same blob, with OCI's name for its type.
fn translated(descriptor: &Descriptor) -> std::result::Result<Descriptor, String> {
    let media_type = match descriptor.media_type.as_str() {
        media_type::LAYER_TAR | DOCKER_LAYER_TAR => media_type::LAYER_TAR,
        media_type::LAYER_GZIP | media_type::DOCKER_LAYER_GZIP => media_type::LAYER_GZIP,
        media_type::LAYER_ZSTD => media_type::LAYER_ZSTD,
        other => {
            let shown: String = other.chars().take(100).collect();
            return Err(format!(
                "has a layer of type {shown:?}, which cannot be copied"
            ));
        }
    };
    Ok(Descriptor::new(
        media_type,
        descriptor.digest,
        descriptor.size,
    ))
}

/// For each layer the steps that led to it; those after the last one go with it. An image whose
/// history does not fit its layers has none that could be told.
fn histories(history: &[History], layers: usize) -> Vec<Vec<History>> {
    let made = history.iter().filter(|step| !step.empty_layer).count();
    if made != layers {
        let unknown = History {
            comment: "base image".to_owned(),
            ..History::default()
        };
        return vec![vec![unknown]; layers];
    }
    let mut all: Vec<Vec<History>> = Vec::new();
    let mut steps = Vec::new();
    for step in history {
        steps.push(step.clone());
        if !step.empty_layer {
            all.push(std::mem::take(&mut steps));
        }
    }
    if let Some(last) = all.last_mut() {
        last.extend(steps);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(comment: &str, empty_layer: bool) -> History {
        History {
            comment: comment.into(),
            empty_layer,
            ..History::default()
        }
    }

    #[test]
    fn steps_go_with_the_layers_they_led_to() {
        let history = [
            step("ADD", false),
            step("ENV", true),
            step("RUN", false),
            step("CMD", true),
        ];
        let told = histories(&history, 2);
        let comments: Vec<Vec<&str>> = told
            .iter()
            .map(|steps| steps.iter().map(|step| step.comment.as_str()).collect())
            .collect();
        assert_eq!(comments, [vec!["ADD"], vec!["ENV", "RUN", "CMD"]]);
        let unknown = histories(&history, 3);
        assert_eq!(unknown.len(), 3);
        assert!(unknown.iter().all(|steps| !steps[0].empty_layer));
    }

    #[test]
    fn docker_s_types_are_translated_and_others_refused() {
        let digest = firn_oci::Digest::of(b"layer");
        let of = |media_type: &str| translated(&Descriptor::new(media_type, digest, 5));
        let docker = of(media_type::DOCKER_LAYER_GZIP).unwrap();
        assert_eq!(docker.media_type, media_type::LAYER_GZIP);
        let foreign = of("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip");
        assert!(foreign.unwrap_err().contains("foreign"));
    }
}
