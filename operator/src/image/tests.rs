//! Plans about images, in a world made of values: each test says what differs from the base.

use firn_crd::build::BuildReason;
use firn_crd::build_status::{BuildOutcome, NixImageBuildStatus, PlatformState, PlatformStatus};
use firn_crd::condition::{ConditionType, find_condition};
use firn_crd::event::EventReason;
use firn_crd::exit::Reason;
use firn_crd::failure::Failure;
use firn_crd::names::{ANNOTATION_BUILD, ANNOTATION_RECONCILE};
use firn_crd::output::{Output, TagPolicy};
use firn_crd::policy::RunPolicy;
use firn_crd::source::{GitSource, Source};
use firn_crd::trigger::TriggerMode;
use firn_crd::{NixImageBuild, NixImageSpec};
use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use super::plan::Action;
use super::*;
use crate::events::Event;
use crate::settings::Permitted;
use crate::source::{Kind, Observation, Revision, SourceFailure};

mod drift;
mod properties;
mod queue;

/// Everything that a plan sees, and what became of earlier plans.
#[derive(Debug, Clone)]
struct World {
    now: Timestamp,
    image: NixImage,
    builds: Vec<NixImageBuild>,
    source: source::Observed,
    registry: registry::Observation,
    rivals: Vec<Rival>,
}

fn start() -> Timestamp {
    "2026-11-24T10:00:00Z".parse().unwrap()
}

fn commit(n: u8) -> Revision {
    Revision {
        reference: Some("refs/heads/main".into()),
        commit: format!("{n:02x}").repeat(20),
        lock_hash: Some("10".repeat(32)),
        paths_hash: None,
        commit_time: Some(start()),
    }
}

fn resolved(revision: Revision) -> source::Observed {
    source::Observed {
        observation: Observation::Resolved {
            revision,
            at: start(),
            incomplete: None,
        },
        answered: None,
        next_poll: start(),
    }
}

fn unreachable() -> Observation {
    Observation::Failed {
        failure: SourceFailure::new(Kind::Unreachable, "git.example does not answer"),
        at: start(),
    }
}

impl World {
    /// An image that was just applied, its source known.
    fn new() -> Self {
        let source = Source {
            git: Some(GitSource::new("https://git.example/web")),
            oci: None,
        };
        let mut image = NixImage::new(
            "web",
            NixImageSpec::new(source, Output::new("registry.example/web")),
        );
        image.metadata.namespace = Some("shop".into());
        image.metadata.uid = Some("image-uid".into());
        image.metadata.generation = Some(1);
        image.metadata.creation_timestamp = Some(Time(start()));
        Self {
            now: start(),
            image,
            builds: Vec::new(),
            source: resolved(commit(1)),
            registry: registry::Observation::Pending,
            rivals: Vec::new(),
        }
    }

    /// The same with its first image published and everything settled.
    fn settled() -> Self {
        let mut world = Self::new();
        world.settle();
        world
    }

    fn settle(&mut self) {
        self.turn();
        self.end(published("aa"));
        self.turn();
        assert_eq!(self.ready(), ("True".into(), "Succeeded".into()));
    }

    fn observed(&self) -> Observed {
        let uid = self.image.uid().unwrap();
        let mut runs: Vec<Run> = self
            .builds
            .iter()
            .filter_map(|build| Run::read(build.clone(), &uid))
            .collect();
        runs.sort_by_key(|run| run.number);
        Observed {
            now: self.now,
            highest_number: runs.last().map_or(0, |run| run.number),
            image: Arc::new(self.image.clone()),
            source: self.source.clone(),
            registry: self.registry.clone(),
            runs,
            rivals: self.rivals.clone(),
            site: Arc::new(Site {
                allowed: Allowed {
                    default_substituters: vec!["https://cache.example".into()],
                    default_public_keys: vec!["cache.example-1:k".into()],
                    substituters: Permitted::Only([].into()),
                    public_keys: Permitted::Only([].into()),
                    plain_http_hosts: [].into(),
                },
                resources: Resources {
                    cpu_request: Some("1".into()),
                    memory_request: None,
                    cpu_limit: None,
                    memory_limit: Some("2Gi".into()),
                },
            }),
        }
    }

    /// Plans and does all of it.
    fn turn(&mut self) -> Plan {
        let plan = plan(&self.observed());
        self.perform(&plan.actions);
        if let Some(status) = &plan.status {
            self.image.status = Some(status.as_ref().clone());
        }
        self.perform(&plan.cleanup);
        plan
    }

