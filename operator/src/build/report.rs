//! What a pod's status says about a build: its result, its failure, its stages. Pure.
//!
//! Success is believed from push only: build code can write whatever it likes where its own
//! container's message is kept, so from fetch and build only failures that they may have are taken.

use firn_crd::exit::{Container, Reason};
use firn_crd::report::{self, Outcome, Pushed, Report, StageName};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateTerminated, Pod, PodCondition, PodStatus,
};
use strum::IntoEnumIterator;

/// Longest message of a failure in a status, in bytes.
pub const MESSAGE_MAX: usize = 2048;
/// Longest end of a log in a status, in bytes.
pub const LOG_TAIL_MAX: usize = 2048;
/// Longest store path in a status, in bytes.
const STORE_PATH_MAX: usize = 256;

/// What a pod's push container says it did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Success {
    /// The image is in the registry and its tags were moved.
    Pushed(Box<Pushed>),
    /// The published image was made from the same derivation.
    NotChanged {
        /// The derivation, as build claims it.
        drv: String,
        /// The manifest that was made from it. `None`: what is published has one platform.
        digest: Option<String>,
    },
    /// Tags were moved.
    Retagged {
        /// Digest of the image.
        digest: String,
        /// Places of tags that were kept.
        kept: Vec<u8>,
    },
    /// The index of several platforms is in the registry and its tags were moved.
    Indexed {
        /// Its digest.
        digest: String,
        /// Its media type.
        media_type: String,
        /// Something a user should know.
        note: Option<String>,
        /// Places of tags that were kept.
        kept: Vec<u8>,
    },
}

/// Why a build failed, in the words that status, events and metrics share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The stable word.
    pub reason: Reason,
    /// For people.
    pub message: String,
    /// Where it happened; `None` outside any container.
    pub container: Option<Container>,
    /// How the container exited.
    pub exit_code: Option<i32>,
    /// The derivation that failed.
    pub drv_path: Option<String>,
    /// The end of its log.
    pub log_tail: Option<String>,
    /// How long the registry or forge asked us to wait, in seconds.
    pub retry_after: Option<u32>,
}

impl Failure {
    /// A failure that no container had.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            container: None,
            exit_code: None,
            drv_path: None,
            log_tail: None,
            retry_after: None,
        }
    }

    /// The failure that a status has. `None`: its reason is of another version.
    pub fn read(written: &firn_crd::failure::Failure) -> Option<Self> {
        let container = written.container.as_deref();
        Some(Self {
            reason: written.known_reason()?,
            message: written.message.clone().unwrap_or_default(),
            container: container.and_then(|name| name.parse().ok()),
            exit_code: written.exit_code,
            drv_path: written.drv_path.clone(),
            log_tail: written.log_tail.clone(),
            retry_after: written
                .retry_after_seconds
                .and_then(|seconds| u32::try_from(seconds).ok()),
        })
    }
}

/// One stretch of work in a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// What was done.
    pub name: StageName,
    /// When it began.
    pub start: Timestamp,
    /// How long it took.
    pub millis: i64,
}

/// The result of a pod whose push container ended well; the failure says that it ended well and
/// left nothing to believe.
pub fn success(pod: &Pod) -> Option<Result<Success, Failure>> {
    let state = terminated(pod, Container::Push)?;
    if state.exit_code != 0 {
        return None;
    }
    let report = state.message.as_deref().and_then(Report::parse);
    Some(match report.map(|report| report.result) {
        Some(Outcome::Pushed(pushed)) if is_digest(&pushed.digest) => {
            Ok(Success::Pushed(Box::new(clean_pushed(*pushed))))
        }
        Some(Outcome::NotChanged { drv }) => Ok(Success::NotChanged {
            drv: clean(&drv, STORE_PATH_MAX),
            digest: None,
        }),
        Some(Outcome::Published {
            digest,
            media_type: Some(media_type),
            note,
            kept,
        }) if is_digest(&digest) => Ok(Success::Indexed {
            digest,
            media_type: clean(&media_type, 128),
            note: note.map(|note| clean(&note, MESSAGE_MAX)),
            kept,
        }),
        Some(Outcome::Published { digest, kept, .. }) if is_digest(&digest) => {
            Ok(Success::Retagged { digest, kept })
        }
        _ => Err(Failure {
            container: Some(Container::Push),
            exit_code: Some(0),
            log_tail: log_tail(state),
            ..Failure::new(
                Reason::InternalError,
                "push ended well but left no result: operator and builder image may be of different versions",
            )
        }),
    })
}

