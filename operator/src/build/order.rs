//! From a `NixImageBuild` to the order for its Job. Pure.

use std::time::Duration;

use firn_crd::build::BuildReason;
use firn_crd::exit::{Container, Reason};
use firn_crd::names::{self, ANNOTATION_BUILD_HASH};
use firn_crd::output::Platform;
use firn_crd::reference::CaConfigMapRef;
use firn_crd::run::{self, CONTRACT, RUN_MAX, Run};
use firn_crd::{NixImage, NixImageBuild};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource, ResourceExt};
use strum::IntoEnumIterator;

use super::job::{Order, Placement, Site};
use super::report::Failure;
use super::volumes::{Bundle, Store, Volumes};

/// Longest time for the source and the flake's inputs.
const FETCH_PATIENCE: Duration = Duration::from_secs(15 * 60);
/// How long push tries by itself before it gives up: it must not lose an hour's build.
const PUSH_PATIENCE: Duration = Duration::from_secs(20 * 60);

/// The name of a build's Job.
pub fn job_name(build: &NixImageBuild) -> String {
    if retags(build) {
        names::publish_job_name(&build.name_any())
    } else {
        names::job_name(&build.name_any(), platform(build).platform.as_str())
    }
}

/// The platform: the schema sees to it that there is one.
pub fn platform(build: &NixImageBuild) -> Platform {
    build
        .spec
        .output
        .platforms
        .first()
        .cloned()
        .unwrap_or_default()
}

/// Whether the build only moves tags.
pub fn retags(build: &NixImageBuild) -> bool {
    build.spec.reasons.contains(&BuildReason::Retag)
}

/// The longest time from the Job's start to its end: waiting for a node, then every attempt with
/// all that its containers may take. A backstop: each of them has a clock of its own.
pub fn deadline(build: &NixImageBuild) -> Duration {
    let spec = &build.spec.build;
    let attempt = if retags(build) {
        PUSH_PATIENCE
    } else {
        FETCH_PATIENCE + spec.timeout.as_std() + PUSH_PATIENCE
    };
    let attempts = u32::try_from(backoff_limit(build)).unwrap_or(0) + 1;
    spec.pending_timeout.as_std() + attempt * attempts
}

/// One more pod after a failure that may go away at once, unless no retries are wanted.
fn backoff_limit(build: &NixImageBuild) -> i32 {
    build.spec.build.retries.clamp(0, 1)
}

/// The order; the failure says why there can be none.
pub fn order(
    build: &NixImageBuild,
    image: Option<&NixImage>,
    site: &Site,
) -> Result<Order, Failure> {
    let spec = &build.spec;
    let platform = platform(build);
    let work = if retags(build) {
        publish(image)?
    } else {
        run::Work::Build(Box::new(work(build, image)?))
    };
    let run = Run {
        contract: CONTRACT,
        build: build.name_any(),
        output: run::Output {
            repository: spec.output.repository.clone(),
            tags: spec.output.tags.clone(),
            plain_http: spec.output.plain_http,
        },
        work,
    };
    let run = serde_json::to_string(&run).unwrap_or_default();
    if run.len() > RUN_MAX {
        return Err(Failure::new(
            Reason::NotSupported,
            format!(
                "spec.output: labels and annotations are too long together ({} bytes of {RUN_MAX}): shorten them",
                run.len()
            ),
        ));
    }
    let containers = if retags(build) {
        vec![Container::Push]
    } else {
        Container::iter().collect()
    };
    Ok(Order {
        name: job_name(build),
        namespace: build.namespace().unwrap_or_default(),
        owner: OwnerReference {
            block_owner_deletion: Some(true),
            ..build.controller_owner_ref(&()).unwrap_or_default()
        },
        build: build.name_any(),
        image: spec.image.as_ref().map(|image| image.name.clone()),
        key: spec.key.clone(),
        reason: spec
            .reasons
            .first()
            .map(ToString::to_string)
            .unwrap_or_default(),
        platform: platform.platform.as_str().to_owned(),
        run,
        volumes: volumes(build, site),
        resources: platform
            .resources
            .clone()
            .or_else(|| spec.build.resources.clone())
            .unwrap_or_default()
            .into(),
        backoff_limit: backoff_limit(build),
        deadline_seconds: i64::try_from(deadline(build).as_secs()).unwrap_or(i64::MAX),
        placement: Placement {
            node_selector: if retags(build) {
                spec.build.node_selector.clone()
            } else {
                platform.node_selector
            },
            tolerations: spec.build.tolerations.clone(),
            affinity: spec.build.affinity.clone(),
            priority_class: spec.build.priority_class_name.clone(),
            runtime_class: spec.build.runtime_class_name.clone(),
        },
        site: site.clone(),
        containers,
    })
}