    fn perform(&mut self, actions: &[Action]) {
        for action in actions {
            match action {
                Action::CreateBuild(build) => {
                    let mut build = build.as_ref().clone();
                    assert!(!self.builds.iter().any(|b| b.name_any() == build.name_any()));
                    build.metadata.uid = Some(format!("uid-{}", build.name_any()));
                    self.builds.push(build);
                }
                Action::SupersedeBuild { uid, .. } => {
                    let build = self.builds.iter_mut();
                    let build = build.rev().find(|b| b.uid().as_ref() == Some(uid)).unwrap();
                    assert!(!build.spec.cancel, "cancelled twice");
                    build.spec.cancel = true;
                }
                Action::DeleteBuild { uid, .. } => {
                    self.builds.retain(|b| b.uid().as_ref() != Some(uid));
                }
            }
        }
    }

    /// The build that runs ends so.
    fn end(&mut self, status: NixImageBuildStatus) {
        let now = self.now;
        let build = self
            .builds
            .iter_mut()
            .rev()
            .find(|build| {
                build
                    .status
                    .as_ref()
                    .is_none_or(|status| status.outcome.is_none())
            })
            .expect("a build runs");
        let tags = match status.outcome {
            Some(BuildOutcome::Published | BuildOutcome::Retagged) => {
                let tags = build.spec.output.tags.iter();
                let moved = tags.filter(|tag| !status.kept_tags.contains(tag));
                moved.cloned().collect()
            }
            _ => Vec::new(),
        };
        build.status = Some(NixImageBuildStatus {
            completion_time: Some(Time(now)),
            tags,
            ..status
        });
    }

    fn pass(&mut self, seconds: i64) {
        self.now = self
            .now
            .checked_add(SignedDuration::from_secs(seconds))
            .unwrap();
    }

    fn edit(&mut self, edit: impl FnOnce(&mut NixImageSpec)) {
        edit(&mut self.image.spec);
        *self.image.metadata.generation.as_mut().unwrap() += 1;
    }

    fn annotate(&mut self, name: &str, value: &str) {
        self.image
            .annotations_mut()
            .insert(name.into(), value.into());
    }

    /// The source is asked, and says the same as before.
    fn poll(&mut self) {
        self.source.answered = decide::question(&self.image);
    }

    fn condition(&self, kind: ConditionType) -> Option<(String, String)> {
        let status = self.image.status.as_ref()?;
        find_condition(&status.conditions, kind).map(|c| (c.status.clone(), c.reason.clone()))
    }

    fn ready(&self) -> (String, String) {
        self.condition(ConditionType::Ready).unwrap()
    }

    fn stalled(&self) -> Option<String> {
        self.condition(ConditionType::Stalled)
            .map(|(_, reason)| reason)
    }

    fn message(&self) -> String {
        let status = self.image.status.as_ref().unwrap();
        find_condition(&status.conditions, ConditionType::Ready)
            .unwrap()
            .message
            .clone()
    }

    fn status(&self) -> &firn_crd::NixImageStatus {
        self.image.status.as_ref().unwrap()
    }
}

fn published(digest: &str) -> NixImageBuildStatus {
    let digest = Some(format!("sha256:{}", digest.repeat(32)));
    NixImageBuildStatus {
        outcome: Some(BuildOutcome::Published),
        digest: digest.clone(),
        bytes_pushed: Some(800),
        platforms: vec![PlatformStatus {
            digest,
            drv_path: Some("/nix/store/x.drv".into()),
            layers_total: Some(5),
            layers_pushed: Some(2),
            layers_reused: Some(3),
            ..PlatformStatus::new("linux/amd64", PlatformState::Succeeded)
        }],
        ..NixImageBuildStatus::default()
    }
}

fn ended(outcome: BuildOutcome) -> NixImageBuildStatus {
    NixImageBuildStatus {
        outcome: Some(outcome),
        ..NixImageBuildStatus::default()
    }
}

fn failed(reason: Reason) -> NixImageBuildStatus {
    NixImageBuildStatus {
        failure: Some(Failure::new(reason, "words")),
        ..ended(BuildOutcome::Failed)
    }
}

/// The build that a plan makes.
fn made(plan: &Plan) -> Option<&NixImageBuild> {
    match plan.actions.as_slice() {
        [] => None,
        [Action::CreateBuild(build)] => Some(build),
        actions => panic!("{actions:?}"),
    }
}

fn reasons(plan: &Plan) -> Vec<BuildReason> {
    made(plan)
        .map(|build| build.spec.reasons.clone())
        .unwrap_or_default()
}

fn words(plan: &Plan) -> Vec<String> {
    plan.events
        .iter()
        .map(|event| event.reason.to_string())
        .collect()
}

