//! From what is observed to what is done: synchronous, total, infallible. Pure.

use std::time::Duration;

use firn_crd::NixImageBuildStatus;
use firn_crd::build_status::{BuildOutcome, PlatformState};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::ResourceExt;

use super::progress::{Progress, is_alive, is_finished, later, silent_from};
use super::whole::{Whole, whole};
use super::{Observed, Seen, job, order, status};
use crate::backoff;
use crate::events::Event;

/// How often a pod that does not start is looked at: what is wrong shows in events, which wake
/// nobody.
const PENDING_POLL: Duration = Duration::from_secs(5);
/// How often a queued build counts the slots: the end of another's Job wakes it before.
const QUEUE_POLL: Duration = Duration::from_secs(20);
/// How often a build that runs is looked at; its Job and pods wake us before.
const RUNNING_POLL: Duration = Duration::from_secs(10 * 60);

/// What is done, in this order: actions, status, events, clean-up.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// What must be there before status speaks of it.
    pub actions: Vec<Action>,
    /// What status says, if it is to say something else than it does.
    pub status: Option<Box<NixImageBuildStatus>>,
    /// What people are told.
    pub events: Vec<Event>,
    /// What may go once status has taken it in.
    pub cleanup: Vec<Action>,
    /// When to look again, if nothing happens before.
    pub look_again: Option<Timestamp>,
}

/// One write.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Make the account of build pods, unless it is there.
    CreateAccount(Box<ServiceAccount>),
    /// Make the Job, or find that it is there already.
    CreateJob(Box<Job>),
    /// Let the Job begin.
    Resume {
        /// Its name.
        job: String,
    },
    /// Delete the Job, pods first.
    DeleteJob {
        /// Its name.
        job: String,
        /// Its UID.
        uid: String,
    },
}

impl Plan {
    /// The plan on one line, for logs.
    pub fn summary(&self) -> String {
        let names: Vec<String> = self
            .actions
            .iter()
            .chain(&self.cleanup)
            .map(|action| match action {
                Action::CreateAccount(_) => "create account".to_owned(),
                Action::CreateJob(job) => format!("create {}", job.name_any()),
                Action::Resume { job } => format!("resume {job}"),
                Action::DeleteJob { job, .. } => format!("delete {job}"),
            })
            .chain(self.status.iter().map(|_| "write status".to_owned()))
            .chain(self.look_again.map(|at| format!("look again at {at}")))
            .collect();
        names.join(", ")
    }
}

/// What is done.
pub fn plan(observed: &Observed) -> Plan {
    let build = &observed.build;
    let old = build.status.clone().unwrap_or_default();
    if let Some(outcome) = old.outcome {
        return after_the_end(observed, &old, outcome);
    }
    let goes = orphaned(observed) && !observed.is_left_behind();
    if build.metadata.deletion_timestamp.is_some() || goes {
        // Everything below it goes with it; nothing new may appear.
        return Plan::default();
    }
    let mut whole = whole(observed);
    let mut actions = Vec::new();
    let mut refused = None;
    for (place, (seen, progress)) in observed.jobs.iter().zip(&whole.each).enumerate() {
        match progress {
            Progress::Unmade => {
                match order::order(observed.known(), seen.part, &whole.ready, &observed.site) {
                    Ok(order) => actions.push(Action::CreateJob(Box::new(job::job(&order)))),
                    Err(failure) => refused = refused.or(Some((place, failure))),
                }
            }
            Progress::Next => actions.push(Action::Resume {
                job: order::job_name(build, seen.part),
            }),
            _ => {}
        }
    }
    if let Some((place, failure)) = refused {
        // What cannot be ordered for one of them cannot be for the others.
        actions.clear();
        whole.fail(place, failure);
    }
    if !observed.has_account && actions.iter().any(|a| matches!(a, Action::CreateJob(_))) {
        let account = job::service_account(&build.namespace().unwrap_or_default());
        actions.insert(0, Action::CreateAccount(Box::new(account)));
    }
    let stopped = observed.is_unwanted()
        || matches!(
            whole.progress,
            Progress::Failed(_) | Progress::Succeeded(_) | Progress::Cancelled
        );
    let cleanup = observed
        .jobs
        .iter()
        .zip(&whole.each)
        .filter(|(_, progress)| stopped || **progress == Progress::Cancelled)
        .filter_map(|(seen, _)| stop(seen))
        .collect();
    let new = status::status(observed, &whole);
    Plan {
        actions,
        events: status::events(&old, &new, observed, &whole),
        status: (new != old).then(|| Box::new(new)),
        cleanup,
        look_again: look_again(observed, &whole),
    }
}

