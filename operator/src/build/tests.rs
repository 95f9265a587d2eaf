//! Plans about builds: each test says what differs from a build whose pod runs.

use firn_crd::build::{BuildReason, ImageRef};
use firn_crd::build_status::{BuildOutcome, PlatformState};
use firn_crd::condition::{ConditionType, find_condition};
use firn_crd::exit::Reason;
use firn_crd::flake::Flake;
use firn_crd::names::{ANNOTATION_SUPERSEDED, LABEL_BUILD, LABEL_IMAGE};
use firn_crd::output::{Output, Platform};
use firn_crd::report::{Failed, Outcome, Pushed, Report};
use firn_crd::resolved::{ResolvedGit, ResolvedOutput, ResolvedSource};
use firn_crd::source::{GitSource, Source};
use firn_crd::{NixImageBuildSpec, NixImageSpec};
use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{Resource as _, ResourceExt};
use serde_json::json;

mod platforms;

use super::plan::Action;
use super::queue::Turn;
use super::*;

pub(super) fn start() -> Timestamp {
    "2026-11-24T10:00:00Z".parse().unwrap()
}

fn after(seconds: i64) -> Timestamp {
    start()
        .checked_add(SignedDuration::from_secs(seconds))
        .unwrap()
}

pub(crate) fn build() -> NixImageBuild {
    let spec = NixImageBuildSpec {
        cancel: false,
        image: Some(ImageRef {
            name: "web".into(),
            uid: "image-uid".into(),
            generation: 1,
        }),
        number: Some(17),
        key: Some("k3y".into()),
        reasons: vec![BuildReason::Revision],
        changes: Vec::new(),
        source: ResolvedSource {
            git: Some(ResolvedGit {
                url: "https://git.example/web".into(),
                reference: Some("refs/heads/main".into()),
                commit: "01".repeat(20),
                dir: ".".into(),
                submodules: false,
                secret_ref: None,
                ca_config_map_ref: None,
            }),
            ..ResolvedSource::default()
        },
        flake: Flake::default(),
        output: output(),
        build: firn_crd::build_spec::BuildSpec::default(),
        cache: firn_crd::cache::Cache::default(),
        signing: None,
        attestations: firn_crd::signing::Attestations::default(),
    };
    let mut build = NixImageBuild::new("web-17", spec);
    build.metadata.namespace = Some("shop".into());
    build.metadata.uid = Some("build-uid".into());
    build.metadata.generation = Some(1);
    build.metadata.creation_timestamp = Some(Time(start()));
    build.metadata.owner_references = Some(image().controller_owner_ref(&()).into_iter().collect());
    build
}

fn output() -> ResolvedOutput {
    let blank = Output::new("registry.example/web");
    ResolvedOutput {
        repository: blank.repository,
        tags: vec!["latest".into()],
        tag_policy: blank.tag_policy,
        push_secret_ref: None,
        base_pull_secret_ref: None,
        base_ca_config_map_ref: None,
        base_plain_http_hosts: Vec::new(),
        ca_config_map_ref: None,
        plain_http: false,
        platforms: vec![Platform {
            attribute: Some("default".into()),
            ..Platform::default()
        }],
        labels: blank.labels,
        annotations: blank.annotations,
        timestamp: blank.timestamp,
        layers: blank.layers,
        config: blank.config,
        files: blank.files,
    }
}

pub(super) fn image() -> NixImage {
    let source = Source {
        git: Some(GitSource::new("https://git.example/web")),
        oci: None,
    };
    let mut image = NixImage::new(
        "web",
        NixImageSpec::new(source, Output::new("registry.example/web")),
    );
    image.metadata.uid = Some("image-uid".into());
    image
}

/// The Job, as it was made and then resumed.
fn job() -> Job {
    let build = build();
    let known = Known {
        build: &build,
        image: None,
        previous: None,
        earlier: &[],
    };
    let part = order::parts(&build)[0];
    let order = order::order(known, part, &[], &job::Site::default()).unwrap();
    let mut job = job::job(&order);
    job.metadata.uid = Some("job-uid".into());
    job.spec.as_mut().unwrap().suspend = Some(false);
    job.status = serde_json::from_value(json!({"startTime": start().to_string()})).unwrap();
    job
}

