//! What status says. Pure. Nothing here differs in a time only: a quiet image is never written.

use firn_crd::NixImageStatus;
use firn_crd::build_status::BuildOutcome;
use firn_crd::condition::{
    ConditionReason as Word, ConditionStatus, ConditionType, NewCondition, find_condition,
    remove_condition, set_condition,
};
use firn_crd::exit::{Class, Reason};
use firn_crd::failure::Failure;
use firn_crd::image::BuildRef;
use firn_crd::names::build_name;
use firn_crd::report::first_bytes;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::ResourceExt;

use super::Observed;
use super::decide::{Decision, asked_now, needs_everything};
use super::drift::{self, Said};
use super::fold::Fold;
use super::queue;
use super::retry::Again;
use super::revision::{self, whole_seconds};
use super::run::{Run, reasons};
use crate::source::{Observation, Revision, SourceFailure};

/// Status before any of it is known: kstatus takes it for work in progress.
const UNOBSERVED: i64 = -1;

/// What status says now.
pub fn status(observed: &Observed, fold: &Fold, decision: &Decision<'_>) -> NixImageStatus {
    let image = &observed.image;
    let mut status = image.status.clone().unwrap_or_default();
    status.latest_image.clone_from(&fold.latest_image);
    status.published.clone_from(&fold.published);
    if let Some(revision) = usable_revision(observed) {
        let now = whole_seconds(observed.now);
        status.source = Some(revision::status(revision, status.source.as_ref(), now));
    }
    status.queued_revisions = queue::wanted(observed, decision);
    latest_build(&mut status, observed, decision);
    status.last_handled_build_at =
        handled_build(observed, decision).or(status.last_handled_build_at);
    status.last_handled_reconcile_at =
        handled_reconcile(observed, decision).or(status.last_handled_reconcile_at);
    status.failure = failure(status.failure.as_ref(), decision);
    conditions(&mut status, observed, fold, decision);
    let done = |kind| {
        find_condition(&status.conditions, kind).is_some_and(|condition| condition.status == "True")
    };
    let handled = !matches!(decision, Decision::Suspended)
        && (done(ConditionType::Ready) || done(ConditionType::Stalled));
    status.observed_generation = if handled {
        image.metadata.generation
    } else {
        status.observed_generation.or(Some(UNOBSERVED))
    };
    status
}

/// A revision of which everything is known that the spec needs.
pub fn usable_revision(observed: &Observed) -> Option<&Revision> {
    match &observed.source.observation {
        Observation::Resolved {
            revision,
            incomplete,
            ..
        } => (incomplete.is_none() || !needs_everything(observed)).then_some(revision),
        Observation::Pending | Observation::Failed { .. } => None,
    }
}

fn latest_build(status: &mut NixImageStatus, observed: &Observed, decision: &Decision<'_>) {
    let image = &observed.image;
    if let Some(run) = observed.runs.last() {
        status.latest_build_ref = Some(BuildRef {
            name: Some(run.name.clone()),
            uid: Some(run.uid.clone()),
        });
        status.latest_build_reason = Some(first_bytes(&run.reasons(), 256).to_owned());
        status.latest_build_generation = Some(run.generation());
        status.build_counter = status.build_counter.max(Some(run.number));
    }
    if let Decision::Start { new, .. } = decision {
        status.latest_build_ref = Some(BuildRef {
            name: Some(build_name(&image.name_any(), new.number)),
            uid: None,
        });
        status.latest_build_reason = Some(first_bytes(&reasons(&new.reasons), 256).to_owned());
        status.latest_build_generation = image.metadata.generation;
        status.build_counter = Some(new.number);
    }
}

/// A request to build is handled once a build for it exists.
fn handled_build(observed: &Observed, decision: &Decision<'_>) -> Option<String> {
    let request = observed.image.requested_build()?;
    let starts = match decision {
        Decision::Start { new, .. } => new.requested.as_deref() == Some(request),
        _ => false,
    };
    let answers = |run: &Run| run.requested.as_deref() == Some(request);
    (starts || observed.runs.iter().any(answers)).then(|| request.to_owned())
}

