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
use firn_crd::names::ANNOTATION_SUPERSEDED;
use firn_crd::report::StageName;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use super::progress::{Progress, job_started};
use super::report::{self, Failure, Success};
use super::whole::Whole;
use super::{Observed, Part, Seen, order};
use crate::events::Event;
use crate::image::revision::whole_seconds;

/// For what is done once and not for each platform.
const ONCE: &str = "*";

/// What status says now.
pub fn status(observed: &Observed, whole: &Whole) -> NixImageBuildStatus {
    let build = &observed.build;
    let progress = &whole.progress;
    let mut status = build.status.clone().unwrap_or_default();
    status.observed_generation = build.metadata.generation;
    status.start_time = status
        .start_time
        .or_else(|| build.creation_timestamp())
        .or_else(|| Some(whole_seconds(observed.now)));
    status.effective_isolation = Some("Restricted".to_owned());
    status.platforms = platforms(observed, whole);
    status.stages = stages(observed);
    match progress {
        Progress::Succeeded(success) => succeeded(&mut status, observed, success),
        Progress::Failed(failure) => {
            end(&mut status, observed, BuildOutcome::Failed);
            status.failure = Some(failure_status(observed, whole.failed, failure));
        }
        Progress::Cancelled => end(&mut status, observed, cancelled(observed).0),
        // One platform failed and another still runs.
        Progress::Running(_) if whole.failed.is_some() => {
            if let Some(failure) = whole.failure() {
                status.failure = Some(failure_status(observed, whole.failed, failure));
            }
        }
        Progress::Later
        | Progress::Unmade
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

/// Whose wish it was that the build ends.
fn cancelled(observed: &Observed) -> (BuildOutcome, Reason, &'static str) {
    let annotations = observed.build.annotations();
    if annotations.contains_key(ANNOTATION_SUPERSEDED) {
        let message = "a newer build takes its place, as runPolicy says";
        (BuildOutcome::Superseded, Reason::Superseded, message)
    } else {
        let message = if observed.build.spec.cancel {
            "spec.cancel was set"
        } else {
            "its NixImage was deleted, and this build was kept"
        };
        (BuildOutcome::Cancelled, Reason::Cancelled, message)
    }
}

fn succeeded(status: &mut NixImageBuildStatus, observed: &Observed, success: &Success) {
    let (tags, kept) = tags(observed, success);
    status.kept_tags = kept;
    match success {
        Success::Pushed(pushed) => {
            end(status, observed, BuildOutcome::Published);
            status.digest = Some(pushed.digest.clone());
            status.media_type = Some(pushed.media_type.clone());
            status.size_bytes = Some(pushed.size_bytes);
            status.bytes_pushed = Some(pushed.bytes_pushed);
            status.tags = tags;
        }
        Success::Indexed {
            digest, media_type, ..
        } => {
            end(status, observed, BuildOutcome::Published);
            let sum = |field: fn(&PlatformStatus) -> Option<i64>| {
                let sizes = status.platforms.iter().filter_map(field);
                sizes.reduce(i64::saturating_add)
            };
            status.size_bytes = sum(|platform| platform.size_bytes);
            status.bytes_pushed = sum(|platform| platform.bytes_pushed).or(Some(0));
            status.digest = Some(digest.clone());
            status.media_type = Some(media_type.clone());
            status.tags = tags;
            status.failure = None;
        }
        Success::NotChanged { .. } => {
            end(status, observed, BuildOutcome::NotChanged);
            status.digest = published_digest(observed);
        }
        Success::Retagged { digest, .. } => {
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

/// When the last of the build's work ended: now, if it was given up.
fn ended(observed: &Observed) -> Timestamp {
    let pods = observed.jobs.iter().filter_map(|seen| seen.pods.last());
    let ends: Option<Vec<Timestamp>> = pods.map(report::finished).collect();
    ends.and_then(|ends| ends.into_iter().max())
        .unwrap_or(observed.now)
}

fn end(status: &mut NixImageBuildStatus, observed: &Observed, outcome: BuildOutcome) {
    let ended = ended(observed);
    let started = status.start_time.as_ref().map_or(ended, |time| time.0);
    let seconds = (ended.as_second() - started.as_second()).max(0);
    let duration = std::time::Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    status.outcome = Some(outcome);
    status.completion_time = Some(whole_seconds(ended));
    status.duration = Some(firn_crd::Duration::of(duration).to_string());
}

fn failure_status(
    observed: &Observed,
    place: Option<usize>,
    failure: &Failure,
) -> failure::Failure {
    let Failure {
        reason,
        message,
        container,
        exit_code,
        drv_path,
        log_tail,
        retry_after,
    } = failure;
    let seen = place.and_then(|place| observed.jobs.get(place));
    let platform = seen.and_then(|seen| label(observed, seen.part));
    // Its pods may be gone while another platform still runs.
    let before = observed.build.status.as_ref();
    let before = before.and_then(|status| status.failure.as_ref());
    let before = before
        .filter(|before| before.platform.as_deref() == platform)
        .and_then(|before| before.attempts);
    let pods = seen.map_or(0, |seen| seen.pods.len());
    failure::Failure {
        platform: platform.map(str::to_owned),
        container: container.map(|container| container.to_string()),
        exit_code: *exit_code,
        drv_path: drv_path.clone(),
        retry_after_seconds: retry_after.and_then(|seconds| i32::try_from(seconds).ok()),
        attempts: i32::try_from(pods.max(1)).ok().max(before),
        ..failure::Failure::new(*reason, message)
            .with_log_tail(log_tail.as_deref().unwrap_or_default())
    }
}

/// The platform whose entry in status a Job fills. `None`: none, it is for all of them.
fn label(observed: &Observed, part: Part) -> Option<&'static str> {
    let build = &observed.build;
    let of_all = part == Part::Publish && order::has_index(build);
    (!of_all).then(|| order::platform(build, part).platform.as_str())
}

fn platforms(observed: &Observed, whole: &Whole) -> Vec<PlatformStatus> {
    let each = observed.jobs.iter().zip(&whole.each);
    each.filter_map(|(seen, progress)| {
        let name = label(observed, seen.part)?;
        Some(platform(observed, seen, name, progress))
    })
    .collect()
}

/// `None`: as it was.
const fn state(progress: &Progress) -> Option<PlatformState> {
    Some(match progress {
        Progress::Later
        | Progress::Unmade
        | Progress::Refused(_)
        | Progress::Queued(_)
        | Progress::Next => PlatformState::Queued,
        Progress::Pending(_) => PlatformState::Pending,
        Progress::Running(_) => PlatformState::Running,
        Progress::Ending => return None,
        Progress::Succeeded(Success::NotChanged { .. }) => PlatformState::NotChanged,
        Progress::Succeeded(_) => PlatformState::Succeeded,
        Progress::Failed(_) => PlatformState::Failed,
        Progress::Cancelled => PlatformState::Cancelled,
    })
}

fn platform(observed: &Observed, seen: &Seen, name: &str, progress: &Progress) -> PlatformStatus {
    let old = observed.build.status.as_ref().and_then(|status| {
        let mut platforms = status.platforms.iter();
        platforms.find(|old| old.platform == name).cloned()
    });
    let state = state(progress)
        .or_else(|| old.as_ref().map(|old| old.state))
        .unwrap_or(PlatformState::Queued);
    let mut status = old.unwrap_or_else(|| PlatformStatus::new(name, state));
    status.state = state;
    // The Job is made before this status is written: from now on its absence means a deletion.
    if matches!(progress, Progress::Unmade) || seen.job.is_some() {
        status.job = Some(order::job_name(&observed.build, seen.part));
    }
    if let Some(pod) = seen.pods.last() {
        status.pod = Some(pod.name_any());
        status.node = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.node_name.clone())
            .or(status.node);
        let count = i32::try_from(seen.pods.len()).ok();
        status.pods = status.pods.max(count);
    }
    if let Progress::Succeeded(success) = progress {
        result(&mut status, observed, seen.part, success);
    }
    status
}

fn result(status: &mut PlatformStatus, observed: &Observed, part: Part, success: &Success) {
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
        Success::NotChanged { drv, digest } => {
            status.drv_path = Some(drv.clone());
            if let (Some(digest), Part::Platform(platform)) = (digest, part) {
                let (size, out_path) = order::remembered(observed.known(), platform, digest);
                status.digest = Some(digest.clone());
                status.size_bytes = size.or(status.size_bytes);
                status.out_path = out_path.or(status.out_path.take());
            }
        }
        Success::Retagged { digest, .. } | Success::Indexed { digest, .. } => {
            status.digest = Some(digest.clone());
        }
    }
}

/// Queue and Schedule as the operator sees them, the others as the containers tell.
fn stages(observed: &Observed) -> Vec<StageStatus> {
    let before = observed.build.status.clone().unwrap_or_default().stages;
    let created = observed.build.creation_timestamp().map(|time| time.0);
    let resumed = |seen: &Seen| seen.job.as_ref().and_then(job_started);
    let first = observed.jobs.iter().filter_map(resumed).min();
    let queue = between(ONCE, StageName::Queue, created, first);
    let mut stages: Vec<StageStatus> = queue.into_iter().collect();
    if stages.is_empty() {
        let known = before.iter().filter(|stage| stage.name == StageName::Queue);
        stages.extend(known.cloned());
    }
    for seen in &observed.jobs {
        let platform = label(observed, seen.part).unwrap_or(ONCE);
        let pod = seen.pods.last();
        let own = between(
            platform,
            StageName::Schedule,
            resumed(seen),
            pod.and_then(report::started),
        );
        let told = pod.map(report::stages).unwrap_or_default();
        let told = told.into_iter().map(|stage| StageStatus {
            platform: platform.to_owned(),
            name: stage.name,
            start_time: whole_seconds(stage.start),
            duration_milliseconds: Some(stage.millis),
        });
        let mut now: Vec<StageStatus> = own.into_iter().chain(told).collect();
        if now.is_empty() {
            // Job and pods may be gone: what was known stays.
            let known = before
                .iter()
                .filter(|stage| stage.platform == platform && stage.name != StageName::Queue);
            now.extend(known.cloned());
        }
        stages.extend(now);
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
        Progress::Later | Progress::Unmade => unknown(Word::Queued, "its Job is made"),
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
        Progress::Cancelled => {
            let (_, reason, message) = cancelled(observed);
            NewCondition::failed(kind, ConditionStatus::False, reason, message)
        }
    };
    set_condition(conditions, succeeded, generation, &now);
    let stalled = match progress {
        Progress::Failed(failure) => Some((failure.reason, failure.message.as_str())),
        Progress::Cancelled => {
            let (_, reason, message) = cancelled(observed);
            Some((reason, message))
        }
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
                format!(
                    "published {repository}@{}{note}{}",
                    pushed.digest,
                    kept_words(observed, success)
                ),
            )
        }
        Success::Indexed { digest, note, .. } => {
            let note = note
                .as_deref()
                .map(|note| format!(" ({note})"))
                .unwrap_or_default();
            let count = observed.build.spec.output.platforms.len();
            (
                Word::Succeeded,
                format!(
                    "published {repository}@{digest} for {count} platforms{note}{}",
                    kept_words(observed, success)
                ),
            )
        }
        Success::NotChanged { .. } if order::has_index(&observed.build) => (
            Word::NotChanged,
            "the derivations of all platforms are what the published image was made from"
                .to_owned(),
        ),
        Success::NotChanged { drv, .. } => (
            Word::NotChanged,
            format!("{drv} is what the published image was made from"),
        ),
        Success::Retagged { digest, .. } => (
            Word::Retagged,
            format!(
                "moved the tags to {repository}@{digest}{}",
                kept_words(observed, success)
            ),
        ),
    }
}

