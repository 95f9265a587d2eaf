//! Builds of several platforms, turn by turn, in a world that does what plans say.

use std::collections::BTreeMap;

use firn_crd::build_status::PlatformStatus;
use firn_crd::names::ANNOTATION_BUILD_HASH;
use firn_crd::output::PlatformName;
use firn_crd::published::{Published, PublishedPlatform};
use firn_crd::run::{self, Run, Work};
use firn_crd::{NixImageBuildStatus, NixImageStatus};

use super::*;

const AMD: &str = "web-17-amd64";
const ARM: &str = "web-17-arm64";
const PUBLISH: &str = "web-17-publish";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// The API server, the Job controller and the kubelet, as far as a build sees them.
#[derive(Clone)]
struct World {
    now: i64,
    build: NixImageBuild,
    image: NixImage,
    previous: Option<NixImageBuild>,
    jobs: BTreeMap<String, Job>,
    pods: BTreeMap<String, Vec<Pod>>,
    /// Jobs that may run at once.
    slots: usize,
    /// Every Job that was made, in order.
    made: Vec<String>,
}

fn digest(byte: u8) -> String {
    format!("sha256:{}", format!("{byte:02x}").repeat(32))
}

fn drv(platform: &str) -> String {
    format!("/nix/store/{}.drv", platform.replace('/', "-"))
}

fn platform(name: PlatformName) -> Platform {
    Platform {
        platform: name,
        attribute: Some("default".into()),
        ..Platform::default()
    }
}

impl World {
    fn new() -> Self {
        let mut build = build();
        build.spec.output.platforms = vec![
            platform(PlatformName::LinuxAmd64),
            platform(PlatformName::LinuxArm64),
        ];
        build
            .annotations_mut()
            .insert(ANNOTATION_BUILD_HASH.into(), "h4sh".into());
        Self {
            now: 0,
            build,
            image: image(),
            previous: None,
            jobs: BTreeMap::new(),
            pods: BTreeMap::new(),
            slots: 5,
            made: Vec::new(),
        }
    }

    /// Something is published, with both platforms.
    fn published(mut self) -> Self {
        let entry = |name: &str, byte| PublishedPlatform {
            platform: name.into(),
            digest: digest(byte),
            drv_path: Some(drv(name)),
            size_bytes: Some(1000),
            ..PublishedPlatform::default()
        };
        self.image.status = Some(NixImageStatus {
            latest_image: Some(format!("registry.example/web@{}", digest(9))),
            published: Some(Published {
                digest: Some(digest(9)),
                build_hash: Some("h4sh".into()),
                tags: vec!["latest".into()],
                platforms: vec![entry("linux/amd64", 1), entry("linux/arm64", 2)],
                ..Published::default()
            }),
            ..NixImageStatus::default()
        });
        self
    }

    fn observe(&self) -> Observed {
        let running = self
            .jobs
            .values()
            .filter(|job| !progress::is_suspended(job) && !progress::is_finished(job))
            .count();
        let jobs = order::parts(&self.build).into_iter().map(|part| {
            let name = order::job_name(&self.build, part);
            Seen {
                part,
                job: self.jobs.get(&name).cloned(),
                pods: self.pods.get(&name).cloned().unwrap_or_default(),
                others: Vec::new(),
                warnings: Vec::new(),
                turn: if running < self.slots {
                    Turn::Now
                } else {
                    Turn::Wait { ahead: 0 }
                },
            }
        });
        Observed {
            now: after(self.now),
            build: Arc::new(self.build.clone()),
            image: Some(Arc::new(self.image.clone())),
            previous: self.previous.clone().map(Arc::new),
            earlier: Vec::new(),
            has_account: true,
            jobs: jobs.collect(),
            refused: None,
            site: Arc::new(job::Site::default()),
            retention: std::time::Duration::from_secs(3600),
        }
    }

