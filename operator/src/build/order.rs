//! From a `NixImageBuild` to its Jobs, and the order for each. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use firn_crd::build::BuildReason;
use firn_crd::build_status::{BuildOutcome, PlatformStatus};
use firn_crd::exit::{Container, Reason};
use firn_crd::names::{self, ANNOTATION_BUILD_HASH};
use firn_crd::output::{Platform, PlatformName, TagPolicy};
use firn_crd::pod::ENV_RUN;
use firn_crd::published::{Published, PublishedPlatform};
use firn_crd::reference::CaConfigMapRef;
use firn_crd::run::{self, OURS_MAX, PlatformManifest, RUN_MAX, Run};
use firn_crd::{NixImage, NixImageBuild};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource, ResourceExt};
use strum::IntoEnumIterator;

use super::job::{Order, Placement, Site};
use super::queue;
use super::report::Failure;
use super::volumes::{Bundle, Store, Volumes};

/// Longest time for the source and the flake's inputs.
const FETCH_PATIENCE: Duration = Duration::from_secs(15 * 60);
/// How long push tries by itself before it gives up: it must not lose an hour's build.
const PUSH_PATIENCE: Duration = Duration::from_secs(20 * 60);

/// What one of a build's Jobs is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The image of one platform. With several it is pushed by its digest alone.
    Platform(PlatformName),
    /// The index of several platforms and the tags, or tags alone.
    Publish,
}

impl Part {
    /// `linux/amd64`; `None`: it is for all of them.
    pub const fn platform(self) -> Option<&'static str> {
        match self {
            Self::Platform(name) => Some(name.as_str()),
            Self::Publish => None,
        }
    }
}

/// What a build's Jobs are for, in the order of its platforms; with several, publishing is last.
pub fn parts(build: &NixImageBuild) -> Vec<Part> {
    if retags(build) {
        return vec![Part::Publish];
    }
    let platforms = platforms(build);
    let last = (platforms.len() > 1).then_some(Part::Publish);
    platforms
        .into_iter()
        .map(|platform| Part::Platform(platform.platform))
        .chain(last)
        .collect()
}

/// Whether there is an index to be made.
pub fn has_index(build: &NixImageBuild) -> bool {
    !retags(build) && build.spec.output.platforms.len() > 1
}

/// Whether a Job moves tags that people use.
pub fn moves_tags(build: &NixImageBuild, part: Part) -> bool {
    part == Part::Publish || !has_index(build)
}

/// The name of a Job.
pub fn job_name(build: &NixImageBuild, part: Part) -> String {
    match part.platform() {
        Some(platform) => names::job_name(&build.name_any(), platform),
        None => names::publish_job_name(&build.name_any()),
    }
}

/// The platforms: the schema sees to it that there is one.
fn platforms(build: &NixImageBuild) -> Vec<Platform> {
    let platforms = build.spec.output.platforms.clone();
    if platforms.is_empty() {
        vec![Platform::default()]
    } else {
        platforms
    }
}

/// The platform that a Job is for; publishing is for all of them, and runs where the first does.
pub fn platform(build: &NixImageBuild, part: Part) -> Platform {
    let mut platforms = platforms(build).into_iter();
    let found = match part {
        Part::Platform(name) => platforms.find(|platform| platform.platform == name),
        Part::Publish => platforms.next(),
    };
    found.unwrap_or_default()
}

/// What an order is made from.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// The build.
    pub build: &'a NixImageBuild,
    /// The image it belongs to.
    pub image: Option<&'a NixImage>,
    /// The build before it.
    pub previous: Option<&'a NixImageBuild>,
    /// Builds before it that published something, the newest first.
    pub earlier: &'a [NixImageBuild],
}

/// How many builds that published something are known.
pub const KNOWN_MAX: usize = OURS_MAX;
/// How many of them layers are looked for in: a change that is taken back is seldom older.
pub const EARLIER_MAX: usize = 3;

/// Whether the build only moves tags.
pub fn retags(build: &NixImageBuild) -> bool {
    build.spec.reasons.contains(&BuildReason::Retag)
}