fn suspended() -> Job {
    let mut job = job();
    job.spec.as_mut().unwrap().suspend = Some(true);
    job.status = None;
    job
}

fn ended(kind: &str, reason: &str) -> Job {
    let mut job = job();
    job.status = serde_json::from_value(json!({
        "startTime": start().to_string(),
        "conditions": [{"type": kind, "status": "True", "reason": reason, "message": "words"}],
    }))
    .unwrap();
    job
}

/// A pod in this phase, its containers so: name, state.
fn pod(name: &str, phase: &str, containers: &[(&str, serde_json::Value)]) -> Pod {
    let statuses: Vec<_> = containers
        .iter()
        .map(|(name, state)| {
            json!({"name": name, "image": "b", "imageID": "", "ready": false, "restartCount": 0,
                   "state": state})
        })
        .collect();
    serde_json::from_value(json!({
        "metadata": {"name": name, "uid": name, "creationTimestamp": start().to_string(),
                     "labels": {LABEL_BUILD: "web-17", LABEL_IMAGE: "web"}},
        "spec": {"containers": [], "nodeName": "node-3"},
        "status": {"phase": phase, "initContainerStatuses": statuses},
    }))
    .unwrap()
}

fn pending() -> Pod {
    pod(
        "p1",
        "Pending",
        &[("check", json!({"waiting": {"reason": "PodInitializing"}}))],
    )
}

fn running() -> Pod {
    pod(
        "p1",
        "Running",
        &[(
            "check",
            json!({"running": {"startedAt": after(5).to_string()}}),
        )],
    )
}

fn over(name: &str, container: &str, code: i32, result: Outcome) -> Pod {
    let message = Report::new(result, Vec::new()).to_message();
    let state = json!({"terminated": {
        "exitCode": code, "message": message,
        "startedAt": after(5).to_string(), "finishedAt": after(65).to_string()}});
    pod(
        name,
        if code == 0 { "Succeeded" } else { "Failed" },
        &[(container, state)],
    )
}

fn pushed() -> Pod {
    let result = Pushed {
        platform: "linux/amd64".into(),
        digest: format!("sha256:{}", "ab".repeat(32)),
        bytes_pushed: 800,
        ..Pushed::default()
    };
    over("p1", "push", 0, Outcome::Pushed(Box::new(result)))
}

fn broken(reason: Reason) -> Pod {
    let failed = Failed {
        reason,
        message: "web-1.0 does not build".into(),
        drv_path: None,
        log_tail: Some("error: snow".into()),
        retry_after: None,
    };
    let code = i32::from(reason.exit_code().unwrap());
    over("p1", "build", code, Outcome::Failed(Box::new(failed)))
}

/// A build whose pod runs.
fn observed() -> Observed {
    Observed {
        now: after(10),
        build: Arc::new(build()),
        image: Some(Arc::new(image())),
        previous: None,
        earlier: Vec::new(),
        has_account: true,
        jobs: vec![seen()],
        refused: None,
        site: Arc::new(job::Site::default()),
        retention: std::time::Duration::from_secs(3600),
    }
}

/// A Job whose pod runs.
fn seen() -> Seen {
    Seen {
        part: order::parts(&build())[0],
        job: Some(job()),
        pods: vec![running()],
        others: Vec::new(),
        warnings: Vec::new(),
        turn: Turn::Now,
    }
}

/// What the API server has once a plan was done.
fn done(observed: Observed) -> Observed {
    let plan = plan(&observed);
    let mut build = observed.build.as_ref().clone();
    if let Some(status) = plan.status {
        build.status = Some(*status);
    }
    Observed {
        build: Arc::new(build),
        ..observed
    }
}