#[test]
fn a_new_image_is_built_from_a_snapshot() {
    let mut world = World::new();
    let plan = world.turn();
    let build = made(&plan).unwrap();
    assert_eq!(build.name_any(), "web-1");
    assert_eq!(build.spec.reasons, [BuildReason::Initial]);
    assert_eq!(build.spec.output.tags, ["latest"]);
    assert_eq!(build.spec.build.substituters, ["https://cache.example"]);
    assert_eq!(
        build.spec.source.git.as_ref().unwrap().commit,
        commit(1).commit
    );
    let limits = &build.spec.output.platforms[0]
        .resources
        .as_ref()
        .unwrap()
        .limits;
    assert_eq!(limits["memory"].0, "2Gi");
    assert_eq!(world.ready(), ("Unknown".into(), "Queued".into()));
    assert_eq!(world.status().observed_generation, Some(-1));
    assert_eq!(words(&plan), ["NewRevision", "BuildQueued"]);
}

#[test]
fn a_published_image_is_ready_and_then_nothing_is_written() {
    let mut world = World::settled();
    assert_eq!(world.status().observed_generation, Some(1));
    assert_eq!(
        world.status().latest_image,
        Some(format!("registry.example/web@sha256:{}", "aa".repeat(32)))
    );
    let published = world.status().published.clone().unwrap();
    assert_eq!(
        (published.layers_pushed, published.layers_reused),
        (Some(2), Some(3))
    );
    assert_eq!(published.build.as_deref(), Some("web-1"));
    for _ in 0..3 {
        world.pass(3600);
        assert_eq!(world.turn(), Plan::default());
    }
}

#[test]
fn a_restart_in_a_settled_world_writes_nothing() {
    let mut world = World::settled();
    world.source.observation = Observation::Pending;
    assert_eq!(world.turn(), Plan::default());
}

#[test]
fn a_crash_before_status_is_written_makes_no_second_build() {
    let mut world = World::new();
    let plan = plan(&world.observed());
    world.perform(&plan.actions);
    assert_eq!(made(&world.turn()), None);
    world.end(published("aa"));
    world.turn();
    assert_eq!(world.ready().0, "True");
}

#[test]
fn a_new_commit_is_built_in_mode_revision_only() {
    for (mode, expected) in [
        (TriggerMode::Revision, vec![BuildReason::Revision]),
        (TriggerMode::LockFile, vec![]),
        (TriggerMode::Manual, vec![]),
    ] {
        let mut world = World::new();
        world.image.spec.trigger.mode = mode;
        world.settle();
        world.source = resolved(commit(2));
        let plan = world.turn();
        assert_eq!(reasons(&plan), expected, "{mode}");
        if expected.is_empty() {
            assert_eq!(world.ready().0, "True");
            assert!(
                world.message().contains("ahead at main@020202020202"),
                "{}",
                world.message()
            );
            assert_eq!(world.turn(), Plan::default());
        }
    }
}

#[test]
fn a_new_lock_file_is_built_in_mode_lock_file() {
    let mut world = World::new();
    world.image.spec.trigger.mode = TriggerMode::LockFile;
    world.settle();
    world.source = resolved(Revision {
        lock_hash: Some("20".repeat(32)),
        ..commit(2)
    });
    let plan = world.turn();
    assert_eq!(reasons(&plan), [BuildReason::LockFile]);
    let fields: Vec<_> = made(&plan)
        .unwrap()
        .spec
        .changes
        .iter()
        .filter_map(|c| c.field.clone())
        .collect();
    assert_eq!(fields, ["source.lockHash", "source.revision"]);
    assert_eq!(words(&plan), ["LockFileChanged", "BuildQueued"]);
}

#[test]
fn a_lock_file_that_cannot_be_read_is_a_failure_of_the_source_in_mode_lock_file_only() {
    for (mode, expected) in [(TriggerMode::LockFile, 0), (TriggerMode::Revision, 1)] {
        let mut world = World::new();
        world.image.spec.trigger.mode = mode;
        world.settle();
        world.source.observation = Observation::Resolved {
            revision: Revision {
                lock_hash: None,
                ..commit(2)
            },
            at: start(),
            incomplete: Some(SourceFailure::new(Kind::Unreachable, "no lock file")),
        };
        assert_eq!(reasons(&world.turn()).len(), expected, "{mode}");
    }
}

#[test]
fn a_persons_request_is_built_once_in_every_mode() {
    let mut world = World::new();
    world.image.spec.trigger.mode = TriggerMode::Manual;
    world.settle();
    world.annotate(ANNOTATION_BUILD, "now");
    assert_eq!(made(&world.turn()), None, "the source was not asked since");
    world.poll();
    assert_eq!(reasons(&world.turn()), [BuildReason::Manual]);
    assert_eq!(world.status().last_handled_build_at.as_deref(), Some("now"));
    world.end(published("aa"));
    world.turn();
    assert_eq!(world.turn(), Plan::default());
}