fn publish(image: Option<&NixImage>) -> Result<run::Work, Failure> {
    let status = image.and_then(|image| image.status.as_ref());
    let published = status.and_then(|status| status.published.as_ref());
    match published.and_then(|published| published.digest.clone()) {
        Some(digest) => Ok(run::Work::Publish { digest }),
        None => Err(Failure::new(
            Reason::InternalError,
            "there is no published image whose tags could be moved",
        )),
    }
}

fn work(build: &NixImageBuild, image: Option<&NixImage>) -> Result<run::Build, Failure> {
    let spec = &build.spec;
    let platform = platform(build);
    let Some(git) = &spec.source.git else {
        return Err(Failure::new(
            Reason::NotSupported,
            "spec.source.oci is not supported yet: use source.git",
        ));
    };
    let output = &spec.output;
    Ok(run::Build {
        platform: platform.platform.as_str().to_owned(),
        source: run::Source {
            url: git.url.clone(),
            reference: git.reference.clone(),
            commit: git.commit.clone(),
            dir: git.dir.clone(),
            timeout_seconds: FETCH_PATIENCE.as_secs(),
        },
        attribute: platform
            .attribute
            .unwrap_or_else(|| spec.flake.attribute.clone()),
        image: run::ImageSpec {
            labels: output.labels.clone(),
            annotations: output.annotations.clone(),
            timestamp: output.timestamp,
            max_layers: u32::try_from(output.layers.max).unwrap_or(1),
            head_room: u32::try_from(output.layers.head_room).unwrap_or_default(),
            strategy: output.layers.strategy,
            compression: output.layers.compression,
            level: output
                .layers
                .level
                .and_then(|level| u8::try_from(level).ok()),
            config: output.config.clone(),
            files: output.files.clone(),
        },
        published: published(build, image),
        layers_from: layers_from(image),
        substituters: spec.build.substituters.clone(),
        trusted_public_keys: spec.build.trusted_public_keys.clone(),
        timeout_seconds: spec.build.timeout.as_secs(),
    })
}

/// What is published, if an equal derivation would give the same image: the same options, the
/// same place. A person who asks for a build gets one.
fn published(build: &NixImageBuild, image: Option<&NixImage>) -> Option<run::Published> {
    let status = image?.status.as_ref()?;
    let published = status.published.as_ref()?;
    let same_place = status
        .latest_image
        .as_deref()?
        .strip_prefix(&build.spec.output.repository)?
        .starts_with('@');
    let same_options =
        published.build_hash.as_ref() == build.annotations().get(ANNOTATION_BUILD_HASH);
    if !same_place || !same_options || build.spec.reasons.contains(&BuildReason::Manual) {
        return None;
    }
    Some(run::Published {
        digest: published.digest.clone()?,
        drv_path: published.platforms.first()?.drv_path.clone()?,
    })
}

/// What is published, whatever the options and wherever it is: layers are known by what they are
/// made of. That a person asked, or that the repository changed, makes no other bytes.
fn layers_from(image: Option<&NixImage>) -> Vec<String> {
    let status = image.and_then(|image| image.status.as_ref());
    status
        .and_then(|status| status.latest_image.clone())
        .into_iter()
        .collect()
}

fn volumes(build: &NixImageBuild, site: &Site) -> Volumes {
    let spec = &build.spec;
    let git = spec.source.git.as_ref();
    let bundle = |ca: &CaConfigMapRef| Bundle {
        config_map: ca.name.clone(),
        key: ca.key.clone(),
    };
    Volumes {
        store: Store {
            size: spec.build.store.size.as_ref().map(|size| size.0.clone()),
            storage_class: spec.build.store.storage_class_name.clone(),
        },
        source_secret: git.and_then(|git| Some(git.secret_ref.as_ref()?.name.clone())),
        source_ca: git
            .and_then(|git| git.ca_config_map_ref.as_ref())
            .map(bundle),
        push_secret: spec
            .output
            .push_secret_ref
            .as_ref()
            .map(|secret| secret.name.clone()),
        push_ca: spec.output.ca_config_map_ref.as_ref().map(bundle),
        substituter_ca: spec.build.ca_config_map_ref.as_ref().map(bundle),
        cluster_ca: site.cluster_ca.is_some(),
    }
}

#[cfg(test)]
mod tests;
