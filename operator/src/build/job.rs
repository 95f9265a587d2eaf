//! The Job of a build: its pod passes Pod Security `restricted`, holds no API token, and gives each
//! container what it needs and nothing else. Pure; what goes in is an [`Order`].

use std::collections::BTreeMap;

use firn_crd::exit::{Container, final_exit_codes};
use firn_crd::names;
use firn_crd::pod;
use k8s_openapi::api::batch::v1::{
    Job, JobSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement,
    PodFailurePolicyOnPodConditionsPattern, PodFailurePolicyRule,
};
use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, Container as PodContainer, EnvVar, LocalObjectReference,
    PodSecurityContext, PodSpec, PodTemplateSpec, ResourceRequirements, SeccompProfile,
    SecurityContext, ServiceAccount, Toleration,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::volumes::Volumes;

/// The account of build pods: it may do nothing, and its token is not mounted.
pub const SERVICE_ACCOUNT: &str = "firn-build";
/// Annotation of Jobs: the strongest reason for the build, or [`super::queue::PUBLISH`]; it gives the
/// Job's place in the queue.
pub const ANNOTATION_REASON: &str = "firn.dev/reason";
/// How long a container may take to end after SIGTERM: push aborts its upload.
const GRACE_SECONDS: i64 = 30;

/// Everything that differs from Job to Job.
#[derive(Debug, Clone, PartialEq)]
pub struct Order {
    /// Name of the Job.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// The `NixImageBuild`.
    pub owner: OwnerReference,
    /// Name of the `NixImageBuild`.
    pub build: String,
    /// Name of the `NixImage`, if the build belongs to one.
    pub image: Option<String>,
    /// The build's key, if it belongs to a `NixImage`.
    pub key: Option<String>,
    /// What gives its place in the queue: see [`ANNOTATION_REASON`].
    pub reason: String,
    /// Kueue's LocalQueue, if it decides when the Job begins.
    pub queue: Option<String>,
    /// `linux/amd64`.
    pub platform: String,
    /// What each container is told, as JSON.
    pub run: String,
    /// The containers, in the order in which they run; the last is the main one.
    pub containers: Vec<Container>,
    /// The volumes.
    pub volumes: Volumes,
    /// Resources of the build container.
    pub resources: ResourceRequirements,
    /// Pods the Job may start again after failures that may go away at once.
    pub backoff_limit: i32,
    /// Longest time from the Job's start to its end.
    pub deadline_seconds: i64,
    /// Where the pod may run, and how it is treated there.
    pub placement: Placement,
    /// What whoever runs the operator decided.
    pub site: Site,
}

/// Where the pod may run, and how it is treated there.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Placement {
    /// Labels of the node; operating system and architecture are added.
    pub node_selector: BTreeMap<String, String>,
    /// Taints it may ignore.
    pub tolerations: Vec<Toleration>,
    /// Which nodes it prefers.
    pub affinity: Option<Affinity>,
    /// Who is evicted first.
    pub priority_class: Option<String>,
    /// What runs its containers.
    pub runtime_class: Option<String>,
}

/// What whoever runs the operator decided.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Site {
    /// Image of the containers.
    pub builder_image: String,
    /// Secrets for pulling it.
    pub pull_secrets: Vec<String>,
    /// Environment of every container: proxies.
    pub environment: Vec<(String, String)>,
    /// CA certificates that the whole cluster trusts, PEM.
    pub cluster_ca: Option<String>,
}

/// The Job, suspended: it is a place in the queue until it is resumed.
pub fn job(order: &Order) -> Job {
    Job {
        metadata: ObjectMeta {
            name: Some(order.name.clone()),
            namespace: Some(order.namespace.clone()),
            labels: Some(job_labels(order)),
            annotations: Some([(ANNOTATION_REASON.to_owned(), order.reason.clone())].into()),
            owner_references: Some(vec![order.owner.clone()]),
            ..ObjectMeta::default()
        },
        spec: Some(JobSpec {
            suspend: Some(true),
            completions: Some(1),
            parallelism: Some(1),
            backoff_limit: Some(order.backoff_limit),
            active_deadline_seconds: Some(order.deadline_seconds),
            pod_replacement_policy: Some("Failed".into()),
            pod_failure_policy: Some(failure_policy(&order.containers)),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(labels(order)),
                    annotations: Some(pod_annotations(order)),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod_spec(order)),
            },
            ..JobSpec::default()
        }),
        status: None,
    }
}