#[test]
fn a_request_is_not_lost_while_another_build_runs() {
    let mut world = World::new();
    world.turn();
    world.annotate(ANNOTATION_BUILD, "now");
    assert_eq!(made(&world.turn()), None);
    assert_eq!(world.status().last_handled_build_at, None);
    world.end(published("aa"));
    world.poll();
    assert_eq!(reasons(&world.turn()), [BuildReason::Manual]);
}

/// The name of the build that a plan cancels.
fn superseded(plan: &Plan) -> Option<&str> {
    match plan.actions.as_slice() {
        [Action::SupersedeBuild { name, .. }] => Some(name),
        _ => None,
    }
}

#[test]
fn a_running_build_is_cancelled_for_a_newer_one_if_the_policy_says_so() {
    type Want = fn(&mut World);
    let wants: [(&str, Want); 3] = [
        ("a commit", |world| world.source = resolved(commit(2))),
        ("a spec", |world| {
            world.edit(|spec| {
                spec.output.labels.insert("team".into(), "snow".into());
            });
        }),
        ("a request", |world| {
            world.annotate(ANNOTATION_BUILD, "now");
            world.poll();
        }),
    ];
    for policy in [RunPolicy::SerialLatestOnly, RunPolicy::CancelRunning] {
        for (what, want) in wants {
            let mut world = World::new();
            world.image.spec.run_policy = policy;
            world.turn();
            assert_eq!(superseded(&world.turn()), None, "nothing else is wanted");
            want(&mut world);
            let plan = world.turn();
            if policy == RunPolicy::SerialLatestOnly {
                assert_eq!(plan.actions, [], "{what}");
                continue;
            }
            assert_eq!(superseded(&plan), Some("web-1"), "{what}");
            assert_eq!(world.ready().1, "Progressing");
            assert_eq!(
                world.turn().actions,
                [],
                "{what}: it ends, and is waited for"
            );
            world.end(ended(BuildOutcome::Superseded));
            let next = made(&world.turn()).cloned().unwrap();
            assert_eq!(next.name_any(), "web-2", "{what}");
        }
    }
}

#[test]
fn nothing_is_cancelled_for_what_would_not_be_built() {
    let mut world = World::settled();
    world.edit(|spec| {
        spec.run_policy = RunPolicy::CancelRunning;
        spec.trigger.mode = TriggerMode::LockFile;
        spec.output.labels.insert("team".into(), "snow".into());
    });
    assert_eq!(reasons(&world.turn()), [BuildReason::Config]);
    world.source = resolved(Revision {
        lock_hash: commit(1).lock_hash,
        ..commit(2)
    });
    assert_eq!(world.turn().actions, [], "the lock file is the same");
    world.source.observation = unreachable();
    assert_eq!(world.turn().actions, []);
    world.end(failed(Reason::BuildFailed));
    // The fix fails too, and somebody goes back to what is known to fail.
    world.source = resolved(commit(3));
    assert!(made(&world.turn()).is_some());
    world.source = resolved(Revision {
        lock_hash: commit(1).lock_hash,
        ..commit(1)
    });
    assert_eq!(world.turn().actions, []);
}

#[test]
fn what_was_wanted_again_while_its_build_was_cancelled_is_built() {
    let mut world = World::new();
    world.image.spec.run_policy = RunPolicy::CancelRunning;
    world.turn();
    world.source = resolved(commit(2));
    assert_eq!(superseded(&world.turn()), Some("web-1"));
    world.source = resolved(commit(1));
    world.turn();
    world.end(ended(BuildOutcome::Superseded));
    world.turn();
    world.pass(3600);
    assert!(made(&world.turn()).is_some());
}

#[test]
fn a_changed_spec_is_built_and_says_what_changed() {
    let mut world = World::settled();
    world.edit(|spec| {
        spec.output.labels.insert("team".into(), "snow".into());
    });
    let plan = world.turn();
    assert_eq!(reasons(&plan), [BuildReason::Config]);
    let change = &made(&plan).unwrap().spec.changes[0];
    assert_eq!(change.field.as_deref(), Some("output.labels.team"));
    assert_eq!(change.new.as_deref(), Some("snow"));
}

#[test]
fn fields_that_change_no_image_build_nothing() {
    let mut world = World::settled();
    world.edit(|spec| {
        spec.build.retries = 1;
        spec.history.failed = 1;
    });
    let plan = world.turn();
    assert_eq!(made(&plan), None);
    assert_eq!(world.status().observed_generation, Some(2));
}