    fn perform(&mut self, action: &Action) {
        match action {
            Action::CreateAccount(_) => {}
            Action::CreateJob(job) => {
                let name = job.name_any();
                assert!(!self.jobs.contains_key(&name), "{name} is there already");
                let mut job = job.as_ref().clone();
                job.metadata.uid = Some(format!("uid-{}", self.made.len()));
                self.made.push(name.clone());
                self.jobs.insert(name, job);
            }
            Action::Resume { job } => {
                let job = self.jobs.get_mut(job).unwrap();
                job.spec.as_mut().unwrap().suspend = Some(false);
                job.status =
                    serde_json::from_value(json!({"startTime": after(self.now).to_string()}))
                        .unwrap();
            }
            Action::DeleteJob { job, .. } => {
                self.jobs.remove(job);
                self.pods.remove(job);
            }
        }
    }

    /// Does what is planned, but for the writes after the first `most`: there the operator ends.
    fn turn_until(&mut self, most: usize) -> (Plan, usize) {
        let plan = plan(&self.observe());
        let mut writes = 0;
        for action in &plan.actions {
            if writes == most {
                return (plan, writes);
            }
            self.perform(action);
            writes += 1;
        }
        if let Some(status) = &plan.status {
            if writes == most {
                return (plan, writes);
            }
            self.build.status = Some(status.as_ref().clone());
            writes += 1;
        }
        for action in &plan.cleanup {
            if writes == most {
                return (plan, writes);
            }
            self.perform(action);
            writes += 1;
        }
        (plan, writes)
    }

    fn turn(&mut self) -> Plan {
        self.turn_until(usize::MAX).0
    }

    /// Turns until nothing is written any more.
    fn settle(&mut self) {
        for _ in 0..10 {
            let (_, writes) = self.turn_until(usize::MAX);
            if writes == 0 {
                return;
            }
        }
        panic!("it does not settle: {:?}", plan(&self.observe()));
    }

    fn begins(&mut self, job: &str) {
        assert!(
            !progress::is_suspended(&self.jobs[job]),
            "{job} may not run yet"
        );
        let mut pod = running();
        pod.metadata.name = Some(format!("{job}-x"));
        self.pods.insert(job.to_owned(), vec![pod]);
    }

    /// The Job's pod ends, and with it the Job.
    fn ends(&mut self, job: &str, code: i32, result: Outcome) {
        self.begins(job);
        self.now += 60;
        let container = if code == 0 || job == PUBLISH {
            "push"
        } else {
            "build"
        };
        let pod = over(&format!("{job}-x"), container, code, result);
        self.pods.insert(job.to_owned(), vec![pod]);
        let kind = if code == 0 { "Complete" } else { "Failed" };
        self.jobs.get_mut(job).unwrap().status = ended(kind, "").status;
    }

    fn pushes(&mut self, job: &str, byte: u8) {
        let name = if job == AMD {
            "linux/amd64"
        } else {
            "linux/arm64"
        };
        let pushed = Pushed {
            platform: name.into(),
            digest: digest(byte),
            size_bytes: 1000,
            bytes_pushed: 400,
            drv_path: drv(name),
            ..Pushed::default()
        };
        self.ends(job, 0, Outcome::Pushed(Box::new(pushed)));
    }

    fn changes_nothing(&mut self, job: &str) {
        let name = if job == AMD {
            "linux/amd64"
        } else {
            "linux/arm64"
        };
        self.ends(job, 0, Outcome::NotChanged { drv: drv(name) });
    }

    fn fails(&mut self, job: &str, reason: Reason) {
        let failed = Failed {
            reason,
            message: "the widget does not fit".into(),
            drv_path: None,
            log_tail: None,
            retry_after: None,
        };
        let code = i32::from(reason.exit_code().unwrap());
        self.ends(job, code, Outcome::Failed(Box::new(failed)));
    }

    fn publishes(&mut self, byte: u8) {
        let done = Outcome::Published {
            digest: digest(byte),
            media_type: Some(INDEX.into()),
            note: None,
            kept: Vec::new(),
        };
        self.ends(PUBLISH, 0, done);
    }

    fn status(&self) -> &NixImageBuildStatus {
        self.build.status.as_ref().unwrap()
    }

    fn platform(&self, name: &str) -> &PlatformStatus {
        let mut platforms = self.status().platforms.iter();
        platforms.find(|found| found.platform == name).unwrap()
    }