fn cancelled(observed: Observed) -> Observed {
    let mut build = observed.build.as_ref().clone();
    build.spec.cancel = true;
    Observed {
        build: Arc::new(build),
        ..observed
    }
}

/// Succeeded: status and reason.
fn succeeded(plan: &Plan) -> (String, String) {
    let status = plan.status.as_ref().expect("status changes");
    let condition = find_condition(&status.conditions, ConditionType::Succeeded).unwrap();
    (condition.status.clone(), condition.reason.clone())
}

fn words(plan: &Plan) -> Vec<String> {
    plan.events
        .iter()
        .map(|event| event.reason.to_string())
        .collect()
}

fn outcome(plan: &Plan) -> Option<BuildOutcome> {
    plan.status.as_ref().and_then(|status| status.outcome)
}

#[test]
fn a_new_build_gets_its_account_and_its_job() {
    let plan = plan(&Observed {
        has_account: false,
        jobs: vec![Seen {
            job: None,
            pods: vec![],
            ..seen()
        }],
        ..observed()
    });
    let [Action::CreateAccount(account), Action::CreateJob(job)] = plan.actions.as_slice() else {
        panic!("{:?}", plan.actions);
    };
    assert_eq!(account.name_any(), "firn-build");
    assert_eq!(job.name_any(), "web-17-amd64");
    assert_eq!(succeeded(&plan), ("Unknown".into(), "Queued".into()));
    let status = plan.status.unwrap();
    assert_eq!(status.platforms[0].job.as_deref(), Some("web-17-amd64"));
}

#[test]
fn a_suspended_job_begins_when_it_is_its_turn() {
    let waits = |turn| Observed {
        jobs: vec![Seen {
            job: Some(suspended()),
            pods: vec![],
            turn,
            ..seen()
        }],
        ..observed()
    };
    let plan_now = plan(&waits(Turn::Now));
    assert_eq!(
        plan_now.actions,
        [Action::Resume {
            job: "web-17-amd64".into()
        }]
    );
    let later = plan(&waits(Turn::Wait { ahead: 2 }));
    assert_eq!(later.actions, []);
    assert_eq!(succeeded(&later), ("Unknown".into(), "Queued".into()));
}

/// A build whose Jobs wait for Kueue.
fn admitted_by_kueue(seen: Seen) -> Observed {
    let mut build = build();
    build.spec.build.queue_name = Some("builds".into());
    Observed {
        build: Arc::new(build),
        jobs: vec![seen],
        ..observed()
    }
}

#[test]
fn a_job_of_kueue_s_is_labelled_and_never_resumed() {
    let unmade = Seen {
        job: None,
        pods: vec![],
        ..seen()
    };
    let made = plan(&admitted_by_kueue(unmade));
    let [Action::CreateJob(made)] = made.actions.as_slice() else {
        panic!("{:?}", made.actions);
    };
    assert_eq!(made.labels()["kueue.x-k8s.io/queue-name"], "builds");
    assert_eq!(made.spec.as_ref().unwrap().suspend, Some(true));
    let template = &made.spec.as_ref().unwrap().template;
    let labels = template.metadata.as_ref().unwrap().labels.clone().unwrap();
    assert!(!labels.contains_key("kueue.x-k8s.io/queue-name"));

    let waits = plan(&admitted_by_kueue(Seen {
        job: Some(suspended()),
        pods: vec![],
        turn: Turn::Now,
        ..seen()
    }));
    assert_eq!(waits.actions, []);
    assert_eq!(succeeded(&waits), ("Unknown".into(), "Queued".into()));
    let status = waits.status.unwrap();
    let said = find_condition(&status.conditions, ConditionType::Succeeded);
    assert!(said.unwrap().message.contains("queue \"builds\""));
}