#[test]
fn another_repository_is_a_first_build_there() {
    let mut world = World::settled();
    world.edit(|spec| spec.output.repository = "registry.example/elsewhere".into());
    assert_eq!(reasons(&world.turn()), [BuildReason::Initial]);
    world.end(published("bb"));
    world.turn();
    assert_eq!(world.ready().0, "True");
}

#[test]
fn other_tags_are_moved_without_a_build() {
    let mut world = World::settled();
    world.edit(|spec| spec.output.tags = vec!["latest".into(), "v-${shortRev}".into()]);
    let plan = world.turn();
    assert_eq!(reasons(&plan), [BuildReason::Retag]);
    assert_eq!(
        made(&plan).unwrap().spec.output.tags,
        ["latest", "v-010101010101"]
    );
    world.end(ended(BuildOutcome::Retagged));
    let plan = world.turn();
    assert_eq!(words(&plan), ["TagsUpdated"]);
    assert_eq!(world.ready().0, "True");
    assert_eq!(
        world.status().published.as_ref().unwrap().tags,
        ["latest", "v-010101010101"]
    );
    assert_eq!(world.turn(), Plan::default());
}

#[test]
fn a_tag_that_is_kept_is_left_alone_until_the_policy_changes() {
    let mut world = World::new();
    world.image.spec.output.tags = vec!["latest".into(), "mine".into()];
    world.image.spec.output.tag_policy = TagPolicy::Keep;
    let keeps = |outcome| NixImageBuildStatus {
        kept_tags: vec!["latest".into()],
        ..outcome
    };
    world.turn();
    world.end(keeps(published("aa")));
    world.turn();
    assert_eq!(world.ready().0, "True");
    let now = world.status().published.clone().unwrap();
    assert_eq!(
        (now.tags, now.kept_tags),
        (vec!["mine".to_owned()], vec!["latest".to_owned()])
    );
    assert_eq!(world.turn(), Plan::default(), "nothing is left to do");

    // Another tag: the kept one is looked at again, and is still kept.
    world.edit(|spec| spec.output.tags.push("more".into()));
    assert_eq!(reasons(&world.turn()), [BuildReason::Retag]);
    world.end(keeps(ended(BuildOutcome::Retagged)));
    world.turn();
    assert_eq!(world.turn(), Plan::default());

    world.edit(|spec| spec.output.tag_policy = TagPolicy::Overwrite);
    assert_eq!(reasons(&world.turn()), [BuildReason::Retag]);
    world.end(ended(BuildOutcome::Retagged));
    world.turn();
    let now = world.status().published.clone().unwrap();
    assert_eq!((now.tags.len(), now.kept_tags.len()), (3, 0));
    assert_eq!(world.turn(), Plan::default());
}

#[test]
fn a_retag_that_fails_is_tried_again_as_a_retag() {
    let mut world = World::settled();
    world.edit(|spec| spec.output.tags = vec!["v2".into()]);
    world.turn();
    world.end(failed(Reason::RegistryUnavailable));
    world.turn();
    assert_eq!(world.ready().1, "RegistryUnavailable");
    world.pass(60);
    assert_eq!(
        reasons(&world.turn()),
        [BuildReason::Retag, BuildReason::Retry]
    );
}

#[test]
fn an_equal_derivation_is_recorded_and_its_tags_follow() {
    let mut world = World::new();
    world.image.spec.output.tags = vec!["latest".into(), "${shortRev}".into()];
    world.settle();
    world.source = resolved(commit(2));
    world.turn();
    world.end(ended(BuildOutcome::NotChanged));
    let plan = world.turn();
    assert_eq!(words(&plan)[0], "BuildSkipped");
    // The image is the same; the tag of the new commit is missing.
    assert_eq!(reasons(&plan), [BuildReason::Retag]);
    assert_eq!(
        made(&plan).unwrap().spec.output.tags,
        ["020202020202", "latest"]
    );
    world.end(ended(BuildOutcome::Retagged));
    world.turn();
    assert_eq!(world.ready(), ("True".into(), "NotChanged".into()));
    assert_eq!(world.turn(), Plan::default());
}

#[test]
fn a_broken_build_waits_for_another_commit() {
    let mut world = World::settled();
    world.source = resolved(commit(2));
    world.turn();
    world.end(failed(Reason::BuildFailed));
    let plan = world.turn();
    assert_eq!(words(&plan), ["BuildFailed"]);
    assert_eq!(world.ready(), ("False".into(), "BuildFailed".into()));
    assert_eq!(world.stalled().as_deref(), Some("BuildFailed"));
    assert_eq!(world.condition(ConditionType::Available).unwrap().0, "True");
    world.pass(1_000_000);
    assert_eq!(world.turn(), Plan::default());
    world.source = resolved(commit(3));
    assert_eq!(reasons(&world.turn()), [BuildReason::Revision]);
}