/// The account of build pods in a namespace.
pub fn service_account(namespace: &str) -> ServiceAccount {
    ServiceAccount {
        metadata: ObjectMeta {
            name: Some(SERVICE_ACCOUNT.into()),
            namespace: Some(namespace.into()),
            labels: Some([managed_by()].into()),
            ..ObjectMeta::default()
        },
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}

fn managed_by() -> (String, String) {
    (names::LABEL_MANAGED_BY.into(), names::MANAGED_BY.into())
}

fn job_labels(order: &Order) -> BTreeMap<String, String> {
    let mut labels = labels(order);
    let queue = order.queue.clone();
    labels.extend(queue.map(|queue| (names::LABEL_QUEUE.into(), queue)));
    labels
}

fn labels(order: &Order) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::from([
        managed_by(),
        (names::LABEL_BUILD.into(), order.build.clone()),
        (
            names::LABEL_PLATFORM.into(),
            names::platform_label(&order.platform),
        ),
    ]);
    labels.extend(
        order
            .image
            .clone()
            .map(|image| (names::LABEL_IMAGE.into(), image)),
    );
    labels.extend(order.key.clone().map(|key| (names::LABEL_KEY.into(), key)));
    labels
}

fn pod_annotations(order: &Order) -> BTreeMap<String, String> {
    let pushes: &str = Container::Push.into();
    let mut annotations = BTreeMap::from([
        // A sidecar of a mesh never ends, and with it the Job.
        ("sidecar.istio.io/inject".into(), "false".into()),
        ("linkerd.io/inject".into(), "disabled".into()),
        ("kubectl.kubernetes.io/default-container".into(), {
            let build: &str = Container::Build.into();
            let builds = order.containers.contains(&Container::Build);
            if builds { build } else { pushes }.into()
        }),
    ]);
    annotations.extend(
        order
            .site
            .cluster_ca
            .clone()
            .map(|pem| (names::ANNOTATION_CLUSTER_CA.into(), pem)),
    );
    annotations
}

/// After which exits another pod makes no sense. Evicted and preempted pods are replaced and not
/// counted. Rules of containers that the pod does not have would be refused.
fn failure_policy(containers: &[Container]) -> PodFailurePolicy {
    let disrupted = PodFailurePolicyRule {
        action: "Ignore".into(),
        on_pod_conditions: Some(vec![PodFailurePolicyOnPodConditionsPattern {
            status: "True".into(),
            type_: "DisruptionTarget".into(),
        }]),
        on_exit_codes: None,
    };
    let finals = containers.iter().map(|container| PodFailurePolicyRule {
        action: "FailJob".into(),
        on_pod_conditions: None,
        on_exit_codes: Some(PodFailurePolicyOnExitCodesRequirement {
            container_name: Some(container.to_string()),
            operator: "In".into(),
            values: final_exit_codes(*container),
        }),
    });
    PodFailurePolicy {
        rules: [disrupted].into_iter().chain(finals).collect(),
    }
}

fn pod_spec(order: &Order) -> PodSpec {
    let (main, init) = order
        .containers
        .split_last()
        .map_or((None, &[][..]), |(main, init)| (Some(main), init));
    let pull_secrets = order
        .site
        .pull_secrets
        .iter()
        .map(|name| LocalObjectReference { name: name.clone() })
        .collect::<Vec<_>>();
    PodSpec {
        service_account_name: Some(SERVICE_ACCOUNT.into()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        restart_policy: Some("Never".into()),
        termination_grace_period_seconds: Some(GRACE_SECONDS),
        image_pull_secrets: some(pull_secrets),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            fs_group: Some(pod::GID),
            fs_group_change_policy: Some("OnRootMismatch".into()),
            seccomp_profile: Some(runtime_default()),
            ..PodSecurityContext::default()
        }),
        node_selector: Some(node_selector(order)),
        tolerations: some(order.placement.tolerations.clone()),
        affinity: order.placement.affinity.clone(),
        priority_class_name: order.placement.priority_class.clone(),
        runtime_class_name: order.placement.runtime_class.clone(),
        init_containers: some(init.iter().map(|c| container(order, *c)).collect()),
        containers: main.into_iter().map(|c| container(order, *c)).collect(),
        volumes: Some(order.volumes.volumes(&order.containers)),
        ..PodSpec::default()
    }
}

