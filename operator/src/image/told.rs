//! What people are told about an image: one event per transition, found by comparing status before
//! and after. Pure.

use firn_crd::NixImageStatus;
use firn_crd::build_status::BuildOutcome;
use firn_crd::condition::{ConditionType, find_condition};
use firn_crd::event::EventReason;
use firn_crd::exit::Reason;
use firn_crd::failure::Failure;
use firn_crd::policy::OnDrift;
use firn_crd::trigger::TriggerMode;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::Observed;
use super::decide::Decision;
use super::plan::Action;
use super::retry::Again;
use super::revision;
use super::run::{Run, reasons};
use crate::events::Event;

/// The events of the change from `old` to `new`.
pub fn events(
    old: &NixImageStatus,
    new: &NixImageStatus,
    observed: &Observed,
    decision: &Decision<'_>,
) -> Vec<Event> {
    let ended = ended(old, new, observed);
    [
        source(old, new, observed),
        ended.and_then(|run| of_end(run, new, decision)),
        trouble(old, new, decision),
        drift(old, new, observed),
        started(decision, new),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// What the clean-up is about to delete.
pub fn pruned(cleanup: &[Action]) -> Option<Event> {
    let names: Vec<&str> = cleanup
        .iter()
        .filter_map(|action| match action {
            Action::DeleteBuild { name, .. } => Some(name.as_str()),
            Action::CreateBuild(_) | Action::SupersedeBuild { .. } => None,
        })
        .collect();
    let newest = names.last()?;
    Some(Event::new(
        EventReason::HistoryPruned,
        *newest,
        format!(
            "spec.history keeps no more: finished builds deleted: {}",
            names.join(", ")
        ),
    ))
}

/// The newest build, if its end is what status takes in now: each kind of end leaves a trace of
/// its own there, which a restart or another reason to write does not leave twice.
fn ended<'a>(
    old: &NixImageStatus,
    new: &NixImageStatus,
    observed: &'a Observed,
) -> Option<&'a Run> {
    let run = observed.runs.last()?;
    let before = old.published.clone().unwrap_or_default();
    let now = new.published.clone().unwrap_or_default();
    let failed = |status: &NixImageStatus| {
        status
            .failure
            .as_ref()
            .and_then(|failure| failure.build.clone())
    };
    let news = match run.outcome()? {
        BuildOutcome::Published => before.build != now.build,
        BuildOutcome::NotChanged => {
            (before.revision, before.build_hash) != (now.revision, now.build_hash)
        }
        BuildOutcome::Retagged => before.tags != now.tags,
        BuildOutcome::Failed | BuildOutcome::Cancelled | BuildOutcome::Superseded => {
            failed(old) != failed(new) && failed(new).as_deref() == Some(run.name.as_str())
        }
    };
    news.then_some(run)
}

fn of_end(run: &Run, new: &NixImageStatus, decision: &Decision<'_>) -> Option<Event> {
    let status = run.object.status.as_ref()?;
    let image = new.latest_image.as_deref().unwrap_or_default();
    let tags = status.tags.join(", ");
    Some(match run.outcome()? {
        BuildOutcome::Published => {
            let published = new.published.clone().unwrap_or_default();
            Event::new(
                EventReason::ImagePushed,
                &run.name,
                format!(
                    "{image}: {} of {} layers sent ({} bytes), {} reused, {} mounted; tags: {tags}",
                    published.layers_pushed.unwrap_or(0),
                    published.layers_total.unwrap_or(0),
                    published.bytes_pushed.unwrap_or(0),
                    published.layers_reused.unwrap_or(0),
                    published.layers_mounted.unwrap_or(0),
                ),
            )
        }
        BuildOutcome::NotChanged => Event::new(
            EventReason::BuildSkipped,
            &run.name,
            format!(
                "{} gives the published derivation",
                revision::brief(&run.work.revision)
            ),
        ),
        BuildOutcome::Retagged => Event::new(
            EventReason::TagsUpdated,
            &run.name,
            format!("{image}: tags: {tags}"),
        ),
        BuildOutcome::Cancelled => Event::new(
            EventReason::BuildCancelled,
            &run.name,
            format!("build {} was cancelled", run.name),
        ),
        BuildOutcome::Superseded => Event::new(
            EventReason::BuildSuperseded,
            &run.name,
            if run.object.spec.cancel {
                format!("build {} was cancelled for a newer one", run.name)
            } else {
                format!(
                    "build {} moved no tag: a newer one did, or its time was over",
                    run.name
                )
            },
        ),
        BuildOutcome::Failed => of_failure(run, decision),
    })
}

