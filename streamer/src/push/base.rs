//! The base image that a description names: its manifest and config are read, its layers stay where
//! they are, in a registry or in the store, until they are copied.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use firn_crd::exit::Reason;
use firn_crd::pod;
use firn_oci::decompress::Encoding;
use firn_oci::registry::{
    Credentials, Error, Limits, ManifestName, Registry, RegistrySettings, ResolvedImage,
};
use firn_oci::{Descriptor, History, ImageConfig, Platform, Reference};
use jiff::Timestamp;

use crate::ca;
use crate::closure::Closure;
use crate::failure::{Failure, Result, chain};
use crate::input::description::{Base as Named, BaseImage};
use crate::input::foreign::Wanted;
use crate::input::{self, Contents, Layer, Remote, detect};
use crate::settings::Settings;
use crate::store_path::StorePath;
use crate::target::{PUSH_PATIENCE, Target, failure};

/// A base image, and where its layers are to be had.
#[derive(Debug)]
pub(crate) struct Base {
    pub(crate) image: BaseImage,
    /// `None`: in the store.
    pub(crate) source: Option<BaseSource>,
}

/// A registry with a base image.
#[derive(Debug, Clone)]
pub struct BaseSource {
    /// The registry.
    pub registry: Registry,
    /// Who reads there.
    pub login: BaseLogin,
}

/// Whose login a base image is read with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BaseLogin {
    /// That of `output.basePullSecretRef`.
    Base,
    /// That of `output.pushSecretRef`: the registry is the one that the image goes to.
    Push,
    /// Nobody's.
    None,
    /// That of the person at this machine.
    Person,
}

impl BaseLogin {
    const fn remedy(self) -> &'static str {
        match self {
            Self::Base => {
                "the login of `output.basePullSecretRef` for its registry must be able to read it"
            }
            Self::Push => {
                "the login of `output.pushSecretRef` must be able to read it, or else give one by `output.basePullSecretRef`"
            }
            Self::None => {
                "it must be public, or `output.basePullSecretRef` must have a login for its registry"
            }
            Self::Person => {
                "log in to its registry by `docker login` or `podman login`, or name the file by --auth-file"
            }
        }
    }

    /// What it means that the base image cannot be read.
    pub(crate) fn failure(self, name: &str, error: &Error) -> Failure {
        if error.is_auth() {
            // A Secret may be put right without a new spec: it is tried again.
            let reason = match self {
                Self::None => Reason::ImageInvalid,
                Self::Base | Self::Push | Self::Person => Reason::PushAuthFailed,
            };
            return Failure::new(
                reason,
                format!("base image {name}: {}: {}", chain(error), self.remedy()),
            );
        }
        if error.is_not_found() {
            return invalid(&format!(
                "{name} is not whole: {}: name another one, or have it pushed there again",
                chain(error)
            ));
        }
        if error.is_unsuitable() {
            return invalid(&format!("{name}: {}", chain(error)));
        }
        let mut failure = failure(error);
        let said = std::mem::take(&mut failure.0.message);
        failure.0.message = format!("base image {name}: {said}{}", self.way_in(error));
        failure
    }

    /// Where to say what the registry's client would need to know.
    fn way_in(self, error: &Error) -> String {
        let (ca, plain_http) = match self {
            Self::Base | Self::None => ("output.baseCAConfigMapRef", "output.basePlainHTTPHosts"),
            Self::Push => ("output.caConfigMapRef", "output.plainHTTP"),
            Self::Person => ("--ca", "--base-plain-http"),
        };
        if error.is_untrusted() {
            format!(": see `{ca}`")
        } else if error.is_without_tls() {
            format!(": see `{plain_http}`")
        } else {
            String::new()
        }
    }
}

pub(crate) fn invalid(what: &str) -> Failure {
    Failure::new(Reason::ImageInvalid, format!("base image {what}"))
}

/// Where a base image may be looked for.
pub(crate) struct Places<'a> {
    pub(crate) store: PathBuf,
    pub(crate) closure: &'a Arc<Closure>,
    pub(crate) platform: &'a Platform,
}

