//! Revisions that wait for the build that runs, with `runPolicy: Serial`. Pure.
//!
//! They lie in status, not in memory: an operator that ends forgets none of them. Nothing else has
//! to wait there, since a changed spec and a person's request are in the object until a build
//! answers them. An entry goes when its build is there, whoever wrote status in between.

use firn_crd::NixImage;
use firn_crd::image::{QUEUED_REVISIONS_MAX, QueuedRevision, SourceStatus};
use firn_crd::policy::RunPolicy;

use super::Observed;
use super::decide::{Decision, moved_on};
use super::revision;
use super::run::Run;
use super::status::usable_revision;
use crate::source::Revision;

/// What waits still: without what has its build by now, and what an older spec wanted.
pub fn left(observed: &Observed) -> Vec<QueuedRevision> {
    let image = &observed.image;
    if image.spec.run_policy != RunPolicy::Serial {
        return Vec::new();
    }
    let generation = image.metadata.generation.unwrap_or(0);
    let status = image.status.as_ref();
    let mut left: Vec<QueuedRevision> = status
        .map(|status| status.queued_revisions.clone())
        .unwrap_or_default();
    left.retain(|entry| entry.generation == generation && commit(entry).is_some());
    for run in observed.runs.iter().filter(|run| !run.work.retag) {
        let built = |entry: &QueuedRevision| {
            entry.after < run.number && commit(entry) == Some(run.work.revision.commit.as_str())
        };
        if let Some(place) = left.iter().position(built) {
            // What stood before it was passed over when this one began.
            left.drain(..=place);
            for entry in &mut left {
                entry.after = entry.after.max(run.number);
            }
        }
    }
    left
}

/// What waits once this is decided.
pub fn wanted(observed: &Observed, decision: &Decision<'_>) -> Vec<QueuedRevision> {
    let left = left(observed);
    let last = |runs: &[Run]| {
        let run = runs.iter().rev().find(|run| !run.work.retag);
        run.map(|run| run.work.revision.clone())
    };
    match decision {
        Decision::Active(_) | Decision::Supersede(_) => queue(observed, left, last(&observed.runs)),
        Decision::Start { new, .. } => queue(observed, left, Some(new.revision.clone())),
        // None of them led to a build.
        Decision::Failed { .. } | Decision::Settled { .. } => Vec::new(),
        Decision::Suspended
        | Decision::Refused { .. }
        | Decision::Waiting
        | Decision::SourceFailed(_) => left,
    }
}

/// The revision of an entry.
pub fn revision(entry: &QueuedRevision, image: &NixImage) -> Option<Revision> {
    let source = SourceStatus {
        revision: entry.revision.clone(),
        lock_hash: entry.lock_hash.clone(),
        paths_hash: entry.paths_hash.clone(),
        commit_time: entry.commit_time.clone(),
        ..SourceStatus::default()
    };
    revision::known(&source, image.spec.source.git.as_ref()?)
}

/// Appends what the source says, if that is more than what waits or, if nothing does, is built.
fn queue(
    observed: &Observed,
    mut left: Vec<QueuedRevision>,
    built: Option<Revision>,
) -> Vec<QueuedRevision> {
    let image = &observed.image;
    let newest = left.last().and_then(|entry| revision(entry, image));
    let (Some(before), Some(now)) = (newest.or(built), usable_revision(observed)) else {
        return left;
    };
    if image.spec.run_policy != RunPolicy::Serial || !moved_on(observed, &before, now) {
        return left;
    }
    // The newest takes the last place rather than none.
    left.truncate(QUEUED_REVISIONS_MAX.saturating_sub(1));
    left.push(QueuedRevision {
        revision: Some(revision::display(now)),
        lock_hash: now.lock_hash.clone(),
        paths_hash: now.paths_hash.clone(),
        commit_time: now.commit_time.map(revision::whole_seconds),
        generation: image.metadata.generation.unwrap_or(0),
        after: observed.runs.last().map_or(0, |run| run.number),
    });
    left
}

fn commit(entry: &QueuedRevision) -> Option<&str> {
    revision::commit_of(entry.revision.as_deref()?)
}