#[test]
fn a_job_of_kueue_s_is_made_when_no_older_pod_is_left() {
    let unmade = Seen {
        job: None,
        pods: vec![],
        others: vec!["web-16-amd64-x".into()],
        ..seen()
    };
    let waits = plan(&admitted_by_kueue(unmade.clone()));
    assert_eq!(waits.actions, []);
    assert_eq!(succeeded(&waits), ("Unknown".into(), "Queued".into()));
    // Nothing was made, so nothing is missing when it is looked at again.
    let then = done(admitted_by_kueue(unmade));
    let made = plan(&Observed {
        jobs: vec![Seen {
            job: None,
            pods: vec![],
            ..seen()
        }],
        ..then
    });
    assert!(
        matches!(made.actions.as_slice(), [Action::CreateJob(_)]),
        "{made:?}"
    );
}

#[test]
fn a_build_that_kueue_takes_back_waits_again() {
    let runs = done(admitted_by_kueue(seen()));
    let back = plan(&Observed {
        jobs: vec![Seen {
            job: Some(suspended()),
            pods: vec![],
            ..seen()
        }],
        ..runs
    });
    assert_eq!(back.actions, []);
    assert_eq!(succeeded(&back), ("Unknown".into(), "Queued".into()));
}

/// What is said of a build whose pod is being deleted since `after(20)`, seen at that time.
fn said_of_a_pod_that_goes(now: Timestamp, conditions: serde_json::Value) -> (String, Plan) {
    let mut going = running();
    going.metadata.deletion_timestamp = Some(Time(after(20)));
    going.status.as_mut().unwrap().conditions = serde_json::from_value(conditions).unwrap();
    let plan = plan(&Observed {
        now,
        jobs: vec![Seen {
            pods: vec![going],
            ..seen()
        }],
        ..observed()
    });
    let status = plan.status.clone().unwrap();
    let said = find_condition(&status.conditions, ConditionType::Succeeded).unwrap();
    assert_eq!((&*said.status, &*said.reason), ("Unknown", "Building"));
    (said.message.clone(), plan)
}

#[test]
fn a_pod_that_is_being_deleted_is_not_said_to_run() {
    let evicted = json!([{"type": "DisruptionTarget", "status": "True", "reason":
        "EvictionByEvictionAPI", "message": "Eviction API: evicting"}]);
    let (said, plan) = said_of_a_pod_that_goes(after(15), evicted);
    assert_eq!(
        said,
        "its pod is being removed (EvictionByEvictionAPI: Eviction API: evicting); another one follows"
    );
    // When its node should have answered.
    assert_eq!(plan.look_again, Some(after(80)));
    let (said, _) = said_of_a_pod_that_goes(after(15), json!([]));
    assert_eq!(
        said,
        "its pod is being deleted; another one follows if a retry is left"
    );
}

#[test]
fn a_node_that_does_not_answer_is_named() {
    let lost = json!([{"type": "DisruptionTarget", "status": "True", "reason":
        "DeletionByTaintManager", "message": "Taint manager: deleting due to NoExecute taint"}]);
    let (said, plan) = said_of_a_pod_that_goes(after(81), lost);
    assert_eq!(
        said,
        "its pod should have ended, and node \"node-3\" does not answer; another one follows when \
         the node is back, or when somebody deletes pod \"p1\" with --force"
    );
    assert_eq!(plan.look_again, Some(after(81 + 600)));
}

#[test]
fn a_job_does_not_begin_while_an_older_pod_of_the_image_may_run() {
    let plan = plan(&Observed {
        jobs: vec![Seen {
            job: Some(suspended()),
            pods: vec![],
            others: vec!["web-16-amd64-zombie".into()],
            ..seen()
        }],
        ..observed()
    });
    assert_eq!(plan.actions, []);
}

#[test]
fn a_push_that_ended_well_is_recorded_before_the_job_says_so() {
    let plan = plan(&Observed {
        jobs: vec![Seen {
            pods: vec![pushed()],
            ..seen()
        }],
        ..observed()
    });
    assert_eq!(outcome(&plan), Some(BuildOutcome::Published));
    assert_eq!(words(&plan), ["BuildSucceeded"]);
    assert_eq!(plan.cleanup, []);
    let status = plan.status.unwrap();
    assert_eq!(status.completion_time, Some(Time(after(65))));
    assert_eq!(status.duration.as_deref(), Some("1m5s"));
    assert_eq!(status.tags, ["latest"]);
    assert_eq!(status.platforms[0].state, PlatformState::Succeeded);
}