/// The tags that point to the image now, and those that were kept since they are others'.
fn tags(observed: &Observed, success: &Success) -> (Vec<String>, Vec<String>) {
    let kept = match success {
        Success::Pushed(pushed) => pushed.kept.as_slice(),
        Success::Indexed { kept, .. } | Success::Retagged { kept, .. } => kept,
        Success::NotChanged { .. } => &[],
    };
    let tags = observed.build.spec.output.tags.iter().enumerate();
    let (kept, moved): (Vec<_>, Vec<_>) =
        tags.partition(|(place, _)| kept.iter().any(|kept| usize::from(*kept) == *place));
    let names =
        |tags: Vec<(usize, &String)>| tags.into_iter().map(|(_, tag)| tag.clone()).collect();
    (names(moved), names(kept))
}

fn kept_words(observed: &Observed, success: &Success) -> String {
    let (_, kept) = tags(observed, success);
    if kept.is_empty() {
        return String::new();
    }
    format!(
        "; {} stayed where others had pointed them, as output.tagPolicy says",
        kept.join(", ")
    )
}

/// The events of the change from `old` to `new`.
pub fn events(
    old: &NixImageBuildStatus,
    new: &NixImageBuildStatus,
    observed: &Observed,
    whole: &Whole,
) -> Vec<Event> {
    let progress = &whole.progress;
    let word = |status: &NixImageBuildStatus| {
        find_condition(&status.conditions, ConditionType::Succeeded)
            .map(|condition| (condition.status.clone(), condition.reason.clone()))
    };
    let mut events: Vec<Event> = new
        .platforms
        .iter()
        .flat_map(|platform| {
            let mut before = old.platforms.iter();
            let before = before.find(|old| old.platform == platform.platform);
            of_platform(before, platform, observed)
        })
        .collect();
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
        Progress::Cancelled => Some(match cancelled(observed) {
            (BuildOutcome::Superseded, _, message) => {
                Event::new(EventReason::BuildSuperseded, "End", message)
            }
            (_, _, message) => Event::new(EventReason::BuildCancelled, "End", message),
        }),
        _ => None,
    });
    events
}