impl Places<'_> {
    /// Finds the base image. `source` gives a client of the registry that it is in.
    pub(crate) async fn find(
        &self,
        named: &Named,
        source: impl FnOnce(&Reference) -> Result<BaseSource>,
    ) -> Result<Base> {
        match (&named.image, &named.path) {
            (Some(name), None) => self.in_registry(name, source).await,
            (None, Some(path)) => self.in_store(path).await,
            _ => Err(invalid("must have exactly one of `image` and `path`")),
        }
    }

    async fn in_registry(
        &self,
        name: &str,
        source: impl FnOnce(&Reference) -> Result<BaseSource>,
    ) -> Result<Base> {
        let reference: Reference = name
            .parse()
            .map_err(|error| invalid(&format!("{name:?}: {}", chain(&error))))?;
        let digest = reference.digest.ok_or_else(|| {
            invalid(&format!(
                "{name:?} has no digest: write {name}@sha256:…, so that the same description is the same image"
            ))
        })?;
        let source = source(&reference)?;
        let found = source
            .registry
            .resolve_image(
                &reference.repository,
                &ManifestName::Digest(digest),
                self.platform,
            )
            .await
            .map_err(|error| source.login.failure(name, &error))?;
        let found = found.ok_or_else(|| {
            invalid(&format!(
                "{name} is not there, or not shown to us: {}",
                source.login.remedy()
            ))
        })?;
        let image = of(&reference, &found).map_err(|what| invalid(&format!("{name} {what}")))?;
        Ok(Base {
            image,
            source: Some(source),
        })
    }

    /// A store path that is an image. What front ends read as one is one here, too.
    async fn in_store(&self, name: &str) -> Result<Base> {
        let path: StorePath = name
            .parse()
            .map_err(|error| invalid(&format!("{name:?}: {}", chain(&error))))?;
        let wanted = Wanted {
            platform: self.platform.clone(),
            labels: std::collections::BTreeMap::new(),
            annotations: std::collections::BTreeMap::new(),
            created: None,
            now: Timestamp::from_second(1).unwrap_or_default(),
        };
        if !self.closure.contains(&path) {
            return Err(invalid(&format!(
                "{name} is not known to Nix here: interpolate the package, so that Nix knows that the description needs it"
            )));
        }
        let (store, closure) = (self.store.clone(), Arc::clone(self.closure));
        // An archive may have to be passed over as a whole.
        let read =
            tokio::task::spawn_blocking(move || detect::image_in(&store, &closure, &path, &wanted));
        let read = read.await.map_err(|error| Failure::internal(&error))?;
        let found = read.map_err(|error| invalid(&format!("{name}: {}", chain(&error))))?;
        let found = found.ok_or_else(|| {
            invalid(&format!(
                "{name} is no image: wanted a docker-archive, an OCI layout, or an image of nix2container or dockerTools"
            ))
        })?;
        Ok(Base {
            image: stored(found).map_err(|error| invalid(&format!("{name}: {}", chain(&error))))?,
            source: None,
        })
    }
}

/// The parts of an image that is in the store.
fn stored(image: input::Image) -> std::result::Result<BaseImage, input::foreign::InputError> {
    let config = image.own_config()?;
    let mut layers = image.layers;
    let is_told = |layer: &Layer| {
        layer
            .history
            .iter()
            .filter(|step| !step.empty_layer)
            .count()
            == 1
    };
    // One entry for each layer, or none of them means anything.
    if !layers.iter().all(is_told) {
        for layer in &mut layers {
            layer.history = unknown();
        }
    }
    for layer in &mut layers {
        layer.why = format!("of the base image: {}", layer.why);
    }
    Ok(BaseImage { config, layers })
}

fn unknown() -> Vec<History> {
    vec![History {
        comment: "base image".to_owned(),
        ..History::default()
    }]
}

/// The client for a base image that a build's description names.
///
/// A description is build's word, and build code could name any image that a Secret opens. So the
/// push Secret's logins are used on the registry that the image goes to, where whoever asks may push
/// anyway; elsewhere only those of the Secret that was given for this.
pub(super) fn source(
    settings: &Settings,
    target: &Target,
    reference: &Reference,
) -> Result<BaseSource> {
    let host = &reference.host;
    let is_target = host == target.registry.host();
    let logins = logins(settings)?;
    if logins.login(host, Some(&reference.repository)).is_some() {
        return Ok(BaseSource {
            registry: client(settings, reference, is_target, logins)?,
            login: BaseLogin::Base,
        });
    }
    if is_target {
        return Ok(BaseSource {
            registry: target.registry.clone(),
            login: BaseLogin::Push,
        });
    }
    Ok(BaseSource {
        registry: client(settings, reference, false, Credentials::default())?,
        login: BaseLogin::None,
    })
}

/// The logins of `output.basePullSecretRef`; none if it is not given.
fn logins(settings: &Settings) -> Result<Credentials> {
    let file = settings.paths.at(pod::BASE_SECRET).join("config.json");
    match fs::read(&file) {
        Ok(bytes) => Credentials::from_docker_config(&bytes).map_err(|error| {
            Failure::new(
                Reason::PushAuthFailed,
                format!(
                    "the Secret of `output.basePullSecretRef` cannot be used: {}",
                    chain(&error)
                ),
            )
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Credentials::default()),
        Err(error) => Err(Failure::internal(&error)),
    }
}

fn client(
    settings: &Settings,
    reference: &Reference,
    is_target: bool,
    credentials: Credentials,
) -> Result<Registry> {
    let output = &settings.run.output;
    let (mount, plain_http) = if is_target {
        (pod::PUSH_CA, output.plain_http)
    } else {
        let host = reference.host.as_str();
        let is_plain = output.base_plain_http_hosts.iter().any(|name| name == host);
        (pod::BASE_CA, is_plain)
    };
    let client = RegistrySettings {
        plain_http,
        extra_ca_pem: ca::extra(settings, &[mount]).map_err(|error| Failure::internal(&error))?,
        credentials,
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
    let encoding = Encoding::of_layer(&descriptor.media_type).ok_or_else(|| {
        let shown: String = descriptor.media_type.chars().take(100).collect();
        format!("has a layer of type {shown:?}, which cannot be copied")
    })?;
    Ok(Descriptor::new(
        encoding.layer_media_type(),
        descriptor.digest,
        descriptor.size,
    ))
}

/// For each layer the steps that led to it; those after the last one go with it. An image whose
/// history does not fit its layers has none that could be told.
fn histories(history: &[History], layers: usize) -> Vec<Vec<History>> {
    let made = history.iter().filter(|step| !step.empty_layer).count();
    if made != layers {
        return vec![unknown(); layers];
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
    use firn_oci::media_type;

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
