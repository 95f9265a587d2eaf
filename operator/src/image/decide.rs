//! What to do about an image: the first that applies, from the top. Pure, total, without a stored
//! phase: everything follows from what is observed.

use firn_crd::NixImage;
use firn_crd::build::BuildReason;
use firn_crd::build_status::BuildOutcome;
use firn_crd::exit::Reason;
use firn_crd::hash;
use firn_crd::names::{BUILD_NUMBER_MAX, build_number};
use firn_crd::output::TagPolicy;
use firn_crd::policy::RunPolicy;
use firn_crd::published::Published;
use firn_crd::trigger::TriggerMode;
use jiff::Timestamp;

use super::drift::{self, Repair};
use super::fold::Fold;
use super::queue;
use super::retry::{self, Again, Rule};
use super::revision;
use super::run::{Run, State, Work};
use super::snapshot::NewRun;
use super::template::{self, Variables};
use super::{Observed, support};
use crate::source::{Observation, Revision, SourceFailure};

/// What to do.
#[derive(Debug, Clone)]
pub enum Decision<'a> {
    /// Nothing: the spec says so.
    Suspended,
    /// Nothing: the spec asks for something that cannot be had.
    Refused {
        /// The stable word.
        reason: Reason,
        /// The field, the value and the remedy.
        message: String,
    },
    /// Wait for the build that runs.
    Active(&'a Run),
    /// End the build that runs: another one is wanted by now, and `runPolicy` says not to wait.
    Supersede(&'a Run),
    /// Wait for the first answer of the source.
    Waiting,
    /// Wait for the source: no revision is known.
    SourceFailed(&'a SourceFailure),
    /// Begin a build.
    Start {
        /// It.
        new: Box<NewRun>,
        /// The one it is compared with.
        before: Option<&'a Run>,
    },
    /// Wait after a failure.
    Failed {
        /// The build that failed.
        run: &'a Run,
        /// When it is tried again.
        again: Again,
    },
    /// Nothing: what is wanted is published.
    Settled {
        /// The source has this revision, which is not the published one and needs no build.
        ahead: Option<Revision>,
    },
}

/// What the source says, as far as it can be used.
struct Seen<'a> {
    /// The newest revision known for this spec.
    revision: Option<Revision>,
    /// Why there is no newer one.
    failure: Option<&'a SourceFailure>,
    /// Whether the revision is an answer, not a memory.
    fresh: bool,
}

/// Decides.
pub fn decide<'a>(observed: &'a Observed, fold: &'a Fold) -> Decision<'a> {
    let spec = &observed.image.spec;
    if spec.suspend {
        return Decision::Suspended;
    }
    if let Some((reason, message)) = support::refusal(spec, &observed.site.allowed) {
        return Decision::Refused { reason, message };
    }
    if let Some(message) = conflict(observed) {
        return Decision::Refused {
            reason: Reason::OutputConflict,
            message,
        };
    }
    let active = |run: &&Run| matches!(run.state, State::Active { .. });
    let active = observed.runs.iter().rev().find(active);
    let seen = seen(observed);
    if let Some(run) = active {
        let replaced = observed.image.spec.run_policy == RunPolicy::CancelRunning
            && !run.object.spec.cancel
            && seen.revision.is_some_and(|revision| {
                let wish = Wish::new(observed, fold, seen.failure, revision);
                seen.fresh && wish.replaces(run)
            });
        return if replaced {
            Decision::Supersede(run)
        } else {
            Decision::Active(run)
        };
    }
    if let Some(start) = queued(observed, fold, seen.failure) {
        return start;
    }
    let Some(revision) = seen.revision else {
        return seen
            .failure
            .map_or(Decision::Waiting, Decision::SourceFailed);
    };
    Wish::new(observed, fold, seen.failure, revision).decide(seen.fresh)
}

/// The build of the first revision that waited for its turn and is still wanted. The source need
/// not be readable for it: the revision is known.
fn queued<'a>(
    observed: &'a Observed,
    fold: &'a Fold,
    failure: Option<&'a SourceFailure>,
) -> Option<Decision<'a>> {
    queue::left(observed).iter().find_map(|entry| {
        let revision = queue::revision(entry, &observed.image)?;
        Wish::new(observed, fold, failure, revision).start_queued()
    })
}