/// Whether the image it belongs to is gone or going.
fn orphaned(observed: &Observed) -> bool {
    observed.build.spec.image.is_some()
        && observed
            .image
            .as_ref()
            .is_none_or(|image| image.metadata.deletion_timestamp.is_some())
}

/// A build that was recorded as failed or cancelled holds nothing that runs, and its Jobs stay with
/// it for their logs. Those of one that succeeded complete by themselves, a second after their pods,
/// and go after some time.
fn after_the_end(observed: &Observed, old: &NixImageBuildStatus, outcome: BuildOutcome) -> Plan {
    let succeeded = matches!(
        outcome,
        BuildOutcome::Published | BuildOutcome::NotChanged | BuildOutcome::Retagged
    );
    let did_its_part = |seen: &Seen| {
        old.platforms.iter().any(|platform| {
            Some(platform.platform.as_str()) == seen.part.platform()
                && matches!(
                    platform.state,
                    PlatformState::Succeeded | PlatformState::NotChanged
                )
        })
    };
    if !succeeded {
        let still = observed.jobs.iter().filter(|seen| !did_its_part(seen));
        return Plan {
            cleanup: still.filter_map(stop).collect(),
            ..Plan::default()
        };
    }
    let left: Vec<&Job> = observed
        .jobs
        .iter()
        .filter_map(|seen| seen.job.as_ref())
        .filter(|job| job.metadata.deletion_timestamp.is_none())
        .collect();
    if left.is_empty() {
        return Plan::default();
    }
    let ended = old
        .completion_time
        .as_ref()
        .map_or(observed.now, |time| time.0);
    let goes = later(ended, observed.retention);
    if goes > observed.now {
        return Plan {
            look_again: Some(goes),
            ..Plan::default()
        };
    }
    Plan {
        cleanup: left.into_iter().filter_map(delete).collect(),
        ..Plan::default()
    }
}

/// The end of a Job that is not over.
fn stop(seen: &Seen) -> Option<Action> {
    let job = seen.job.as_ref()?;
    let running = job.metadata.deletion_timestamp.is_none() && !is_finished(job);
    // One whose pod ended well completes by itself, a second later.
    let completes = seen
        .pods
        .iter()
        .any(|pod| super::report::success(pod).is_some());
    (running && !completes).then(|| delete(job)).flatten()
}

fn delete(job: &Job) -> Option<Action> {
    Some(Action::DeleteJob {
        job: job.name_any(),
        uid: job.uid()?,
    })
}

fn look_again(observed: &Observed, whole: &Whole) -> Option<Timestamp> {
    if matches!(
        whole.progress,
        Progress::Succeeded(_) | Progress::Failed(_) | Progress::Cancelled
    ) {
        return None;
    }
    let pauses = whole.each.iter().filter_map(|progress| match progress {
        Progress::Unmade | Progress::Next | Progress::Pending(_) | Progress::Ending => {
            Some(PENDING_POLL)
        }
        Progress::Queued(_) => Some(QUEUE_POLL),
        Progress::Running(_) => Some(RUNNING_POLL),
        Progress::Refused(_) => {
            let uid = observed.build.uid().unwrap_or_default();
            let age = observed.build.creation_timestamp().map_or(0, |created| {
                observed.now.as_second() - created.0.as_second()
            });
            // The older the build, the longer the pause: 30 s at first, 5 min after an hour.
            Some(backoff::API.delay(u32::try_from(3 + age / 600).unwrap_or(u32::MAX), &uid))
        }
        Progress::Later | Progress::Succeeded(_) | Progress::Failed(_) | Progress::Cancelled => {
            None
        }
    });
    let pause = pauses.min().unwrap_or(PENDING_POLL);
    let pods = observed.jobs.iter().flat_map(|seen| &seen.pods);
    pods.filter(|pod| is_alive(pod))
        .filter_map(silent_from)
        .filter(|silent| *silent > observed.now)
        .chain([later(observed.now, pause)])
        .min()
}
