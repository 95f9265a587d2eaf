//! What a build's status says. Pure. Nothing here differs in a time only.

use firn_crd::build_status::{
    BuildOutcome, NixImageBuildStatus, PlatformState, PlatformStatus, StageStatus,
};
use firn_crd::condition::{
    ConditionReason as Word, ConditionStatus, ConditionType, NewCondition, find_condition,
    remove_condition, set_condition,
};
use firn_crd::event::EventReason;
use firn_crd::exit::Reason;
use firn_crd::failure;
use firn_crd::report::StageName;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use super::progress::{Progress, job_started};
use super::report::{self, Failure, Success};
use super::{Observed, order};
use crate::events::Event;
use crate::image::revision::whole_seconds;

/// For what is done once and not for each platform.
const ONCE: &str = "*";

/// What status says now.
pub fn status(observed: &Observed, progress: &Progress) -> NixImageBuildStatus {
    let build = &observed.build;
    let mut status = build.status.clone().unwrap_or_default();
    status.observed_generation = build.metadata.generation;
    status.start_time = status
        .start_time
        .or_else(|| build.creation_timestamp())
        .or_else(|| Some(whole_seconds(observed.now)));
    status.effective_isolation = Some("Restricted".to_owned());
    status.platforms = vec![platform(observed, progress)];
    status.stages = stages(observed);
    match progress {
        Progress::Succeeded(success) => succeeded(&mut status, observed, success),
        Progress::Failed(failure) => {
            end(&mut status, observed, BuildOutcome::Failed);
            status.failure = Some(failure_status(observed, failure));
        }
        Progress::Cancelled => end(&mut status, observed, BuildOutcome::Cancelled),
        Progress::Unmade
        | Progress::Refused(_)
        | Progress::Queued(_)
        | Progress::Next
        | Progress::Pending(_)
        | Progress::Running(_)
        | Progress::Ending => {}
    }
    if let Progress::Failed(Failure {
        reason: Reason::NotLatest,
        ..
    }) = progress
    {
        status.outcome = Some(BuildOutcome::Superseded);
    }
    conditions(&mut status, observed, progress);
    status
}

fn succeeded(status: &mut NixImageBuildStatus, observed: &Observed, success: &Success) {
    let tags = observed.build.spec.output.tags.clone();
    match success {
        Success::Pushed(pushed) => {
            end(status, observed, BuildOutcome::Published);
            status.digest = Some(pushed.digest.clone());
            status.media_type = Some(pushed.media_type.clone());
            status.size_bytes = Some(pushed.size_bytes);
            status.bytes_pushed = Some(pushed.bytes_pushed);
            status.tags = tags;
        }
        Success::NotChanged { .. } => {
            end(status, observed, BuildOutcome::NotChanged);
            status.digest = published_digest(observed);
        }
        Success::Retagged { digest } => {
            end(status, observed, BuildOutcome::Retagged);
            status.digest = Some(digest.clone());
            status.tags = tags;
        }
    }
}

fn published_digest(observed: &Observed) -> Option<String> {
    let status = observed.image.as_ref()?.status.as_ref()?;
    status.published.as_ref()?.digest.clone()
}

fn end(status: &mut NixImageBuildStatus, observed: &Observed, outcome: BuildOutcome) {
    let ended = observed
        .pods
        .last()
        .and_then(report::finished)
        .unwrap_or(observed.now);
    let started = status.start_time.as_ref().map_or(ended, |time| time.0);
    let seconds = (ended.as_second() - started.as_second()).max(0);
    let duration = std::time::Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    status.outcome = Some(outcome);
    status.completion_time = Some(whole_seconds(ended));
    status.duration = Some(firn_crd::Duration::of(duration).to_string());
}

fn failure_status(observed: &Observed, failure: &Failure) -> failure::Failure {
    let Failure {
        reason,
        message,
        container,
        exit_code,
        drv_path,
        log_tail,
        retry_after,
    } = failure;
    failure::Failure {
        platform: Some(
            order::platform(&observed.build)
                .platform
                .as_str()
                .to_owned(),
        ),
        container: container.map(|container| container.to_string()),
        exit_code: *exit_code,
        drv_path: drv_path.clone(),
        retry_after_seconds: retry_after.and_then(|seconds| i32::try_from(seconds).ok()),
        attempts: i32::try_from(observed.pods.len().max(1)).ok(),
        ..failure::Failure::new(*reason, message)
            .with_log_tail(log_tail.as_deref().unwrap_or_default())
    }
}