/// Whether the source moved on from `before` to what is built by itself.
pub fn moved_on(observed: &Observed, before: &Revision, now: &Revision) -> bool {
    moved(observed, before, now, false).is_some()
}

/// Whether the source moved as the trigger says. After a failure every commit counts: it may be
/// the fix.
fn moved(
    observed: &Observed,
    before: &Revision,
    now: &Revision,
    failed: bool,
) -> Option<BuildReason> {
    if before.commit == now.commit {
        return None;
    }
    match observed.image.spec.trigger.mode {
        TriggerMode::Manual => None,
        TriggerMode::Revision => Some(BuildReason::Revision),
        TriggerMode::LockFile => {
            let touched = before.lock_hash != now.lock_hash || before.paths_hash != now.paths_hash;
            if touched {
                Some(BuildReason::LockFile)
            } else {
                failed.then_some(BuildReason::Revision)
            }
        }
    }
}

/// What is wanted, and everything it is compared with.
struct Wish<'a> {
    observed: &'a Observed,
    fold: &'a Fold,
    /// Why the source cannot be read, as far as anybody knows.
    failure: Option<&'a SourceFailure>,
    work: Work,
}

impl<'a> Wish<'a> {
    fn new(
        observed: &'a Observed,
        fold: &'a Fold,
        failure: Option<&'a SourceFailure>,
        revision: Revision,
    ) -> Self {
        let spec = &observed.image.spec;
        Self {
            observed,
            fold,
            failure,
            work: Work {
                retag: false,
                build_hash: hash::build_hash(spec),
                tags_hash: hash::tags_hash(spec),
                repository: spec.output.repository.clone(),
                revision,
            },
        }
    }

    /// Whether another build is wanted than the one that runs. The seconds of one that only moves
    /// tags are waited for.
    fn replaces(&self, running: &Run) -> bool {
        let reasons = self.reasons(Some(running));
        let asked = reasons.contains(&BuildReason::Manual);
        !running.work.retag && !reasons.is_empty() && (asked || self.remembered().is_none())
    }

