//! Why a pod does not come to run: the scheduler's, the kubelet's and the API server's words, sorted
//! into reasons. Pure.

use firn_crd::exit::Reason;
use k8s_openapi::api::core::v1::{ContainerStateWaiting, Pod};

use super::Warning;
use super::report::Failure;

/// Why a Job has no pod. `None`: it was not tried yet.
pub fn of_job(warnings: &[Warning]) -> Option<Failure> {
    let warning = warnings
        .iter()
        .rev()
        .find(|warning| warning.reason == "FailedCreate")?;
    Some(refused(&warning.message))
}

/// What the API server means when it refuses a Job or a pod.
pub fn refused(words: &str) -> Failure {
    if words.contains("exceeded quota") {
        Failure::new(
            Reason::QuotaExceeded,
            format!("a ResourceQuota leaves no room for the build: {words}"),
        )
    } else {
        Failure::new(
            Reason::PodRejected,
            format!("the API server refuses the build's pod: {words}"),
        )
    }
}

/// Why a pod's containers do not start. `None`: nobody complains yet.
pub fn of_pod(pod: &Pod, warnings: &[Warning]) -> Option<Failure> {
    unscheduled(pod)
        .or_else(|| waiting(pod))
        .or_else(|| unmounted(warnings))
}

fn unscheduled(pod: &Pod) -> Option<Failure> {
    let conditions = pod.status.as_ref()?.conditions.as_deref()?;
    let condition = conditions
        .iter()
        .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False")?;
    let words = condition.message.clone().unwrap_or_default();
    Some(Failure::new(
        Reason::Unschedulable,
        format!("no node fits the build's pod: {words}"),
    ))
}

fn waiting(pod: &Pod) -> Option<Failure> {
    let status = pod.status.as_ref()?;
    let init = status
        .init_container_statuses
        .as_deref()
        .unwrap_or_default();
    let main = status.container_statuses.as_deref().unwrap_or_default();
    init.iter()
        .chain(main)
        .filter_map(|container| container.state.as_ref()?.waiting.as_ref())
        .find_map(of_waiting)
}

fn of_waiting(waiting: &ContainerStateWaiting) -> Option<Failure> {
    let words = waiting.message.clone().unwrap_or_default();
    let reason = waiting.reason.as_deref()?;
    match reason {
        "ErrImagePull"
        | "ImagePullBackOff"
        | "InvalidImageName"
        | "ErrImageNeverPull"
        | "RegistryUnavailable"
        | "ImageInspectError" => Some(Failure::new(
            Reason::ImagePullFailed,
            format!("the node cannot pull Firn's builder image ({reason}): {words}"),
        )),
        "CreateContainerConfigError" => Some(missing(&words)),
        "CreateContainerError" | "RunContainerError" => Some(Failure::new(
            Reason::InternalError,
            format!("the node cannot start the container ({reason}): {words}"),
        )),
        _ => None,
    }
}

fn unmounted(warnings: &[Warning]) -> Option<Failure> {
    let warning = warnings.iter().rev().find(|warning| {
        matches!(
            warning.reason.as_str(),
            "FailedMount" | "FailedAttachVolume" | "FailedBinding" | "ProvisioningFailed"
        )
    })?;
    let words = &warning.message;
    let absent = words.contains("not found") || words.contains("non-existent");
    let object = words.contains("secret") || words.contains("configmap");
    Some(if absent && object {
        missing(words)
    } else {
        Failure::new(
            Reason::VolumePending,
            format!("a volume is not ready: {words}"),
        )
    })
}

fn missing(words: &str) -> Failure {
    Failure::new(
        Reason::SecretMissing,
        format!(
            "a Secret or ConfigMap that the spec names does not exist or lacks a key: {words}. \
             Create it, or correct its name in the spec"
        ),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(status: &Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "status": status})).unwrap()
    }

    fn warning(reason: &str, message: &str) -> Vec<Warning> {
        vec![Warning {
            reason: reason.into(),
            message: message.into(),
        }]
    }

    fn pulling(reason: &str) -> Pod {
        pod(&json!({"initContainerStatuses": [{
            "name": "check", "image": "x", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"waiting": {"reason": reason, "message": "words"}}}]}))
    }

    #[test]
    fn the_schedulers_words_are_passed_on() {
        let pod = pod(
            &json!({"conditions": [{"type": "PodScheduled", "status": "False",
            "message": "0/3 nodes are available: 3 Insufficient memory."}]}),
        );
        let failure = of_pod(&pod, &[]).unwrap();
        assert_eq!(failure.reason, Reason::Unschedulable);
        assert!(failure.message.contains("Insufficient memory"));
    }

    #[test]
    fn each_state_of_waiting_has_its_reason() {
        let reason = |word: &str| of_pod(&pulling(word), &[]).map(|failure| failure.reason);
        assert_eq!(reason("ImagePullBackOff"), Some(Reason::ImagePullFailed));
        assert_eq!(
            reason("CreateContainerConfigError"),
            Some(Reason::SecretMissing)
        );
        assert_eq!(reason("RunContainerError"), Some(Reason::InternalError));
        assert_eq!(reason("PodInitializing"), None);
    }

    #[test]
    fn a_missing_secret_shows_in_an_event_only() {
        let words =
            "MountVolume.SetUp failed for volume \"push-secret\" : secret \"login\" not found";
        let failure = of_pod(&pod(&json!({})), &warning("FailedMount", words)).unwrap();
        assert_eq!(failure.reason, Reason::SecretMissing);
        assert!(failure.message.contains("\"login\" not found"));
        let key = "references non-existent secret key: .dockerconfigjson";
        assert_eq!(
            of_pod(&pod(&json!({})), &warning("FailedMount", key))
                .unwrap()
                .reason,
            Reason::SecretMissing
        );
        let other = "Unable to attach or mount volumes: timed out waiting for the condition";
        assert_eq!(
            of_pod(&pod(&json!({})), &warning("FailedMount", other))
                .unwrap()
                .reason,
            Reason::VolumePending
        );
    }

    #[test]
    fn a_quota_is_waited_for_and_a_policy_is_not() {
        let reason = |words: &str| of_job(&warning("FailedCreate", words)).unwrap().reason;
        assert_eq!(
            reason("pods \"x\" is forbidden: exceeded quota: small, requested: pods=1"),
            Reason::QuotaExceeded
        );
        assert_eq!(
            reason("pods \"x\" is forbidden: violates PodSecurity \"restricted:latest\""),
            Reason::PodRejected
        );
        assert_eq!(of_job(&[]), None);
    }
}