/// A request to look again is handled once the source was asked since, or when nothing there
/// matters.
fn handled_reconcile(observed: &Observed, decision: &Decision<'_>) -> Option<String> {
    let request = observed.image.requested_reconcile()?;
    let pointless = matches!(decision, Decision::Refused { .. });
    (asked_now(observed) || pointless).then(|| request.to_owned())
}

fn failure(old: Option<&Failure>, decision: &Decision<'_>) -> Option<Failure> {
    match decision {
        Decision::Failed { run, again } => Some(of_run(run, *again)),
        Decision::Refused { reason, message } => Some(Failure::new(*reason, message)),
        Decision::SourceFailed(failure) => Some(Failure::new(failure.reason(), &failure.message)),
        Decision::Settled { .. } => None,
        // While nothing is decided, or another try is under way, the last failure stays to be read.
        Decision::Suspended
        | Decision::Active(_)
        | Decision::Supersede(_)
        | Decision::Waiting
        | Decision::Start { .. } => old.cloned().map(|failure| Failure {
            next_retry_at: None,
            ..failure
        }),
    }
}

fn of_run(run: &Run, again: Again) -> Failure {
    let told = run
        .object
        .status
        .as_ref()
        .and_then(|status| status.failure.clone());
    let failure = told.unwrap_or_else(|| {
        let outcome = run.outcome().map_or("is not over", Into::into);
        let reason = match run.outcome() {
            Some(BuildOutcome::Superseded) => Reason::Superseded,
            _ => Reason::Cancelled,
        };
        Failure::new(reason, &format!("build {} ended as {outcome}", run.name))
    });
    Failure {
        build: Some(run.name.clone()),
        attempts: i32::try_from(run.attempt).ok(),
        next_retry_at: match again {
            Again::Never => None,
            Again::At { at, .. } => Some(Time(at)),
        },
        ..failure
    }
}

/// Why a build did not succeed, in the words that status and metrics share.
pub fn reason_of(run: &Run) -> Reason {
    of_run(run, Again::Never)
        .known_reason()
        .unwrap_or(Reason::InternalError)
}

/// All conditions that this controller owns.
fn conditions(
    status: &mut NixImageStatus,
    observed: &Observed,
    fold: &Fold,
    decision: &Decision<'_>,
) {
    let generation = observed.image.metadata.generation;
    let now = whole_seconds(observed.now);
    match drift::said(observed, fold, decision) {
        Said::Kept => {}
        Said::Absent => remove_condition(&mut status.conditions, ConditionType::TagDrift),
        Said::Is(new) => set_condition(&mut status.conditions, new, generation, &now),
    }
    let missing: &'static str = Word::DigestMissing.into();
    let is_missing = find_condition(&status.conditions, ConditionType::TagDrift)
        .is_some_and(|drift| drift.status == "True" && drift.reason == missing);
    let latest = status.latest_image.as_deref();
    let told = readiness(observed, decision, latest);
    let always = [
        told.ready,
        source_ready(observed, decision),
        Some(available(latest, is_missing)),
    ];
    for new in always.into_iter().flatten() {
        set_condition(&mut status.conditions, new, generation, &now);
    }
    for (kind, new) in [
        (ConditionType::Reconciling, told.reconciling),
        (ConditionType::Stalled, told.stalled),
    ] {
        match new {
            Some(new) => set_condition(&mut status.conditions, new, generation, &now),
            None => remove_condition(&mut status.conditions, kind),
        }
    }
}

fn available(latest: Option<&str>, is_missing: bool) -> NewCondition {
    let kind = ConditionType::Available;
    match latest {
        Some(image) if is_missing => NewCondition::new(
            kind,
            ConditionStatus::False,
            Word::ImageMissing,
            format!("{image} is not in the registry any more"),
        ),
        Some(image) => NewCondition::new(
            kind,
            ConditionStatus::True,
            Word::ImagePublished,
            format!("{image} can be deployed"),
        ),
        None => NewCondition::new(
            kind,
            ConditionStatus::False,
            Word::NeverBuilt,
            "nothing was published yet",
        ),
    }
}