#[test]
fn a_failure_is_recorded_with_what_the_container_said() {
    let plan = plan(&Observed {
        jobs: vec![Seen {
            job: Some(ended("Failed", "PodFailurePolicy")),
            pods: vec![broken(Reason::BuildFailed)],
            ..seen()
        }],
        ..observed()
    });
    assert_eq!(outcome(&plan), Some(BuildOutcome::Failed));
    assert_eq!(succeeded(&plan), ("False".into(), "BuildFailed".into()));
    let failure = plan.status.unwrap().failure.unwrap();
    assert_eq!(failure.message.as_deref(), Some("web-1.0 does not build"));
    assert_eq!(failure.container.as_deref(), Some("build"));
    assert_eq!(failure.log_tail.as_deref(), Some("error: snow"));
}

#[test]
fn a_failed_pod_of_a_job_that_goes_on_is_no_end() {
    let plan = plan(&Observed {
        jobs: vec![Seen {
            pods: vec![broken(Reason::InternalError)],
            ..seen()
        }],
        ..observed()
    });
    assert_eq!(outcome(&plan), None);
    assert_eq!(plan.cleanup, []);
}

#[test]
fn a_job_past_its_deadline_is_a_failure_of_its_own() {
    let plan = plan(&Observed {
        jobs: vec![Seen {
            job: Some(ended("Failed", "DeadlineExceeded")),
            pods: vec![],
            ..seen()
        }],
        ..observed()
    });
    assert_eq!(succeeded(&plan).1, "DeadlineExceeded");
}

#[test]
fn a_node_that_is_lost_holds_nobody_for_ever() {
    let limit = i64::try_from(order::deadline(&build(), seen().part).as_secs()).unwrap();
    let at = |seconds| {
        plan(&Observed {
            now: after(seconds),
            ..observed()
        })
    };
    assert_eq!(outcome(&at(limit + 119)), None);
    let lost = at(limit + 121);
    assert_eq!(succeeded(&lost).1, "NodeLost");
    assert!(matches!(
        lost.cleanup.as_slice(),
        [Action::DeleteJob { .. }]
    ));
}

#[test]
fn a_build_ends_when_its_work_did_or_when_it_is_given_up() {
    let limit = i64::try_from(order::deadline(&build(), seen().part).as_secs()).unwrap();
    let given_up = limit + 121;
    let fetched = json!({"terminated": {"exitCode": 0,
        "startedAt": after(5).to_string(), "finishedAt": after(65).to_string()}});
    let builds = json!({"running": {"startedAt": after(66).to_string()}});
    let lost = pod("p1", "Running", &[("fetch", fetched), ("build", builds)]);
    let mut waiting = pending();
    waiting.metadata.name = Some("p2".into());
    let failed = broken(Reason::BuildFailed);
    for (pods, job, now, expected) in [
        (vec![pushed()], job(), 70, 65),
        (
            vec![broken(Reason::BuildFailed)],
            ended("Failed", ""),
            70,
            65,
        ),
        (vec![lost], job(), given_up, given_up),
        (vec![failed, waiting], job(), 1000, 1000),
    ] {
        let plan = plan(&Observed {
            now: after(now),
            jobs: vec![Seen {
                job: Some(job),
                pods,
                ..seen()
            }],
            ..observed()
        });
        let time = plan.status.unwrap().completion_time.unwrap();
        assert_eq!(time.0, after(expected), "after {now} s");
    }
}

