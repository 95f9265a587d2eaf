//! What is published, from status and from the builds that ended since. Pure, and the same again
//! when applied again: a crash between a build's end and the write of status loses nothing.

use firn_crd::build_status::{BuildOutcome, NixImageBuildStatus};
use firn_crd::names::build_number;
use firn_crd::published::{Published, PublishedPlatform};

use super::Observed;
use super::revision;
use super::run::Run;

/// What is published.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fold {
    /// `repository@sha256:…`
    pub latest_image: Option<String>,
    /// The same with all that is known about it.
    pub published: Option<Published>,
}

impl Fold {
    /// What is published in this repository.
    pub fn published_in(&self, repository: &str) -> Option<&Published> {
        let there = self
            .latest_image
            .as_deref()
            .and_then(|image| image.strip_prefix(repository))
            .is_some_and(|rest| rest.starts_with('@'));
        self.published.as_ref().filter(|_| there)
    }
}

/// What is published now.
pub fn fold(observed: &Observed) -> Fold {
    let old = observed.image.status.clone().unwrap_or_default();
    let mut fold = Fold {
        latest_image: old.latest_image,
        published: old.published,
    };
    for run in observed.runs.iter().filter(|run| run.succeeded()) {
        let since = fold
            .published
            .as_ref()
            .and_then(|published| published.build.as_deref())
            .and_then(|build| build_number(observed.image.metadata.name.as_deref()?, build))
            .unwrap_or(0);
        if run.number > since {
            apply(&mut fold, run);
        }
    }
    fold
}

fn apply(fold: &mut Fold, run: &Run) {
    let Some(status) = run.object.status.as_ref() else {
        return;
    };
    match (run.outcome(), &mut fold.published) {
        (Some(BuildOutcome::Published), _) => {
            if let Some(digest) = &status.digest {
                fold.latest_image = Some(format!("{}@{digest}", run.work.repository));
                fold.published = Some(of_build(run, status));
            }
        }
        (Some(BuildOutcome::NotChanged), Some(published)) => {
            published.revision = Some(revision::display(&run.work.revision));
            published.lock_hash.clone_from(&run.work.revision.lock_hash);
            published
                .paths_hash
                .clone_from(&run.work.revision.paths_hash);
            published.build_hash = Some(run.work.build_hash.clone());
        }
        (Some(BuildOutcome::Retagged), Some(published)) => {
            published.tags.clone_from(&status.tags);
            published.kept_tags.clone_from(&status.kept_tags);
            published.tags_hash = Some(run.work.tags_hash.clone());
        }
        _ => {}
    }
}

fn of_build(run: &Run, status: &NixImageBuildStatus) -> Published {
    let platforms = &status.platforms;
    let sum = |field: fn(&firn_crd::build_status::PlatformStatus) -> Option<i32>| {
        platforms
            .iter()
            .filter_map(field)
            .reduce(i32::saturating_add)
    };
    Published {
        digest: status.digest.clone(),
        media_type: status.media_type.clone(),
        tags: status.tags.clone(),
        kept_tags: status.kept_tags.clone(),
        platforms: platforms
            .iter()
            .filter_map(|platform| {
                Some(PublishedPlatform {
                    platform: platform.platform.clone(),
                    digest: platform.digest.clone()?,
                    drv_path: platform.drv_path.clone(),
                    out_path: platform.out_path.clone(),
                    size_bytes: platform.size_bytes,
                })
            })
            .collect(),
        size_bytes: status.size_bytes,
        layers_total: sum(|platform| platform.layers_total),
        layers_pushed: sum(|platform| platform.layers_pushed),
        layers_mounted: sum(|platform| platform.layers_mounted),
        layers_reused: sum(|platform| platform.layers_reused),
        bytes_pushed: status.bytes_pushed,
        pushed_at: status.completion_time.clone(),
        revision: Some(revision::display(&run.work.revision)),
        lock_hash: run.work.revision.lock_hash.clone(),
        paths_hash: run.work.revision.paths_hash.clone(),
        build: Some(run.name.clone()),
        build_hash: Some(run.work.build_hash.clone()),
        tags_hash: Some(run.work.tags_hash.clone()),
        signature_digest: status.signature_digest.clone(),
        provenance_digest: status.provenance_digest.clone(),
        sbom_digest: status.sbom_digest.clone(),
    }
}