fn node_selector(order: &Order) -> BTreeMap<String, String> {
    let (os, arch) = order
        .platform
        .split_once('/')
        .unwrap_or(("linux", &order.platform));
    let mut selector = order.placement.node_selector.clone();
    selector.insert("kubernetes.io/os".into(), os.into());
    selector.insert("kubernetes.io/arch".into(), arch.into());
    selector
}

fn container(order: &Order, container: Container) -> PodContainer {
    let publishes = container == Container::Push && !order.containers.contains(&Container::Build);
    let command = if publishes {
        "publish".to_owned()
    } else {
        container.to_string()
    };
    let resources = resources(order, container);
    PodContainer {
        name: container.to_string(),
        image: Some(order.site.builder_image.clone()),
        command: Some(vec!["firn-streamer".into(), command]),
        env: Some(environment(order, &resources)),
        resources: Some(resources),
        security_context: Some(security(container)),
        // A crash leaves the end of its log where the operator finds it.
        termination_message_policy: Some("FallbackToLogsOnError".into()),
        volume_mounts: Some(order.volumes.mounts(container, &order.containers)),
        ..PodContainer::default()
    }
}

fn environment(order: &Order, resources: &ResourceRequirements) -> Vec<EnvVar> {
    let memory = resources
        .limits
        .as_ref()
        .and_then(|limits| limits.get("memory"))
        .and_then(|quantity| bytes(&quantity.0))
        .map(|bytes| (pod::ENV_MEMORY_LIMIT.to_owned(), bytes.to_string()));
    let ca = order.volumes.cluster_ca.then(|| {
        let file = format!("{}/{}", pod::CLUSTER_CA, super::volumes::CA_FILE);
        (pod::ENV_CLUSTER_CA.to_owned(), file)
    });
    [(pod::ENV_RUN.to_owned(), order.run.clone())]
        .into_iter()
        .chain(memory)
        .chain(ca)
        .chain(order.site.environment.clone())
        .map(|(name, value)| EnvVar {
            name,
            value: Some(value),
            value_from: None,
        })
        .collect()
}

fn security(container: Container) -> SecurityContext {
    let user = match container {
        Container::Fetch | Container::Build => pod::UID_BUILD,
        Container::Check | Container::Push => pod::UID_PUSH,
    };
    SecurityContext {
        run_as_user: Some(user),
        run_as_group: Some(pod::GID),
        run_as_non_root: Some(true),
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities {
            add: None,
            drop: Some(vec!["ALL".into()]),
        }),
        seccomp_profile: Some(runtime_default()),
        ..SecurityContext::default()
    }
}

fn runtime_default() -> SeccompProfile {
    SeccompProfile {
        type_: "RuntimeDefault".into(),
        localhost_profile: None,
    }
}

/// The build container's are the user's business; the others need little whatever is built:
/// check talks, fetch downloads and evaluates inputs, push streams with bounded memory.
fn resources(order: &Order, container: Container) -> ResourceRequirements {
    match container {
        Container::Build => order.resources.clone(),
        Container::Check => small("10m", "32Mi", "256Mi"),
        Container::Fetch | Container::Push => small("50m", "128Mi", "1Gi"),
    }
}

fn small(cpu: &str, memory: &str, limit: &str) -> ResourceRequirements {
    let quantity = |text: &str| Quantity(text.to_owned());
    ResourceRequirements {
        requests: Some(
            [
                ("cpu".to_owned(), quantity(cpu)),
                ("memory".to_owned(), quantity(memory)),
            ]
            .into(),
        ),
        limits: Some([("memory".to_owned(), quantity(limit))].into()),
        claims: None,
    }
}

/// A quantity in bytes. `None`: not a whole number of bytes, as `1e3m` is not.
pub fn bytes(quantity: &str) -> Option<u64> {
    let digits = quantity.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match quantity.get(digits.len()..)? {
        "" => 1,
        "k" => 1000,
        "M" => 1000_u64.pow(2),
        "G" => 1000_u64.pow(3),
        "T" => 1000_u64.pow(4),
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        _ => return None,
    };
    match digits.split_once('.') {
        None => digits.parse::<u64>().ok()?.checked_mul(unit),
        // 1.5Gi: thousandths are exact enough for a message.
        Some((whole, part)) => {
            let thousandths: u64 = format!("{part:0<3}").get(..3)?.parse().ok()?;
            let whole: u64 = if whole.is_empty() {
                0
            } else {
                whole.parse().ok()?
            };
            whole
                .checked_mul(unit)?
                .checked_add(unit.checked_mul(thousandths)? / 1000)
        }
    }
}

fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

#[cfg(test)]
mod tests;