    fn decide(&self, fresh: bool) -> Decision<'a> {
        let last = self.last(|run| !run.work.retag);
        if fresh {
            let reasons = self.reasons(last);
            if !reasons.is_empty() {
                let asked = reasons.contains(&BuildReason::Manual);
                return match self.remembered().filter(|_| !asked) {
                    Some(run) => Decision::Failed {
                        run,
                        again: Again::Never,
                    },
                    None => self.start(reasons, 1, last),
                };
            }
        }
        if let Some(failed) = last.filter(|run| !run.succeeded() && !self.is_needless(run)) {
            let repair = [BuildReason::Drift, BuildReason::Retry];
            let reasons = if failed.repairs() {
                &repair[..]
            } else {
                &[BuildReason::Retry]
            };
            return self.after(failed, reasons);
        }
        // Without an answer of the source nobody asked whether the spec is another by now.
        let current = |published: &&Published| {
            fresh || published.build_hash.as_ref() == Some(&self.work.build_hash)
        };
        match (self.published().filter(current), self.failure) {
            (Some(published), _) => self.retag(published),
            (None, Some(failure)) => Decision::SourceFailed(failure),
            (None, None) => Decision::Waiting,
        }
    }

    /// The build of a revision that waited. A person's request is left to the latest one.
    fn start_queued(&self) -> Option<Decision<'a>> {
        let last = self.last(|run| !run.work.retag);
        let mut reasons = self.reasons(last);
        reasons.retain(|reason| *reason != BuildReason::Manual);
        if reasons.is_empty() || self.remembered().is_some() {
            return None;
        }
        let start = self.start(reasons, 1, last);
        matches!(start, Decision::Start { .. }).then_some(start)
    }

    const fn readable(&self) -> bool {
        self.failure.is_none()
    }

    fn last(&self, of: impl Fn(&Run) -> bool) -> Option<&'a Run> {
        self.observed.runs.iter().rev().find(|run| of(run))
    }

    fn published(&self) -> Option<&'a Published> {
        self.fold.published_in(&self.work.repository)
    }

    /// All that asks for a build now, the strongest first.
    fn reasons(&self, last: Option<&Run>) -> Vec<BuildReason> {
        let mut reasons = Vec::new();
        if self.request().is_some() {
            reasons.push(BuildReason::Manual);
        }
        if self.published().is_none() && last.is_none_or(Run::succeeded) {
            reasons.push(BuildReason::Initial);
            return reasons;
        }
        // What was tried last, or what is there if nobody remembers trying.
        let tried = last.map(|run| run.work.clone());
        let there = self.published().map(|published| self.work_of(published));
        let before = tried
            .filter(|tried| tried.repository == self.work.repository)
            .or(there);
        let Some(before) = before else {
            reasons.push(BuildReason::Initial);
            return reasons;
        };
        if before.build_hash != self.work.build_hash {
            reasons.push(BuildReason::Config);
        }
        let failed = last.is_some_and(|run| run.outcome().is_some() && !run.succeeded());
        let now = &self.work.revision;
        reasons.extend(moved(self.observed, &before.revision, now, failed));
        reasons
    }

    /// A person's request that no build answers yet. The source was asked since: whoever pushes a
    /// commit and then asks means that commit.
    fn request(&self) -> Option<&'a str> {
        let request = self.observed.image.requested_build()?;
        if !answered(self.observed) {
            return None;
        }
        let answers = |run: &Run| run.requested.as_deref() == Some(request);
        (!self.observed.runs.iter().any(answers)).then_some(request)
    }

    /// A build of the same work that failed for a cause that is still in it.
    fn remembered(&self) -> Option<&'a Run> {
        self.last(|run| {
            !run.work.retag
                && run.outcome() == Some(BuildOutcome::Failed)
                && run.work.builds_the_same(&self.work)
                && rule_of(run) == Rule::NewWork
        })
    }

    /// What follows a build that did not succeed.
    fn after(&self, failed: &'a Run, reasons: &[BuildReason]) -> Decision<'a> {
        let rule = rule_of(failed);
        let changed = failed.generation() < self.observed.image.metadata.generation.unwrap_or(0);
        if rule != Rule::NewWork && self.readable() && (changed || asked_now(self.observed)) {
            return self.start(reasons.to_vec(), 1, Some(failed));
        }
        let status = failed.object.status.as_ref();
        let failure = status.and_then(|status| status.failure.as_ref());
        let again = retry::again(
            rule,
            failed.attempt,
            failed.ended_at().unwrap_or(self.observed.now),
            u32::try_from(self.observed.image.spec.build.retries).unwrap_or(0),
            failure.and_then(|failure| u32::try_from(failure.retry_after_seconds?).ok()),
            &failed.uid,
        );
        match again {
            Again::At { at, .. } if at <= self.observed.now && self.readable() => self.start(
                reasons.to_vec(),
                failed.attempt.saturating_add(1),
                Some(failed),
            ),
            _ => Decision::Failed { run: failed, again },
        }
    }

    /// What is published is what is wanted; are its tags?
    fn retag(&self, published: &'a Published) -> Decision<'a> {
        let work = self.work_of(published);
        let tags = match self.tags(&work.revision, self.number_of(published)) {
            Ok(tags) => tags,
            Err(refused) => return refused,
        };
        // What is kept is as it should be, until something else is to become of it.
        let keeps = self.observed.image.spec.output.tag_policy == TagPolicy::Keep;
        let is_kept = |tag: &String| keeps && published.kept_tags.contains(tag);
        if tags
            .iter()
            .all(|tag| published.tags.contains(tag) || is_kept(tag))
        {
            if let Some(decision) = self.put_back(published) {
                return decision;
            }
            let now = &self.work.revision;
            let ahead = work.revision.commit != now.commit;
            return Decision::Settled {
                ahead: ahead.then(|| now.clone()),
            };
        }
        let tried = self.last(|run| {
            run.work.retag
                && run.number > self.number_of(published)
                && run.work.tags_hash == self.work.tags_hash
                && run.object.spec.output.tags == tags
        });
        match tried {
            Some(run) if !run.succeeded() => {
                self.after(run, &[BuildReason::Retag, BuildReason::Retry])
            }
            _ => self.start(vec![BuildReason::Retag], 1, None),
        }
    }

    /// Whether a build was to put back what is there again: somebody else did.
    fn is_needless(&self, run: &Run) -> bool {
        let is_there = |published| drift::is_as_published(self.observed, published);
        run.repairs() && self.published().is_some_and(is_there)
    }

    /// What is published was taken from the registry, or its tags were, and is to be put back.
    fn put_back(&self, published: &'a Published) -> Option<Decision<'a>> {
        match drift::repair(self.observed, published)? {
            Repair::Retag { attempt } => {
                let reasons = vec![BuildReason::Drift, BuildReason::Retag];
                let tried = self.last(|run| run.repairs() && run.work.retag);
                let since = self.number_of(published);
                match tried.filter(|run| !run.succeeded() && run.number > since) {
                    Some(run) => {
                        let again = [reasons, vec![BuildReason::Retry]].concat();
                        Some(self.after(run, &again))
                    }
                    None => Some(self.start(reasons, attempt, None)),
                }
            }
            Repair::Build { attempt } if self.readable() => {
                let last = self.last(|run| !run.work.retag);
                Some(self.start(vec![BuildReason::Drift], attempt, last))
            }
            Repair::Build { .. } | Repair::Later(_) => None,
        }
    }

    fn start(
        &self,
        reasons: Vec<BuildReason>,
        attempt: u32,
        before: Option<&'a Run>,
    ) -> Decision<'a> {
        let status = self.observed.image.status.as_ref();
        let counter = status.and_then(|status| status.build_counter).unwrap_or(0);
        let number = counter.max(self.observed.highest_number) + 1;
        if number > BUILD_NUMBER_MAX {
            return Decision::Refused {
                reason: Reason::NotSupported,
                message: format!(
                    "all {BUILD_NUMBER_MAX} build numbers are used: delete this object and make it again"
                ),
            };
        }
        let retags = reasons.contains(&BuildReason::Retag);
        // What was published is put back, not what trigger.mode would leave alone.
        let repairs = reasons.contains(&BuildReason::Drift);
        let published = self.published().filter(|_| retags || repairs);
        let revision = published
            .map(|published| self.work_of(published).revision)
            .filter(|revision| retags || !revision.commit.is_empty())
            .unwrap_or_else(|| self.work.revision.clone());
        let tag_number = published
            .filter(|_| retags)
            .map_or(number, |published| self.number_of(published));
        match self.tags(&revision, tag_number) {
            Ok(tags) => Decision::Start {
                new: Box::new(NewRun {
                    number,
                    requested: reasons
                        .contains(&BuildReason::Manual)
                        .then(|| self.request().map(ToOwned::to_owned))
                        .flatten(),
                    reasons,
                    attempt,
                    tags,
                    revision,
                }),
                before,
            },
            Err(refused) => refused,
        }
    }

    fn tags(&self, revision: &Revision, number: i64) -> Result<Vec<String>, Decision<'a>> {
        let reference = revision.reference.as_deref();
        let variables = Variables {
            rev: revision.commit.clone(),
            number,
            lock_hash: revision.lock_hash.clone(),
            branch: reference.and_then(revision::branch).map(Into::into),
            tag: reference.and_then(revision::tag).map(Into::into),
            commit_time: revision.commit_time,
        };
        template::expand(&self.observed.image.spec.output.tags, &variables).map_err(|error| {
            Decision::Refused {
                reason: Reason::TagTemplateInvalid,
                message: error.to_string(),
            }
        })
    }

    fn number_of(&self, published: &Published) -> i64 {
        let name = self
            .observed
            .image
            .metadata
            .name
            .as_deref()
            .unwrap_or_default();
        published
            .build
            .as_deref()
            .and_then(|build| build_number(name, build))
            .unwrap_or(0)
    }

    /// What is published, in the terms of what is wanted.
    fn work_of(&self, published: &Published) -> Work {
        let commit = published.revision.as_deref().and_then(revision::commit_of);
        let known = |revision: &Revision| Some(revision.commit.as_str()) == commit;
        // Status keeps a short form of the reference, and no time of the commit.
        let full = self
            .observed
            .runs
            .iter()
            .map(|run| &run.work.revision)
            .chain([&self.work.revision])
            .find(|revision| known(revision));
        Work {
            retag: false,
            build_hash: published.build_hash.clone().unwrap_or_default(),
            tags_hash: published.tags_hash.clone().unwrap_or_default(),
            repository: self.work.repository.clone(),
            revision: Revision {
                reference: full.map_or_else(
                    || self.work.revision.reference.clone(),
                    |revision| revision.reference.clone(),
                ),
                commit: commit.unwrap_or_default().to_owned(),
                lock_hash: published.lock_hash.clone(),
                paths_hash: published.paths_hash.clone(),
                commit_time: full.and_then(|revision| revision.commit_time),
            },
        }
    }
}