fn platform(observed: &Observed, progress: &Progress) -> PlatformStatus {
    let name = order::platform(&observed.build).platform.as_str();
    let old = observed
        .build
        .status
        .as_ref()
        .and_then(|status| status.platforms.first().cloned());
    let state = match progress {
        Progress::Unmade | Progress::Refused(_) | Progress::Queued(_) | Progress::Next => {
            PlatformState::Queued
        }
        Progress::Pending(_) => PlatformState::Pending,
        Progress::Running(_) => PlatformState::Running,
        Progress::Ending => old.as_ref().map_or(PlatformState::Queued, |old| old.state),
        Progress::Succeeded(Success::NotChanged { .. }) => PlatformState::NotChanged,
        Progress::Succeeded(_) => PlatformState::Succeeded,
        Progress::Failed(_) => PlatformState::Failed,
        Progress::Cancelled => PlatformState::Cancelled,
    };
    let mut status = old.unwrap_or_else(|| PlatformStatus::new(name, state));
    status.state = state;
    // The Job is made before this status is written: from now on its absence means a deletion.
    if matches!(progress, Progress::Unmade) || observed.job.is_some() {
        status.job = Some(order::job_name(&observed.build));
    }
    if let Some(pod) = observed.pods.last() {
        status.pod = Some(pod.name_any());
        status.node = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.node_name.clone())
            .or(status.node);
        let count = i32::try_from(observed.pods.len()).ok();
        status.pods = status.pods.max(count);
    }
    if let Progress::Succeeded(success) = progress {
        result(&mut status, success);
    }
    status
}

fn result(status: &mut PlatformStatus, success: &Success) {
    match success {
        Success::Pushed(pushed) => {
            status.digest = Some(pushed.digest.clone());
            status.drv_path = Some(pushed.drv_path.clone());
            let out_path = Some(&pushed.out_path).filter(|path| !path.is_empty());
            status.out_path = out_path.cloned();
            status.size_bytes = Some(pushed.size_bytes);
            status.layers_total = Some(pushed.layers_total);
            status.layers_pushed = Some(pushed.layers_pushed);
            status.layers_mounted = Some(pushed.layers_mounted);
            status.layers_reused = Some(pushed.layers_reused);
            status.bytes_pushed = Some(pushed.bytes_pushed);
        }
        Success::NotChanged { drv } => status.drv_path = Some(drv.clone()),
        Success::Retagged { digest } => status.digest = Some(digest.clone()),
    }
}

/// Queue and Schedule as the operator sees them, the others as the containers tell.
fn stages(observed: &Observed) -> Vec<StageStatus> {
    let platform = order::platform(&observed.build).platform.as_str();
    let created = observed.build.creation_timestamp().map(|time| time.0);
    let resumed = observed.job.as_ref().and_then(job_started);
    let pod = observed.pods.last();
    let started = pod.and_then(report::started);
    let own = [
        between(ONCE, StageName::Queue, created, resumed),
        between(platform, StageName::Schedule, resumed, started),
    ];
    let told = pod.map(report::stages).unwrap_or_default();
    let told = told.into_iter().map(|stage| StageStatus {
        platform: platform.to_owned(),
        name: stage.name,
        start_time: whole_seconds(stage.start),
        duration_milliseconds: Some(stage.millis),
    });
    let mut stages: Vec<StageStatus> = own.into_iter().flatten().chain(told).collect();
    if stages.is_empty() {
        // Job and pods may be gone: what was known stays.
        stages = observed.build.status.clone().unwrap_or_default().stages;
    }
    stages
}

fn between(
    platform: &str,
    name: StageName,
    start: Option<Timestamp>,
    end: Option<Timestamp>,
) -> Option<StageStatus> {
    let (start, end) = (start?, end?);
    let millis = SignedDuration::as_millis(&end.duration_since(start)).max(0);
    Some(StageStatus {
        platform: platform.to_owned(),
        name,
        start_time: Time(start),
        duration_milliseconds: i64::try_from(millis).ok(),
    })
}

