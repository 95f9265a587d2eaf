//! Why a pod does not come to run: the scheduler's, the kubelet's and the API server's words, sorted
//! into reasons. Pure.

use firn_crd::exit::{Container, Reason};
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
            format!(
                "a ResourceQuota leaves no room for the build: {words}. It is tried again by \
                 itself; raise the quota, or lower build.resources in the spec"
            ),
        )
    } else {
        Failure::new(
            Reason::PodRejected,
            format!(
                "the API server refuses the build's pod: {words}. Build pods pass Pod Security \
                 restricted: let them pass the policy that is named here"
            ),
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
        format!(
            "no node fits the build's pod, which wants {}: {words}. {}",
            wanted(pod),
            fitting(&words)
        ),
    ))
}

/// What the pod asks of a node: its labels, and what the scheduler reserves for its largest
/// container.
fn wanted(pod: &Pod) -> String {
    let spec = pod.spec.clone().unwrap_or_default();
    let labels = spec.node_selector.unwrap_or_default();
    let mut parts: Vec<String> = labels
        .iter()
        .map(|(label, value)| format!("{label}={value}"))
        .collect();
    // The only container whose requests a user or the chart chooses.
    let build = spec
        .init_containers
        .unwrap_or_default()
        .into_iter()
        .find(|container| container.name == Container::Build.to_string());
    let requests = build
        .and_then(|container| container.resources?.requests)
        .unwrap_or_default();
    parts.extend(
        requests
            .iter()
            .map(|(resource, quantity)| format!("{resource} {}", quantity.0)),
    );
    if parts.is_empty() {
        "nothing in particular".to_owned()
    } else {
        parts.join(", ")
    }
}

/// What helps, by the scheduler's words (kube-scheduler 1.35, the plugins' `Err…` constants).
fn fitting(words: &str) -> String {
    let known = [
        (
            "Insufficient",
            "lower build.resources.requests (the chart's defaults.resources if the spec has none)",
        ),
        (
            "node affinity/selector",
            "correct build.nodeSelector, build.affinity or output.platforms",
        ),
        ("untolerated taint", "add build.tolerations"),
        (
            "PersistentVolumeClaim",
            "correct build.store.storageClassName",
        ),
        ("unschedulable", "uncordon a node"),
    ];
    let mut remedies: Vec<&str> = known
        .iter()
        .filter(|(word, _)| words.contains(word))
        .map(|(_, remedy)| *remedy)
        .collect();
    remedies.push("add a node that fits");
    let text = remedies.join(", or ");
    let (first, rest) = text.split_at(1);
    first.to_uppercase() + rest
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
            format!(
                "the node cannot pull Firn's builder image ({reason}): {words}. Check the chart's \
                 builder.image, and that the Secrets of builder.imagePullSecrets are in this \
                 namespace"
            ),
        )),
        "CreateContainerConfigError" => Some(missing(&words).unwrap_or_else(|| {
            Failure::new(
                Reason::InternalError,
                format!("the node refuses the container's configuration: {words}"),
            )
        })),
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
    Some(missing(words).unwrap_or_else(|| {
        Failure::new(
            Reason::VolumePending,
            format!(
                "a volume is not ready: {words}. Check build.store.storageClassName, and the \
                 events of the pod and of its claim"
            ),
        )
    }))
}

/// A Secret or `ConfigMap` that is not there, or has not what is wanted of it: the kubelet's words
/// for volumes and for variables (kubelet 1.35). `None`: they say something else.
fn missing(words: &str) -> Option<Failure> {
    let lower = words.to_lowercase();
    let kind = if lower.contains("configmap") {
        "ConfigMap"
    } else if lower.contains("secret") {
        "Secret"
    } else {
        return None;
    };
    let key = [
        "non-existent secret key",
        "non-existent config key",
        "couldn't find key",
    ];
    let message = if key.iter().any(|word| lower.contains(word)) {
        format!("a {kind} that the spec names lacks a key: {words}. Add the key to it")
    } else if lower.contains("not found") {
        format!(
            "a {kind} that the spec names does not exist: {words}. Create it, or correct its name \
             in the spec"
        )
    } else {
        return None;
    };
    Some(Failure::new(Reason::SecretMissing, message))
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
    fn what_no_node_has_is_named_with_what_helps() {
        let mut pod = pod(
            &json!({"conditions": [{"type": "PodScheduled", "status": "False",
            "message": "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) didn't match Pod's node affinity/selector."}]}),
        );
        pod.spec = serde_json::from_value(json!({
            "nodeSelector": {"kubernetes.io/arch": "arm64"},
            "containers": [],
            "initContainers": [{"name": "build", "resources": {"requests": {"cpu": "64"}}}],
        }))
        .unwrap();
        let message = of_pod(&pod, &[]).unwrap().message;
        for part in [
            "wants kubernetes.io/arch=arm64, cpu 64: ",
            "build.resources.requests",
            "build.nodeSelector",
            "or add a node that fits",
        ] {
            assert!(message.contains(part), "{part:?} is not in {message:?}");
        }
        assert!(!message.contains("toleration"), "{message}");
    }

    #[test]
    fn a_configuration_error_is_a_missing_secret_only_if_it_says_so() {
        let told = |words: &str| {
            let pod = pod(&json!({"initContainerStatuses": [{
                "name": "check", "image": "x", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"waiting": {"reason": "CreateContainerConfigError", "message": words}}}]}));
            let failure = of_pod(&pod, &[]).unwrap();
            (failure.reason, failure.message)
        };
        let (reason, message) = told("secret \"login\" not found");
        assert_eq!(reason, Reason::SecretMissing);
        assert!(message.contains("a Secret that the spec names does not exist"));
        let (reason, message) = told("couldn't find key user in ConfigMap team/settings");
        assert_eq!(reason, Reason::SecretMissing);
        assert!(message.contains("a ConfigMap that the spec names lacks a key"));
        let (reason, _) = told("container has runAsNonRoot and image will run as root");
        assert_eq!(reason, Reason::InternalError);
    }

    #[test]
    fn each_state_of_waiting_has_its_reason() {
        let reason = |word: &str| of_pod(&pulling(word), &[]).map(|failure| failure.reason);
        assert_eq!(reason("ImagePullBackOff"), Some(Reason::ImagePullFailed));
        assert_eq!(
            reason("CreateContainerConfigError"),
            Some(Reason::InternalError)
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