#[test]
fn a_missing_secret_is_said_at_once_and_ends_the_build_soon() {
    let at = |seconds| Observed {
        now: after(seconds),
        jobs: vec![Seen {
            pods: vec![pending()],
            warnings: vec![Warning {
                reason: "FailedMount".into(),
                message: "secret \"login\" not found".into(),
            }],
            ..seen()
        }],
        ..observed()
    };
    let soon = plan(&at(10));
    assert_eq!(outcome(&soon), None);
    assert_eq!(succeeded(&soon), ("Unknown".into(), "SecretMissing".into()));
    assert_eq!(words(&soon), ["SecretMissing"]);
    let end = plan(&at(60));
    assert_eq!(succeeded(&end), ("False".into(), "SecretMissing".into()));
    assert!(matches!(end.cleanup.as_slice(), [Action::DeleteJob { .. }]));
}

#[test]
fn a_pod_that_does_not_start_in_time_ends_the_build() {
    let at = |seconds| {
        plan(&Observed {
            now: after(seconds),
            jobs: vec![Seen {
                pods: vec![pending()],
                ..seen()
            }],
            ..observed()
        })
    };
    assert_eq!(outcome(&at(899)), None);
    assert_eq!(succeeded(&at(900)).1, "VolumePending");
}

#[test]
fn a_quota_is_waited_for() {
    let refused = |words: &str| Observed {
        refused: Some(words.into()),
        jobs: vec![Seen {
            job: None,
            pods: vec![],
            ..seen()
        }],
        ..observed()
    };
    let quota = plan(&refused("jobs.batch is forbidden: exceeded quota: few"));
    assert_eq!(quota.actions, []);
    assert_eq!(
        succeeded(&quota),
        ("Unknown".into(), "QuotaExceeded".into())
    );
    assert!(quota.look_again.is_some());
    let policy = plan(&refused("Job is invalid"));
    assert_eq!(succeeded(&policy), ("False".into(), "PodRejected".into()));
}

#[test]
fn pods_that_are_refused_end_the_build_and_its_job() {
    let plan = plan(&Observed {
        jobs: vec![Seen {
            pods: vec![],
            warnings: vec![Warning {
                reason: "FailedCreate".into(),
                message: "violates PodSecurity \"restricted:latest\"".into(),
            }],
            ..seen()
        }],
        ..observed()
    });
    assert_eq!(succeeded(&plan).1, "PodRejected");
    assert!(matches!(
        plan.cleanup.as_slice(),
        [Action::DeleteJob { .. }]
    ));
}

#[test]
fn a_job_that_somebody_deleted_is_not_made_again() {
    let before = done(Observed {
        jobs: vec![Seen {
            job: None,
            pods: vec![],
            ..seen()
        }],
        ..observed()
    });
    let plan = plan(&before);
    assert_eq!(plan.actions, []);
    assert_eq!(succeeded(&plan), ("False".into(), "PodDeleted".into()));
}

#[test]
fn a_job_that_goes_is_waited_for() {
    let mut going = job();
    going.metadata.deletion_timestamp = Some(Time(after(9)));
    let plan = plan(&Observed {
        jobs: vec![Seen {
            job: Some(going),
            ..seen()
        }],
        ..observed()
    });
    assert_eq!(outcome(&plan), None);
    assert_eq!(plan.cleanup, []);
}

#[test]
fn a_cancelled_build_ends_when_nothing_of_it_runs() {
    let first = plan(&cancelled(observed()));
    assert_eq!(outcome(&first), None);
    assert!(matches!(
        first.cleanup.as_slice(),
        [Action::DeleteJob { .. }]
    ));
    let dying = plan(&cancelled(Observed {
        jobs: vec![Seen {
            job: None,
            ..seen()
        }],
        ..observed()
    }));
    assert_eq!(outcome(&dying), None, "its pod still runs");
    let gone = plan(&cancelled(Observed {
        jobs: vec![Seen {
            job: None,
            pods: vec![],
            ..seen()
        }],
        ..observed()
    }));
    assert_eq!(outcome(&gone), Some(BuildOutcome::Cancelled));
    assert_eq!(words(&gone), ["BuildCancelled"]);
}