    fn message(&self) -> String {
        let conditions = &self.status().conditions;
        let found = find_condition(conditions, ConditionType::Succeeded).unwrap();
        format!("{} {}: {}", found.status, found.reason, found.message)
    }

    /// What the Job's pod is told.
    fn told(&self, job: &str) -> Run {
        let pod = self.jobs[job].spec.as_ref().unwrap();
        let pod = pod.template.spec.as_ref().unwrap();
        let environment = pod.containers[0].env.as_ref().unwrap();
        let told = environment.iter().find(|e| e.name == "FIRN_RUN").unwrap();
        serde_json::from_str(told.value.as_ref().unwrap()).unwrap()
    }

    fn index(&self) -> Vec<run::PlatformManifest> {
        match self.told(PUBLISH).work {
            Work::Index { manifests } => manifests,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn each_platform_has_a_job_and_what_they_pushed_is_published_once_it_is_all_there() {
    let mut world = World::new();
    world.turn();
    assert_eq!(world.made, [AMD, ARM]);
    assert!(world.jobs.values().all(progress::is_suspended));
    world.settle();
    assert!(!world.jobs.values().any(progress::is_suspended));
    let told = world.told(ARM);
    assert_eq!(told.output.tags, Vec::<String>::new(), "by digest only");
    assert_eq!(
        told.output.temporary_tag.as_deref(),
        Some("firn-web-arm64-imageuid")
    );
    world.pushes(ARM, 2);
    world.settle();
    assert_eq!(world.platform("linux/arm64").digest, Some(digest(2)));
    assert_eq!(world.made, [AMD, ARM], "the other is not done");
    assert_eq!(world.status().outcome, None);
    world.pushes(AMD, 1);
    world.settle();
    assert_eq!(world.made, [AMD, ARM, PUBLISH]);
    assert_eq!(world.told(PUBLISH).output.tags, ["latest"]);
    let index: Vec<_> = world
        .index()
        .into_iter()
        .map(|m| (m.platform, m.digest))
        .collect();
    assert_eq!(
        index,
        [
            ("linux/amd64".to_owned(), digest(1)),
            ("linux/arm64".to_owned(), digest(2))
        ]
    );
    world.publishes(3);
    world.settle();
    let status = world.status();
    assert_eq!(status.outcome, Some(BuildOutcome::Published));
    assert_eq!(status.digest, Some(digest(3)));
    assert_eq!(status.media_type.as_deref(), Some(INDEX));
    assert_eq!(
        (status.size_bytes, status.bytes_pushed),
        (Some(2000), Some(800))
    );
    assert_eq!(status.failure, None);
    let yaml = serde_yaml_ng::to_string(status).unwrap();
    expect_test::expect_file!["../../../tests/golden/build-status-platforms.yaml"].assert_eq(&yaml);
}

#[test]
fn one_that_fails_lets_the_other_finish_and_moves_no_tag() {
    let mut world = World::new();
    world.settle();
    world.begins(AMD);
    world.fails(ARM, Reason::BuildFailed);
    world.settle();
    assert_eq!(world.status().outcome, None, "amd64 still runs");
    assert_eq!(
        world.message(),
        "Unknown Building: linux/amd64: check runs; linux/arm64: failed (BuildFailed)"
    );
    let failure = world.status().failure.clone().unwrap();
    assert_eq!(failure.platform.as_deref(), Some("linux/arm64"));
    // Its pod is gone before the other is done.
    world.jobs.remove(ARM);
    world.pods.remove(ARM);
    world.settle();
    world.pushes(AMD, 1);
    world.settle();
    assert_eq!(world.made, [AMD, ARM], "no index");
    assert_eq!(
        world.message(),
        "False BuildFailed: linux/arm64: the widget does not fit"
    );
    assert_eq!(world.status().failure.as_ref(), Some(&failure));
    let done = world.platform("linux/amd64");
    assert_eq!(
        (done.state, &done.digest),
        (PlatformState::Succeeded, &Some(digest(1)))
    );
    assert_eq!(world.platform("linux/arm64").state, PlatformState::Failed);
    // What was pushed is known to the next build.
    let before = world.build.clone();
    let mut next = World {
        previous: Some(before),
        ..World::new()
    };
    next.turn();
    let Work::Build(work) = next.told(AMD).work else {
        panic!("not a build");
    };
    assert_eq!(work.published.unwrap().digest, digest(1));
    assert_eq!(
        work.layers_from,
        [format!("registry.example/web@{}", digest(1))]
    );
    let Work::Build(work) = next.told(ARM).work else {
        panic!("not a build");
    };
    assert_eq!(work.published, None);
    next.settle();
    next.changes_nothing(AMD);
    next.pushes(ARM, 2);
    next.settle();
    assert_eq!(next.index()[0].digest, digest(1));
    next.publishes(3);
    next.settle();
    assert_eq!(next.status().outcome, Some(BuildOutcome::Published));
    assert_eq!(next.status().size_bytes, Some(2000), "known from before");
}

#[test]
fn one_that_did_not_begin_is_given_up_when_the_other_fails() {
    let mut world = World::new();
    world.slots = 1;
    world.turn();
    let first = plan(&world.observe());
    assert_eq!(
        first.actions.len(),
        2,
        "the test's queue does not count itself"
    );
    world.perform(&first.actions[0]);
    world.fails(AMD, Reason::BuildFailed);
    world.settle();
    assert_eq!(world.status().outcome, Some(BuildOutcome::Failed));
    assert!(
        !world.jobs.contains_key(ARM),
        "it would keep its place in the queue"
    );
    assert_eq!(
        world.platform("linux/arm64").state,
        PlatformState::Cancelled
    );
    assert_eq!(
        world.status().failure.as_ref().unwrap().platform.as_deref(),
        Some("linux/amd64")
    );
}

#[test]
fn one_that_is_published_already_is_in_the_index_with_what_is_new() {
    let mut world = World::new().published();
    world.settle();
    world.changes_nothing(AMD);
    world.settle();
    assert_eq!(
        world.platform("linux/amd64").state,
        PlatformState::NotChanged
    );
    world.pods.clear();
    world.pushes(ARM, 7);
    world.settle();
    let index = world.index();
    assert_eq!(index[0].digest, digest(1), "the published one");
    assert_eq!(index[0].temporary_tag, None, "its index keeps it");
    assert_eq!(index[1].digest, digest(7));
    world.publishes(8);
    world.settle();
    assert_eq!(world.status().outcome, Some(BuildOutcome::Published));
    assert_eq!(world.status().size_bytes, Some(2000));
}

#[test]
fn what_is_published_already_is_not_published_again() {
    let mut world = World::new().published();
    world.settle();
    let Work::Build(work) = world.told(AMD).work else {
        panic!("not a build");
    };
    let told = work.published.unwrap();
    assert_eq!((told.digest, told.index), (digest(1), Some(digest(9))));
    world.changes_nothing(AMD);
    world.changes_nothing(ARM);
    world.settle();
    assert_eq!(world.made, [AMD, ARM], "no publish Job");
    assert_eq!(world.status().outcome, Some(BuildOutcome::NotChanged));
    assert_eq!(world.status().digest, Some(digest(9)));
}

#[test]
fn equal_manifests_that_no_index_has_are_published() {
    let mut before = World::new();
    before.settle();
    before.pushes(AMD, 1);
    before.pushes(ARM, 2);
    before.settle();
    before.fails(PUBLISH, Reason::RegistryUnavailable);
    before.settle();
    assert_eq!(before.status().outcome, Some(BuildOutcome::Failed));
    assert_eq!(before.status().failure.as_ref().unwrap().platform, None);
    assert!(before.message().contains("RegistryUnavailable"));

    let mut world = World {
        previous: Some(before.build.clone()),
        ..World::new()
    };
    world.settle();
    world.changes_nothing(AMD);
    world.changes_nothing(ARM);
    world.settle();
    assert_eq!(world.made, [AMD, ARM, PUBLISH]);
    let kept: Vec<_> = world.index().into_iter().map(|m| m.temporary_tag).collect();
    assert!(
        kept.iter().all(Option::is_some),
        "left by the build before: {kept:?}"
    );
    world.publishes(3);
    world.settle();
    assert_eq!(world.status().outcome, Some(BuildOutcome::Published));
}

#[test]
fn an_answer_about_another_derivation_is_believed_by_nobody() {
    let mut world = World::new();
    world.settle();
    world.changes_nothing(AMD);
    world.settle();
    let message = world.message();
    assert!(
        message.starts_with("False InternalError: linux/amd64: "),
        "{message}"
    );
}

#[test]
fn a_publish_job_that_somebody_deleted_is_made_again() {
    let mut world = World::new();
    world.settle();
    world.pushes(AMD, 1);
    world.pushes(ARM, 2);
    world.settle();
    world.begins(PUBLISH);
    world.settle();
    world.jobs.remove(PUBLISH);
    world.turn();
    assert_eq!(world.made.len(), 3, "its pod still runs");
    world.pods.remove(PUBLISH);
    world.settle();
    assert_eq!(world.made[3..], [PUBLISH]);
    world.publishes(3);
    world.settle();
    assert_eq!(world.status().outcome, Some(BuildOutcome::Published));
}

#[test]
fn cancelling_ends_every_job_and_makes_none() {
    for done in 0..3 {
        let mut world = World::new();
        world.settle();
        for (job, byte) in [(AMD, 1), (ARM, 2)].into_iter().take(done) {
            world.pushes(job, byte);
        }
        world.settle();
        let made = world.made.len();
        world.build.spec.cancel = true;
        let plan = world.turn();
        assert_eq!(plan.actions, [], "{done} done");
        world.settle();
        assert_eq!(
            world.status().outcome,
            Some(BuildOutcome::Cancelled),
            "{done} done"
        );
        assert_eq!(world.made.len(), made);
        let unfinished = world
            .jobs
            .values()
            .filter(|job| !progress::is_finished(job));
        assert_eq!(unfinished.count(), 0, "{done} done");
    }
}

#[test]
fn a_lost_node_fails_its_platform_and_keeps_the_others_result() {
    let mut world = World::new();
    world.settle();
    world.begins(ARM);
    world.pushes(AMD, 1);
    world.settle();
    let part = Part::Platform(PlatformName::LinuxArm64);
    world.now = i64::try_from(order::deadline(&world.build, part).as_secs()).unwrap() + 121;
    world.settle();
    assert!(
        world.message().contains("NodeLost: linux/arm64: "),
        "{}",
        world.message()
    );
    assert_eq!(world.platform("linux/amd64").digest, Some(digest(1)));
    assert!(!world.jobs.contains_key(ARM));
    assert!(world.jobs.contains_key(AMD), "its log stays");
}

#[test]
fn a_pod_that_finds_no_node_fails_its_platform_in_time() {
    let mut world = World::new();
    world.settle();
    world.pushes(AMD, 1);
    world.pods.insert(ARM.into(), vec![pending()]);
    world.settle();
    assert_eq!(world.status().outcome, None);
    world.now = 900;
    world.settle();
    assert!(
        world.message().contains("linux/arm64"),
        "{}",
        world.message()
    );
    assert_eq!(world.status().outcome, Some(BuildOutcome::Failed));
}

#[test]
fn with_one_slot_the_jobs_run_one_after_another() {
    let mut world = World::new();
    world.turn();
    // What the real queue grants: the older of two waiting ones.
    let grant = |world: &World| {
        let entries: Vec<_> = world
            .jobs
            .values()
            .filter(|job| !progress::is_finished(job))
            .map(|job| queue::Entry {
                namespace: "shop".into(),
                priority: queue::priority(&job.annotations()[job::ANNOTATION_REASON]),
                created: 0,
                job: job.name_any(),
                running: !progress::is_suspended(job),
            })
            .collect();
        let limits = crate::settings::Limits {
            concurrent_builds: 1,
            concurrent_builds_per_namespace: 1,
        };
        let mut observed = world.observe();
        for seen in &mut observed.jobs {
            let name = order::job_name(&world.build, seen.part);
            seen.turn = queue::turn(&entries, limits, "shop", &name);
        }
        plan(&observed).actions
    };
    let mut order = Vec::new();
    while world
        .build
        .status
        .as_ref()
        .is_none_or(|s| s.outcome.is_none())
    {
        let actions = grant(&world);
        for action in &actions {
            world.perform(action);
            if let Action::Resume { job } = action {
                order.push(job.clone());
            }
        }
        let running: Vec<_> = world
            .jobs
            .iter()
            .filter(|(_, job)| !progress::is_suspended(job) && !progress::is_finished(job))
            .map(|(name, _)| name.clone())
            .collect();
        assert!(running.len() <= 1, "{running:?}");
        match running.first().map(String::as_str) {
            Some(PUBLISH) => world.publishes(3),
            Some(job) => world.pushes(job, 1),
            None => assert!(!actions.is_empty(), "it is stuck"),
        }
        if let Some(status) = plan(&world.observe()).status {
            world.build.status = Some(*status);
        }
    }
    assert_eq!(order, [AMD, ARM, PUBLISH]);
}

#[test]
fn what_cannot_be_ordered_makes_nothing() {
    let mut world = World::new();
    world.build.spec.output.labels = (0..64)
        .map(|n| (format!("label-{n}"), "x".repeat(4096)))
        .collect();
    let plan = world.turn();
    assert_eq!(plan.actions, []);
    assert_eq!(world.status().outcome, Some(BuildOutcome::Failed));
    assert_eq!(world.platform("linux/arm64").state, PlatformState::Failed);
    assert_eq!(world.platform("linux/arm64").job, None);
}

#[test]
fn a_quota_for_one_job_lets_the_other_begin_and_is_said() {
    let mut world = World::new();
    world.settle();
    world.jobs.remove(ARM);
    world.build.status = None;
    let observed = Observed {
        refused: Some("jobs.batch is forbidden: exceeded quota: few".into()),
        ..world.observe()
    };
    let plan = plan(&observed);
    assert_eq!(plan.actions, []);
    assert_eq!(succeeded(&plan), ("Unknown".into(), "QuotaExceeded".into()));
    assert!(plan.look_again.is_some());
    world.turn();
    assert_eq!(world.made[2..], [ARM], "tried again");
}

/// One scenario, with an operator that ends after its `crash`th write; the number of writes.
fn story(crash: usize) -> (World, usize) {
    let mut world = World::new();
    let mut writes = 0;
    let mut run = |world: &mut World| {
        loop {
            let left = crash.checked_sub(writes).filter(|left| *left > 0);
            let (_, done) = world.turn_until(left.unwrap_or(usize::MAX));
            writes += done;
            if done == 0 {
                return;
            }
        }
    };
    run(&mut world);
    world.begins(ARM);
    world.pushes(AMD, 1);
    run(&mut world);
    world.pushes(ARM, 2);
    run(&mut world);
    world.publishes(3);
    run(&mut world);
    (world, writes)
}

#[test]
fn an_operator_that_ends_after_any_write_makes_every_job_once() {
    let (whole, writes) = story(usize::MAX);
    assert!(writes >= 8, "{writes}");
    for crash in 1..=writes {
        let (world, _) = story(crash);
        assert_eq!(world.made, [AMD, ARM, PUBLISH], "after write {crash}");
        assert_eq!(world.status(), whole.status(), "after write {crash}");
    }
}

#[test]
fn every_partial_world_gets_what_is_missing_and_nothing_twice() {
    // All that can be there of two platforms: nothing, a Job, one that runs, a result.
    for amd in 0..4 {
        for arm in 0..4 {
            let mut world = World::new();
            world.settle();
            for (job, state, byte) in [(AMD, amd, 1), (ARM, arm, 2)] {
                match state {
                    0 => {
                        world.jobs.remove(job);
                    }
                    1 => {}
                    2 => world.begins(job),
                    _ => world.pushes(job, byte),
                }
            }
            // Status was never written.
            world.build.status = None;
            world.made.clear();
            world.settle();
            let mut expected: Vec<&str> = Vec::new();
            expected.extend((amd == 0).then_some(AMD));
            expected.extend((arm == 0).then_some(ARM));
            expected.extend((amd == 3 && arm == 3).then_some(PUBLISH));
            assert_eq!(world.made, expected, "{amd} {arm}");
            assert_eq!(world.status().outcome, None);
        }
    }
}