fn conditions(status: &mut NixImageBuildStatus, observed: &Observed, progress: &Progress) {
    let generation = observed.build.metadata.generation;
    let now = whole_seconds(observed.now);
    let conditions = &mut status.conditions;
    let kind = ConditionType::Succeeded;
    let unknown =
        |word, message: &str| NewCondition::new(kind, ConditionStatus::Unknown, word, message);
    let waits = |failure: &Failure| {
        let Failure {
            reason, message, ..
        } = failure;
        NewCondition::failed(kind, ConditionStatus::Unknown, *reason, message)
    };
    let succeeded = match progress {
        Progress::Unmade => unknown(Word::Queued, "its Job is made"),
        Progress::Queued(words) => unknown(Word::Queued, words),
        Progress::Next | Progress::Pending(None) => unknown(Word::Building, "waits for its pod"),
        Progress::Pending(Some(failure)) | Progress::Refused(failure) => waits(failure),
        Progress::Running(words) => unknown(Word::Building, words),
        Progress::Ending => unknown(Word::Building, "its pod is being ended"),
        Progress::Succeeded(success) => {
            let (word, message) = success_words(observed, success);
            NewCondition::new(kind, ConditionStatus::True, word, message)
        }
        Progress::Failed(failure) => NewCondition::failed(
            kind,
            ConditionStatus::False,
            failure.reason,
            &failure.message,
        ),
        Progress::Cancelled => NewCondition::failed(
            kind,
            ConditionStatus::False,
            Reason::Cancelled,
            "spec.cancel was set",
        ),
    };
    set_condition(conditions, succeeded, generation, &now);
    let stalled = match progress {
        Progress::Failed(failure) => Some((failure.reason, failure.message.as_str())),
        Progress::Cancelled => Some((Reason::Cancelled, "spec.cancel was set")),
        _ => None,
    };
    match stalled {
        Some((reason, message)) => {
            let kind = ConditionType::Stalled;
            let new = NewCondition::failed(kind, ConditionStatus::True, reason, message);
            set_condition(conditions, new, generation, &now);
        }
        None => remove_condition(conditions, ConditionType::Stalled),
    }
}

fn success_words(observed: &Observed, success: &Success) -> (Word, String) {
    let repository = &observed.build.spec.output.repository;
    match success {
        Success::Pushed(pushed) => {
            let note = pushed
                .note
                .as_deref()
                .map(|note| format!(" ({note})"))
                .unwrap_or_default();
            (
                Word::Succeeded,
                format!("published {repository}@{}{note}", pushed.digest),
            )
        }
        Success::NotChanged { drv } => (
            Word::NotChanged,
            format!("{drv} is what the published image was made from"),
        ),
        Success::Retagged { digest } => (
            Word::Retagged,
            format!("moved the tags to {repository}@{digest}"),
        ),
    }
}

/// The events of the change from `old` to `new`.
pub fn events(
    old: &NixImageBuildStatus,
    new: &NixImageBuildStatus,
    observed: &Observed,
    progress: &Progress,
) -> Vec<Event> {
    let word = |status: &NixImageBuildStatus| {
        find_condition(&status.conditions, ConditionType::Succeeded)
            .map(|condition| (condition.status.clone(), condition.reason.clone()))
    };
    let state = |status: &NixImageBuildStatus| status.platforms.first().map(|p| p.state);
    let mut events = Vec::new();
    let pods =
        |status: &NixImageBuildStatus| status.platforms.first().and_then(|p| p.pods).unwrap_or(0);
    if state(new) == Some(PlatformState::Running) && state(old) != state(new) && pods(new) <= 1 {
        let node = new
            .platforms
            .first()
            .and_then(|p| p.node.clone())
            .unwrap_or_default();
        events.push(Event::new(
            EventReason::BuildStarted,
            "Run",
            format!("its pod runs on node {node}"),
        ));
    }
    if pods(new) > pods(old).max(1) {
        let why = observed.pods.iter().rev().find_map(report::failure);
        let why = why.map_or_else(String::new, |f| format!(": {}: {}", f.reason, f.message));
        let action = format!("Attempt{}", pods(new));
        events.push(Event::new(
            EventReason::BuildRetrying,
            action,
            format!("another pod begins{why}"),
        ));
    }
    if word(old) == word(new) {
        return events;
    }
    events.extend(match progress {
        Progress::Pending(Some(failure)) | Progress::Refused(failure) => {
            waited_for(failure.reason).map(|word| Event::new(word, "Wait", &failure.message))
        }
        Progress::Failed(failure) => {
            let reason = failure.reason;
            let note = format!("{reason}: {}", failure.message);
            Some(Event::new(EventReason::BuildFailed, "End", note))
        }
        Progress::Succeeded(success) => {
            let (_, message) = success_words(observed, success);
            Some(Event::new(EventReason::BuildSucceeded, "End", message))
        }
        Progress::Cancelled => Some(Event::new(
            EventReason::BuildCancelled,
            "End",
            "spec.cancel was set",
        )),
        _ => None,
    });
    events
}

/// The word for what a person may have to do something about while a build waits; the rest is said
/// when it fails.
const fn waited_for(reason: Reason) -> Option<EventReason> {
    match reason {
        Reason::SecretMissing => Some(EventReason::SecretMissing),
        Reason::QuotaExceeded => Some(EventReason::QuotaExceeded),
        _ => None,
    }
}