#[test]
fn a_build_cancelled_for_a_newer_one_says_so() {
    let mut observed = cancelled(Observed {
        jobs: vec![Seen {
            job: None,
            pods: vec![],
            ..seen()
        }],
        ..observed()
    });
    let mut build = observed.build.as_ref().clone();
    let mark = (ANNOTATION_SUPERSEDED.to_owned(), "true".to_owned());
    build.annotations_mut().extend([mark]);
    observed.build = Arc::new(build);
    let plan = plan(&observed);
    assert_eq!(outcome(&plan), Some(BuildOutcome::Superseded));
    assert_eq!(words(&plan), ["BuildSuperseded"]);
}

#[test]
fn a_push_that_was_faster_than_the_cancellation_counts() {
    let plan = plan(&cancelled(Observed {
        jobs: vec![Seen {
            pods: vec![pushed()],
            ..seen()
        }],
        ..observed()
    }));
    assert_eq!(outcome(&plan), Some(BuildOutcome::Published));
}

#[test]
fn a_result_that_nobody_could_read_is_a_failure() {
    let plan = plan(&Observed {
        jobs: vec![Seen {
            job: Some(ended("Complete", "Completed")),
            pods: vec![],
            ..seen()
        }],
        ..observed()
    });
    assert_eq!(succeeded(&plan), ("False".into(), "InternalError".into()));
}

#[test]
fn nothing_is_made_for_a_build_whose_image_is_gone_or_going() {
    let none = Observed {
        image: None,
        jobs: vec![Seen {
            job: None,
            pods: vec![],
            ..seen()
        }],
        ..observed()
    };
    assert_eq!(plan(&none), Plan::default());
    let mut going = image();
    going.metadata.deletion_timestamp = Some(Time(start()));
    assert_eq!(
        plan(&Observed {
            image: Some(Arc::new(going)),
            ..none.clone()
        }),
        Plan::default()
    );
    let mut build = build();
    build.metadata.deletion_timestamp = Some(Time(start()));
    assert_eq!(
        plan(&Observed {
            build: Arc::new(build),
            image: Some(Arc::new(image())),
            ..none
        }),
        Plan::default()
    );
}

#[test]
fn a_build_that_was_kept_when_its_image_was_deleted_ends() {
    // As `kubectl delete --cascade=orphan` leaves it.
    let mut kept = build();
    kept.metadata.owner_references = None;
    let kept = Observed {
        build: Arc::new(kept),
        image: None,
        ..observed()
    };
    let stopped = plan(&kept);
    assert!(
        matches!(stopped.cleanup.as_slice(), [Action::DeleteJob { job, .. }] if job == "web-17-amd64"),
        "{stopped:?}"
    );
    let ended = plan(&Observed {
        jobs: vec![Seen {
            job: None,
            pods: vec![],
            ..seen()
        }],
        ..done(kept)
    });
    assert_eq!(outcome(&ended), Some(BuildOutcome::Cancelled));
    let status = ended.status.unwrap();
    let said = find_condition(&status.conditions, ConditionType::Succeeded).unwrap();
    assert_eq!(
        said.message,
        "its NixImage was deleted, and this build was kept"
    );
}

#[test]
fn tags_that_were_kept_are_not_said_to_be_ours() {
    let mut build = build();
    build.spec.output.tags = vec!["latest".into(), "stable".into()];
    let result = Pushed {
        platform: "linux/amd64".into(),
        digest: format!("sha256:{}", "ab".repeat(32)),
        kept: vec![1, 200],
        ..Pushed::default()
    };
    let plan = plan(&Observed {
        build: Arc::new(build),
        jobs: vec![Seen {
            pods: vec![over("p1", "push", 0, Outcome::Pushed(Box::new(result)))],
            ..seen()
        }],
        ..observed()
    });
    let status = plan.status.unwrap();
    assert_eq!(status.tags, ["latest"]);
    assert_eq!(status.kept_tags, ["stable"]);
    let said = find_condition(&status.conditions, ConditionType::Succeeded).unwrap();
    assert!(
        said.message
            .contains("; stable stayed where others had pointed"),
        "{}",
        said.message
    );
}