/// What the source is to be asked at once, and not when its time comes: requests that were not
/// handled, and a spec that was not. Opaque but for its being another when any of them is.
pub fn question(image: &NixImage) -> Option<String> {
    let generation = image.metadata.generation;
    let status = image.status.as_ref();
    let new_spec = status.is_none_or(|status| status.observed_generation != generation);
    let parts = [
        image
            .requested_reconcile()
            .map(|value| format!("look {value}")),
        image
            .requested_build()
            .map(|value| format!("build {value}")),
        generation
            .filter(|_| new_spec)
            .map(|number| format!("generation {number}")),
    ];
    let question: Vec<String> = parts.into_iter().flatten().collect();
    (!question.is_empty()).then(|| question.join(", "))
}

/// Whether the source was asked since the newest request.
fn answered(observed: &Observed) -> bool {
    observed.source.answered.is_some() && observed.source.answered == question(&observed.image)
}

/// A person asks to look again, and the source was looked at again since.
pub fn asked_now(observed: &Observed) -> bool {
    observed.image.requested_reconcile().is_some() && answered(observed)
}

/// The rule after a build that did not succeed.
pub fn rule_of(run: &Run) -> Rule {
    match run.outcome() {
        Some(BuildOutcome::Cancelled) => Rule::Asked,
        Some(BuildOutcome::Superseded) => Rule::Limited,
        _ => {
            let status = run.object.status.as_ref();
            let failure = status.and_then(|status| status.failure.as_ref());
            failure.map_or(Rule::Limited, |failure| {
                retry::rule(failure.known_reason(), failure.class)
            })
        }
    }
}