fn of_failure(run: &Run, decision: &Decision<'_>) -> Event {
    let failure = run
        .object
        .status
        .as_ref()
        .and_then(|status| status.failure.clone());
    let reason = failure.as_ref().and_then(Failure::known_reason);
    let container = failure
        .as_ref()
        .and_then(|failure| failure.container.clone());
    let message = failure
        .and_then(|failure| failure.message)
        .unwrap_or_else(|| "no reason is known".to_owned());
    let word = reason.map_or("InternalError", Into::into);
    if let Decision::Failed {
        again: Again::At {
            at,
            by_itself: true,
            ..
        },
        ..
    } = decision
    {
        return Event::new(
            EventReason::BuildRetrying,
            &run.name,
            format!(
                "try {} failed ({word}), next at {at}: {message}",
                run.attempt
            ),
        );
    }
    let event = match (reason, container.as_deref()) {
        (Some(Reason::SandboxUnavailable), _) => EventReason::SandboxUnavailable,
        (Some(Reason::SecretMissing), _) => EventReason::SecretMissing,
        (Some(Reason::PodEvicted), _) => EventReason::PodEvicted,
        (_, Some("fetch")) => EventReason::SourceFetchFailed,
        (_, Some("check" | "push")) => EventReason::PushFailed,
        _ => EventReason::BuildFailed,
    };
    Event::new(event, &run.name, format!("{word}: {message}"))
}

/// Trouble without a build.
fn trouble(old: &NixImageStatus, new: &NixImageStatus, decision: &Decision<'_>) -> Option<Event> {
    let changed = |kind| {
        let of = |status: &NixImageStatus| {
            find_condition(&status.conditions, kind)
                .map(|condition| (condition.status.clone(), condition.reason.clone()))
        };
        of(old) != of(new)
    };
    let source = find_condition(&new.conditions, ConditionType::SourceReady)
        .filter(|condition| condition.status == "False");
    match (source, decision) {
        (_, Decision::Refused { reason, message }) if changed(ConditionType::Stalled) => {
            let note = format!("{reason}: {message}");
            Some(Event::new(EventReason::BuildFailed, "Reconcile", note))
        }
        (Some(condition), _) if changed(ConditionType::SourceReady) => Some(Event::new(
            EventReason::SourceFetchFailed,
            "Poll",
            format!("{}: {}", condition.reason, condition.message),
        )),
        _ => None,
    }
}

/// The registry has something else than was published, or has it again.
fn drift(old: &NixImageStatus, new: &NixImageStatus, observed: &Observed) -> Option<Event> {
    fn of(status: &NixImageStatus) -> Option<&Condition> {
        find_condition(&status.conditions, ConditionType::TagDrift)
            .filter(|condition| condition.status == "True")
    }
    match (of(old), of(new)) {
        (before, Some(now)) if before.is_none_or(|before| before.reason != now.reason) => {
            let note = format!("{}: {}", now.reason, now.message);
            Some(Event::new(EventReason::TagDrift, &now.reason, note))
        }
        // Whoever does not want to know any more is not told that it is well.
        (Some(_), None)
            if observed.image.spec.verification.on_drift != OnDrift::Ignore
                && find_condition(&new.conditions, ConditionType::TagDrift).is_none() =>
        {
            let image = new.latest_image.as_deref()?;
            // Another repository has another image, or none yet.
            let repository = &observed.image.spec.output.repository;
            let here = image.strip_prefix(repository.as_str());
            here.filter(|rest| rest.starts_with('@'))?;
            let build = new.published.as_ref().and_then(|now| now.build.clone());
            Some(Event::new(
                EventReason::DriftRepaired,
                build.unwrap_or_else(|| "Verify".to_owned()),
                format!("{image} and its tags are in the registry"),
            ))
        }
        _ => None,
    }
}

fn source(old: &NixImageStatus, new: &NixImageStatus, observed: &Observed) -> Option<Event> {
    let before = old.source.as_ref();
    let now = new.source.as_ref()?;
    let revision = now.revision.as_deref()?;
    if before.and_then(|before| before.revision.as_deref()) == Some(revision) {
        return None;
    }
    let lock = before.is_some_and(|before| before.lock_hash != now.lock_hash)
        && observed.image.spec.trigger.mode == TriggerMode::LockFile;
    let word = if lock {
        EventReason::LockFileChanged
    } else {
        EventReason::NewRevision
    };
    Some(Event::new(
        word,
        revision_action(revision),
        format!("the source is at {revision}"),
    ))
}

/// The recorder merges events that have the same action: each revision has its own, of the 128
/// characters that the API server takes.
fn revision_action(revision: &str) -> String {
    revision::commit_of(revision).unwrap_or("Poll").to_owned()
}

fn started(decision: &Decision<'_>, new: &NixImageStatus) -> Option<Event> {
    let Decision::Start { new: run, .. } = decision else {
        return None;
    };
    let name = new.latest_build_ref.as_ref()?.name.clone()?;
    let note = format!(
        "build {name} ({}) of {}",
        reasons(&run.reasons),
        revision::brief(&run.revision)
    );
    Some(Event::new(EventReason::BuildQueued, name, note))
}
