//! Pods as the kubelet reports them, and what is read from them.

use firn_crd::report::{Failed, Stage as Told};
use serde_json::{Value, json};

use super::*;

/// A pod whose containers ended so: name, exit code, reason, termination message.
fn pod(ended: &[(&str, i32, &str, String)]) -> Pod {
    let statuses: Vec<Value> = ended
        .iter()
        .map(|(name, code, reason, message)| {
            json!({
                "name": name, "image": "builder", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"terminated": {
                    "exitCode": code, "reason": reason, "message": message,
                    "startedAt": "2026-11-24T10:00:00Z", "finishedAt": "2026-11-24T10:01:00Z",
                }},
            })
        })
        .collect();
    serde_json::from_value(json!({
        "metadata": {"name": "web-17-amd64-x7k2p"},
        "spec": {"containers": [], "initContainers": [
            {"name": "build", "resources": {"limits": {"memory": "2Gi"}}}]},
        "status": {"phase": "Failed", "initContainerStatuses": statuses},
    }))
    .unwrap()
}

fn said(result: Outcome) -> String {
    Report::new(result, Vec::new()).to_message()
}

fn failed(reason: Reason, message: &str) -> String {
    said(Outcome::Failed(Box::new(Failed {
        reason,
        message: message.into(),
        drv_path: Some("/nix/store/x.drv".into()),
        log_tail: Some("error: snow\u{1b}[0m melts".into()),
        retry_after: Some(7),
    })))
}

fn pushed(digest: &str) -> Outcome {
    Outcome::Pushed(Box::new(Pushed {
        platform: "linux/amd64".into(),
        digest: digest.into(),
        ..Pushed::default()
    }))
}

fn digest() -> String {
    format!("sha256:{}", "ab".repeat(32))
}

#[test]
fn a_push_that_ended_well_is_a_success() {
    let pod = pod(&[("push", 0, "Completed", said(pushed(&digest())))]);
    let Some(Ok(Success::Pushed(result))) = success(&pod) else {
        panic!("{:?}", success(&pod));
    };
    assert_eq!(result.digest, digest());
    assert_eq!(failure(&pod), None);
}

#[test]
fn build_code_that_claims_a_push_is_not_believed() {
    let forged = pod(&[("build", 0, "Completed", said(pushed(&digest())))]);
    assert_eq!(success(&forged), None);
}

#[test]
fn a_push_without_a_readable_result_is_firns_own_fault() {
    for message in [
        "panic".to_owned(),
        said(pushed("latest")),
        said(Outcome::Passed),
        String::new(),
    ] {
        let pod = pod(&[("push", 0, "Completed", message.clone())]);
        let Some(Err(failure)) = success(&pod) else {
            panic!("{message}");
        };
        assert_eq!(failure.reason, Reason::InternalError);
    }
}

#[test]
fn a_failure_is_told_in_the_containers_own_words() {
    let pod = pod(&[
        ("check", 0, "Completed", said(Outcome::Passed)),
        (
            "build",
            30,
            "Error",
            failed(Reason::BuildFailed, "web-1.0 failed"),
        ),
    ]);
    assert_eq!(
        failure(&pod).unwrap(),
        Failure {
            reason: Reason::BuildFailed,
            message: "web-1.0 failed".into(),
            container: Some(Container::Build),
            exit_code: Some(30),
            drv_path: Some("/nix/store/x.drv".into()),
            log_tail: Some("error: snow[0m melts".into()),
            retry_after: Some(7),
        }
    );
}

#[test]
fn a_container_may_say_only_what_its_exit_code_says_too() {
    // Build code that blames the registry, so that it is tried again and again.
    let pod = pod(&[(
        "build",
        30,
        "Error",
        failed(Reason::RegistryUnavailable, "forged"),
    )]);
    let failure = failure(&pod).unwrap();
    assert_eq!(failure.reason, Reason::BuildFailed);
    assert!(!failure.message.contains("forged"));
}

#[test]
fn memory_is_named_with_its_limit_and_the_remedy() {
    let pod = pod(&[("build", 137, "OOMKilled", String::new())]);
    let failure = failure(&pod).unwrap();
    assert_eq!(failure.reason, Reason::OutOfMemory);
    assert_eq!(
        failure.message,
        "build needed more memory than its limit of 2Gi: raise build.resources.limits.memory"
    );
}

#[test]
fn a_wrapper_that_saw_the_kernel_kill_a_builder_is_believed() {
    let pod = pod(&[(
        "build",
        137,
        "Error",
        failed(Reason::OutOfMemory, "cc1plus was killed"),
    )]);
    let failure = failure(&pod).unwrap();
    assert_eq!(
        (failure.reason, failure.message.as_str()),
        (Reason::OutOfMemory, "cc1plus was killed")
    );
}

#[test]
fn a_crash_leaves_the_end_of_its_log() {
    let log = "thread 'main' panicked\nat src/x.rs".to_owned();
    let pod = pod(&[("fetch", 101, "Error", log.clone())]);
    let failure = failure(&pod).unwrap();
    assert_eq!(failure.reason, Reason::InternalError);
    assert_eq!(failure.log_tail, Some(log));
}

#[test]
fn evictions_have_reasons_of_their_own() {
    let evicted = |reason: &str, message: &str| -> Reason {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {},
            "status": {"phase": "Failed", "reason": reason, "message": message},
        }))
        .unwrap();
        failure(&pod).unwrap().reason
    };
    assert_eq!(
        evicted("Evicted", "The node was low on resource: memory"),
        Reason::PodEvicted
    );
    assert_eq!(
        evicted(
            "Evicted",
            "Usage of EmptyDir volume \"nix\" exceeds the limit \"1Gi\"."
        ),
        Reason::StoreFull
    );
    assert_eq!(
        evicted("OutOfcpu", "Pod was rejected"),
        Reason::Unschedulable
    );
    let disrupted = |reason: &str| -> Reason {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {},
            "status": {"phase": "Failed", "conditions": [
                {"type": "DisruptionTarget", "status": "True", "reason": reason, "message": "m"}]},
        }))
        .unwrap();
        failure(&pod).unwrap().reason
    };
    assert_eq!(disrupted("PreemptionByScheduler"), Reason::Preempted);
    assert_eq!(disrupted("EvictionByEvictionAPI"), Reason::PodEvicted);
    assert_eq!(disrupted("DeletionByTaintManager"), Reason::NodeLost);
}

#[test]
fn stages_come_from_every_container_and_each_once() {
    let told = |name, start| {
        Report::new(
            Outcome::Passed,
            vec![Told {
                name,
                start,
                millis: 5,
            }],
        )
        .to_message()
    };
    let pod = pod(&[
        ("fetch", 0, "Completed", told(StageName::Fetch, 1_000)),
        ("build", 0, "Completed", told(StageName::Build, 2_000)),
        ("push", 0, "Completed", told(StageName::Build, 3_000)),
    ]);
    let read: Vec<_> = stages(&pod)
        .into_iter()
        .map(|stage| (stage.name, stage.start.as_millisecond()))
        .collect();
    assert_eq!(read, [(StageName::Fetch, 1_000), (StageName::Build, 3_000)]);
}