fn source_ready(observed: &Observed, decision: &Decision<'_>) -> Option<NewCondition> {
    let kind = ConditionType::SourceReady;
    if matches!(decision, Decision::Suspended | Decision::Refused { .. }) {
        // Nobody asks the source: what was known stays.
        return None;
    }
    match &observed.source.observation {
        Observation::Pending => {
            let status = observed.image.status.as_ref();
            let old = status.and_then(|status| find_condition(&status.conditions, kind));
            let current = old
                .is_some_and(|old| old.observed_generation == observed.image.metadata.generation);
            (!current).then(|| {
                NewCondition::new(
                    kind,
                    ConditionStatus::Unknown,
                    Word::Polling,
                    "the source was not asked yet",
                )
            })
        }
        Observation::Resolved {
            revision,
            incomplete,
            ..
        } => Some(
            match incomplete.as_ref().filter(|_| needs_everything(observed)) {
                None => NewCondition::new(
                    kind,
                    ConditionStatus::True,
                    Word::Fetched,
                    format!("the source is at {}", revision::brief(revision)),
                ),
                Some(failure) => source_failed(failure),
            },
        ),
        Observation::Failed { failure, .. } => Some(source_failed(failure)),
    }
}

fn source_failed(failure: &SourceFailure) -> NewCondition {
    NewCondition::failed(
        ConditionType::SourceReady,
        ConditionStatus::False,
        failure.reason(),
        failure.message.clone(),
    )
}

/// Ready, and the abnormal conditions that go with it.
struct Readiness {
    /// `None`: it keeps its value.
    ready: Option<NewCondition>,
    reconciling: Option<NewCondition>,
    stalled: Option<NewCondition>,
}

fn readiness(observed: &Observed, decision: &Decision<'_>, latest: Option<&str>) -> Readiness {
    match decision {
        Decision::Suspended => Readiness {
            ready: suspended_at_birth(observed),
            reconciling: None,
            stalled: None,
        },
        Decision::Refused { reason, message } => stalled(*reason, *reason, message),
        Decision::Waiting => progressing(
            Word::Progressing,
            "waiting for the first answer of the source".to_owned(),
        ),
        Decision::Active(run) => {
            let (word, message) = match &run.state {
                super::run::State::Active { reason, message } => (*reason, message.as_str()),
                super::run::State::Ended { .. } => (Word::Building, ""),
            };
            let detail = if message.is_empty() {
                String::new()
            } else {
                format!(": {message}")
            };
            let waiting = match queue::wanted(observed, decision).len() {
                0 => String::new(),
                waiting => format!("; queued after it: {waiting}"),
            };
            progressing(
                word,
                format!("build {} ({}){detail}{waiting}", run.name, run.reasons()),
            )
        }
        Decision::Supersede(run) => progressing(
            Word::Progressing,
            format!("build {} ends: a newer one is wanted", run.name),
        ),
        Decision::Start { new, .. } => progressing(
            Word::Queued,
            format!(
                "build {} ({}) of {}",
                build_name(&observed.image.name_any(), new.number),
                reasons(&new.reasons),
                revision::brief(&new.revision)
            ),
        ),
        Decision::SourceFailed(failure) => {
            let message = &failure.message;
            if failure.class() == Class::User {
                stalled(failure.reason(), failure.reason(), message)
            } else {
                retrying(failure.reason(), message, message.clone())
            }
        }
        Decision::Failed { run, again } => failed(run, *again),
        Decision::Settled { ahead } => settled(observed, latest, ahead.as_ref()),
    }
}