#[test]
fn a_fix_that_leaves_the_lock_file_alone_is_built_after_a_failure() {
    let mut world = World::new();
    world.image.spec.trigger.mode = TriggerMode::LockFile;
    world.turn();
    world.end(failed(Reason::EvaluationFailed));
    world.turn();
    world.source = resolved(commit(2));
    assert_eq!(reasons(&world.turn()), [BuildReason::Revision]);
}

#[test]
fn a_commit_known_to_fail_is_not_built_again() {
    let mut world = World::settled();
    world.source = resolved(commit(2));
    world.turn();
    world.end(failed(Reason::BuildFailed));
    world.turn();
    world.source = resolved(commit(1));
    world.turn();
    world.end(ended(BuildOutcome::NotChanged));
    world.turn();
    world.source = resolved(commit(2));
    assert_eq!(made(&world.turn()), None);
    assert_eq!(world.stalled().as_deref(), Some("BuildFailed"));
    world.annotate(ANNOTATION_BUILD, "I know better");
    world.poll();
    assert_eq!(
        reasons(&world.turn()),
        [BuildReason::Manual, BuildReason::Revision]
    );
}

#[test]
fn what_goes_away_is_tried_again_until_the_retries_are_used() {
    let mut world = World::new();
    world.image.spec.build.retries = 2;
    world.turn();
    for attempt in 1..=2 {
        world.end(failed(Reason::RegistryUnavailable));
        let plan = world.turn();
        assert_eq!(made(&plan), None);
        assert_eq!(words(&plan), ["BuildRetrying"]);
        assert_eq!(
            world.condition(ConditionType::Reconciling).unwrap().1,
            "ProgressingWithRetry"
        );
        let failure = world.status().failure.clone().unwrap();
        assert_eq!(failure.attempts, Some(attempt));
        let next = failure.next_retry_at.unwrap().0;
        assert_eq!(plan.look_again, Some(next));
        world.now = next;
        assert_eq!(reasons(&world.turn()), [BuildReason::Retry]);
    }
    world.end(failed(Reason::RegistryUnavailable));
    let plan = world.turn();
    assert_eq!(world.stalled().as_deref(), Some("RetriesExhausted"));
    assert_eq!(world.ready().1, "RegistryUnavailable");
    // It is still tried, once an hour.
    world.now = plan.look_again.unwrap();
    assert_eq!(reasons(&world.turn()), [BuildReason::Retry]);
    world.end(published("aa"));
    world.turn();
    assert_eq!(world.ready().0, "True");
    assert_eq!(world.status().failure, None);
}

#[test]
fn a_retry_is_counted_by_the_reason_of_the_failure_before_it() {
    for (status, expected) in [
        (
            failed(Reason::RegistryUnavailable),
            r#"retries_total{reason="RegistryUnavailable",kind="slow"} 1"#,
        ),
        (
            ended(BuildOutcome::Superseded),
            r#"retries_total{reason="Superseded",kind="slow"} 1"#,
        ),
    ] {
        let mut registry = prometheus_client::registry::Registry::default();
        let metrics = crate::metrics::Metrics::register(&mut registry);
        let mut world = World::new();
        for end in [status, published("aa")] {
            // The first build is no retry, a turn that only waits makes none.
            for _ in 0..3 {
                let observed = world.observed();
                measure::measure(&metrics, &observed, &world.turn());
            }
            world.end(end);
            world.turn();
            world.pass(3600);
        }
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let counted: Vec<_> = text
            .lines()
            .filter(|line| line.starts_with("retries_total"))
            .collect();
        assert_eq!(counted, [expected]);
    }
}

#[test]
fn more_memory_is_tried_at_once() {
    let mut world = World::new();
    world.turn();
    world.end(failed(Reason::OutOfMemory));
    world.turn();
    assert_eq!(world.stalled().as_deref(), Some("OutOfMemory"));
    world.pass(1_000_000);
    assert_eq!(world.turn(), Plan::default());
    world.edit(|spec| spec.build.resources = Some(firn_crd::resources::Resources::default()));
    assert_eq!(reasons(&world.turn()), [BuildReason::Retry]);
}