/// The events of one platform.
fn of_platform(
    old: Option<&PlatformStatus>,
    new: &PlatformStatus,
    observed: &Observed,
) -> Vec<Event> {
    // Recorders take events of one reason and action for the same.
    let (action, whose) = if order::has_index(&observed.build) {
        (format!("-{}", new.platform), format!("{}: ", new.platform))
    } else {
        (String::new(), String::new())
    };
    let pods = |status: Option<&PlatformStatus>| status.and_then(|p| p.pods).unwrap_or(0);
    let begins = new.state == PlatformState::Running
        && old.map(|old| old.state) != Some(new.state)
        && pods(Some(new)) <= 1;
    let mut events = Vec::new();
    if begins {
        let node = new.node.clone().unwrap_or_default();
        events.push(Event::new(
            EventReason::BuildStarted,
            format!("Run{action}"),
            format!("{whose}its pod runs on node {node}"),
        ));
    }
    if pods(Some(new)) > pods(old).max(1) {
        let mut seen = observed.jobs.iter();
        let seen = seen.find(|seen| label(observed, seen.part) == Some(new.platform.as_str()));
        let why = seen.and_then(|seen| seen.pods.iter().rev().find_map(report::failure));
        let why = why.map_or_else(String::new, |f| format!(": {}: {}", f.reason, f.message));
        events.push(Event::new(
            EventReason::BuildRetrying,
            format!("Attempt{}{action}", pods(Some(new))),
            format!("{whose}another pod begins{why}"),
        ));
    }
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
