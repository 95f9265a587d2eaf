//! How far one Job of a build is: derived from the Job, its pods and what is said about them, never
//! from a stored phase. What is taken from status is what a Job came to, which nobody can tell once
//! its pods are gone. Pure.

use std::time::Duration;

use firn_crd::build_status::{PlatformState, PlatformStatus};
use firn_crd::exit::Reason;
use firn_crd::report::Pushed;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::report::{self, Failure, Success};
use super::{Observed, Part, Seen, order, queue, trouble};

/// A node that stops answering holds its pods for some minutes; after the deadline and this, nobody
/// waits for it any more.
const LOST_AFTER: Duration = Duration::from_secs(120);
/// A kubelet removes a pod within seconds of its grace; after this, its node is taken for lost.
const SILENT_AFTER: Duration = Duration::from_secs(60);
/// The kubelet looks for a missing Secret every second or two: one that is still missing after this
/// will not come by itself.
const SECRET_PATIENCE: Duration = Duration::from_secs(60);

/// How far a Job is, or a build as a whole.
#[derive(Debug, Clone, PartialEq)]
pub enum Progress {
    /// Its Job is made when those of all platforms have done their part.
    Later,
    /// Its Job is to be made.
    Unmade,
    /// A quota leaves no room for its Job or pod.
    Refused(Failure),
    /// Its Job waits for a free slot, or for an older pod of the same image to end.
    Queued(String),
    /// Its Job may begin.
    Next,
    /// Its pod waits; the failure says what for, if anybody does.
    Pending(Option<Failure>),
    /// Its pod runs; the words say which container.
    Running(String),
    /// Its Job is being deleted.
    Ending,
    /// It did what it was for.
    Succeeded(Success),
    /// It failed.
    Failed(Failure),
    /// It was cancelled, or given up since another platform failed; nothing of it runs.
    Cancelled,
}

/// How far the Job is.
pub fn progress(observed: &Observed, seen: &Seen) -> Progress {
    if let Some(result) = seen.pods.iter().rev().find_map(report::success) {
        return match result {
            Ok(success) => with_digest(observed, seen, success),
            Err(failure) => Progress::Failed(failure),
        };
    }
    if let Some(recorded) = recorded(observed, seen.part) {
        return recorded;
    }
    let alive = seen.pods.iter().any(is_alive);
    if observed.is_unwanted() {
        let runs = seen.job.as_ref().is_some_and(|job| !is_finished(job));
        return if runs || alive {
            Progress::Ending
        } else {
            Progress::Cancelled
        };
    }
    match &seen.job {
        None => without_job(observed, seen, alive),
        Some(job) if job.metadata.deletion_timestamp.is_some() => Progress::Ending,
        Some(job) => with_job(observed, seen, job),
    }
}

/// Of one platform of several the digest is wanted, which "not changed" does not say: it is the one
/// that its pod was told.
fn with_digest(observed: &Observed, seen: &Seen, success: Success) -> Progress {
    let Success::NotChanged { drv, .. } = &success else {
        return Progress::Succeeded(success);
    };
    if !order::has_index(&observed.build) {
        return Progress::Succeeded(success);
    }
    let told = seen.job.as_ref().and_then(order::told);
    let told = told.filter(|told| told.drv_path == *drv);
    match (told, recorded(observed, seen.part)) {
        (Some(told), _) => Progress::Succeeded(Success::NotChanged {
            drv: drv.clone(),
            digest: Some(told.digest),
        }),
        (None, Some(recorded)) => recorded,
        (None, None) => Progress::Failed(Failure::new(
            Reason::InternalError,
            format!("{drv} is said to be published, and its Job was told nothing of the kind"),
        )),
    }
}

/// What a platform of several came to, when it was written down before the others were done.
fn recorded(observed: &Observed, part: Part) -> Option<Progress> {
    if !order::has_index(&observed.build) {
        return None;
    }
    let status = observed.build.status.as_ref()?;
    let PlatformStatus {
        state,
        digest,
        drv_path,
        out_path,
        size_bytes,
        layers_total,
        layers_pushed,
        layers_mounted,
        layers_reused,
        bytes_pushed,
        platform,
        ..
    } = status
        .platforms
        .iter()
        .find(|platform| Some(platform.platform.as_str()) == part.platform())?
        .clone();
    match state {
        PlatformState::Succeeded => Some(Progress::Succeeded(Success::Pushed(Box::new(Pushed {
            platform,
            digest: digest?,
            media_type: String::new(),
            size_bytes: size_bytes.unwrap_or_default(),
            layers_total: layers_total.unwrap_or_default(),
            layers_pushed: layers_pushed.unwrap_or_default(),
            layers_mounted: layers_mounted.unwrap_or_default(),
            layers_reused: layers_reused.unwrap_or_default(),
            bytes_pushed: bytes_pushed.unwrap_or_default(),
            drv_path: drv_path.unwrap_or_default(),
            out_path: out_path.unwrap_or_default(),
            note: None,
            kept: Vec::new(),
        })))),
        PlatformState::NotChanged => Some(Progress::Succeeded(Success::NotChanged {
            drv: drv_path?,
            digest: Some(digest?),
        })),
        PlatformState::Failed => {
            let failure = status.failure.as_ref()?;
            let failure = (failure.platform == Some(platform)).then(|| Failure::read(failure))?;
            Some(Progress::Failed(failure?))
        }
        PlatformState::Cancelled if !observed.is_unwanted() => Some(Progress::Cancelled),
        PlatformState::Cancelled
        | PlatformState::Queued
        | PlatformState::Pending
        | PlatformState::Running => None,
    }
}