/// Whether tags of others must not be moved.
pub fn guards_tags(build: &NixImageBuild) -> bool {
    build.spec.output.tag_policy != TagPolicy::Overwrite
}

/// The longest time from the Job's start to its end: waiting for a node, then every attempt with
/// all that its containers may take. A backstop: each of them has a clock of its own.
pub fn deadline(build: &NixImageBuild, part: Part) -> Duration {
    let spec = &build.spec.build;
    let attempt = match part {
        Part::Publish => PUSH_PATIENCE,
        Part::Platform(_) => FETCH_PATIENCE + spec.timeout.as_std() + PUSH_PATIENCE,
    };
    let attempts = u32::try_from(backoff_limit(build)).unwrap_or(0) + 1;
    spec.pending_timeout.as_std() + attempt * attempts
}

/// One more pod after a failure that may go away at once, unless no retries are wanted.
fn backoff_limit(build: &NixImageBuild) -> i32 {
    build.spec.build.retries.clamp(0, 1)
}

/// The order; the failure says why there can be none. `ready` is what the index is made of; if it is
/// empty, publishing moves tags to what is published.
pub fn order(
    known: Known<'_>,
    part: Part,
    ready: &[PlatformManifest],
    site: &Site,
) -> Result<Order, Failure> {
    let build = known.build;
    let spec = &build.spec;
    let platform = platform(build, part);
    let work = match part {
        Part::Platform(_) => run::Work::Build(Box::new(work(known, &platform)?)),
        Part::Publish if ready.is_empty() => publish(known.image)?,
        Part::Publish => run::Work::Index {
            manifests: ready.to_vec(),
        },
    };
    let by_digest = !moves_tags(build, part);
    let (tags, tag_policy) = if by_digest {
        (Vec::new(), TagPolicy::Overwrite)
    } else {
        (spec.output.tags.clone(), spec.output.tag_policy)
    };
    let output = run::Output {
        repository: spec.output.repository.clone(),
        tags,
        tag_policy,
        ours: match tag_policy {
            TagPolicy::Overwrite => Vec::new(),
            TagPolicy::Keep | TagPolicy::Fail => ours(known),
        },
        temporary_tag: by_digest.then(|| temporary_tag(build, platform.platform)),
        plain_http: spec.output.plain_http,
        base_plain_http_hosts: spec.output.base_plain_http_hosts.clone(),
    };
    let run = Run {
        contract: output.contract().max(work.contract()),
        build: build.name_any(),
        output,
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
    let containers = match part {
        Part::Publish => vec![Container::Push],
        Part::Platform(_) => Container::iter().collect(),
    };
    Ok(Order {
        name: job_name(build, part),
        namespace: build.namespace().unwrap_or_default(),
        owner: OwnerReference {
            block_owner_deletion: Some(true),
            ..build.controller_owner_ref(&()).unwrap_or_default()
        },
        build: build.name_any(),
        image: spec.image.as_ref().map(|image| image.name.clone()),
        key: spec.key.clone(),
        queue: spec.build.queue_name.clone(),
        reason: if part == Part::Publish && has_index(build) {
            queue::PUBLISH.to_owned()
        } else {
            let first = spec.reasons.first();
            first.map(ToString::to_string).unwrap_or_default()
        },
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
        deadline_seconds: i64::try_from(deadline(build, part).as_secs()).unwrap_or(i64::MAX),
        placement: Placement {
            node_selector: match part {
                Part::Publish => spec.build.node_selector.clone(),
                Part::Platform(_) => platform.node_selector,
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

fn work(known: Known<'_>, platform: &Platform) -> Result<run::Build, Failure> {
    let spec = &known.build.spec;
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
            submodules: git.submodules,
            timeout_seconds: FETCH_PATIENCE.as_secs(),
        },
        attribute: platform
            .attribute
            .clone()
            .unwrap_or_else(|| spec.flake.attribute.clone()),
        image: run::ImageSpec {
            labels: output.labels.clone(),
            annotations: output.annotations.clone(),
            timestamp: output.timestamp,
            max_layers: u32::try_from(output.layers.max).unwrap_or(1),
            head_room: u32::try_from(output.layers.head_room).unwrap_or_default(),
            strategy: output.layers.strategy,
            profile: output.layers.profile,
            compression: output.layers.compression,
            level: output
                .layers
                .level
                .and_then(|level| u8::try_from(level).ok()),
            config: output.config.clone(),
            files: output.files.clone(),
        },
        published: published(known, platform.platform),
        layers_from: layers_from(known, platform.platform),
        substituters: spec.build.substituters.clone(),
        trusted_public_keys: spec.build.trusted_public_keys.clone(),
        timeout_seconds: spec.build.timeout.as_secs(),
    })
}

/// What is published, if an equal derivation would give the same image: the same options, the
/// same place. A person who asks for a build gets one.
///
/// Where a build of several platforms failed, what it did push counts instead: it is in no index
/// yet, but need not be made again.
fn published(known: Known<'_>, platform: PlatformName) -> Option<run::Published> {
    let Known { build, image, .. } = known;
    if build.spec.reasons.contains(&BuildReason::Manual) {
        return None;
    }
    let in_index = image
        .and_then(published_in)
        .and_then(|(repository, published)| {
            let same_options =
                published.build_hash.as_ref() == build.annotations().get(ANNOTATION_BUILD_HASH);
            let digest = published.digest.clone()?;
            let found = of_platform(published, platform)?;
            let there = run::Published {
                drv_path: found.drv_path.clone()?,
                index: (digest != found.digest).then_some(digest),
                digest: found.digest.clone(),
            };
            (repository == build.spec.output.repository && same_options).then_some(there)
        });
    let before = done_before(known, platform).and_then(|done| {
        Some(run::Published {
            digest: done.digest.clone()?,
            drv_path: done.drv_path.clone()?,
            index: None,
        })
    });
    match (before, in_index) {
        (Some(before), Some(there)) if before.digest == there.digest => Some(there),
        (Some(before), _) => Some(before),
        (None, there) => there,
    }
}

/// What the build before left of this platform, when it failed for another: same options, same
/// place.
fn done_before(known: Known<'_>, platform: PlatformName) -> Option<&PlatformStatus> {
    let previous = known.previous.filter(|_| has_index(known.build))?;
    let status = previous.status.as_ref()?;
    let hash = |build: &NixImageBuild| build.annotations().get(ANNOTATION_BUILD_HASH).cloned();
    let failed = matches!(
        status.outcome?,
        BuildOutcome::Failed | BuildOutcome::Cancelled | BuildOutcome::Superseded
    );
    let same = hash(previous) == hash(known.build)
        && previous.spec.output.repository == known.build.spec.output.repository;
    status.platforms.iter().find(|done| {
        failed
            && same
            && done.platform == platform.as_str()
            && done.drv_path.is_some()
            && done.digest.is_some()
    })
}

/// The repository that something is published in, and what.
fn published_in(image: &NixImage) -> Option<(&str, &Published)> {
    let status = image.status.as_ref()?;
    let (repository, _) = status.latest_image.as_deref()?.rsplit_once('@')?;
    Some((repository, status.published.as_ref()?))
}

fn of_platform(published: &Published, platform: PlatformName) -> Option<&PublishedPlatform> {
    published
        .platforms
        .iter()
        .find(|found| found.platform == platform.as_str())
}

/// Whether these are the platforms of what is published, no more and no fewer, and in this place.
pub fn is_published(known: Known<'_>, ready: &[PlatformManifest]) -> bool {
    let Some((repository, published)) = known.image.and_then(published_in) else {
        return false;
    };
    let there: BTreeSet<_> = published
        .platforms
        .iter()
        .map(|found| (&found.platform, &found.digest))
        .collect();
    let wanted: BTreeSet<_> = ready
        .iter()
        .map(|made| (&made.platform, &made.digest))
        .collect();
    repository == known.build.spec.output.repository && there == wanted
}

/// Size and output of a manifest that was there already, as far as anybody remembers.
pub fn remembered(
    known: Known<'_>,
    platform: PlatformName,
    digest: &str,
) -> (Option<i64>, Option<String>) {
    if let Some((_, published)) = known.image.and_then(published_in)
        && let Some(found) = of_platform(published, platform)
        && found.digest == digest
    {
        return (found.size_bytes, found.out_path.clone());
    }
    done_before(known, platform)
        .filter(|done| done.digest.as_deref() == Some(digest))
        .map_or((None, None), |done| {
            (done.size_bytes, done.out_path.clone())
        })
}

/// The tag that keeps a platform's manifest until the index is there.
pub fn temporary_tag(build: &NixImageBuild, platform: PlatformName) -> String {
    let platform = platform.as_str();
    if let Some(image) = &build.spec.image {
        return names::temporary_tag(&image.name, &image.uid, platform);
    }
    let uid = build.uid().unwrap_or_default();
    names::temporary_tag(&build.name_any(), &uid, platform)
}

/// What a Job's pods were told about what is published. `None`: nothing, or the Job is not one of
/// ours.
pub fn told(job: &Job) -> Option<run::Published> {
    let pod = job.spec.as_ref()?.template.spec.as_ref()?;
    let environment = pod.containers.first()?.env.as_ref()?;
    let run = environment.iter().find(|entry| entry.name == ENV_RUN)?;
    let run: Run = serde_json::from_str(run.value.as_deref()?).ok()?;
    match run.work {
        run::Work::Build(build) => build.published,
        run::Work::Publish { .. } | run::Work::Index { .. } => None,
    }
}

/// What is published, and what a build that failed left, whatever the options and wherever it is:
/// layers are known by what they are made of. That a person asked, or that the repository changed,
/// makes no other bytes.
fn layers_from(known: Known<'_>, platform: PlatformName) -> Vec<String> {
    let published = known.image.and_then(|image| {
        let (repository, published) = published_in(image)?;
        // Another platform's has what is the same for all: scripts, data.
        let found = of_platform(published, platform).or(published.platforms.first())?;
        Some(format!("{repository}@{}", found.digest))
    });
    let before = done_before(known, platform).and_then(|done| {
        let repository = &known.build.spec.output.repository;
        Some(format!("{repository}@{}", done.digest.as_ref()?))
    });
    // Last: a push reads no more of these than it needs, and what is published is likeliest.
    let earlier = known.earlier.iter().take(EARLIER_MAX).filter_map(|build| {
        let platforms = &build.status.as_ref()?.platforms;
        let mut platforms = platforms.iter();
        let found = platforms.find(|found| found.platform == platform.as_str())?;
        let repository = &build.spec.output.repository;
        Some(format!("{repository}@{}", found.digest.as_ref()?))
    });
    let mut seen = BTreeSet::new();
    let all = before.into_iter().chain(published).chain(earlier);
    all.filter(|image| seen.insert(image.clone())).collect()
}

/// What this object published in its repository: a tag that points there is its own.
fn ours(known: Known<'_>) -> Vec<String> {
    let repository = &known.build.spec.output.repository;
    let published = known.image.and_then(published_in);
    let published = published.filter(|(place, _)| place == repository);
    let published = published.and_then(|(_, published)| published.digest.clone());
    let earlier = known
        .earlier
        .iter()
        .filter(|build| build.spec.output.repository == *repository)
        .filter_map(|build| build.status.as_ref()?.digest.clone());
    let mut seen = BTreeSet::new();
    let all = published.into_iter().chain(earlier);
    all.filter(|digest| seen.insert(digest.clone()))
        .take(OURS_MAX)
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
        base_secret: spec
            .output
            .base_pull_secret_ref
            .as_ref()
            .map(|secret| secret.name.clone()),
        base_ca: spec.output.base_ca_config_map_ref.as_ref().map(bundle),
        push_ca: spec.output.ca_config_map_ref.as_ref().map(bundle),
        substituter_ca: spec.build.ca_config_map_ref.as_ref().map(bundle),
        cluster_ca: site.cluster_ca.is_some(),
    }
}

#[cfg(test)]
mod tests;