#[test]
fn a_wrong_password_is_tried_in_growing_pauses_and_at_once_on_request() {
    let mut world = World::new();
    world.turn();
    world.end(failed(Reason::PushAuthFailed));
    let plan = world.turn();
    assert_eq!(world.stalled().as_deref(), Some("PushAuthFailed"));
    assert_eq!(words(&plan), ["BuildFailed"]);
    assert!(plan.look_again.is_some());
    world.annotate(ANNOTATION_RECONCILE, "fixed");
    assert_eq!(made(&world.turn()), None, "the source was not asked since");
    world.poll();
    assert_eq!(reasons(&world.turn()), [BuildReason::Retry]);
    assert_eq!(
        world.status().last_handled_reconcile_at.as_deref(),
        Some("fixed")
    );
    world.end(failed(Reason::PushAuthFailed));
    assert_eq!(made(&world.turn()), None, "one request, one try");
}

#[test]
fn a_cancelled_build_waits_for_somebody() {
    let mut world = World::new();
    world.turn();
    world.end(ended(BuildOutcome::Cancelled));
    let plan = world.turn();
    assert_eq!(words(&plan), ["BuildCancelled"]);
    assert_eq!(world.stalled().as_deref(), Some("Cancelled"));
    world.pass(1_000_000);
    assert_eq!(world.turn(), Plan::default());
}

#[test]
fn an_unreachable_source_leaves_a_published_image_ready() {
    let mut world = World::settled();
    world.source.observation = unreachable();
    world.pass(60);
    let plan = world.turn();
    assert_eq!(words(&plan), ["SourceFetchFailed"]);
    assert_eq!(world.ready().0, "True");
    assert!(
        world.message().contains("stale since 2026-11-24T10:01:00Z"),
        "{}",
        world.message()
    );
    assert_eq!(
        world.condition(ConditionType::SourceReady),
        Some(("False".into(), "SourceUnreachable".into()))
    );
    world.pass(3600);
    assert_eq!(world.turn(), Plan::default());
}

#[test]
fn a_source_that_never_answered_says_why() {
    for (kind, reason, stalled) in [
        (Kind::Unreachable, "SourceUnreachable", None),
        (
            Kind::AuthFailed,
            "SourceAuthFailed",
            Some("SourceAuthFailed".to_owned()),
        ),
    ] {
        let mut world = World::new();
        world.source.observation = Observation::Failed {
            failure: SourceFailure::new(kind, "words"),
            at: start(),
        };
        let plan = world.turn();
        assert_eq!(made(&plan), None);
        assert_eq!(world.ready(), ("False".into(), reason.into()));
        assert_eq!(world.stalled(), stalled);
        assert_eq!(world.turn(), Plan::default());
        world.source = resolved(commit(1));
        assert_eq!(reasons(&world.turn()), [BuildReason::Initial]);
    }
}

#[test]
fn an_image_of_an_older_spec_is_not_ready_when_nobody_remembers_the_build_that_failed() {
    for (observation, expected) in [
        (unreachable(), ("False", "SourceUnreachable")),
        (Observation::Pending, ("Unknown", "Progressing")),
    ] {
        let mut world = World::settled();
        world.edit(|spec| {
            spec.output.labels.insert("team".into(), "snow".into());
        });
        world.turn();
        world.end(failed(Reason::BuildFailed));
        world.turn();
        world.source.observation = observation;
        world.builds.clear();
        assert_eq!(made(&world.turn()), None);
        assert_eq!(world.ready(), (expected.0.into(), expected.1.into()));
        world.source = resolved(commit(1));
        assert_eq!(reasons(&world.turn()), [BuildReason::Config]);
    }
}

#[test]
fn an_end_is_told_once_whatever_else_is_written() {
    for status in [published("aa"), failed(Reason::BuildFailed)] {
        let mut world = World::new();
        world.turn();
        world.end(status);
        // A restart: nobody has asked the source yet.
        let known = std::mem::replace(&mut world.source.observation, Observation::Pending);
        let first = world.turn();
        world.source.observation = known;
        let second = world.turn();
        let told = [words(&first), words(&second)].concat();
        assert_eq!(told.len(), 1, "{told:?}");
    }
}

#[test]
fn a_suspended_image_keeps_what_it_said() {
    let mut world = World::settled();
    world.edit(|spec| spec.suspend = true);
    world.source = resolved(commit(2));
    assert_eq!(made(&world.turn()), None);
    assert_eq!(world.ready().0, "True");
    world.edit(|spec| spec.suspend = false);
    assert_eq!(reasons(&world.turn()), [BuildReason::Revision]);
}

#[test]
fn a_running_build_of_a_suspended_image_is_taken_in() {
    let mut world = World::new();
    world.turn();
    world.edit(|spec| spec.suspend = true);
    world.turn();
    assert_eq!(world.condition(ConditionType::Reconciling), None);
    world.end(published("aa"));
    world.turn();
    assert!(world.status().latest_image.is_some());
}

#[test]
fn nothing_is_made_for_an_image_that_goes() {
    let mut world = World::new();
    world.image.metadata.deletion_timestamp = Some(Time(start()));
    assert_eq!(world.turn(), Plan::default());
}