fn without_job(observed: &Observed, seen: &Seen, alive: bool) -> Progress {
    let name = order::job_name(&observed.build, seen.part);
    let status = observed.build.status.as_ref();
    let made = status.is_some_and(|status| {
        status
            .platforms
            .iter()
            .any(|platform| platform.job.as_deref() == Some(name.as_str()))
    });
    match &observed.refused {
        _ if alive => Progress::Ending,
        _ if made => {
            let killed = seen.pods.iter().rev().find_map(report::failure);
            Progress::Failed(killed.unwrap_or_else(|| {
                Failure::new(
                    Reason::PodDeleted,
                    format!("Job {name} was deleted before it ended"),
                )
            }))
        }
        Some(words) => {
            let failure = trouble::refused(words);
            if failure.reason == Reason::QuotaExceeded {
                Progress::Refused(failure)
            } else {
                Progress::Failed(failure)
            }
        }
        // Nobody but Kueue says when its Jobs begin: one that must wait is not made yet.
        None if observed.build.spec.build.queue_name.is_some() => {
            waits_for_older(seen).unwrap_or(Progress::Unmade)
        }
        None => Progress::Unmade,
    }
}

fn with_job(observed: &Observed, seen: &Seen, job: &Job) -> Progress {
    if let Some(words) = finished(job, "Failed") {
        return Progress::Failed(of_failed_job(observed, seen, words));
    }
    if finished(job, "Complete").is_some() {
        return Progress::Failed(Failure::new(
            Reason::InternalError,
            "the Job is complete, but its pod was removed before its result was read",
        ));
    }
    if is_suspended(job) {
        return queued(observed, seen);
    }
    let started = job_started(job).unwrap_or(observed.now);
    let deadline = order::deadline(&observed.build, seen.part);
    if observed.now >= later(started, deadline + LOST_AFTER) {
        return Progress::Failed(Failure::new(
            Reason::NodeLost,
            "the build's time is over and its pod does not end: its node does not answer",
        ));
    }
    match seen.pods.iter().rev().find(|pod| is_alive(pod)) {
        None => without_pod(seen),
        Some(pod) => with_pod(observed, seen, pod, started),
    }
}

fn queued(observed: &Observed, seen: &Seen) -> Progress {
    if let Some(queue) = &observed.build.spec.build.queue_name {
        return Progress::Queued(format!("waits for Kueue to admit it from queue {queue:?}"));
    }
    if let Some(older) = waits_for_older(seen) {
        return older;
    }
    match seen.turn {
        queue::Turn::Now => Progress::Next,
        queue::Turn::Wait { ahead: 0 } => Progress::Queued("waits for a free slot".to_owned()),
        queue::Turn::Wait { ahead } => {
            Progress::Queued(format!("waits for a free slot, {ahead} builds go first"))
        }
    }
}

fn waits_for_older(seen: &Seen) -> Option<Progress> {
    let other = seen.others.first()?;
    Some(Progress::Queued(format!(
        "pod {other} of an older build still runs"
    )))
}

fn without_pod(seen: &Seen) -> Progress {
    if seen.pods.is_empty() {
        return match trouble::of_job(&seen.warnings) {
            Some(failure) if failure.reason == Reason::QuotaExceeded => Progress::Refused(failure),
            Some(failure) => Progress::Failed(failure),
            None => Progress::Pending(None),
        };
    }
    let words = seen
        .pods
        .iter()
        .rev()
        .find_map(report::failure)
        .map_or_else(
            || "the pod ended".to_owned(),
            |failure| format!("{}: {}", failure.reason, failure.message),
        );
    Progress::Running(format!("waits for another pod after a failure: {words}"))
}