fn seen(observed: &Observed) -> Seen<'_> {
    match &observed.source.observation {
        Observation::Resolved {
            revision,
            incomplete,
            ..
        } => match incomplete.as_ref().filter(|_| needs_everything(observed)) {
            None => Seen {
                revision: Some(revision.clone()),
                failure: None,
                fresh: true,
            },
            failure => Seen {
                revision: known(observed),
                failure,
                fresh: false,
            },
        },
        Observation::Pending => Seen {
            revision: known(observed),
            failure: None,
            fresh: false,
        },
        Observation::Failed { failure, .. } => Seen {
            revision: known(observed),
            failure: Some(failure),
            fresh: false,
        },
    }
}

/// Whether the commit alone is not enough.
pub fn needs_everything(observed: &Observed) -> bool {
    let spec = &observed.image.spec;
    let named = |variable: &str| spec.output.tags.iter().any(|tag| tag.contains(variable));
    spec.trigger.mode == TriggerMode::LockFile || named("${lockHash}") || named("${commitDate}")
}

/// The revision in status, if status speaks of this very spec.
pub fn known(observed: &Observed) -> Option<Revision> {
    let image = &observed.image;
    let status = image.status.as_ref()?;
    if status.observed_generation != image.metadata.generation {
        return None;
    }
    revision::known(status.source.as_ref()?, image.spec.source.git.as_ref()?)
}

/// An older image that owns one of the tags.
fn conflict(observed: &Observed) -> Option<String> {
    let spec = &observed.image.spec;
    let metadata = &observed.image.metadata;
    let born: (Option<Timestamp>, String) = (
        metadata.creation_timestamp.as_ref().map(|time| time.0),
        metadata.uid.clone().unwrap_or_default(),
    );
    observed.rivals.iter().find_map(|rival| {
        let shared = spec.output.tags.iter().find(|tag| rival.tags.contains(tag))?;
        (rival.born < born).then(|| {
            format!(
                "output.tags: {shared:?} of {} belongs to the older NixImage {}: choose another tag or repository",
                spec.output.repository, rival.name
            )
        })
    })
}