fn settled(observed: &Observed, latest: Option<&str>, ahead: Option<&Revision>) -> Readiness {
    let published = format!("{} is published", latest.unwrap_or("the image"));
    let ahead = ahead.map(|revision| {
        format!(
            "the source is ahead at {}, which trigger.mode {} does not build",
            revision::brief(revision),
            observed.image.spec.trigger.mode
        )
    });
    let stale = stale_since(observed)
        .map(|since| format!("stale since {since}: the source cannot be read"));
    let message: Vec<String> = [Some(published), ahead, stale]
        .into_iter()
        .flatten()
        .collect();
    let last = observed.runs.iter().rev().find(|run| !run.work.retag);
    let not_changed = last.is_some_and(|run| run.outcome() == Some(BuildOutcome::NotChanged));
    let word = if not_changed {
        Word::NotChanged
    } else {
        Word::Succeeded
    };
    Readiness {
        ready: Some(NewCondition::new(
            ConditionType::Ready,
            ConditionStatus::True,
            word,
            message.join("; "),
        )),
        reconciling: None,
        stalled: None,
    }
}

/// Ready keeps its value while an image is suspended, if it has one.
fn suspended_at_birth(observed: &Observed) -> Option<NewCondition> {
    let status = observed.image.status.as_ref();
    let ready = status.and_then(|status| find_condition(&status.conditions, ConditionType::Ready));
    ready.is_none().then(|| {
        NewCondition::new(
            ConditionType::Ready,
            ConditionStatus::Unknown,
            Word::Progressing,
            "spec.suspend is true: nothing is polled or built",
        )
    })
}

/// Since when the source fails: the time at which the condition turned, or turns now.
fn stale_since(observed: &Observed) -> Option<String> {
    let Observation::Failed { .. } = &observed.source.observation else {
        return None;
    };
    let status = observed.image.status.as_ref();
    let old = status
        .and_then(|status| find_condition(&status.conditions, ConditionType::SourceReady))
        .filter(|condition: &&Condition| condition.status == "False");
    let since = old.map_or_else(
        || whole_seconds(observed.now).0,
        |condition| condition.last_transition_time.0,
    );
    Some(since.to_string())
}

fn failed(run: &Run, again: Again) -> Readiness {
    let failure = of_run(run, again);
    let reason = reason_of(run);
    let message = failure.message.unwrap_or_default();
    match again {
        Again::At {
            at,
            by_itself: true,
            ..
        } => retrying(
            reason,
            &message,
            format!("build {} failed; tried again at {at}", run.name),
        ),
        Again::At {
            exhausted: true, ..
        } => Readiness {
            stalled: Some(NewCondition::failed(
                ConditionType::Stalled,
                ConditionStatus::True,
                Reason::RetriesExhausted,
                format!("all retries were used: {message}"),
            )),
            ..stalled(reason, reason, &message)
        },
        Again::Never | Again::At { .. } => stalled(reason, reason, &message),
    }
}

fn progressing(word: Word, message: String) -> Readiness {
    Readiness {
        ready: Some(NewCondition::new(
            ConditionType::Ready,
            ConditionStatus::Unknown,
            word,
            message.clone(),
        )),
        reconciling: Some(NewCondition::new(
            ConditionType::Reconciling,
            ConditionStatus::True,
            word,
            message,
        )),
        stalled: None,
    }
}

fn retrying(reason: Reason, message: &str, plan: String) -> Readiness {
    Readiness {
        ready: Some(not_ready(reason, message)),
        reconciling: Some(NewCondition::new(
            ConditionType::Reconciling,
            ConditionStatus::True,
            Word::ProgressingWithRetry,
            plan,
        )),
        stalled: None,
    }
}

fn stalled(ready: Reason, stalled: Reason, message: &str) -> Readiness {
    Readiness {
        ready: Some(not_ready(ready, message)),
        reconciling: None,
        stalled: Some(NewCondition::failed(
            ConditionType::Stalled,
            ConditionStatus::True,
            stalled,
            message,
        )),
    }
}

fn not_ready(reason: Reason, message: &str) -> NewCondition {
    NewCondition::failed(
        ConditionType::Ready,
        ConditionStatus::False,
        reason,
        message,
    )
}