/// Why a pod that is over failed. `None`: it did not, or is not over.
pub fn failure(pod: &Pod) -> Option<Failure> {
    let status = pod.status.as_ref()?;
    if let Some(failure) = disruption(status) {
        return Some(failure);
    }
    Container::iter().find_map(|container| {
        let state = terminated(pod, container)?;
        (state.exit_code != 0).then(|| of_container(pod, container, state))
    })
}

/// Why a pod never came to run its containers, or was ended from outside.
fn disruption(status: &PodStatus) -> Option<Failure> {
    let said = status.message.clone().unwrap_or_default();
    match status.reason.as_deref() {
        Some("Evicted") => {
            let disk = said.contains("ephemeral") || said.contains("EmptyDir");
            return Some(if disk {
                Failure::new(
                    Reason::StoreFull,
                    format!(
                        "the pod was evicted for its disk usage: {said}. Raise build.store.size, or build on a node with a larger disk"
                    ),
                )
            } else {
                Failure::new(Reason::PodEvicted, format!("the pod was evicted: {said}"))
            });
        }
        Some("NodeLost") => return Some(Failure::new(Reason::NodeLost, said)),
        Some(reason @ ("Terminated" | "NodeShutdown" | "Shutdown")) => {
            return Some(Failure::new(
                Reason::PodEvicted,
                format!("the node was shut down ({reason}): {said}"),
            ));
        }
        Some(
            reason @ ("OutOfcpu"
            | "OutOfmemory"
            | "OutOfpods"
            | "OutOfephemeral-storage"
            | "NodeAffinity"
            | "NodeSelectorMismatching"
            | "UnexpectedAdmissionError"),
        ) => {
            return Some(Failure::new(
                Reason::Unschedulable,
                format!("the node refused the pod ({reason}): {said}"),
            ));
        }
        _ => {}
    }
    let condition = disruption_target(status)?;
    let said = condition.message.clone().unwrap_or_default();
    let (reason, words) = match condition.reason.as_deref() {
        Some("PreemptionByScheduler") => (
            Reason::Preempted,
            "the pod made room for one of a higher priority",
        ),
        Some("DeletionByTaintManager" | "DeletionByPodGC") => {
            (Reason::NodeLost, "the pod's node stopped answering")
        }
        _ => (Reason::PodEvicted, "the pod was evicted"),
    };
    Some(Failure::new(reason, format!("{words}: {said}")))
}

fn disruption_target(status: &PodStatus) -> Option<&PodCondition> {
    let conditions = status.conditions.as_deref().unwrap_or_default();
    conditions
        .iter()
        .find(|condition| condition.type_ == "DisruptionTarget" && condition.status == "True")
}

/// Why a pod is ended from outside, in the words of whoever ends it.
pub fn disruption_words(pod: &Pod) -> Option<String> {
    let condition = disruption_target(pod.status.as_ref()?)?;
    let words = [&condition.reason, &condition.message];
    let words: Vec<&str> = words.into_iter().flatten().map(String::as_str).collect();
    Some(words.join(": "))
}

/// Why a container failed. Its own word counts when its exit code says the same.
fn of_container(pod: &Pod, container: Container, state: &ContainerStateTerminated) -> Failure {
    let oom_killed = state.reason.as_deref() == Some("OOMKilled");
    let known = Reason::of_exit(container, state.exit_code, oom_killed);
    let report = state.message.as_deref().and_then(Report::parse);
    let base = Failure {
        container: Some(container),
        exit_code: Some(state.exit_code),
        ..Failure::new(known, "")
    };
    match report.map(|report| report.result) {
        Some(Outcome::Failed(failed))
            if !oom_killed && may_say(container, state, failed.reason) =>
        {
            Failure {
                reason: failed.reason,
                message: clean(&failed.message, MESSAGE_MAX),
                drv_path: failed.drv_path.map(|path| clean(&path, STORE_PATH_MAX)),
                log_tail: failed.log_tail.map(|log| clean_end(&log, LOG_TAIL_MAX)),
                retry_after: failed.retry_after,
                ..base
            }
        }
        Some(_) => Failure {
            message: unexplained(pod, container, state, known),
            ..base
        },
        None => Failure {
            message: unexplained(pod, container, state, known),
            log_tail: log_tail(state),
            ..base
        },
    }
}

/// A report may name the reasons of its container and its exit code only.
fn may_say(container: Container, state: &ContainerStateTerminated, reason: Reason) -> bool {
    reason.containers().contains(&container)
        && reason.exit_code().map(i32::from) == Some(state.exit_code)
}