#[test]
fn what_is_not_supported_is_said_and_recovers() {
    let mut world = World::new();
    world.image.spec.attestations.provenance = true;
    let plan = world.turn();
    assert_eq!(made(&plan), None);
    assert_eq!(world.stalled().as_deref(), Some("NotSupported"));
    assert!(
        world
            .message()
            .starts_with("spec.attestations.provenance: true")
    );
    assert_eq!(world.status().observed_generation, Some(1));
    assert_eq!(world.turn(), Plan::default());
    world.edit(|spec| spec.attestations.provenance = false);
    assert_eq!(reasons(&world.turn()), [BuildReason::Initial]);
}

#[test]
fn a_tag_template_without_a_value_is_refused() {
    let mut world = World::new();
    world.image.spec.output.tags = vec!["${tag}".into()];
    assert_eq!(made(&world.turn()), None);
    assert_eq!(world.stalled().as_deref(), Some("TagTemplateInvalid"));
}

#[test]
fn the_older_image_keeps_a_tag_that_two_want() {
    let rival = |seconds: i64| Rival {
        name: "other/web".into(),
        born: (
            start().checked_add(SignedDuration::from_secs(seconds)).ok(),
            "x".into(),
        ),
        tags: vec!["latest".into()],
    };
    let mut world = World::new();
    world.rivals = vec![rival(-1)];
    assert_eq!(made(&world.turn()), None);
    assert_eq!(world.stalled().as_deref(), Some("OutputConflict"));
    let mut world = World::new();
    world.rivals = vec![rival(1)];
    assert!(made(&world.turn()).is_some());
}

#[test]
fn old_builds_go_and_those_that_matter_stay() {
    let mut world = World::new();
    world.image.spec.history.succeeded = 1;
    world.image.spec.history.failed = 0;
    world.settle();
    let mut told = Vec::new();
    for n in 2..6 {
        world.source = resolved(commit(n));
        world.turn();
        world.end(ended(BuildOutcome::NotChanged));
        let events = world.turn().events;
        let pruned = |event: &Event| event.reason == EventReason::HistoryPruned;
        told.extend(events.into_iter().filter(pruned).map(|event| event.action));
    }
    assert_eq!(told, ["web-2", "web-3", "web-4"]);
    let names: Vec<_> = world.builds.iter().map(ResourceExt::name_any).collect();
    assert_eq!(
        names,
        ["web-1", "web-5"],
        "the published one and the last one"
    );
    assert_eq!(world.turn(), Plan::default());
}

#[test]
fn numbers_go_on_after_history_is_gone() {
    let mut world = World::settled();
    world.builds.clear();
    assert_eq!(made(&world.turn()), None, "status knows what is published");
    world.source = resolved(commit(2));
    assert_eq!(made(&world.turn()).unwrap().name_any(), "web-2");
}

#[test]
fn numbers_go_on_after_status_is_gone() {
    let mut world = World::settled();
    world.image.status = None;
    world.source = resolved(commit(2));
    assert_eq!(made(&world.turn()).unwrap().name_any(), "web-2");
}

#[test]
fn an_older_build_does_not_take_the_place_of_the_published_one_whose_record_is_gone() {
    let mut world = World::settled();
    world.source = resolved(commit(2));
    world.turn();
    world.end(published("bb"));
    world.turn();
    let latest = world.status().latest_image.clone();
    world.builds.retain(|build| build.name_any() == "web-1");
    world.turn();
    assert_eq!(world.status().latest_image, latest);
}

#[test]
fn status_is_found_again_in_the_builds() {
    let mut world = World::settled();
    world.image.status = None;
    world.turn();
    assert_eq!(world.ready().0, "True");
    assert_eq!(world.builds.len(), 1);
}

#[test]
fn a_build_that_only_claims_to_be_ours_is_not_read() {
    let mut world = World::settled();
    let mut forged = world.builds[0].clone();
    forged.metadata.name = Some("web-9".into());
    forged.metadata.owner_references = None;
    assert!(Run::read(forged.clone(), "image-uid").is_none());
    forged.metadata.owner_references = world.builds[0].metadata.owner_references.clone();
    assert!(Run::read(forged, "another-uid").is_none());
    world.turn();
}

#[test]
fn status_of_a_failure_is_golden() {
    let mut world = World::settled();
    world.source = resolved(commit(2));
    world.turn();
    world.end(failed(Reason::SubstituterUnavailable));
    world.turn();
    let text = serde_yaml_ng::to_string(world.status()).unwrap();
    expect_test::expect_file!["../../tests/golden/image-status-retrying.yaml"].assert_eq(&text);
}