#[test]
fn a_running_build_says_which_container_runs_and_then_writes_nothing() {
    let plan_first = plan(&observed());
    let status = plan_first.status.clone().unwrap();
    let condition = find_condition(&status.conditions, ConditionType::Succeeded).unwrap();
    assert_eq!(condition.message, "check runs");
    assert_eq!(status.platforms[0].node.as_deref(), Some("node-3"));
    assert_eq!(words(&plan_first), ["BuildStarted"]);
    let again = plan(&Observed {
        now: after(300),
        ..done(observed())
    });
    assert_eq!(again.status, None);
    assert_eq!(again.events, []);
}

#[test]
fn the_job_of_a_success_goes_after_a_while_and_that_of_a_failure_stays() {
    let success = done(Observed {
        jobs: vec![Seen {
            pods: vec![pushed()],
            ..seen()
        }],
        ..observed()
    });
    let success = Observed {
        jobs: vec![Seen {
            job: Some(ended("Complete", "Completed")),
            ..success.jobs[0].clone()
        }],
        ..success
    };
    let soon = plan(&success);
    assert_eq!(soon.cleanup, []);
    assert_eq!(soon.look_again, Some(after(65 + 3600)));
    let later = plan(&Observed {
        now: after(65 + 3600),
        ..success
    });
    assert!(matches!(
        later.cleanup.as_slice(),
        [Action::DeleteJob { .. }]
    ));
    let failure = done(Observed {
        jobs: vec![Seen {
            job: Some(ended("Failed", "PodFailurePolicy")),
            pods: vec![broken(Reason::BuildFailed)],
            ..seen()
        }],
        ..observed()
    });
    assert_eq!(
        plan(&Observed {
            now: after(1_000_000),
            ..failure
        }),
        Plan::default()
    );
}

#[test]
fn the_job_of_a_success_is_not_ended_before_it_completes() {
    // After a restart: the pod is not read any more, and the Job controller is a second late.
    let mut recorded = done(Observed {
        jobs: vec![Seen {
            pods: vec![pushed()],
            ..seen()
        }],
        ..observed()
    });
    recorded.jobs[0].pods.clear();
    assert_eq!(plan(&recorded).cleanup, []);
}

#[test]
fn a_recorded_failure_leaves_no_job_running() {
    let recorded = done(Observed {
        now: after(1000),
        jobs: vec![Seen {
            pods: vec![pending()],
            ..seen()
        }],
        ..observed()
    });
    let plan = plan(&recorded);
    assert!(matches!(
        plan.cleanup.as_slice(),
        [Action::DeleteJob { .. }]
    ));
    assert_eq!(plan.status, None);
}

#[test]
fn a_newer_push_supersedes() {
    let failed = Failed {
        reason: Reason::NotLatest,
        message: "its time is over".into(),
        drv_path: None,
        log_tail: None,
        retry_after: None,
    };
    let plan = plan(&Observed {
        jobs: vec![Seen {
            job: Some(ended("Failed", "PodFailurePolicy")),
            pods: vec![over("p1", "push", 46, Outcome::Failed(Box::new(failed)))],
            ..seen()
        }],
        ..observed()
    });
    assert_eq!(outcome(&plan), Some(BuildOutcome::Superseded));
}

#[test]
fn the_statuses_of_a_success_and_of_a_failure_are_golden() {
    let yaml = |observed: Observed| {
        serde_yaml_ng::to_string(&plan(&observed).status.expect("status changes")).unwrap()
    };
    let success = yaml(Observed {
        jobs: vec![Seen {
            pods: vec![pushed()],
            ..seen()
        }],
        ..observed()
    });
    expect_test::expect_file!["../../tests/golden/build-status-published.yaml"].assert_eq(&success);
    let failure = yaml(Observed {
        jobs: vec![Seen {
            job: Some(ended("Failed", "PodFailurePolicy")),
            pods: vec![broken(Reason::BuildFailed)],
            ..seen()
        }],
        ..observed()
    });
    expect_test::expect_file!["../../tests/golden/build-status-failed.yaml"].assert_eq(&failure);
}