fn with_pod(observed: &Observed, seen: &Seen, pod: &Pod, job_started: Timestamp) -> Progress {
    if pod.metadata.deletion_timestamp.is_some() {
        return Progress::Running(going(observed, pod));
    }
    if report::started(pod).is_some() {
        return Progress::Running(running(pod));
    }
    let trouble = trouble::of_pod(pod, &seen.warnings);
    let since = pod
        .creation_timestamp()
        .map_or(job_started, |created| created.0.max(job_started));
    let patience = observed.build.spec.build.pending_timeout.as_std();
    let patience = match &trouble {
        Some(failure) if failure.reason == Reason::SecretMissing => patience.min(SECRET_PATIENCE),
        _ => patience,
    };
    if observed.now < later(since, patience) {
        return Progress::Pending(trouble);
    }
    Progress::Failed(trouble.unwrap_or_else(|| {
        Failure::new(
            Reason::VolumePending,
            format!(
                "the pod's containers did not start within {} s and nobody says why",
                patience.as_secs()
            ),
        )
    }))
}

/// When the kubelet of a pod that is being deleted has had all the time to say that it has ended.
pub fn silent_from(pod: &Pod) -> Option<Timestamp> {
    // The time at which the pod's grace is over.
    let deleted = pod.metadata.deletion_timestamp.as_ref()?;
    Some(later(deleted.0, SILENT_AFTER))
}

/// What becomes of a pod that is being deleted.
fn going(observed: &Observed, pod: &Pod) -> String {
    if silent_from(pod).is_some_and(|silent| silent <= observed.now) {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        return format!(
            "its pod should have ended, and node {:?} does not answer; another one follows when the \
             node is back, or when somebody deletes pod {:?} with --force",
            node.unwrap_or_default(),
            pod.name_any()
        );
    }
    match report::disruption_words(pod) {
        // Such an end is not counted.
        Some(why) => format!("its pod is being removed ({why}); another one follows"),
        None => "its pod is being deleted; another one follows if a retry is left".to_owned(),
    }
}

/// Which container runs.
fn running(pod: &Pod) -> String {
    let status = pod.status.as_ref();
    let init = status.and_then(|status| status.init_container_statuses.as_deref());
    let main = status.and_then(|status| status.container_statuses.as_deref());
    init.unwrap_or_default()
        .iter()
        .chain(main.unwrap_or_default())
        .find(|container| {
            container
                .state
                .as_ref()
                .is_some_and(|state| state.running.is_some())
        })
        .map_or_else(
            || "between two containers".to_owned(),
            |container| format!("{} runs", container.name),
        )
}

fn of_failed_job(observed: &Observed, seen: &Seen, words: &str) -> Failure {
    if finished_for(seen.job.as_ref(), "DeadlineExceeded") {
        return Failure::new(
            Reason::DeadlineExceeded,
            format!(
                "the Job took longer than {} s, all attempts together: {words}",
                order::deadline(&observed.build, seen.part).as_secs()
            ),
        );
    }
    seen.pods
        .iter()
        .rev()
        .find_map(report::failure)
        .unwrap_or_else(|| {
            Failure::new(
                Reason::PodDeleted,
                format!("the pod was removed before its result was read: {words}"),
            )
        })
}

/// The words of a Job's condition, if it has it.
fn finished<'a>(job: &'a Job, condition: &str) -> Option<&'a str> {
    let conditions = job.status.as_ref()?.conditions.as_deref()?;
    let found = conditions
        .iter()
        .find(|c| c.type_ == condition && c.status == "True")?;
    Some(found.message.as_deref().unwrap_or_default())
}

fn finished_for(job: Option<&Job>, reason: &str) -> bool {
    job.and_then(|job| job.status.as_ref())
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default()
        .iter()
        .any(|c| c.type_ == "Failed" && c.status == "True" && c.reason.as_deref() == Some(reason))
}

/// Whether the Job is over, one way or the other.
pub fn is_finished(job: &Job) -> bool {
    finished(job, "Failed").is_some() || finished(job, "Complete").is_some()
}

/// Whether the Job waits for its turn.
pub fn is_suspended(job: &Job) -> bool {
    job.spec
        .as_ref()
        .is_some_and(|spec| spec.suspend == Some(true))
}

/// When the Job was resumed.
pub fn job_started(job: &Job) -> Option<Timestamp> {
    job.status.as_ref()?.start_time.as_ref().map(|time| time.0)
}

/// Whether the pod may still do something.
pub fn is_alive(pod: &Pod) -> bool {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    !matches!(phase, Some("Succeeded" | "Failed"))
}

/// A time after another.
pub fn later(start: Timestamp, pause: Duration) -> Timestamp {
    SignedDuration::try_from(pause)
        .ok()
        .and_then(|pause| start.checked_add(pause).ok())
        .unwrap_or(Timestamp::MAX)
}