fn unexplained(
    pod: &Pod,
    container: Container,
    state: &ContainerStateTerminated,
    reason: Reason,
) -> String {
    match reason {
        Reason::OutOfMemory => {
            let limit = memory_limit(pod, container)
                .map_or_else(String::new, |limit| format!(" of {limit}"));
            let remedy = if container == Container::Build {
                "raise build.resources.limits.memory"
            } else {
                "ask the people who run Firn to raise the memory of its own containers"
            };
            format!("{container} needed more memory than its limit{limit}: {remedy}")
        }
        Reason::PodKilled => format!(
            "{container} was ended from outside (exit code {})",
            state.exit_code
        ),
        _ => format!(
            "{container} ended with exit code {} ({}) and left no report; the end of its log is in logTail",
            state.exit_code,
            state.reason.as_deref().unwrap_or("Error"),
        ),
    }
}

fn memory_limit(pod: &Pod, container: Container) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let name: &str = container.into();
    let init = spec.init_containers.as_deref().unwrap_or_default();
    let container = init
        .iter()
        .chain(&spec.containers)
        .find(|c| c.name == name)?;
    let limits = container.resources.as_ref()?.limits.as_ref()?;
    limits.get("memory").map(|quantity| quantity.0.clone())
}

/// The stages that the containers told, in their order; a later one of the same name wins.
pub fn stages(pod: &Pod) -> Vec<Stage> {
    let mut stages: Vec<Stage> = Vec::new();
    for container in Container::iter() {
        let Some(report) = terminated(pod, container)
            .and_then(|state| state.message.as_deref())
            .and_then(Report::parse)
        else {
            continue;
        };
        for told in report.stages {
            let Ok(start) = Timestamp::from_millisecond(told.start) else {
                continue;
            };
            stages.retain(|stage| stage.name != told.name);
            stages.push(Stage {
                name: told.name,
                start,
                millis: told.millis.max(0),
            });
        }
    }
    stages
}

/// When the pod's first container began to run.
pub fn started(pod: &Pod) -> Option<Timestamp> {
    let status = pod.status.as_ref()?;
    let init = status
        .init_container_statuses
        .as_deref()
        .unwrap_or_default();
    let main = status.container_statuses.as_deref().unwrap_or_default();
    init.iter()
        .chain(main)
        .flat_map(|container| [container.state.as_ref(), container.last_state.as_ref()])
        .flatten()
        .filter_map(|state| {
            let running = state
                .running
                .as_ref()
                .and_then(|running| running.started_at.as_ref());
            let ended = state
                .terminated
                .as_ref()
                .and_then(|ended| ended.started_at.as_ref());
            running.or(ended).map(|time| time.0)
        })
        .min()
}

/// When the container ended that ended the pod's work: push, or one that failed. `None`: none did,
/// whatever became of the pod; fetch may have ended hours before its node was lost.
pub fn finished(pod: &Pod) -> Option<Timestamp> {
    Container::iter()
        .filter_map(|container| {
            let state = terminated(pod, container)?;
            let decides = container == Container::Push || state.exit_code != 0;
            state.finished_at.as_ref().filter(|_| decides)
        })
        .map(|time| time.0)
        .max()
}

fn terminated(pod: &Pod, container: Container) -> Option<&ContainerStateTerminated> {
    state(pod, container)?.terminated.as_ref()
}

fn state(pod: &Pod, container: Container) -> Option<&ContainerState> {
    let status = pod.status.as_ref()?;
    let name: &str = container.into();
    let init = status
        .init_container_statuses
        .as_deref()
        .unwrap_or_default();
    let main = status.container_statuses.as_deref().unwrap_or_default();
    init.iter()
        .chain(main)
        .find(|status| status.name == name)?
        .state
        .as_ref()
}

fn log_tail(state: &ContainerStateTerminated) -> Option<String> {
    let text = clean_end(state.message.as_deref()?, LOG_TAIL_MAX);
    (!text.is_empty()).then_some(text)
}

fn clean_pushed(pushed: Pushed) -> Pushed {
    Pushed {
        media_type: clean(&pushed.media_type, 128),
        drv_path: clean(&pushed.drv_path, STORE_PATH_MAX),
        out_path: clean(&pushed.out_path, STORE_PATH_MAX),
        note: pushed.note.map(|note| clean(&note, MESSAGE_MAX)),
        ..pushed
    }
}

/// Text for a status: no control characters but line ends and tabs, bounded.
pub fn clean(text: &str, max: usize) -> String {
    report::first_bytes(&printable(text), max).to_owned()
}

/// The same, keeping the end.
fn clean_end(text: &str, max: usize) -> String {
    report::last_bytes(&printable(text), max).to_owned()
}

fn printable(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control() || matches!(c, '\n' | '\t'))
        .collect()
}

fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    })
}

#[cfg(test)]
mod tests;
